"""A benchmark from files to results: what is measured, printed and written, in order; must not know options.

Rows go to a log as they come, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..system.filenames import FileProblem, input_name, is_same_file
from ..system.fileops import open_source
from ..system.process import STDIN
from . import chart, measure, results
from .results import FAILED, OK, Row, Total


class Output(Protocol):
    """Where results are printed as they come."""

    def line(self, text: str) -> None:
        """A line for people."""

    def record(self, **facts: Any) -> None:
        """A record for programs."""


class Messages(Protocol):
    """Where the user is told what happens."""

    def error(self, name: str | None, reason: str, error: BaseException | None = None) -> None:
        """One line about what went wrong with a file, or with none."""

    def summary(self, name: str, text: str) -> None:
        """One line about a file."""

    def fact(self, text: str) -> None:
        """One line about the run."""


_LINE = "  {:<36} {:>12} {:>6} {:>9} {:>9} {:>10} {:>10} {:>10} {:>13}"
_HEADING = _LINE.format(
    "compressor", "bytes", "ratio", "bits/byte", "bits/char", "with model", "compress", "decompress", "memory MB"
)


# -- files -----------------------------------------------------------------------------------------------------------


_WRITTEN = ("results.json", "results.csv", "results.md", "chart.png", "chart.svg", "results.jsonl")


def find_files(
    names: Sequence[str], copies: Path, most_bytes: int | None, text_only: bool, run: Run
) -> list[tuple[Path, str]]:
    """Files and the names that they are shown by, once each; what cannot be read is a problem of the run.

    Args:
        names: files, folders, pipes, and - for the standard input.
        copies: a folder that gets the content of pipes, which can be read only once.

    Raises:
        FileProblem: nothing is left to measure, and nothing was wrong.
    """
    found: dict[Path, tuple[Path, str]] = {}
    for number, given in enumerate(names):
        name = STDIN if input_name(given) is None else given
        root = Path(given)
        if name == STDIN or root.is_fifo():
            root = copies / f"stream-{number}"
            try:
                _copy(given, root)
            except OSError as error:
                run.problem(Path(name), error)
                continue
        for path in _below(root, run):
            try:
                size = path.stat().st_size
                if most_bytes is not None and size > most_bytes:
                    continue
                if text_only and not _is_text(path):
                    continue
                # A file bears the name that was given, as in every other command; one of a folder, the folder's too.
                shown = f"{root.resolve().name}/{path.relative_to(root)}" if root.is_dir() else name
                found.setdefault(path.resolve(), (path, shown))
            except OSError as error:
                run.problem(path, error)
    files = list(found.values())
    if not files and not run.problems:
        raise FileProblem("there is no file to measure; see --most-bytes and --text-only")
    names_shown = [name for _, name in files]
    return [(path, name if names_shown.count(name) == 1 else str(path)) for path, name in files]


def _copy(name: str, path: Path) -> None:
    with open_source(input_name(name)) as source, path.open("wb") as copy:
        shutil.copyfileobj(source.file, copy)


def check_results(folder: Path, files: Sequence[tuple[Path, str]]) -> None:
    """Refuses a folder for results where they would replace a text that is to be measured.

    Raises:
        FileProblem: naming the text.
    """
    for path, name in files:
        if any(is_same_file(str(path), str(folder / written)) for written in _WRITTEN):
            raise FileProblem(f"{name}: would be overwritten by the results; use another folder with --output")


def _below(root: Path, run: Run) -> Iterator[Path]:
    """The file itself, or all files of a folder and its folders but hidden ones."""
    if not root.is_dir():
        if root.exists() and not root.is_file():
            run.problem(root, OSError(0, "is no regular file"))
        elif not root.exists():
            run.problem(root, FileNotFoundError(0, "No such file or directory"))
        else:
            yield root
        return

    def failed(error: OSError) -> None:
        run.problem(Path(error.filename or root), error)

    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _is_text(path: Path) -> bool:
    """At most one byte in twenty is NUL: the Calgary corpus has some in its texts."""
    with path.open("rb") as file:
        nuls = sum(data.count(b"\0") for data in iter(lambda: file.read(1 << 20), b""))
    return 20 * nuls < max(1, path.stat().st_size)


# -- the run ---------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What goes on: measures, prints, keeps a log.

    Attributes:
        problems: files that could not be read.
    """

    output: Output
    messages: Messages
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
        """A file that cannot be measured."""
        text = error.strerror or str(error)
        self.has_failed = True
        self.messages.error(str(path), text, error)
        self.problems.append({"file": str(path), "error": text})
        self.output.record(record="problem", file=str(path), error=text)

    def open_log(self, folder: Path, again: bool) -> None:
        """Reads what is there, and makes sure that more can be written.

        Raises:
            FileProblem: it cannot.
        """
        self.log = folder / "results.jsonl"
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("a+b") as file:
                file.seek(0)
                text = file.read()
                if text and not text.endswith(b"\n"):  # half a line, of a run that was killed
                    file.write(b"\n")
        for line in [] if again else text.splitlines():
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                row = Row.from_dict(json.loads(line))
                if row.status == OK and min(row.compress_times) and min(row.decompress_times):
                    self.known[row.key] = row

    def file(self, path: Path, name: str, folder: Path) -> None:
        """All rows of a file."""
        for cut in self.cuts:
            try:
                text = measure.read_text(path, name, folder, cut)
            except OSError as error:
                self.problem(path, error)
                return
            self._heading(text)
            for contender in self.contenders:
                self._add(self._row(text, contender))

    def _row(self, text: measure.Text, contender: measure.Contender) -> Row:
        blank = measure.row_without_figures(text, contender)
        row = self.known.get(blank.key)
        if row is not None and len(row.compress_times) >= (self.repeat or 1):
            return row
        if text.piece_bytes is not None and len(text.folders) == 1:
            # The file is no longer than a piece: it was measured a moment ago.
            whole = next((r for r in self.rows if r.key == replace(blank, piece_bytes=None).key), None)
            if whole is not None:
                return replace(whole, piece_bytes=text.piece_bytes)
        self.messages.summary(text.name, f"{contender.label}, {results.cut_text(text.piece_bytes)}")
        row = measure.measure(text, contender, self.repeat, self.timeout)
        if self.log is not None:
            with _explained(self.log), self.log.open("ab") as file:
                file.write(json.dumps(row.to_dict()).encode() + b"\n")
        return row

    def _heading(self, text: measure.Text) -> None:
        count = "no UTF-8, so no bits/char" if text.characters is None else f"{text.characters:,} characters"
        if not text.size_bytes:
            count = "empty, so no ratio"
        cut = "" if text.piece_bytes is None else f", {len(text.folders):,} pieces of {text.piece_bytes:,} bytes"
        self.output.line(f"{text.name}: {text.size_bytes:,} bytes, {count}{cut}")
        self.output.line(_HEADING)

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        self.output.record(record="row", **row.to_dict())
        self._line(row)
        if row.status == FAILED:
            self.has_failed = True
            self.messages.error(row.file, f"{row.name}: {row.error}")

    def _line(self, row: Row | Total) -> None:
        texts = results.cells(row)
        remark = results.remark(row)
        # With the model only bits/byte are shown: the line is long enough.
        line = f"  {row.name:<36} {remark}" if remark else _LINE.format(row.name, *texts[:4], *texts[5:])
        self.output.line(line)

    def finish(self) -> None:
        """Prints the totals, and says where llmzip broke its promise."""
        for file, name in results.broken_promises(self.rows):
            self.has_failed = True
            self.messages.error(file, f"{name}: larger than promised: xz -9e or zstd -19, 0.1 % and 16 bytes")
        if len({row.file for row in self.rows}) < 2:
            return
        found = results.totals(self.rows)
        for cut in dict.fromkeys(total.piece_bytes for total in found):
            chosen = [total for total in found if total.piece_bytes == cut]
            size = max((total.original_bytes for total in chosen if total.is_complete), default=0)
            self.output.line(f"all {chosen[0].of_files} files, {results.cut_text(cut)}: {size:,} bytes")
            self.output.line(_HEADING)
            for total in chosen:
                self.output.record(record="total", **total.to_dict())
                self._line(total)

    def write(self, folder: Path, facts: dict[str, Any]) -> None:
        """The files of --output.

        Raises:
            FileProblem: they cannot be written.
        """
        with _explained(folder):
            whole = results.to_json(self.rows, self.problems, facts)
            for name, text in (
                ("results.json", json.dumps(whole, indent=1) + "\n"),
                ("results.csv", results.to_csv(self.rows)),
                ("results.md", results.to_markdown(self.rows, self.problems, facts)),
            ):
                (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            missing = chart.draw(results.totals(self.rows), folder)
        if missing is not None:
            self.messages.fact(f"llmzip: no chart: {missing}")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileProblem(f"{error.filename or path}: {error.strerror}") from error
