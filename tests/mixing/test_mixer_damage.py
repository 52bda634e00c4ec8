"""Checks archives of the method mixed, with a model and without (adaptive), whole and damaged."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib

import mixer_samples as samples
import numpy as np
import pytest

import llmzip
from llmzip import LLMZipError
from llmzip.codec import rows
from llmzip.errors import CorruptError
from llmzip.format import headers, numbers, writing
from llmzip.format.headers import MAX_LM_BYTES, MIXED, FrameHeader, Header
from llmzip.format.plan import RowPlan
from llmzip.inference import load
from llmzip.mixing.mixer import encode_bytes
from llmzip.models.choice import choose_model
from llmzip.models.embedded import DEFAULT
from llmzip.settings import EngineSettings

TEXT = b"The wind came over the harbour wall, and the boats waited for the water."
LINES = samples.csv(90)
FLIPS = [1, 8, 64, 128, 255]
BARE = writing.pack_header(Header())
EMBEDDED = writing.pack_header(Header(DEFAULT.code))


def adaptive(data: bytes, payload: bytes | None = None, prefix: bytes = BARE, size: int | None = None) -> bytes:
    """An archive of one adaptive frame, with another payload and size if that is wanted."""
    payload = encode_bytes(data)[0] if payload is None else payload
    header = FrameHeader(MIXED, len(data) if size is None else size, len(payload), last=True)
    return writing.pack_frame(header, payload, zlib.crc32(data), prefix)


def mixed_payload(data: bytes, num_rows: int) -> tuple[bytes, int]:
    """A payload, and how many tokens it stands for."""
    model = load.load(choose_model("default"), EngineSettings())
    tokens = model.tokenizer.encode(data)
    plan = RowPlan(len(tokens), num_rows, 64)
    return rows.FrameCoder(model.engine, model.vocabulary).encode(tokens, plan)[0], len(tokens)


def mixed(data: bytes, num_rows: int = 1, payload: bytes | None = None, num_tokens: int | None = None) -> bytes:
    """An archive of one mixed frame; profile 3 if there is more than one row."""
    right, right_tokens = mixed_payload(data, num_rows)
    payload, num_tokens = right if payload is None else payload, num_tokens or right_tokens
    record = {"profile": 3, "rows": num_rows, "overlap": 64} if num_rows > 1 else {}
    header = FrameHeader(MIXED, len(data), len(payload), num_tokens=num_tokens, last=True, **record)
    return writing.pack_frame(header, payload, zlib.crc32(data), EMBEDDED)


@pytest.fixture(scope="module")
def archives() -> dict[str, tuple[bytes, bytes]]:
    """Archives and their texts."""
    return {
        "mixed": (mixed(TEXT), TEXT),
        "mixed in rows": (mixed(TEXT, 5), TEXT),
        "adaptive": (adaptive(LINES), LINES),
        "adaptive beside a model": (adaptive(LINES, prefix=EMBEDDED), LINES),
    }


KINDS = ["mixed", "mixed in rows", "adaptive", "adaptive beside a model"]


def refused(data: bytes) -> LLMZipError:
    """The error with which damaged data is refused; any other exception, or any output, is a failure."""
    with pytest.raises(LLMZipError) as caught:
        llmzip.decompress(data)
    assert str(caught.value) and "\n" not in str(caught.value)
    return caught.value


def with_right_check(frame: bytes) -> bytes:
    """A file of one frame with its crc8 made right again."""
    return frame[:-5] + bytes([numbers.crc8(frame[:-5])]) + frame[-4:]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_archives_decode(kind: str, archives: dict[str, tuple[bytes, bytes]]) -> None:
    archive, text = archives[kind]
    assert llmzip.decompress(archive) == text
    frame = llmzip.info(archive).archives[0].frames[0]
    assert frame.method == kind.split(maxsplit=1)[0] and frame.original_bytes == len(text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_noticed(kind: str, archives: dict[str, tuple[bytes, bytes]]) -> None:
    archive, _ = archives[kind]
    for length in range(len(archive)):
        assert isinstance(refused(archive[:length]), llmzip.TruncatedError)


@pytest.mark.parametrize("kind", KINDS)
def test_every_changed_byte_is_noticed(kind: str, archives: dict[str, tuple[bytes, bytes]]) -> None:
    archive, _ = archives[kind]
    for place in range(len(archive)):
        for flip in FLIPS:
            refused(archive[:place] + bytes([archive[place] ^ flip]) + archive[place + 1 :])


@pytest.mark.parametrize("kind", KINDS)
def test_damage_behind_a_right_check_gives_no_wrong_text(
    kind: str, archives: dict[str, tuple[bytes, bytes]], rng: np.random.Generator, effort: int
) -> None:
    archive, text = archives[kind]
    for place in range(4, len(archive) - 5):
        for flip in rng.integers(1, 256, effort).tolist():
            changed = with_right_check(archive[:place] + bytes([archive[place] ^ flip]) + archive[place + 1 :])
            with contextlib.suppress(LLMZipError):
                assert llmzip.decompress(changed) == text


def test_random_payloads_are_refused(rng: np.random.Generator, effort: int) -> None:
    """None of them gives the text by chance, and none another exception."""
    _, num_tokens = mixed_payload(TEXT, 1)
    errors = set()
    for number in range(24 * effort):
        payload = rng.bytes(int(rng.integers(0, 120))) if number else b"\xff" * 120
        errors.add(type(refused(adaptive(LINES, payload))))
        errors.add(type(refused(mixed(TEXT, 1 + 4 * (number % 2), payload, num_tokens))))
    assert errors == {CorruptError}


def test_another_number_of_tokens_or_bytes_is_refused() -> None:
    payload, num_tokens = mixed_payload(TEXT, 1)
    for wrong in (1, num_tokens - 1, num_tokens + 1, len(TEXT)):
        refused(mixed(TEXT, 1, payload, wrong))
    for size in (1, len(LINES) - 1, len(LINES) + 1, 4 * len(LINES)):
        assert isinstance(refused(adaptive(LINES, encode_bytes(LINES)[0], size=size)), CorruptError)


def test_payloads_of_the_other_kind_are_refused() -> None:
    assert isinstance(refused(adaptive(TEXT, mixed_payload(TEXT, 1)[0])), CorruptError)
    assert isinstance(refused(mixed(TEXT, 1, encode_bytes(TEXT)[0])), CorruptError)


@pytest.mark.parametrize(
    "header",
    [
        FrameHeader(MIXED, 0, 3, last=True),
        FrameHeader(MIXED, MAX_LM_BYTES + 1, 3, last=True),
        FrameHeader(MIXED, headers.MAX_FRAME_BYTES, 3, last=True),
        FrameHeader(MIXED, 9, 3, num_tokens=0, profile=1, last=True),
        FrameHeader(MIXED, 9, 3, num_tokens=0, profile=3, rows=1, overlap=1, last=True),
        FrameHeader(MIXED, 9, 3, num_tokens=10, last=True),
        FrameHeader(MIXED, MAX_LM_BYTES + 1, 3, num_tokens=9, last=True),
        FrameHeader(MIXED, 9, 3, num_tokens=9, profile=3, rows=10, overlap=1, last=True),
        FrameHeader(MIXED, 9, 3, num_tokens=9, profile=3, rows=3, overlap=0, last=True),
        FrameHeader(MIXED, 1 << 20, 3, num_tokens=1 << 17, profile=3, rows=1, overlap=1, last=True),
        FrameHeader(MIXED, 1 << 20, 3, num_tokens=5000, profile=3, rows=4097, overlap=1, last=True),
    ],
    ids=str,
)
def test_headers_out_of_range_are_refused_before_memory_is_taken(header: FrameHeader) -> None:
    archive = writing.pack_frame(header, b"\x12\x34\x56", 0, EMBEDDED)
    tracemalloc.start()
    try:
        refused(archive)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_hostile_payload_takes_no_more_than_its_size_allows() -> None:
    """The largest frame's mixer takes some 100 MB; a frame of few bytes must not."""
    archive = adaptive(b"x" * 50, b"\xff\x00\xee" * 1000)
    refused(archive)  # loads whatever is loaded once
    tracemalloc.start()
    try:
        refused(archive)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_mixed_needs_a_model() -> None:
    payload, num_tokens = mixed_payload(TEXT, 1)
    header = FrameHeader(MIXED, len(TEXT), len(payload), num_tokens=num_tokens, last=True)
    refused(writing.pack_frame(header, payload, zlib.crc32(TEXT), BARE))
