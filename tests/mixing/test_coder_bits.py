"""Checks the binary decisions of the range coder: each probability's interval, round trips, damaged codes.

All of it for constriction and for the compiled coder.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from documented import interval
from hypothesis import example, given
from hypothesis import strategies as st

from llmzip.errors import CorruptError
from llmzip.mixing.coder import TOTAL, Decoder, Encoder

pytestmark = pytest.mark.usefixtures("each_coder")

DECISIONS = st.lists(st.tuples(st.one_of(st.integers(1, 65535), st.sampled_from([1, 32768, 65535])), st.integers(0, 1)))
FULL = (1 << 64) - 1


def arrays(decisions: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Bits and probabilities."""
    k, bits = np.array(decisions, dtype=np.int64).reshape(-1, 2).T
    return bits.astype(np.int32), k.astype(np.float32) * np.float32(2.0**-16)


def code_of(decisions: list[tuple[int, int]]) -> bytes:
    encoder = Encoder()
    encoder.encode_bits(*arrays(decisions))
    return encoder.finish()


def test_all_probabilities_have_the_documented_intervals() -> None:
    scale = FULL >> 24
    for bit in (0, 1):
        symbol = np.array([bit], dtype=np.int32)
        for k in range(1, 65536):
            encoder = Encoder()
            encoder.encode_bits(symbol, np.array([k * 2.0**-16], dtype=np.float32))
            words, lower, size = encoder._encoder.position()
            left, frequency = interval(k, bit)
            if scale * frequency >= 1 << 32:
                assert (words, lower, size) == (0, scale * left, scale * frequency)
            else:
                assert (words, size) == (1, scale * frequency << 32)


def test_intervals_fill_the_range() -> None:
    for k in range(1, 65536):
        (left, zero), (middle, one) = interval(k, 0), interval(k, 1)
        assert left == 0 and zero == middle and zero >= 1 and one >= 1 and zero + one == TOTAL
        assert abs(one / TOTAL - k / 65536) <= 2.0**-24


@given(decisions=DECISIONS)
@example(decisions=[(65281, 1), (65535, 0), (65535, 0)])
def test_decisions_come_back(decisions: list[tuple[int, int]]) -> None:
    bits, probability = arrays(decisions)
    encoder = Encoder()
    encoder.encode_bits(bits, probability)
    _, lower, size = encoder._encoder.position()
    code = encoder.finish()
    assert Decoder(code).decode_bits(probability).tolist() == bits.tolist()
    ideal = -sum(math.log2((k if bit else 65536 - k) / 65536) for k, bit in decisions)
    # An interval on both sides of a carry ends on the seal's side, where a whole word may be needed.
    assert len(code) < ideal / 8 + (2 if lower + size <= 1 << 64 else 4.1)


@given(decisions=DECISIONS)
def test_decisions_give_the_code_of_their_intervals(decisions: list[tuple[int, int]]) -> None:
    encoder = Encoder()
    left, frequency = np.array([interval(k, bit) for k, bit in decisions], dtype=np.int64).reshape(-1, 2).T
    encoder.encode(left, frequency)
    assert encoder.finish() == code_of(decisions)


@pytest.mark.parametrize("sizes", [(1,), (7, 1, 32), (300,), (1, 2, 3, 5, 8)])
def test_parts_of_any_size_decode_the_same(sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    decisions = list(zip(rng.integers(1, 65536, 300).tolist(), rng.integers(0, 2, 300).tolist(), strict=True))
    bits, probability = arrays(decisions)
    decoder, found, begin = Decoder(code_of(decisions)), [], 0
    while begin < 300:
        size = sizes[len(found) % len(sizes)]
        found.append(decoder.decode_bits(probability[begin : begin + size]))
        begin += size
    assert np.concatenate(found).tolist() == bits.tolist()


@pytest.mark.parametrize("decision", [(1, 1), (1, 0), (65535, 1), (65535, 0), (32768, 1), (32769, 0)])
def test_long_runs_of_extreme_decisions_come_back(decision: tuple[int, int]) -> None:
    bits, probability = arrays([decision] * 5000)
    code = code_of([decision] * 5000)
    assert Decoder(code).decode_bits(probability).tolist() == bits.tolist()


def test_no_decisions_need_no_bytes() -> None:
    assert code_of([]) == b""
    assert Decoder(b"").decode_bits(np.zeros(0, dtype=np.float32)).tolist() == []


def test_garbage_decodes_to_bits_or_to_a_corrupt_error(rng: np.random.Generator) -> None:
    for _ in range(300):
        decoder = Decoder(rng.bytes(int(rng.integers(0, 40))))
        try:
            for _ in range(20):
                probability = rng.integers(1, 65536, 30).astype(np.float32) * np.float32(2.0**-16)
                assert set(decoder.decode_bits(probability).tolist()) <= {0, 1}
        except CorruptError as error:
            assert str(error).startswith("damaged: ")


def test_highest_code_of_all_is_refused_or_decoded() -> None:
    decoder = Decoder(b"\xff" * 64)
    probability = np.full(4, 0.5, dtype=np.float32)
    with pytest.raises(CorruptError, match="fits no text"):
        for _ in range(200):
            decoder.decode_bits(probability)


def test_coding_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    bits, probability = arrays([(5, 1), (60000, 0)])
    assert Decoder(code_of([(5, 1), (60000, 0)])).decode_bits(probability).tolist() == bits.tolist()
    assert capfd.readouterr() == ("", "")


def test_constriction_is_the_documented_one() -> None:
    constriction = pytest.importorskip("constriction", reason="constriction has no build for this machine")
    model = constriction.stream.model.Bernoulli(perfect=False)
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(np.array([0], dtype=np.int32), model, np.array([0.25], dtype=np.float32))
    assert encoder.pos() == (0, (0, (FULL >> 24) * (3 * 2**22 - 1)))
