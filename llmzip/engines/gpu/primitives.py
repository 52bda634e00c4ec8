"""The few float operations of the Triton kernels that a compiler must not choose itself; must not know models.

Each is exact on NVIDIA devices for the reason that it states, and in Triton's interpreter, which computes with numpy.
Kernels use + - * on float32 (one rounding each: they are launched with `enable_fp_fusion=False`, so that no product and
sum are fused), minima, maxima, comparisons, conversions and these functions; never `/`, tl.exp, tl.sqrt or a float
tl.dot.
"""

# No `from __future__ import annotations`: Triton reads the annotations of kernels.
import triton
import triton.language as tl

from ...numerics.scalars import inverse

OPTIONS = {"enable_fp_fusion": False}
"""Options of every launch: PTX without fma, and ptxas with --fmad=false."""

TINY = tl.constexpr(2.0**-40)
"""Lower bound of the largest magnitude in a row, as in numerics/ops.py."""

_MAGIC = tl.constexpr(12582912.0)
"""1.5 * 2^23, which rounds a small number that is added to it to an integer."""

_MAGIC_BITS = tl.constexpr(0x4B400000)
"""The bits of _MAGIC."""

_LAST_STEP = tl.constexpr(22527.0)
"""Last index of the table of the exponential, where it is 0."""

_2_20 = tl.constexpr(2.0**-20)
_INVERSE_2047 = tl.constexpr(inverse(2047))
INVERSE_127 = tl.constexpr(inverse(127))


@triton.jit
def nearest(x):
    """Rounds x to int32, ties to even, for |x| <= 2^22.

    x + 1.5 * 2^23 is between 2^23 and 2^24, where floats are the integers: the one rounding of the sum is the wanted
    one, ties go to even because 1.5 * 2^23 is even, and the float's bits count up by one from integer to integer.
    """
    return (x + _MAGIC).to(tl.int32, bitcast=True) - _MAGIC_BITS


@triton.jit
def divide(x, y):
    """Computes x / y, rounded once: PTX div.rn; `/` would be div.full with an error of 2 units in the last place."""
    return tl.math.div_rn(x, y)


@triton.jit
def root(x):
    """Computes the correctly rounded square root: PTX sqrt.rn is IEEE's, and so is numpy's."""
    return tl.math.sqrt_rn(x)


@triton.jit
def exp2_entry(octave, steps, FLOOR: tl.constexpr = 0):
    """Computes E[min(steps, 22527), truncated] as int32 (numerics.md section 3), from one octave of the table.

    With k = 1024 n + f, E[k] = floor((B[f] + 2^(9+n)) / 2^(10+n)) = floor((floor(B[f] / 2^(9+n)) + 1) / 2), which
    stays below 2^31. With FLOOR, a model's floor_bits, it is the entry of masses instead (section 6.7). The 4 KiB of B
    stay in the innermost cache; the 88 KiB of E would not.

    Args:
        octave: pointer to the 1,024 int32 B[f].
        steps: float32 >= 0, may be infinite.
    """
    k = tl.minimum(steps, _LAST_STEP + 1024.0 * FLOOR).to(tl.int32)
    return ((tl.load(octave + (k & 1023)) >> ((k >> 10) + (9 - FLOOR))) + 1) >> 1


@triton.jit
def largest(x):
    """Computes max(max |x|, TINY) over the last axis: (R, C) to (R, 1)."""
    return tl.maximum(tl.max(tl.abs(x), 1), TINY)[:, None]


@triton.jit
def rms_factor(x, inverse, eps):
    """Computes 1 / sqrt(mean(x^2) + eps) of each row (numerics.md section 6.2).

    The sum of squares is at most 2047^2 C < 2^53 in int64.

    Args:
        x: (R, C) float32, C <= 2^17, 0 after the end of a row.
        inverse: 1 / number of values in a row, float32.
        eps: float32.

    Returns:
        (R, 1) float32.
    """
    peak = largest(x)
    whole = nearest(x * divide(2047.0, peak))
    scale = peak * _INVERSE_2047
    mean = tl.sum((whole * whole).to(tl.int64), 1)[:, None].to(tl.float32) * inverse * (scale * scale)
    return divide(1.0, root(mean + eps))


@triton.jit
def quantise127(x):
    """Computes Quantise(x, 127) of each row: (R, C) int8 and scales (R, 1) float32."""
    peak = largest(x)
    return nearest(x * divide(127.0, peak)).to(tl.int8), peak * INVERSE_127


@triton.jit
def silu_times(gate, up, octave, log2e):
    """Computes act(gate) * up (numerics.md section 6.5)."""
    e = exp2_entry(octave, tl.abs(gate) * log2e + 0.5).to(tl.float32) * _2_20
    return divide(tl.where(gate >= 0, gate, gate * e), 1.0 + e) * up
