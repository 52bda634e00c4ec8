"""Whole bits of a scored text: integers that are the same on every machine and add up to the same sum in any order.

A sum of logarithms has other last digits on other processors, and rounded up it is another integer once in a long
while. So near a whole number the integers that the logarithms were taken of decide.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..engines.frequencies import TOTAL_BITS

if TYPE_CHECKING:
    from .scoring import Scores

_SLACK_BITS = 1e-12
"""More than the difference of two logarithms of 64-bit integers can be wrong by: a few units of 2^-47."""


def coded_bits(scores: Scores) -> int:
    """Returns the bits that method lm pays for a text, rounded up: `Scores.coded_bits`, summed up exactly.

    Raises:
        ValueError: the scores come without their integers.
    """
    products = _integers(scores)[0]
    return whole_bits(np.full(len(products), 1 << 2 * TOTAL_BITS, dtype=np.int64), products)


def model_bits(scores: Scores) -> int:
    """Returns the bits of a text by the model itself, rounded up: `entropy.total`, summed up exactly.

    Raises:
        ValueError: the scores come without their integers.
    """
    _, masses, sums = _integers(scores)
    return whole_bits(2 * sums, np.maximum(2 * masses, 1))  # a mass that was rounded to 0 counts as a half


def whole_bits(numerators: np.ndarray, denominators: np.ndarray) -> int:
    """Returns the sum of log2(numerator / denominator), rounded up, without any error.

    Args:
        numerators: (N,) int64, 1 to 2^62.
        denominators: (N,) int64, 1 to the numerator.
    """
    bits = math.fsum(np.log2(numerators) - np.log2(denominators))
    slack = _SLACK_BITS * len(numerators)
    rounded = math.ceil(bits + slack)
    return rounded if math.ceil(bits - slack) == rounded else _exact(numerators, denominators)


def _exact(numerators: np.ndarray, denominators: np.ndarray) -> int:
    """Returns what `whole_bits` does, from products of all integers."""
    numerator, denominator = _product(numerators.tolist()), _product(denominators.tolist())
    bits = numerator.bit_length() - denominator.bit_length()
    return bits + (denominator << bits < numerator)


def _product(factors: list[int]) -> int:
    """Returns the product of integers; pairs of similar length multiply much faster than one by one."""
    while len(factors) > 1:
        factors = [math.prod(factors[place : place + 2]) for place in range(0, len(factors), 2)]
    return factors[0] if factors else 1


def _integers(scores: Scores) -> np.ndarray:
    if scores.integers is None:
        raise ValueError("these scores have bits only, without the integers that they were computed from")
    return scores.integers
