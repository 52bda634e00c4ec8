"""Checks every level of the compiled mixer against the mixer that was written from docs/numerics.md alone.

Payloads, ideal lengths and all that was learnt must be equal: with and without a model, for several numbers of rows,
and after a prompt.
"""

from __future__ import annotations

import random

import documented
import mixer_samples as samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmzip.mixing import library
from llmzip.mixing.mixer import MixDecoder, MixEncoder, Primed

LEVELS = [level for level in library.LEVELS if library.library(level) is not None]
BYTE_TABLE = tuple(bytes([byte]) for byte in range(256))
FILLED_LINES = (b"\n", b"q", b";", b"rs", b"x" * 4080, b"x" * 8170)
"""Tokens of which few make lines as long as the mixer looks up."""
BYTES = {
    **samples.short_bytes(),
    "a match as long as counts": bytes(130),
    "longer settings": samples.settings(1200),
    "longer text": samples.text(1500, seed=8),
    "longer csv": samples.csv(1200),
    "lines above are forgotten": b"".join(b"ab;%d\n" % n + b"x" * length for n, length in enumerate((9, 8160, 30, 5))),
}


def filled_lines(*lengths: int) -> np.ndarray:
    """Tokens of FILLED_LINES that make lines of these lengths with their ends, most of each one token."""
    chooser, out = random.Random(1), []
    for length in lengths:
        long = next((token for token in (5, 4) if len(FILLED_LINES[token]) < length), None)
        left = length - 1 - (0 if long is None else len(FILLED_LINES[long]))
        while left > 0:
            out.append(chooser.choice([1, 2, 3] if left > 1 else [1, 2]))
            left -= len(FILLED_LINES[out[-1]])
            if long is not None and chooser.random() < 0.3:
                out.append(long)
                long = None
        out += [0] if long is None else [long, 0]
    assert list(map(len, b"".join(FILLED_LINES[token] for token in out).splitlines(keepends=True))) == list(lengths)
    return np.array(out, dtype=np.int64)


TOKENS = {
    **samples.short_tokens(),
    "hashed, 33 rows": samples.token_sample("hashed", 300, 33, samples.word_table(90)),
    "no masses, 65 rows": samples.token_sample("none", 900, 65, samples.word_table(40)),
    "equal": samples.token_sample("equal", 60, 4, samples.word_table(300)),
    "more tokens than rows by one": samples.token_sample("hashed", 65, 64, samples.word_table(17)),
    "lines as far as the mixer looks up": samples.Tokens(
        filled_lines(8183, 8184, 8185, 8184, 9, 4091, 4092, 4092, 4093, 4092, 7), 1, None, FILLED_LINES
    ),
    "long matches": samples.Tokens(np.tile(np.arange(5), 40), 1, None, samples.word_table(5)),
    "long matches across rows": samples.Tokens(np.tile(np.arange(13), 23), 7, None, samples.word_table(13)),
}
EXAMPLES = settings.default.max_examples if settings.default else 30


def assert_coded_as_documented(sample: samples.Tokens, prompt: tuple[np.ndarray, np.ndarray] | None = None) -> None:
    """Encodes and decodes a sample at every level, and compares with the reference."""
    tokens, vocabulary, with_model = sample.tokens, samples.vocabulary(sample.table), sample.masses is not None
    masses = sample.masses(np.arange(len(tokens))) if sample.masses is not None else None
    given_prompt = None if prompt is None else (prompt[0].tolist(), prompt[1])
    right = documented.encode(sample.table, tokens.tolist(), sample.rows, masses, given_prompt)

    def primed() -> Primed | None:
        if prompt is None:
            return None
        encoder = MixEncoder(vocabulary, prompt[0], 1, with_model=True)
        encoder.add(np.arange(len(prompt[0])), prompt[1])
        return encoder.learn(len(tokens))

    for level in LEVELS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LLMZIP_KERNELS", level)
            encoder = MixEncoder(vocabulary, tokens, sample.rows, with_model, primed())
            if masses is not None:
                encoder.add(np.arange(len(tokens)), masses)
            payload, bits = encoder.finish()
            assert payload.hex() == right.payload.hex(), level
            assert bits == pytest.approx(right.bits, rel=1e-9)
            documented.assert_learnt(encoder._learned, encoder._texts, right.mixer)
            decoder = MixDecoder(vocabulary, payload, len(tokens), sample.rows, with_model, primed())
            assert np.array_equal(samples.decoded(decoder, sample), tokens)
            documented.assert_learnt(decoder._learned, decoder._texts, right.mixer)


def byte_sample(data: bytes) -> samples.Tokens:
    return samples.Tokens(np.frombuffer(data, dtype=np.uint8).astype(np.int64), 1, None, BYTE_TABLE)


def test_the_processor_has_a_level() -> None:
    assert LEVELS[0] == "portable"


@pytest.mark.parametrize("name", BYTES)
def test_bytes_are_coded_as_documented(name: str) -> None:
    assert_coded_as_documented(byte_sample(BYTES[name]))


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_are_coded_as_documented(name: str) -> None:
    assert_coded_as_documented(TOKENS[name])


@settings(max_examples=EXAMPLES)
@given(data=st.binary(min_size=1, max_size=60) | st.text(min_size=1, max_size=30).map(str.encode))
def test_any_bytes_are_coded_as_documented(data: bytes) -> None:
    assert_coded_as_documented(byte_sample(data))


@settings(max_examples=EXAMPLES)
@given(
    tokens=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    words=st.lists(st.binary(max_size=3), min_size=5, max_size=5),
    num_rows=st.integers(1, 80),
    seed=st.none() | st.integers(0, 2**32 - 1),
)
def test_any_tokens_are_coded_as_documented(
    tokens: list[int], words: list[bytes], num_rows: int, seed: int | None
) -> None:
    masses = None
    if seed is not None:
        drawn = np.random.default_rng(seed).integers(-(2**20), 2**20, (len(tokens), 5), endpoint=True)
        drawn = np.maximum(drawn, 0).astype(np.int32)
        masses = lambda places: drawn[places]  # noqa: E731
    array = np.array(tokens, dtype=np.int64)
    assert_coded_as_documented(samples.Tokens(array, min(num_rows, len(tokens)), masses, tuple(words)))


@pytest.mark.parametrize("num_rows", [1, 7, 40])
@pytest.mark.parametrize("kind", ["hashed", "right", "wrong"])
def test_frames_after_a_prompt_are_coded_as_documented(kind: str, num_rows: int) -> None:
    table = samples.word_table(50)
    sample = samples.token_sample(kind, 90, num_rows, table)
    prompt = samples.drawn_tokens(60, len(table), seed=11)
    assert_coded_as_documented(sample, (prompt, samples.hashed_masses(prompt, len(table))(np.arange(60))))


@pytest.mark.parametrize(
    ("size", "mass_bits"), [(33, 28), (5000, 20), (5000, 28), (16_384, 24), (16_385, 20), (20_000, 28), (20_001, 26)]
)
def test_masses_of_every_size_are_taken_as_documented(size: int, mass_bits: int) -> None:
    """Sums from a few units to beyond 32 bits, and nodes without any mass; small vocabularies and large ones."""
    generator = np.random.default_rng(2)
    num_tokens, peak = 12, 1 << mass_bits
    drawn = np.zeros((num_tokens, size), dtype=np.int32)
    for place in range(num_tokens):
        bits = mass_bits * place // 10 if place < 11 else mass_bits
        drawn[place] = generator.integers(0, 2**bits, size, endpoint=True).clip(0, peak)
    drawn[0] = peak
    drawn[9, generator.random(size) < 0.99] = 0
    drawn[10] = 0
    drawn[10, size - 1] = drawn[11, size // 2 :: size // 3] = peak  # the first of several is the guess
    tokens = generator.integers(size, size=num_tokens)
    tokens[3], tokens[10] = 0, size - 1
    table = tuple(b"%05d" % n for n in generator.permutation(size))
    assert_coded_as_documented(samples.Tokens(tokens, 3, lambda places: drawn[places], table))


def test_blocks_are_found_as_documented_in_a_table_that_is_full() -> None:
    """Long paths with many contexts in the smallest table, so that blocks make room for each other."""
    generator = np.random.default_rng(3)
    table = tuple(b"%05d" % n for n in generator.permutation(20_000))
    tokens = generator.integers(len(table), size=64)
    tokens[32:] = tokens[:32]
    sample = samples.Tokens(tokens, 1, None, table)
    assert_coded_as_documented(sample)
    encoder = MixEncoder(samples.vocabulary(table), tokens, 1, with_model=False)
    encoder.finish()
    assert len(encoder._learned.blocks) == 4096 and encoder._learned.blocks[:, 0].astype(bool).mean() > 0.8


@pytest.mark.parametrize(("num_bytes", "table_bits"), [(64, 12), (2048, 17), (1 << 16, 22)])
def test_every_bit_of_the_table_is_used(num_bytes: int, table_bits: int) -> None:
    encoder = MixEncoder(samples.vocabulary(BYTE_TABLE), byte_sample(samples.noise(num_bytes)).tokens, 1, False)
    encoder.finish()
    assert len(encoder._learned.blocks) == 1 << table_bits
    used = np.flatnonzero(encoder._learned.blocks[:, 0])
    assert [bool((used >> bit & 1).any()) for bit in range(table_bits)] == [True] * table_bits
