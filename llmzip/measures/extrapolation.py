"""Extrapolation from the numbers of a sample to those of a whole text, with a range; plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

_LATEST = 0.75
"""Weight of what the sample's last doubling gained; the rest is what the one before gained."""

_LASTING = (0.9, 1.0, 0.8)
"""Factors of the gain from one doubling of the text to the next: the likeliest, and the two ends of the range."""


class Range(NamedTuple):
    """A number that is not known exactly: the likeliest value and its range."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Range:
        """Returns the range of a number that is known."""
        return cls(value, value, value)

    def scaled(self, factor: float, more: float = 0.0) -> Range:
        """Returns all three numbers times a factor, and something added."""
        return Range(self.value * factor + more, self.low * factor + more, self.high * factor + more)

    def spread(self, part: float) -> Range:
        """Returns a wider range.

        Args:
            part: by which each side grows, as a part of it; the lower one by 0.9 at most.
        """
        return Range(self.value, self.low * (1 - min(part, 0.9)), self.high * (1 + part))


def growth(rates: Sequence[float], doublings: float) -> Range:
    """Returns by what factor the bits per byte of a text change while it becomes longer.

    Args:
        rates: bits per byte of a fourth of a sample, of half of it, and of all of it.
        doublings: from the sample to the text; may be below 0.
    """
    older, newer = (math.log2(rates[n + 1] / rates[n]) for n in range(2))
    gain = min(0.0, _LATEST * newer + (1 - _LATEST) * older)

    def factor(lasting: float) -> float:
        times = doublings if lasting == 1 else lasting * (1 - lasting**doublings) / (1 - lasting)
        return float(2 ** (gain * times))

    value, low, high = map(factor, _LASTING)
    return Range(value, min(value, low, high), max(value, low, high))


def standard_error(bits: Sequence[float] | np.ndarray, sizes: Sequence[float] | np.ndarray) -> float:
    """Returns the standard error of a sum of bits by a sum of bytes, from the pieces' own ratios, as a part of it."""
    import numpy as np

    bits, sizes = np.asarray(bits, dtype=float), np.asarray(sizes, dtype=float)
    count = len(bits)
    if count < 2 or not bits.sum():
        return 0.0
    rest = bits - sizes * bits.sum() / sizes.sum()
    return float(math.sqrt(float((rest**2).sum()) / (count * (count - 1))) / bits.mean())
