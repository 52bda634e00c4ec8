"""Checks the mixer on what drives its numbers to their ends: sizes stay small, and everything learnt within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mixer_samples as samples
import numpy as np
import pytest

import llmzip
from llmzip.format.headers import MAX_LM_BYTES
from llmzip.mixing import mixer
from llmzip.mixing.mixer import encode_bytes
from llmzip.mixing.state import Learned
from llmzip.mixing.weights import NUM_INPUTS

MAX_WEIGHT = 1 << 29
SIZE = 64
TABLE = samples.word_table(SIZE)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Learned]:
    """What every mixer of the test has learnt, for inspection after the walk."""
    made: list[Learned] = []
    new_learned: Callable[..., Learned] = mixer.new_learned

    def noted(*arguments: Any, **keywords: Any) -> Learned:
        made.append(new_learned(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(mixer, "new_learned", noted)
    return made


def assert_within(values: np.ndarray, least: int, most: int) -> None:
    assert least <= int(values.min()) and int(values.max()) <= most


def assert_in_bounds(made: list[Learned]) -> None:
    """The bounds of numerics section 10.8."""
    assert made
    for learned in made:
        assert_within(learned.weight, -MAX_WEIGHT, MAX_WEIGHT)
        assert_within(learned.final_weight, -MAX_WEIGHT, MAX_WEIGHT)
        assert_within(learned.output_weight, -MAX_WEIGHT, MAX_WEIGHT)
        assert_within(learned.updates, 0, 65535)
        assert not learned.weight[:, NUM_INPUTS:].any()
        pairs = learned.pair_map[: learned.pair_row[-1] + 1]
        for table in (learned.node_map, pairs, learned.model_node_map, learned.model_match_map):
            assert_within(table, 0, (1 << 20) - 1)
        for table, most in ((learned.state_map[:, 1:235], 255), (learned.match_map, 60)):
            assert_within(table >> 10, 1 << 10, (1 << 22) - (1 << 10))
            assert_within(table & 1023, 0, most)
        assert_within(learned.blocks[:, 1:], 0, 234)
        used = learned.blocks[:, 1:].any(1)
        assert used.any() and learned.blocks[used, 0].min() >= 1


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_the_largest_frame_of_zeros(learned: list[Learned]) -> None:
    payload, bits = encode_bytes(bytes(MAX_LM_BYTES))
    assert payload == b""  # every bit is a zero: the lower end of every interval, which a reader sees past the end
    assert bits < 8 * 100
    assert_in_bounds(learned)


def test_noise_hardly_grows(learned: list[Learned]) -> None:
    """Nothing is to be learnt, and what the mixer believes to have learnt costs a thousandth; 0.08 % in 2 MiB."""
    for num_bytes in (1, 2, 3, 10, 100, 1000, 10_000, 100_000, 250_000):
        payload, _ = encode_bytes(samples.noise(num_bytes))
        assert len(payload) <= num_bytes * 1.0015 + 3
    assert_in_bounds(learned)


@pytest.mark.parametrize("period", [b"\0\xff", b"\xff", b"\x55\xaa\x0f", b"\n", b"((((", b"0,\n"])
def test_periods_take_next_to_nothing(learned: list[Learned], period: bytes) -> None:
    data = period * (200_000 // len(period))
    payload, _ = encode_bytes(data)
    assert len(payload) < 250
    assert_in_bounds(learned)


def test_texts_that_change_their_minds(learned: list[Learned]) -> None:
    """Long certainty, then its contrary, again and again."""
    data = b"".join(bytes([255 * (n % 2)]) * 5000 for n in range(10)) + samples.noise(5000) + bytes(20_000)
    payload, _ = encode_bytes(data)
    assert len(payload) < 6500
    assert mixer.decode_bytes(payload, len(data)) == data
    assert_in_bounds(learned)


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_one_repeated_token(learned: list[Learned]) -> None:
    vocabulary = samples.vocabulary(TABLE)
    for token in (0, SIZE - 1):
        tokens = np.full(1 << 16, token, dtype=np.int64)
        for num_rows in (1, 64):
            payload, _ = mixer.MixEncoder(vocabulary, tokens, num_rows, with_model=False).finish()
            assert len(payload) < 100
    assert_in_bounds(learned)


@pytest.mark.parametrize("num_rows", [1, 50])
@pytest.mark.parametrize(
    ("kind", "most_bits"),
    [
        # Of 6 bits that a token takes without a model. Where the model is always wrong it is not believed for long.
        ("right", 0.1),
        ("wrong", 6.3),
        ("never", 6.3),
        ("equal", 6.3),
    ],
)
def test_masses_at_their_ends(learned: list[Learned], kind: str, most_bits: float, num_rows: int) -> None:
    num_tokens = 10_000
    tokens = np.frombuffer(samples.noise(num_tokens, seed=9), dtype=np.uint8).astype(np.int64) % SIZE
    masses = {
        "right": samples.one_mass(tokens, SIZE),
        "wrong": samples.one_mass((tokens + 1) % SIZE, SIZE),
        "never": samples.never_mass(tokens, SIZE),
        "equal": samples.equal_masses(SIZE),
    }[kind]
    sample = samples.Tokens(tokens, num_rows, masses, TABLE)
    payload, _ = samples.encode_tokens(sample)
    assert len(payload) < num_tokens * most_bits / 8
    assert np.array_equal(samples.decode_tokens(sample, payload), tokens)
    assert_in_bounds(learned)


def test_a_model_that_was_right_for_long_and_then_is_not(learned: list[Learned]) -> None:
    num_tokens, half = 8000, 4000
    tokens = np.frombuffer(samples.noise(num_tokens, seed=9), dtype=np.uint8).astype(np.int64) % SIZE
    named = np.where(np.arange(num_tokens) < half, tokens, (tokens + 1) % SIZE)
    sample = samples.Tokens(tokens, 1, samples.one_mass(named, SIZE), TABLE)
    payload, _ = samples.encode_tokens(sample)
    assert len(payload) < half * 12 / 8
    assert np.array_equal(samples.decode_tokens(sample, payload), tokens)
    assert_in_bounds(learned)


def test_masses_of_the_largest_vocabulary_do_not_overflow(learned: list[Learned]) -> None:
    """2^18 tokens of the largest mass: the sums go beyond 32 bits."""
    size = 1 << 18
    table = tuple(b"%06d" % n for n in range(size))
    tokens = np.array([0, size - 1, 1, size // 2, size - 1], dtype=np.int64)
    for mass in (0, samples.MAX_MASS):
        sample = samples.Tokens(tokens, 2, samples.equal_masses(size, mass), table)
        payload, bits = samples.encode_tokens(sample)
        assert np.array_equal(samples.decode_tokens(sample, payload), tokens)
        assert bits < 5 * 40
    assert_in_bounds(learned)


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [2, 9])
@pytest.mark.parametrize("num_bytes", [1, 7, 100, 255, 256, 511, 3000])
def test_archives_of_noise_are_stored(num_bytes: int, level: int) -> None:
    data = samples.noise(num_bytes, seed=num_bytes)
    archive = llmzip.compress(data, level=level)
    assert len(archive) <= num_bytes + (13 if num_bytes < 256 else 16)
    assert llmzip.decompress(archive) == data


def test_archives_of_large_noise_are_stored() -> None:
    data = samples.noise(300_000)
    archive = llmzip.compress(data, level=9)
    assert len(archive) <= len(data) + 19
    assert llmzip.decompress(archive) == data
