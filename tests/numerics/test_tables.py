"""Checks the tables of the exact arithmetic: their SHA-256, and that they are what their formulas say."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from llmzip.numerics import tables

ROPE_DIGESTS = {
    (10000.0, 64, 1024): "ea024d9044fe15cd8baa21ce137972f06690f87f14c146440e2d0680d754f107",
    (10000.0, 16, 5000): "c272b8ccda61202b3e142664b45fae6067a30773b5e6819e84875025b39db248",
    (500000.0, 128, 300): "4f8291c006c19f1244c6b0bbb027ec769f3f01bde7bc5a0b8ef5107076bd3ca6",
    (1e6, 32, 2048): "a5624c1b364f6daa6e28064d7acad9f86aaa0d2832c63e15c04b38f12818f24a",
    (1.5, 2, 100): "812ad42c323bbc36d48eda69dc6820cd36c7ad972303ee8e1fb1114fc486a8e6",
}


def sha256(*arrays: np.ndarray) -> str:
    assert all(array.dtype == np.int32 for array in arrays)
    return hashlib.sha256(b"".join(array.astype("<i4").tobytes() for array in arrays)).hexdigest()


def test_exp2_table_digest() -> None:
    table = tables.exp2_table()
    assert table.shape == (tables.EXP2_SIZE,)
    assert sha256(table) == "ad0ebcf5140b101a31b8032ab6b9b98b9fe6c082189b064e3c09da3f2c3b2530"


def test_normal_table() -> None:
    table = tables.normal_table()
    assert table.shape == (tables.NORMAL_SIZE,)
    assert sha256(table) == "b840df797bb9186dfb885c556949e205e809b7f2302943633e59cab6e0c6e8d2"
    exact = [2**23 * math.erfc(k / 4096 / math.sqrt(2)) for k in range(tables.NORMAL_SIZE)]
    assert np.abs(table - np.array(exact)).max() <= 0.5001
    assert table[0] == 1 << 23 and np.all(np.diff(table) <= 0)


@pytest.mark.parametrize("cap", [0.5, 30.0, 50.0, 1e5])
def test_factors(cap: float) -> None:
    steps = 1024 / math.log(2)
    assert tables.cap_factors(cap) == (np.float32(cap * steps), np.float32(2 / cap))
    first, third = tables.gelu_factors()
    assert first == np.float32(2 * math.sqrt(2 / math.pi) * steps)
    assert third == np.float32(2 * math.sqrt(2 / math.pi) * steps * 0.044715)
    assert tables.attention_factor(64, 0.25) == np.float32(steps / 4)
    assert tables.attention_factor(64, 0.125) == tables.attention_factor(64)


def test_exp2_table_is_close_to_the_exponential() -> None:
    table = tables.exp2_table()
    exact = [2.0 ** (20 - k / 1024) for k in range(tables.EXP2_SIZE)]
    # Half a unit of its own rounding, and 2^-10 units of the 30-bit octave's.
    assert np.abs(table - np.array(exact)).max() <= 0.5 + 2**-10


def test_exp2_table_falls_from_2_to_the_20_to_0() -> None:
    table = tables.exp2_table()
    assert table[0] == 1 << tables.EXP2_BITS
    assert [table[1024 * n] for n in range(21)] == [1 << (20 - n) for n in range(21)]
    assert table[-1] == 0
    assert np.all(np.diff(table) <= 0)


@pytest.mark.parametrize("floor_bits", [1, 5, 8])
def test_table_of_finer_masses(floor_bits: int) -> None:
    table = tables.exp2_table(floor_bits)
    octave, size = tables.exp2_octave(), 1024 * (22 + floor_bits)
    assert table.dtype == np.int32 and table.shape == (size,)
    shifts = [10 + k // 1024 - floor_bits for k in range(size)]
    assert table.tolist() == [(octave[k % 1024] + 2 ** (shift - 1)) // 2**shift for k, shift in enumerate(shifts)]
    assert table[0] == 1 << 20 + floor_bits and table[-1] == 0 and np.all(np.diff(table) <= 0)
    coarse = tables.exp2_table()
    assert np.abs(table[: len(coarse)] / 2.0**floor_bits - coarse).max() <= 1


@pytest.mark.parametrize(("theta", "head_dim", "positions"), ROPE_DIGESTS)
def test_rope_table_digests(theta: float, head_dim: int, positions: int) -> None:
    cos, sin = tables.rope_tables(tables.rope_steps(theta, head_dim), positions)
    assert cos.shape == sin.shape == (positions, head_dim // 2)
    assert sha256(cos, sin) == ROPE_DIGESTS[theta, head_dim, positions]


@pytest.mark.parametrize(
    ("theta", "head_dim", "positions"), [(10000.0, 64, 1024), (1e6, 128, 500), (500000.0, 4, 1 << 17), (2.0, 2, 70)]
)
def test_rope_tables_are_close_to_cosine_and_sine(theta: float, head_dim: int, positions: int) -> None:
    cos, sin = tables.rope_tables(tables.rope_steps(theta, head_dim), positions)
    pairs = np.arange(head_dim // 2)
    angle = np.arange(positions)[:, None] * theta ** (-2.0 * pairs / head_dim)
    assert np.abs(cos - 2**14 * np.cos(angle)).max() < 0.501
    assert np.abs(sin - 2**14 * np.sin(angle)).max() < 0.501
    assert max(np.abs(cos).max(), np.abs(sin).max()) <= 1 << 14


def test_more_rope_positions_do_not_change_the_first_ones() -> None:
    short, long = (tables.rope_tables(tables.rope_steps(10000.0, 32), n) for n in (10, 300))
    for a, b in zip(short, long, strict=True):
        assert np.array_equal(a, b[:10])


def test_rope_steps_are_fractions_of_a_turn() -> None:
    steps = tables.rope_steps(10000.0, 64)
    assert len(steps) == 32
    assert steps[0] == 2935890503282001226  # 2^64 / (2 pi)
    assert all(0 < b < a < 1 << 64 for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize(("theta", "head_dim"), [(10000.0, 64), (500000.0, 128), (1e6, 6)])
def test_rope_steps_are_rounded_to_the_nearest_unit(theta: float, head_dim: int) -> None:
    pi = Decimal("3.141592653589793238462643383279502884197169399375105820974944592307816406286208998628")
    with localcontext() as context:
        context.prec = 80
        exact = [2**63 / pi * Decimal(theta) ** (Decimal(-2 * i) / head_dim) for i in range(head_dim // 2)]
        distances = [abs(step - true) for step, true in zip(tables.rope_steps(theta, head_dim), exact, strict=True)]
    assert max(distances) <= Decimal("0.5")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(0), 0.0),
        (Fraction(1, 3), float(np.float32(1 / 3))),
        (1 + Fraction(1, 2**24), 1.0),  # a tie goes to the even neighbour: down
        (1 + Fraction(3, 2**24), 1 + 2.0**-22),  # and up
        (1 + Fraction(1, 2**24) + Fraction(1, 2**70), 1 + 2.0**-23),  # through a double this would be a tie
        (-1 - Fraction(3, 2**24), -1 - 2.0**-22),
        (2**24 - Fraction(1, 4), 2.0**24),  # rounds up into the next power of two
        (Fraction(1, 2**126), 2.0**-126),
    ],
)
def test_float32_rounds_once_and_ties_to_even(value: Fraction, expected: float) -> None:
    assert tables.float32(value) == expected


def test_float32_agrees_with_numpy_on_doubles(rng: np.random.Generator) -> None:
    for value in rng.standard_normal(500) * 10.0 ** rng.integers(-30, 30, 500):
        assert tables.float32(float(value)) == float(np.float32(value))


@pytest.mark.parametrize("value", [Fraction(1, 2**127), Fraction(2) ** 128, -(Fraction(2) ** 128)])
def test_float32_refuses_what_is_not_normal(value: Fraction) -> None:
    with pytest.raises(OverflowError, match="range of normal float32"):
        tables.float32(value)


def test_factors_of_the_logits_and_of_attention() -> None:
    assert tables.log2e_steps() == float(np.float32(1024 / math.log(2)))
    for head_dim in (16, 32, 64, 80, 128):
        factor = tables.attention_factor(head_dim)
        assert factor == struct.unpack("<f", struct.pack("<f", factor))[0]
        assert factor == pytest.approx(1024 / math.log(2) / math.sqrt(head_dim), rel=2**-24)
