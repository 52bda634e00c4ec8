"""Checks that any bytes come back: short ones through the model, longer ones through every method, many random ones."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

import llmzip

EXAMPLES = settings.default.max_examples if settings.default else 30

# What tokenizers, text decoders and coders trip over, as building blocks.
PIECES = st.sampled_from([
    b"the ", b"The cat", b" ", b"\n", b"\r\n", b"\t", b"\0", b"<|endoftext|>", b"<s>", "é".encode(), "e\u0301".encode(),
    "日本語".encode(), "👍🏽".encode(), "\ufeff".encode(), "\u2028".encode(), b"\xff",
    b"\x80", b"\xc3", b"\xed\xa0\x80",
    b"0123456789", b"def f(x):\n    return x\n", b"a" * 30, b"\xf7LZ\x12", b"  ",
])  # fmt: skip
SHORT = st.one_of(
    st.binary(max_size=24), st.text(max_size=16).map(str.encode), st.lists(PIECES, max_size=5).map(b"".join)
)
LONG = st.one_of(
    st.binary(min_size=600, max_size=5000),
    st.lists(PIECES, min_size=150, max_size=400).map(b"".join),
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(100, 3000)).map(lambda pair: pair[0] * pair[1]),
)


def round_trip(data: bytes, level: int = 6) -> bytes:
    """The archive of data, after it was read back."""
    archive = llmzip.compress(data, level=level)
    assert llmzip.decompress(archive) == data
    info = llmzip.info(archive)
    assert (info.original_bytes, info.compressed_bytes) == (len(data), len(archive))
    return archive


@given(data=SHORT, level=st.integers(1, 9))
@example(data=b"", level=6)
@example(data=b"\xf7LZ", level=1)
def test_short_bytes_come_back_and_cost_at_most_13_more(data: bytes, level: int) -> None:
    assert len(round_trip(data, level)) <= len(data) + 13


def test_every_single_byte_comes_back() -> None:
    for byte in range(256):
        assert len(round_trip(bytes([byte]))) <= 14


@settings(max_examples=EXAMPLES // 2)
@given(data=LONG)
def test_longer_bytes_come_back(data: bytes) -> None:
    # What the model is good at takes a second to read back; the test of the size is the tighter one.
    archive = llmzip.compress(data)
    assert len(archive) <= len(data) + 19
    if llmzip.info(archive).archives[0].frames[0].tokens < 300:
        assert llmzip.decompress(archive) == data


@given(data=st.binary(min_size=1, max_size=4000), copies=st.integers(2, 200))
def test_repeated_bytes_come_back(data: bytes, copies: int) -> None:
    # Long repetitions are what the plain methods are for.
    archive = llmzip.compress(data * copies)
    if llmzip.info(archive).archives[0].frames[0].tokens < 300:
        assert llmzip.decompress(archive) == data * copies
    assert len(archive) < len(data) + len(data * copies) // 2 + 100


def test_a_thousand_random_strings_come_back() -> None:
    chooser = random.Random(4)
    sizes = [chooser.choice((1, 2, 3, 5, 8, 13, 21, 34)) for _ in range(960)] + [
        chooser.randint(512, 6000) for _ in range(40)
    ]
    for size in sizes:
        assert len(round_trip(chooser.randbytes(size))) <= size + (13 if size < 256 else 16)


@settings(max_examples=EXAMPLES // 2)
@given(data=SHORT)
def test_equal_input_gives_equal_archives(data: bytes) -> None:
    assert llmzip.compress(data) == llmzip.compress(bytearray(data)) == llmzip.compress(memoryview(data))
    assert llmzip.decompress(bytearray(llmzip.compress(data))) == data
