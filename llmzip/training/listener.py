"""The protocol for reporting a training. Must not know trainings, or where the lines end up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Listener(Protocol):
    """Takes the lines and the progress of a training; the command line's messages do."""

    def fact(self, text: str) -> None:
        """Takes a line of the log."""

    def notice(self, text: str) -> None:
        """Takes a line that matters even where nothing else is asked for."""

    def error(self, name: str | None, reason: str, error: BaseException | None = None) -> None:
        """Takes a line about what went wrong with a file, or with none."""

    def stopped(self, signal_name: str, what: str) -> None:
        """Takes a line in a signal handler: what stopped the training and what is left of it."""

    def progress(self, name: str, total_bytes: int | None) -> AbstractContextManager[Callable[[int], Any] | None]:
        """Begins a part of the work over bytes, None if their number is unknown.

        Returns:
            a context with the function that counts bytes, None if nobody looks.
        """
        ...

    def steps(self, total: int, done: int) -> AbstractContextManager[Callable[[str], Any]]:
        """Begins the steps of a training, of which some may be done.

        Returns:
            a context with the function that counts one step and takes its result as text.
        """
        ...
