"""Single numbers of the exact arithmetic that the kernels are given (docs/numerics.md sections 2 and 6)."""

from __future__ import annotations

import functools
from fractions import Fraction

from ...numerics import tables

KV_MAX = 127
"""Largest quantised key or value."""


def query_max(head_dim: int) -> int:
    """Returns the largest 2^n - 1 for which a dot product of a query and a key stays below 2^24."""
    return (1 << (((1 << 24) - 1) // (KV_MAX * head_dim)).bit_length() - 1) - 1


@functools.cache
def inverse(n: int) -> float:
    """Returns 1 / n as float32."""
    return tables.float32(Fraction(1, n))
