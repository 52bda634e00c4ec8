"""Windows over random frequencies: what was written is read, every window is full, and any bits mean some tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.format.headers import MAX_WINDOW_BITS, MIN_WINDOW_BITS
from llmzip.windows.codes import WindowReader, WindowWriter, pack, precision_bits

WIDTHS = st.one_of(st.sampled_from([16, 17, 23, 24, 25, 32, 38, 39, 40, 64, 128, 1000, 4096]), st.integers(16, 300))


def frequencies(rng: np.random.Generator, window_bits: int, size: int, sharpness: float) -> np.ndarray:
    """Cumulative frequencies of a random distribution, from 0 to 2^b, each step at least 1."""
    total = 1 << precision_bits(window_bits)
    weights = np.exp(sharpness * rng.standard_normal(size))
    shares = np.floor(weights.cumsum() / weights.sum() * (total - size)).astype(np.int64)
    shares[-1] = total - size
    return np.concatenate([[0], shares + np.arange(1, size + 1)])


def write(tables: list[np.ndarray], tokens: np.ndarray, window_bits: int) -> tuple[bytes, list[int]]:
    """The windows of tokens, token i coded by table i of its window; and how many tokens each window holds."""
    writer, codes, counts, count = WindowWriter(window_bits), [], [], 0
    for token in tokens:
        while True:
            table = tables[count % len(tables)]
            if writer.add(int(table[token]), int(table[token + 1])):
                break
            assert count, "the first token always finds a code"
            codes.append(writer.close(full=True)[0])
            counts.append(count)
            count = 0
        count += 1
    codes.append(writer.close(full=False)[0])
    counts.append(count)
    assert all(0 <= code < 1 << window_bits for code in codes)
    return pack(codes, window_bits), counts


def read(tables: list[np.ndarray], data: bytes, window_bits: int, windows: np.ndarray, most: int) -> list[list[int]]:
    """Tokens of windows until they are over, or hold as many as `most`."""
    reader, found = WindowReader(data, window_bits, windows), [[] for _ in windows]
    places = np.arange(len(windows))
    for step in range(most):
        table = tables[step % len(tables)]
        targets, over = reader.targets(places)
        places, targets = places[~over], targets[~over]
        tokens = np.searchsorted(table, targets, side="right") - 1
        assert ((tokens >= 0) & (tokens < len(table) - 1)).all()
        reader.take(places, table[tokens], table[tokens + 1])
        for number, token in zip(places, tokens, strict=True):
            found[number].append(int(token))
    return found


@given(
    window_bits=WIDTHS, seed=st.integers(0, 2**32), size=st.integers(2, 300), sharpness=st.sampled_from([0.0, 1, 4, 12])
)
def test_what_was_written_is_read(window_bits: int, seed: int, size: int, sharpness: float) -> None:
    rng = np.random.default_rng(seed)
    tables = [frequencies(rng, window_bits, size, sharpness) for _ in range(3)]
    tokens = rng.integers(0, size, 400)
    data, counts = write(tables, tokens, window_bits)
    assert len(data) == -(-len(counts) * window_bits // 8)
    order = rng.permutation(len(counts))
    found = read(tables, data, window_bits, order, max(counts))
    ends = np.cumsum(counts)
    for number, got in zip(order, found, strict=True):
        expected = tokens[ends[number] - counts[number] : ends[number]].tolist()
        last = number == len(counts) - 1
        assert got[: len(expected)] == expected and (last or len(got) == len(expected))


@given(window_bits=WIDTHS, seed=st.integers(0, 2**32), size=st.integers(2, 200))
def test_any_bits_mean_something(window_bits: int, seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    table = frequencies(rng, window_bits, size, 2.0)
    data = rng.bytes(-(-5 * window_bits // 8))
    for tokens in read([table], data, window_bits, np.arange(5), 100):
        assert tokens


@given(seed=st.integers(0, 2**32), sharpness=st.sampled_from([0.0, 2, 6]))
def test_little_is_wasted(seed: int, sharpness: float) -> None:
    """Long windows cost what the frequencies say, and a code less than the least likely token's at their end."""
    rng = np.random.default_rng(seed)
    table = frequencies(rng, 4096, 100, sharpness)
    weights = np.diff(table) / 2**24
    tokens = rng.choice(100, 5000, p=weights)
    data, counts = write([table], tokens, 4096)
    ideal = -np.log2(weights[tokens]).sum()
    windows = len(counts)
    assert 8 * len(data) >= ideal - 8
    assert (windows - 1) * 4096 <= ideal + windows * 25


@pytest.mark.parametrize("window_bits", [MIN_WINDOW_BITS, 17, 24, 40, 1000, MAX_WINDOW_BITS])
def test_extreme_frequencies(window_bits: int) -> None:
    total = 1 << precision_bits(window_bits)
    table = np.array([0, 1, total - 1, total])
    rng = np.random.default_rng(window_bits)
    tokens = np.concatenate([np.ones(3000, dtype=np.int64), rng.integers(0, 3, 300), np.full(5, 2), np.zeros(5, int)])
    data, counts = write([table], tokens, window_bits)
    found = read([table], data, window_bits, np.arange(len(counts)), max(counts))
    assert [token for part in found[:-1] for token in part] + found[-1][: counts[-1]] == tokens.tolist()


@given(window_bits=st.integers(16, 99), seed=st.integers(0, 2**32), count=st.integers(1, 30))
def test_windows_lie_one_behind_the_other(window_bits: int, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    codes = [int.from_bytes(rng.bytes(13), "big") >> 104 - window_bits for _ in range(count)]
    whole = int.from_bytes(pack(codes, window_bits), "big")
    size = 8 * len(pack(codes, window_bits))
    for number, code in enumerate(codes):
        assert whole >> size - (number + 1) * window_bits & (1 << window_bits) - 1 == code
    assert size - count * window_bits < 8
