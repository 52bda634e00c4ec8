"""Checks that the compiled library computes what numba does: payloads and what was learnt, for each instruction set."""

from __future__ import annotations

import functools
from typing import Any

import mixer_samples as samples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import CorruptError
from llmzip.mixing import library, mixer
from llmzip.mixing.mixer import MixDecoder, MixEncoder, decode_bytes, encode_bytes
from llmzip.mixing.state import GROUP_ROWS, Learned
from llmzip.mixing.vocabulary import Vocabulary

LEVELS = [level for level in library.LEVELS if library.library(level) is not None]

pytestmark = pytest.mark.skipif(not LEVELS, reason="the library was not built")


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Noted:
    """Encodes with an instruction set, or with numba, and keeps what was learnt."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._learned: list[Learned] = []
        new_learned = mixer.new_learned

        def noted(nodes: int, table_bits: int) -> Learned:
            self._learned.append(new_learned(nodes, table_bits))
            return self._learned[-1]

        monkeypatch.setattr(mixer, "new_learned", noted)

    def __call__(self, level: str, function: Any, *arguments: Any) -> tuple[Any, Learned]:
        self._patch.setenv("LLMZIP_KERNELS", level)
        return function(*arguments), self._learned[-1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Noted:
    return Noted(monkeypatch)


def assert_equal(first: Learned, second: Learned) -> None:
    for name, one, two in zip(Learned._fields, first, second, strict=True):
        assert np.array_equal(one, two), name


@functools.cache
def words(size: int) -> Vocabulary:
    return Vocabulary(samples.word_table(size))


def rows_of(size: int, num_tokens: int, num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that repeat, and masses that know them half of the time."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(size, size=num_tokens)
    tokens[num_tokens // 2 :] = tokens[: num_tokens - num_tokens // 2]
    masses = generator.integers(1 << 12, size=(num_tokens, size)).astype(np.int32)
    peak = np.where(generator.random(num_tokens) < 0.5, tokens, generator.integers(size, size=num_tokens))
    masses[np.arange(num_tokens), peak] = 1 << 20
    masses[::7] = 1 << 20  # all alike
    masses[3::7] = 0
    masses[3::7, 0] = 1 << 20
    return tokens, masses


def encoded(vocabulary: Vocabulary, tokens: np.ndarray, num_rows: int, masses: np.ndarray) -> tuple[bytes, float]:
    encoder = MixEncoder(vocabulary, tokens, num_rows, with_model=True)
    encoder.add(np.arange(len(tokens)), masses)
    return encoder.finish()


@pytest.mark.parametrize("name", samples.long_bytes())
def test_bytes_are_coded_alike(name: str, level: str, run: Noted) -> None:
    data = samples.long_bytes()[name]
    right, learned = run("none", encode_bytes, data)
    found, here = run(level, encode_bytes, data)
    assert found == right
    assert_equal(here, learned)
    back, here = run(level, decode_bytes, right[0], len(data))
    assert back == data
    assert_equal(here, learned)


@pytest.mark.parametrize(
    ("size", "num_tokens", "num_rows"),
    [(2, 40, 3), (17, 500, 1), (64, 900, 70), (300, 700, 33), (1000, 300, 300), (16, 65, 32)],
)
def test_rows_are_coded_alike(size: int, num_tokens: int, num_rows: int, level: str, run: Noted) -> None:
    vocabulary = words(size)
    tokens, masses = rows_of(size, num_tokens, num_rows, seed=size)
    right, learned = run("none", encoded, vocabulary, tokens, num_rows, masses)
    found, here = run(level, encoded, vocabulary, tokens, num_rows, masses)
    assert found == right
    assert_equal(here, learned)


@given(data=st.binary(min_size=1, max_size=300) | st.text(min_size=1, max_size=100).map(str.encode))
def test_any_bytes_are_coded_alike(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMZIP_KERNELS", "none")
        right = encode_bytes(data)
        for level in LEVELS:
            patch.setenv("LLMZIP_KERNELS", level)
            assert encode_bytes(data) == right
            assert decode_bytes(right[0], len(data)) == data


@pytest.mark.parametrize("kernels", [*LEVELS, "none"])
def test_parts_of_steps_are_the_steps(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded by some steps at a time, decoded by some groups of rows at a time."""
    monkeypatch.setenv("LLMZIP_KERNELS", kernels)
    size, num_tokens, num_rows = 64, 613, 71
    vocabulary = words(size)
    tokens, masses = rows_of(size, num_tokens, num_rows, seed=5)
    payload, bits = encoded(vocabulary, tokens, num_rows, masses)
    encoder = MixEncoder(vocabulary, tokens, num_rows, with_model=True)
    starts = np.array(encoder._rows.row_starts())
    steps = encoder._rows.steps
    for begin in range(0, steps, 3):
        for step in range(begin, min(begin + 3, steps)):
            places = starts[: encoder._rows.active_rows(step)] + step
            encoder.add(places, masses[places])
        encoder.walk(min(begin + 3, steps))
    assert encoder.finish() == (payload, bits)
    decoder = MixDecoder(vocabulary, payload, num_tokens, num_rows, with_model=True)
    for step in range(steps):
        active = encoder._rows.active_rows(step)
        for first in range(0, active, GROUP_ROWS):
            last = min(first + GROUP_ROWS, active)
            places = starts[first:last] + step
            decoder.take(masses[places], first)
            assert np.array_equal(decoder.decode(first, last), tokens[places])


def test_what_the_library_would_not_notice_is_refused(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    vocabulary = words(64)
    encoder = MixEncoder(vocabulary, np.zeros(10, dtype=np.int64), 2, with_model=True)
    with pytest.raises(IndexError):
        encoder.add(np.array([10]), np.zeros((1, 64), dtype=np.int32))
    with pytest.raises(ValueError, match="masses of shape"):
        encoder.add(np.array([3]), np.zeros((1, 63), dtype=np.int32))
    decoder = MixDecoder(vocabulary, b"", 10, 2, with_model=True)
    with pytest.raises(IndexError):
        decoder.take(np.zeros((3, 64), dtype=np.int32))
    with pytest.raises(IndexError):
        decoder.take(np.zeros((1, 64), dtype=np.int32), 2)
    with pytest.raises(IndexError):
        decoder.decode(0, 3)
    for _ in range(5):
        decoder.take(np.ones((2, 64), dtype=np.int32))
        decoder.decode(0, 2)
    with pytest.raises(IndexError):
        decoder.decode(0, 2)
    with pytest.raises(IndexError):
        encoder.walk(6)


def test_steps_are_walked_once(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    tokens, masses = rows_of(64, 100, 10, seed=7)
    expected = encoded(words(64), tokens, 10, masses)
    encoder = MixEncoder(words(64), tokens, 10, with_model=True)
    encoder.add(np.arange(100), masses)
    encoder.walk(6)
    encoder.walk(3)
    done: list[int] = []
    assert encoder.finish(done.append) == expected and sum(done) == 100


def outcome(code: bytes) -> bytes | str:
    try:
        return decode_bytes(code, 200)
    except CorruptError as error:
        return str(error).split(" (")[0]


@pytest.mark.parametrize("code", [b"\xff" * 64, b"\xff" * 8 + bytes(40), bytes(7) + b"\xff" * 50])
def test_damaged_codes_end_alike(code: bytes, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers outside of the coder's range among them."""
    monkeypatch.setenv("LLMZIP_KERNELS", "none")
    right = outcome(code)
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    assert outcome(code) == right
