"""Checks the range coder: against full tables, golden bytes and plain integers; its ending, and damaged codes.

All of it for constriction and for the compiled coder.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmzip.errors import CorruptError
from llmzip.mixing.coder import TOTAL, Decoder, Encoder

pytestmark = pytest.mark.usefixtures("each_coder")

Intervals = list[tuple[int, int]]

TWENTY_FOUR = (
    "0000000fffed4002b5e009df001763468d23580712f7d05d39d8823221640dda189b61d47f558fec5b4a1835cb463c2d9f10a196fe38"
)


def random_tables(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """Cumulative frequencies, from flat to extremely uneven."""
    weight = rng.random((rows, size)) ** rng.choice([0.2, 1.0, 8.0, 60.0], (rows, 1))
    sums = np.cumsum(weight, axis=1)
    inner = np.floor(sums / sums[:, -1:] * (TOTAL - size)).astype(np.int64)
    bounds = np.concatenate([np.zeros((rows, 1), np.int64), inner], 1) + np.arange(size + 1)
    bounds[:, -1] = TOTAL
    assert (np.diff(bounds) >= 1).all()
    return bounds


def drawn(bounds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Symbols as likely as their tables say."""
    points = rng.integers(0, TOTAL, len(bounds))
    return (bounds[:, 1:] <= points[:, None]).sum(1)


def intervals_of(bounds: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(symbols))
    left = bounds[rows, symbols]
    return left, bounds[rows, symbols + 1] - left


def encode(left: np.ndarray, frequency: np.ndarray) -> bytes:
    encoder = Encoder()
    encoder.encode(left, frequency)
    return encoder.finish()


def encode_pairs(pairs: Intervals) -> bytes:
    left, frequency = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return encode(left, frequency)


def last_interval(pairs: Intervals) -> tuple[int, int, int]:
    """The coder of docs/numerics.md section 9 on unbounded integers, which need no carry.

    Returns:
        The last interval's lowest number and size, in units of its lowest bit, and the number of bits after the point.
    """
    lower, size, bits = 0, (1 << 64) - 1, 64
    for left, frequency in pairs:
        scale = size >> 24
        lower += scale * left
        size = scale * frequency
        if size < 1 << 32:
            lower, size, bits = lower << 32, size << 32, bits + 32
    return lower, size, bits


def assert_good_code(code: bytes, pairs: Intervals) -> None:
    """A code must lie in its interval; it is the shortest there, unless the interval goes over a carry."""
    lower, size, bits = last_interval(pairs)
    assert lower <= int.from_bytes(code, "big") << bits - 8 * len(code) < lower + size
    assert not code.endswith(b"\0")
    wraps = lower >> 64 != (lower + size - 1) >> 64
    if not wraps:
        units = (1 << bits - 8 * length for length in range(bits // 8 + 1))
        shortest = next(length for length, unit in enumerate(units) if -(-lower // unit) * unit < lower + size)
        assert len(code) == shortest
    bound_bits = -sum(math.log2(frequency / TOTAL) for _, frequency in pairs)
    assert len(code) < bound_bits / 8 + (4.1 if wraps else 2)  # then a whole word may be needed on the seal's side
    assert decode_pairs(code, pairs)


def decode_pairs(code: bytes, pairs: Intervals) -> bool:
    """Whether a code decodes to these intervals, each offered as a table of what is left of it, it, and the rest."""
    decoder = Decoder(code)
    for left, frequency in pairs:
        edges = sorted({0, left, left + frequency, TOTAL})
        try:
            symbol = int(decoder.decode(np.array([edges], dtype=np.int64))[0])
        except CorruptError:
            return False
        if edges[symbol] != left:
            return False
    return True


@pytest.mark.parametrize("size", [3, 17, 64, 300, 4096])
def test_intervals_give_the_same_words_as_full_tables(size: int, rng: np.random.Generator) -> None:
    bounds = random_tables(rng, 400, size)
    symbols = drawn(bounds, rng)
    symbols[:3] = 0
    symbols[3:6] = size - 1
    constriction = pytest.importorskip("constriction", reason="constriction has no build for this machine")
    table = constriction.stream.model.Categorical(perfect=False)
    full = constriction.stream.queue.RangeEncoder()
    full.encode(symbols.astype(np.int32), table, (np.diff(bounds) - 1).astype(np.float32))
    encoder = Encoder()
    encoder.encode(*intervals_of(bounds, symbols))
    assert encoder._encoder.sealed().tolist() == full.get_compressed().tolist()


@pytest.mark.parametrize("size", [3, 5, 64, 512])
def test_decoder_gives_back_the_symbols(size: int, rng: np.random.Generator) -> None:
    bounds = random_tables(rng, 1000, size)
    symbols = drawn(bounds, rng)
    code = encode(*intervals_of(bounds, symbols))
    decoder = Decoder(code)
    found = [decoder.decode(bounds[n : n + step]) for n, step in ((0, 1), (1, 7), (8, 492), (500, 500))]
    assert np.concatenate(found).tolist() == symbols.tolist()
    bits = -np.log2(np.diff(bounds)[np.arange(1000), symbols] / TOTAL).sum()
    assert len(code) < bits / 8 + 2


def test_codes_are_those_of_the_documented_coder(rng: np.random.Generator) -> None:
    for num_symbols in [0, 1, 2, 3, 5, 8, 20, 60]:
        for _ in range(60):
            bounds = random_tables(rng, num_symbols, int(rng.integers(3, 40)))
            left, frequency = intervals_of(bounds, drawn(bounds, rng))
            pairs = list(zip(left.tolist(), frequency.tolist(), strict=True))
            assert_good_code(encode(left, frequency), pairs)


def test_no_shorter_code_decodes_to_the_same(rng: np.random.Generator) -> None:
    for _ in range(100):
        bounds = random_tables(rng, 6, 9)
        left, frequency = intervals_of(bounds, drawn(bounds, rng))
        pairs = list(zip(left.tolist(), frequency.tolist(), strict=True))
        code = encode(left, frequency)
        cut = int.from_bytes(code[:-1], "big")
        for neighbour in (cut - 1, cut, cut + 1):
            if 0 <= neighbour < 1 << 8 * (len(code) - 1):
                assert not decode_pairs(neighbour.to_bytes(len(code) - 1, "big"), pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, 1)] * 40,
        [(TOTAL - 1, 1)] * 40,
        [(0, TOTAL - 2)] * 40,
        [(2, TOTAL - 2)] * 40,
        [(1, TOTAL - 2)] * 40,
        [((1 << 23) - 1, 2)] * 40,  # around the middle: every later symbol may still carry
        [((1 << 23) - 1, 2), *[(TOTAL - 1, 1)] * 9, (0, 1)],
        [((1 << 23) - 1, 1), *[(TOTAL - 1, 1)] * 30],
    ],
    ids=["lowest", "highest", "likely left", "likely right", "likely middle", "carry open", "carry", "no carry"],
)
def test_extreme_intervals_give_good_codes(pairs: Intervals) -> None:
    assert_good_code(encode_pairs(pairs), pairs)


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ([], ""),
        ([(0, TOTAL - 2)], ""),
        ([(12_345_678, 1)], "bc614e"),
        ([(1000, 50), (0, 1), (TOTAL - 7, 7), (8_000_000, 1_000_000)], "0003e8000031fc1649"),
        ([(n * 1_048_573 % (TOTAL - 4096), 1 + n * n) for n in range(24)], TWENTY_FOUR),
    ],
    ids=["empty", "likely", "unlikely", "four", "twenty-four"],
)
def test_golden_codes(pairs: Intervals, code: str) -> None:
    assert encode_pairs(pairs).hex() == code


def test_encoding_in_parts_changes_nothing(rng: np.random.Generator) -> None:
    bounds = random_tables(rng, 50, 12)
    left, frequency = intervals_of(bounds, drawn(bounds, rng))
    parts = Encoder()
    for begin, end in ((0, 1), (1, 20), (20, 20), (20, 50)):
        parts.encode(left[begin:end], frequency[begin:end])
    assert parts.finish() == encode(left, frequency)


@pytest.mark.parametrize(
    ("left", "frequency"),
    [
        *[(0, 0), (5, 0), (0, TOTAL), (0, TOTAL - 1), (1, TOTAL - 1), (TOTAL - 1, 2), (TOTAL, 1), (3, -1), (-1, 5)],
        *[((1 << 63) - 1, 1), (-(1 << 63), 1), (0, (1 << 63) - 1), (0, -(1 << 63))],
    ],
)
def test_impossible_intervals_are_refused(left: int, frequency: int) -> None:
    encoder = Encoder()
    with pytest.raises(ValueError, match=r"empty or fills|not within the range"):
        encoder.encode(np.array([9, left]), np.array([9, frequency]))
    assert encoder.finish() == b"", "something was encoded"


def test_garbage_decodes_to_symbols_or_to_a_corrupt_error(rng: np.random.Generator) -> None:
    refused = 0
    for _ in range(300):
        size = int(rng.integers(3, 200))
        decoder = Decoder(rng.bytes(int(rng.integers(0, 40))))
        try:
            for _ in range(20):
                symbols = decoder.decode(random_tables(rng, 5, size))
                assert symbols.shape == (5,) and symbols.min() >= 0 and symbols.max() < size
        except CorruptError as error:
            assert str(error).startswith("damaged: ")
            refused += 1
    assert refused < 300


def test_highest_code_of_all_is_refused_or_decoded() -> None:
    bounds = np.array([[0, 1, TOTAL]], dtype=np.int64)
    decoder = Decoder(b"\xff" * 64)
    with pytest.raises(CorruptError, match="fits no text"):
        for _ in range(64):
            decoder.decode(bounds)


def test_a_code_that_ended_goes_on_with_zeros() -> None:
    bounds = np.tile(np.array([[0, 9, 1000, TOTAL]], dtype=np.int64), (100, 1))
    assert Decoder(b"").decode(bounds).tolist() == [0] * 100


def test_coding_prints_nothing(capfd: pytest.CaptureFixture[str], rng: np.random.Generator) -> None:
    bounds = random_tables(rng, 10, 5)
    Decoder(encode(*intervals_of(bounds, drawn(bounds, rng)))).decode(bounds)
    assert capfd.readouterr() == ("", "")
