"""How a run's files fared: each failure becomes one line, one record and a part of the exit status."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ..errors import EXIT_FAILED, EXIT_OK
from ..system.failures import explain
from ..system.filenames import FileProblem
from ..system.process import STDIN
from ..system.streams import OutputError
from .messages import Messages
from .records import json_error


class OtherFileProblem(FileProblem):
    """A problem with another file than the input, such as its output.

    Args:
        name: name of that file; the message begins with it.
        text: the reason.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Recorder(Protocol):
    """Writes the JSON record of a failure."""

    def __call__(self, name: str | None, /, **facts: Any) -> None:
        """Writes one record.

        Args:
            name: name of the file; None for the standard input, or if the failure belongs to no file.
            facts: other fields; the key `error` is among them.
        """


class Outcomes:
    """Collects the failures of a run. A file that fails does not stop the others.

    Args:
        messages: where the user reads about each failure.
        record: writes the record of each failure.
    """

    def __init__(self, messages: Messages, record: Recorder) -> None:
        self._messages = messages
        self._record = record
        self._codes: list[int] = []

    @property
    def exit_status(self) -> int:
        """Exit status of the run so far."""
        return overall_exit_status(self._codes)

    def add(self, status: int) -> None:
        """Adds the exit status of failures that were reported already; EXIT_OK adds none."""
        if status != EXIT_OK:
            self._codes.append(status)

    @contextlib.contextmanager
    def of_file(self, name: str | None, **facts: Any) -> Iterator[None]:
        """Reports an error of the block as a failure of a file, then continues after the block.

        Args:
            name: name of the file; None for the standard input.
            facts: other fields of the record.

        Raises:
            BrokenPipeError: nobody reads the standard output any more.
            OutputError: the standard output cannot be written.
        """
        place = shown_name(name)
        with self._caught(name, place, facts):
            yield

    @contextlib.contextmanager
    def of_run(self, **facts: Any) -> Iterator[None]:
        """Reports an error of the block as a failure that belongs to no file; otherwise like `of_file`."""
        with self._caught(None, None, facts):
            yield

    @contextlib.contextmanager
    def _caught(self, name: str | None, place: str | None, facts: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except (BrokenPipeError, OutputError):
            raise
        except Exception as error:
            status, reason = self.report(error, place)
            self._record(name, **facts, error=json_error(status, error, reason))

    def report(self, error: Exception, place: str | None) -> tuple[int, str]:
        """Prints one line about an error and adds it to the exit status, without a record.

        Args:
            error: what went wrong.
            place: what the line begins with, usually a file's name; None for nothing.

        Returns:
            the exit status of this error alone, and its reason in one line.
        """
        status, reason = explain(error, place)
        self._codes.append(status)
        self._messages.error(error.name if isinstance(error, OtherFileProblem) else place, reason, error)
        return status, reason


def shown_name(name: str | None) -> str:
    """Returns what people read for an input's name; None stands for the standard input."""
    return STDIN if name is None else name


def overall_exit_status(statuses: Sequence[int]) -> int:
    """Returns the exit status of a run: that of its failures if all are of one kind, else the general one."""
    kinds = set(statuses)
    if not kinds:
        return EXIT_OK
    return kinds.pop() if len(kinds) == 1 else EXIT_FAILED
