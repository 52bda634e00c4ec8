"""The seconds that an estimate may take, and what it is doing meanwhile; must not know what the work is."""

from __future__ import annotations

import time
from collections.abc import Callable

DEFAULT_SECONDS = 10.0
"""Seconds that an estimate takes, loading apart, unless another number is asked for."""

Report = Callable[[str], object]
"""Called with what is done next, for people who wait."""


_clock = time.perf_counter


def now() -> float:
    """Returns the seconds of a clock that never goes back."""
    return _clock()


class Budget:
    """Seconds from now on. Work is priced by what less of it took, and is begun only if there is time for it.

    Args:
        seconds: for all of the work.
        report: called with what is done next; None for nobody to call.

    Attributes:
        seconds: the same.
    """

    def __init__(self, seconds: float, report: Report | None = None) -> None:
        self.seconds = seconds
        self._end, self._report = now() + seconds, report

    @property
    def left(self) -> float:
        """Seconds that are left, 0 if there are none."""
        return max(0.0, self._end - now())

    def at_least(self, seconds: float) -> Budget:
        """Returns a budget of what is left, or of some seconds if that is less."""
        return Budget(max(self.left, seconds), self._report)

    def says(self, text: str) -> None:
        """Reports what is done next."""
        if self._report is not None:
            self._report(text)
