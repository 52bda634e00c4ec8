"""What samples take, by what smaller samples took, and how much is timed within some seconds; runs no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .trial import MAX_STEPS, MIN_STEPS

if TYPE_CHECKING:
    from .trial import Coded, Decoded

FIRST_STEPS = 16
"""Steps of the first sample, which the second and third double."""

_PREFILL_TOKENS = 4096
"""Tokens of a prefill of short rows that is timed."""

_MIN_DEPTH, _MIN_PREFILL_TOKENS = 64, 256
"""What is timed of later steps and tokens at least, however little time there is."""


class Prices(NamedTuple):
    """Seconds that work took, to tell beforehand what more of it will take.

    Attributes:
        token: of each token, when rows are coded.
        step: of each step of `rows` rows, when they are decoded.
        rows: how many.
    """

    token: float
    step: float
    rows: int

    @classmethod
    def of(cls, coded: Coded, decoded: Decoded) -> Prices:
        """Returns the prices by a sample that was coded, and by one that was decoded."""
        return cls(coded.seconds / coded.tokens.size, decoded.seconds / decoded.steps, decoded.rows)

    def steps(self, rows: int, steps: int) -> float:
        """Returns the seconds that decoding takes: each further row costs a step at most what coding a token does."""
        return steps * (self.step + max(0, rows - self.rows) * self.token)

    def first_samples(self, rows: int) -> float:
        """Returns the seconds of three samples, each twice as long as the one before, of which the first is decoded."""
        return 7 * FIRST_STEPS * rows * self.token + self.steps(rows, FIRST_STEPS)


class Timed(NamedTuple):
    """How much is timed of what longer and more rows cost.

    Attributes:
        depth: tokens before the latest steps, and of each row of a prefill of long rows.
        steps: that are timed at each depth.
        tokens: of a prefill of short rows.
        repeats: of each prefill.
    """

    depth: int
    steps: int
    tokens: int
    repeats: int

    @classmethod
    def within(cls, seconds: float, length: int, long_rows: int, step_seconds: float, prices: Prices) -> Timed:
        """Returns as much as there is time for, of what is timed at most.

        Args:
            length: tokens up to which steps and tokens take longer and longer.
            long_rows: rows of the prefill of long rows.
            step_seconds: of all rows of a frame, about.
        """
        price = 3 * MAX_STEPS * step_seconds + (2 * (1 + long_rows) * length + 2 * _PREFILL_TOKENS) * prices.token
        part = min(1.0, seconds / price)
        return cls(
            min(length, max(_MIN_DEPTH, int(part * length))),
            max(MIN_STEPS, int(part * MAX_STEPS)),
            max(_MIN_PREFILL_TOKENS, int(part * _PREFILL_TOKENS)),
            2 if part == 1 else 1,
        )
