"""A benchmark from files to results. A listener prints it as it goes; it knows no options and no terminal.

Each row is logged as soon as it is measured, so that an interrupted run continues where it was.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..system.filenames import FileProblem
from . import chart, measure, report, results
from .results import FAILED, OK, Row, Total


class Listener(Protocol):
    """Hears how a benchmark goes."""

    def problem(self, path: Path, error: OSError) -> None:
        """A file cannot be measured."""

    def file(self, text: measure.Text) -> None:
        """The measurements of a file, whole or in pieces, begin."""

    def measuring(self, text: measure.Text, contender: measure.Contender) -> None:
        """A compressor's measurement of a file begins."""

    def row(self, row: Row) -> None:
        """A row is complete: measured now or known from the log."""

    def broken_promise(self, file: str, compressor: str) -> None:
        """An archive of llmzip is larger than promised."""

    def totals(self, totals: Sequence[Total]) -> None:
        """The totals of several files are complete, for one length of pieces."""


@dataclass
class Run:
    """A benchmark in progress.

    Attributes:
        listener: what hears how it goes.
        contenders: the compressors.
        cuts: lengths of pieces in bytes; None for whole files.
        repeat: runs of each direction; None to choose by the compressor.
        timeout: seconds that each direction of another compressor may take.
        rows: the rows so far.
        problems: files that could not be read, and why, as in results.json.
        log: file that takes each row; None for none.
        known: rows that were measured before, by their keys.
        has_failed: whether a file, a row or a promise failed.
    """

    listener: Listener
    contenders: list[measure.Contender]
    cuts: list[int | None]
    repeat: int | None
    timeout: float
    rows: list[Row] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    log: Path | None = None
    known: dict[tuple[object, ...], Row] = field(default_factory=dict)
    has_failed: bool = False

    def problem(self, path: Path, error: OSError) -> None:
        """Notes a file that cannot be measured."""
        self.has_failed = True
        self.problems.append({"file": str(path), "error": error.strerror or str(error)})
        self.listener.problem(path, error)

    def open_log(self, folder: Path, *, again: bool) -> None:
        """Reads the rows that a folder already has, and makes sure that more can be written.

        Args:
            folder: folder of the results; made if necessary.
            again: whether to measure known rows again.

        Raises:
            FileProblem: the log cannot be read or written.
        """
        self.log = folder / "results.jsonl"
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("a+b") as file:
                file.seek(0)
                text = file.read()
                if text and not text.endswith(b"\n"):  # half a line, from a run that was killed
                    file.write(b"\n")
        for line in [] if again else text.splitlines():
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                row = Row.from_dict(json.loads(line))
                if row.status == OK and min(row.compress_times) and min(row.decompress_times):
                    self.known[row.key] = row

    def file(self, path: Path, name: str, folder: Path) -> None:
        """Measures all rows of a file.

        Args:
            path: the file.
            name: the name to show.
            folder: folder for its pieces; emptied first.
        """
        for cut in self.cuts:
            try:
                text = measure.read_text(path, name, folder, cut)
            except OSError as error:
                self.problem(path, error)
                return
            self.listener.file(text)
            for contender in self.contenders:
                row = self._row(text, contender)
                self.rows.append(row)
                self.has_failed |= row.status == FAILED
                self.listener.row(row)

    def _row(self, text: measure.Text, contender: measure.Contender) -> Row:
        """Returns a known row, or measures it."""
        blank = measure.row_without_figures(text, contender)
        row = self.known.get(blank.key)
        if row is not None and len(row.compress_times) >= (self.repeat or 1):
            return row
        if text.piece_bytes is not None and len(text.folders) == 1:
            # The file is not longer than a piece: it has just been measured whole.
            whole = next((row for row in self.rows if row.key == replace(blank, piece_bytes=None).key), None)
            if whole is not None:
                return replace(whole, piece_bytes=text.piece_bytes)
        self.listener.measuring(text, contender)
        row = measure.measure(text, contender, self.repeat, self.timeout)
        if self.log is not None:
            with _explained(self.log), self.log.open("ab") as file:
                file.write(json.dumps(row.to_dict()).encode() + b"\n")
        return row

    def finish(self) -> None:
        """Checks llmzip's promise, and sums up if there are several files."""
        for file, name in results.broken_promises(self.rows):
            self.has_failed = True
            self.listener.broken_promise(file, name)
        if len({row.file for row in self.rows}) < 2:
            return
        totals = results.totals(self.rows)
        for cut in dict.fromkeys(total.piece_bytes for total in totals):
            self.listener.totals([total for total in totals if total.piece_bytes == cut])

    def write(self, folder: Path, facts: dict[str, Any]) -> str | None:
        """Writes the files of --output.

        Args:
            folder: folder of the results.
            facts: machine, command line and settings.

        Returns:
            why there is no chart; None if there is one.

        Raises:
            FileProblem: a file cannot be written.
        """
        with _explained(folder):
            everything = report.to_json(self.rows, self.problems, facts)
            for name, text in (
                ("results.json", json.dumps(everything, indent=1) + "\n"),
                ("results.csv", report.to_csv(self.rows)),
                ("results.md", report.to_markdown(self.rows, self.problems, facts)),
            ):
                (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            return chart.draw(results.totals(self.rows), folder)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns a system's error about a file into a FileProblem that names the file."""
    try:
        yield
    except OSError as error:
        raise FileProblem(f"{error.filename or path}: {error.strerror}") from error
