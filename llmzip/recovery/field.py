"""Arithmetic in GF(2^16) on arrays of words, and the additive Fourier transform over it (format section 5b).

The transform is that of Lin, Chung and Han (arXiv 1404.3458): polynomials in the basis X_j, the product of the
normalised subspace polynomials s_i for the bits i of j. X_j has degree j.
"""

from __future__ import annotations

import functools

import numpy as np

BITS = 16
ORDER = (1 << BITS) - 1
"""Number of the elements other than 0, 65,535."""

_POLYNOMIAL = 0x1100B
_LOG_ZERO = 2 * ORDER
"""Stands for the logarithm of 0: with any other added, it indexes a zero of the table of powers."""


@functools.cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """Returns (65,536,) int32 logarithms, and uint16 powers for sums of two of these."""
    powers = np.zeros(2 * _LOG_ZERO + 1, dtype=np.uint16)
    logs = np.zeros(ORDER + 1, dtype=np.int32)
    value = 1
    for exponent in range(ORDER):
        powers[exponent] = powers[exponent + ORDER] = value
        logs[value] = exponent
        value <<= 1
        if value > ORDER:
            value ^= _POLYNOMIAL
    logs[0] = _LOG_ZERO
    return logs, powers


def multiply(words: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns the products of uint16 words and factors, whose shapes must broadcast."""
    logs, powers = tables()
    product: np.ndarray = powers[logs[words] + logs[factors]]
    return product


def product(first: int, second: int) -> int:
    """Returns the product of two elements."""
    logs, powers = tables()
    return int(powers[int(logs[first]) + int(logs[second])])


def inverse(value: int) -> int:
    """Returns the inverse of an element other than 0."""
    logs, powers = tables()
    return int(powers[(ORDER - int(logs[value])) % ORDER])


@functools.cache
def _subspaces() -> tuple[np.ndarray, np.ndarray]:
    """Returns what the normalised subspace polynomials are made of.

    Returns:
        (16, 16) uint16: the values of s_i at 2^b, from which those at all elements follow, because s_i is linear;
        (16,) uint16: the derivatives of s_i, which are constants.
    """
    values = np.zeros((BITS, BITS), dtype=np.uint16)
    slopes = np.zeros(BITS, dtype=np.uint16)
    row, slope = [1 << bit for bit in range(BITS)], 1
    for level in range(BITS):
        scale = inverse(row[level])
        values[level] = [product(value, scale) for value in row]
        slopes[level] = product(slope, scale)
        # The next one is s(x) * s(x + 2^level) = s(x)^2 + s(x) s(2^level); the derivative of a square is 0.
        top = row[level]
        row, slope = [product(value, value) ^ product(value, top) for value in row], product(slope, top)
    return values, slopes


@functools.lru_cache(4096)
def _factors(level: int, first: int, count: int) -> np.ndarray:
    """Returns s_level at `count` points first, first + 2^(level + 1), ..., (count, 1, 1) uint16."""
    points = first + (np.arange(count, dtype=np.int64) << (level + 1))
    values, _ = _subspaces()
    found = np.zeros(count, dtype=np.uint16)
    for bit in range(level, BITS):
        found ^= np.where(points >> bit & 1, values[level, bit], 0).astype(np.uint16)
    return found[:, None, None]


def evaluate(words: np.ndarray, first: int) -> None:
    """Turns coefficients into values in place.

    Args:
        words: (n, columns) uint16, n a power of two: coefficients of X_0 ... X_(n - 1), then values at n points.
        first: the first point, a multiple of n.
    """
    size, columns = words.shape
    for level in reversed(range(size.bit_length() - 1)):
        pairs = words.reshape(-1, 2, 1 << level, columns)
        low, high = pairs[:, 0], pairs[:, 1]
        low ^= multiply(high, _factors(level, first, len(pairs)))
        high ^= low


def interpolate(words: np.ndarray, first: int) -> None:
    """Turns values at n points from `first` on into coefficients, in place: what `evaluate` does, backwards."""
    size, columns = words.shape
    for level in range(size.bit_length() - 1):
        pairs = words.reshape(-1, 2, 1 << level, columns)
        low, high = pairs[:, 0], pairs[:, 1]
        high ^= low
        low ^= multiply(high, _factors(level, first, len(pairs)))


def differentiate(words: np.ndarray) -> np.ndarray:
    """Returns the coefficients of the formal derivative, (n, columns) uint16.

    The derivative of X_j is the sum, over the bits i of j, of X_(j - 2^i) times the derivative of s_i.
    """
    size, columns = words.shape
    _, slopes = _subspaces()
    found = np.zeros_like(words)
    for level in range(size.bit_length() - 1):
        source = words.reshape(-1, 2, 1 << level, columns)
        target = found.reshape(-1, 2, 1 << level, columns)
        target[:, 0] ^= multiply(source[:, 1], slopes[level])
    return found
