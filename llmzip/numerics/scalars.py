"""Numbers of docs/numerics.md that need no tensors: bounds of quantised values and their inverses; imports no torch."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

from . import tables

TINY = 2.0**-40
"""Lower bound of the largest magnitude in a row, so that no scale is subnormal."""

ACT_MAX = 127
"""Largest quantised activation in one int8 plane."""

ACT_MAX_2 = 32512
"""Largest quantised activation in two int8 planes: 127 * 256."""

NORM_MAX = 2047
"""Largest quantised value in the sums of a norm: 11 bits."""

KV_MAX = 127
"""Largest quantised key or value."""

WEIGHT_SUM = 131072.0
"""About the sum of the integer attention weights of one query: 2^17."""

VALUE_KEYS = 2048
"""Keys whose weighted sum of values is exact in float32: 127 * (2^17 + 1 + 2048 / 2) < 2^24."""


def query_max(head_dim: int) -> int:
    """Returns the largest 2^n - 1 for which a dot product of a query and a key stays below 2^24."""
    return (1 << (((1 << 24) - 1) // (KV_MAX * head_dim)).bit_length() - 1) - 1


@cache
def inverse(n: int) -> float:
    """Returns 1 / n as float32."""
    return tables.float32(Fraction(1, n))
