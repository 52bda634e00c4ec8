"""Constants and tables of the exact arithmetic, computed with Python's integers and `decimal`; must not know torch.

No value comes from libm, whose last bits differ between systems. A test asserts the SHA-256 of each table
(docs/numerics.md sections 3 and 4).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext
from fractions import Fraction
from math import isqrt

import numpy as np

from .stored import stored

EXP2_STEPS = 1024
"""Steps of the exponential's argument per power of two: indices are in units of 2^-10 bits."""

EXP2_BITS = 20
"""Bits of the table: its first entry is 2^20."""

EXP2_SIZE = 22 * EXP2_STEPS
"""Entries of the table; the last one is 0, so that any index may be clamped to EXP2_SIZE - 1."""

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
DECIMAL_CONTEXT = Context(
    prec=70,
    rounding=ROUND_HALF_EVEN,
    Emin=-999999,
    Emax=999999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[InvalidOperation, DivisionByZero, Overflow],
)
"""A context that sets every field: the caller's may round differently or trap inexact results."""


def float32(value: Decimal | Fraction | float) -> float:
    """Rounds an exact value to the nearest float32 (ties to even); returns it as a Python float.

    Args:
        value: finite; magnitude in [2^-126, 2^127] or 0.
    """
    exact = Fraction(value)
    if exact == 0:
        return 0.0
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    if not -126 <= exponent <= 126:
        raise OverflowError(f"{float(value)} is out of the range of normal float32")
    unit = Fraction(2) ** (exponent - 23)
    mantissa = round(magnitude / unit)  # Python rounds halves to even
    result = float(mantissa * unit)
    return -result if exact < 0 else result


@functools.cache
def exp2_octave() -> tuple[int, ...]:
    """Computes B[f] = floor(2^30 * 2^(-f/1024) + 1/2) for f = 0 .. EXP2_STEPS - 1."""
    bits = 400
    root = 1 << (bits - 1)  # 2^-1; ten square roots of it give 2^(-1/1024)
    for _ in range(10):
        root = isqrt(root << bits)
    octave = []
    power = 1 << bits
    for _ in range(EXP2_STEPS):
        octave.append((power + (1 << (bits - 31))) >> (bits - 30))
        power = (power * root) >> bits
    return tuple(octave)


@functools.cache
def exp2_table(floor_bits: int = 0) -> np.ndarray:
    """Computes E[k] = 2^20 * 2^(-k/1024), rounded, for k = 0 .. EXP2_SIZE - 1.

    It is derived from a 30-bit table of one octave, `exp2_octave`, as
    E[k] = (B[k mod 1024] + 2^(9+n)) >> (10+n) with n = floor(k / 1024).

    Args:
        floor_bits: 0 to 8; above 0 for the longer table of masses, whose values are 2^floor_bits times as large.

    Returns:
        (EXP2_SIZE + 1024 floor_bits,) int32; non-increasing, E[0] = 2^(20 + floor_bits), the last entry is 0.

    Source: docs/numerics.md sections 3 and 6.7.
    """
    steps = np.arange(EXP2_SIZE + EXP2_STEPS * floor_bits, dtype=np.int64)
    value, shift = np.array(exp2_octave(), dtype=np.int64)[steps % EXP2_STEPS], 10 - floor_bits + steps // EXP2_STEPS
    table: np.ndarray = ((value + (np.int64(1) << (shift - 1))) >> shift).astype(np.int32)
    return table


@functools.cache
def log2e_steps() -> float:
    """Returns 1024 * log2(e) as float32, which converts natural-logarithm units to steps of the table."""
    with localcontext(DECIMAL_CONTEXT):
        return float32(EXP2_STEPS / Decimal(2).ln())


def attention_factor(head_dim: int, scale: float = 0.0) -> float:
    """Returns 1024 * log2(e) / sqrt(head_dim) as float32; or 1024 * log2(e) * scale if the binary64 scale is not 0."""
    with localcontext(DECIMAL_CONTEXT):
        factor = Decimal(scale) if scale else 1 / Decimal(head_dim).sqrt()
        return float32(EXP2_STEPS / Decimal(2).ln() * factor)


@functools.cache
def cap_factors(cap: float) -> tuple[float, float]:
    """Returns the float32 factors of c tanh(x / c), c of binary64: c in steps of the table, and 2 / c per step of x."""
    with localcontext(DECIMAL_CONTEXT):
        steps = EXP2_STEPS / Decimal(2).ln() * Decimal(cap)
        return float32(steps), float32(2 * EXP2_STEPS / Decimal(2).ln() / steps)


@functools.cache
def gelu_factors() -> tuple[float, float]:
    """Returns 1024 log2(e) * 2 sqrt(2 / pi), and that times 0.044715, as float32."""
    with localcontext(DECIMAL_CONTEXT):
        first = EXP2_STEPS / Decimal(2).ln() * 2 * (2 / PI).sqrt()
        return float32(first), float32(first * Decimal("0.044715"))


def rope_steps(theta: float, head_dim: int) -> list[int]:
    """Computes the turns per position of each rotary pair, in units of 2^-64 turn.

    Args:
        theta: base of the rotary frequencies, > 1.
        head_dim: even.

    Returns:
        head_dim / 2 integers in [0, 2^64): round(2^64 * theta^(-2i / head_dim) / (2 pi)).
    """
    with localcontext(DECIMAL_CONTEXT):
        log_theta = Decimal(theta).ln()
        turn = Decimal(2) ** 64 / (2 * PI)
        return [int((turn * (-log_theta * (2 * i) / head_dim).exp()).to_integral_value()) for i in range(head_dim // 2)]


def rope_tables(pair_steps: Sequence[int], positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Computes cosines and sines of the rotary angles in units of 2^-14.

    Args:
        pair_steps: turns per position of each pair, in units of 2^-64 turn.
        positions: number of positions, >= 1.

    Returns:
        cos, sin: (positions, pairs) int32, |value| <= 2^14.

    Source: docs/numerics.md section 4.
    """
    steps = np.array(pair_steps, dtype=np.uint64)
    # Products of uint64 wrap, as a phase in units of 2^-64 turn must.
    phase = np.arange(positions, dtype=np.uint64)[:, None] * steps[None, :]
    quadrant = (phase >> np.uint64(62)).astype(np.int64)
    fraction = ((phase >> np.uint64(30)) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    with localcontext(DECIMAL_CONTEXT):
        quarter_turn = int((PI / 2 * 2**30).to_integral_value())
    angle = (fraction * quarter_turn) >> 32  # [0, pi/2) in units of 2^-30
    square = (angle * angle) >> 30
    one = 1 << 30
    cos = np.full_like(angle, one)
    sin = np.full_like(angle, one)
    for n in range(16, 0, -2):  # Horner: cos = 1 - y^2/(1*2) (1 - y^2/(3*4) (...)), and likewise sin
        cos = one - ((square * cos) >> 30) // (n * (n - 1))
        sin = one - ((square * sin) >> 30) // (n * (n + 1))
    sin = (angle * sin) >> 30
    cos, sin = (cos + (1 << 15)) >> 16, (sin + (1 << 15)) >> 16
    turned_cos = np.choose(quadrant, [cos, -sin, -cos, sin])
    turned_sin = np.choose(quadrant, [sin, cos, -sin, -cos])
    return turned_cos.astype(np.int32), turned_sin.astype(np.int32)


NORMAL_STEPS = 4096
"""Steps of the normal distribution's argument per standard deviation."""

NORMAL_SIZE = 6 * NORMAL_STEPS
"""Entries of the table: six standard deviations."""


@stored("b840df797bb9186dfb885c556949e205e809b7f2302943633e59cab6e0c6e8d2")
def normal_table() -> np.ndarray:
    """Computes N[k] = 2^24 * Phi(-k/4096), rounded, for k = 0 .. NORMAL_SIZE - 1.

    Phi is the integral of the normal distribution, by the series Phi(-x) = 1/2 - phi(x) (x + x^3/3 + x^5/(3*5) + ...)
    in integers of 192 bits.

    Returns:
        (NORMAL_SIZE,) int32; non-increasing, N[0] = 2^23.

    Source: docs/numerics.md section 3.
    """
    bits = 192
    with localcontext(DECIMAL_CONTEXT) as context:
        context.prec = 90
        peak = int((2**bits / (2 * PI).sqrt()).to_integral_value())  # phi(0)
        # From phi(k / 4096) to phi((k + 1) / 4096): times exp(-(2k + 1) / 2^25).
        ratio = int((2**bits * (Decimal(-1) / 2**25).exp()).to_integral_value())
        ratio2 = int((2**bits * (Decimal(-1) / 2**24).exp()).to_integral_value())
    table, density = [], peak
    for k in range(NORMAL_SIZE):
        term = total = (k << bits) // NORMAL_STEPS
        n = 1
        while term:
            n += 2
            term = term * k * k // (NORMAL_STEPS**2 * n)
            total += term
        tail = (1 << (bits - 1)) - ((density * total) >> bits)
        table.append((tail + (1 << (bits - 25))) >> (bits - 24))
        density = (density * ratio) >> bits
        ratio = (ratio * ratio2) >> bits
    return np.array(table, dtype=np.int32)
