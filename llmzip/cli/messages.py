"""What the user reads on the standard error: lines, numbers, progress; must not know files, options or the format."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..system.filenames import printable
from ..system.process import StandardError, is_terminal

if TYPE_CHECKING:
    from ..codec.report import StreamReport
    from ..inference.load import Kernels

PROGRAM = "llmzip"

_MAX_BAR_NAME = 24


class Messages:
    """Lines of the form `llmzip: FILE: reason`, and the progress bar.

    Args:
        verbosity: -2 nothing, -1 errors, 0 also a summary if the standard error is a terminal, 1 a summary, 2 all.
        progress: True or False to have the bar or not; None for a bar on a terminal.
        debug: errors with their traceback.
    """

    def __init__(self, verbosity: int = 0, progress: bool | None = None, debug: bool = False) -> None:
        self.verbosity = verbosity
        self.debug = debug
        on_terminal = is_terminal(2)
        self.shows_summary = verbosity > 0 or (verbosity == 0 and on_terminal)
        if progress is None:
            progress = on_terminal and verbosity >= 0 and os.environ.get("TERM") != "dumb"
        self.shows_progress = progress
        self._said_slower = False

    def error(self, name: str | None, reason: str, error: BaseException | None = None) -> None:
        """One line about what went wrong with a file, or with none."""
        if self.debug and error is not None:
            _write("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip())
        if self.verbosity >= -1:
            place = f"{PROGRAM}: {name}: " if name is not None else f"{PROGRAM}: "
            _write(printable(place + " ".join(reason.split())))

    def summary(self, name: str, text: str) -> None:
        """One line about a file that went well."""
        if self.shows_summary:
            _write(printable(f"{name}: {text}"))

    def model_not_used(self, name: str, report: StreamReport, model: str) -> None:
        """For -v: that a model which was named was of no use, so that nobody keeps it for the archive's sake."""
        if self.verbosity >= 1 and report.model is None and report.original_bytes:
            methods = ", ".join(dict.fromkeys(frame.method for frame in report.frames))
            text = f"method {methods}: model {model} did not help here; the archive does not need it"
            _write(printable(f"{name}: {text}"))

    def detail(self, text: str) -> None:
        """A line for -vv."""
        if self.verbosity >= 2:
            _write(printable(text))

    def fact(self, text: str) -> None:
        """A line of a long work's log."""
        if self.verbosity >= 0:
            _write(printable(text))

    def slower(self, kernels: Kernels | None) -> None:
        """Once: why the model did not run as fast as it might."""
        if kernels is not None and kernels.is_slower and not self._said_slower:
            self._said_slower = True
            self.reason(kernels.text)

    def reason(self, text: str) -> None:
        """Why this run is slower than it might be, where a summary was asked for."""
        if self.verbosity >= 1:
            _write(f"{PROGRAM}: slower than it could be: {text}")

    def stopped(self, signal_name: str, what: str = "unfinished output is removed") -> None:
        """Called from a signal handler: no buffered stream here, it may be in use below us."""
        if self.verbosity >= -1:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{PROGRAM}: stopped by {signal_name}; {what}\n".encode())

    @contextlib.contextmanager
    def progress(self, name: str, total_bytes: int | None) -> Iterator[Callable[[int], Any] | None]:
        """A bar over the original bytes; gives the function that advances it, None if there is no bar."""
        if not self.shows_progress:
            yield None
            return
        from tqdm import tqdm  # here, because most runs have no bar and tqdm takes a while to import

        name = printable(os.path.basename(name))
        if len(name) > _MAX_BAR_NAME:
            name = name[: _MAX_BAR_NAME - 3] + "..."
        with tqdm(
            total=total_bytes,
            desc=name,
            file=StandardError(),
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            leave=False,
            dynamic_ncols=True,
        ) as bar:
            yield bar.update

    @contextlib.contextmanager
    def steps(self, total: int, done: int) -> Iterator[Callable[[str], Any]]:
        """A bar over the steps of a training; gives the function that advances it by one and tells how it goes."""
        if not self.shows_progress:
            yield lambda text: None
            return
        from tqdm import tqdm

        stderr = StandardError()
        with tqdm(total=total, initial=done, desc="training", file=stderr, leave=False, dynamic_ncols=True) as bar:

            def advance(text: str) -> None:
                bar.set_postfix_str(text, refresh=False)
                bar.update()

            yield advance


def _write(line: str) -> None:
    StandardError().write(line + "\n")


# -- numbers ---------------------------------------------------------------------------------------------------------


def ratio_text(original_bytes: int, compressed_bytes: int) -> str:
    """The compressed size in percent of the original."""
    return f"{100 * compressed_bytes / original_bytes:.1f} %" if original_bytes else "-"


def bits_per_byte_text(original_bytes: int, compressed_bytes: int) -> str:
    """Compressed bits per original byte."""
    return f"{8 * compressed_bytes / original_bytes:.2f}" if original_bytes else "-"


def speed_text(original_bytes: int, elapsed_seconds: float) -> str:
    """Original bytes per second; KB and MB are powers of ten, as in benchmarks."""
    speed = original_bytes / elapsed_seconds if elapsed_seconds > 0 else 0.0
    if speed >= 1e6:
        return f"{speed / 1e6:.1f} MB/s"
    if speed >= 1e3:
        return f"{speed / 1e3:.1f} KB/s"
    return f"{speed:.0f} B/s"


def summary_text(report: StreamReport, *, decoding: bool) -> str:
    """The line that -v shows for a file."""
    original, compressed = report.original_bytes, report.compressed_bytes
    first, second = (compressed, original) if decoding else (original, compressed)
    text = f"{first:,} -> {second:,} bytes"
    if original:
        text += f" ({ratio_text(original, compressed)}, {bits_per_byte_text(original, compressed)} bits/byte)"
        text += f", {speed_text(original, report.elapsed_seconds)}"
    return text


def detail_texts(report: StreamReport) -> list[str]:
    """The lines that -vv adds: the model, then the frames."""
    characters = "" if report.characters is None else f", {report.characters:,} characters"
    model = "none" if report.model is None else f"{report.model} ({report.kernels})"
    lines = [f"  model {model}{characters}, {report.elapsed_seconds:.2f} s"]
    for number, frame in enumerate(report.frames):
        lm = f", {frame.tokens:,} tokens in {frame.rows:,} rows" if frame.tokens else ""
        lines.append(
            f"  frame {number}: {frame.method}, {frame.original_bytes:,} original, "
            f"{frame.compressed_bytes:,} compressed bytes{lm}"
        )
    return lines
