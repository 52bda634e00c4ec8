"""Lines and progress bars on the standard error. Knows no files, options or formats."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..system.filenames import printable
from ..system.process import StandardError, is_terminal
from .units import bits_per_byte_text, percentage_text, speed_text

if TYPE_CHECKING:
    from ..codec.report import StreamReport

PROGRAM = "llmzip"

_MAX_BAR_NAME = 24  # characters of a file's name beside a bar


class Messages:
    """Writes lines of the form `llmzip: FILE: reason`, and the progress bar.

    Args:
        verbosity: -2 for nothing, -1 for errors, 0 for summaries on a terminal only, 1 for summaries, 2 for all.
        progress: whether to show the bar; None for a bar on a terminal.
        debug: whether errors come with their traceback.
    """

    def __init__(self, verbosity: int = 0, progress: bool | None = None, debug: bool = False) -> None:
        self.verbosity = verbosity
        self.debug = debug
        on_terminal = is_terminal(2)
        self.shows_summary = verbosity > 0 or (verbosity == 0 and on_terminal)
        if progress is None:
            progress = on_terminal and verbosity >= 0 and os.environ.get("TERM") != "dumb"
        self.shows_progress = progress
        self._remarks: set[str] = set()

    def error(self, name: str | None, reason: str, error: BaseException | None = None) -> None:
        """Writes one line about what went wrong with a file, or with none."""
        if self.debug and error is not None:
            _write("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip())
        if self.verbosity >= -1:
            place = f"{PROGRAM}: {name}: " if name is not None else f"{PROGRAM}: "
            _write(printable(place + " ".join(reason.split())))

    def summary(self, name: str, text: str) -> None:
        """Writes one line about a file that went well."""
        if self.shows_summary:
            _write(printable(f"{name}: {text}"))

    def model_not_used(self, name: str, report: StreamReport, model: str) -> None:
        """Says, for -v, that a model named by the user was not used, so that nobody keeps it for the archive."""
        if self.verbosity >= 1 and report.model is None and report.original_bytes:
            methods = ", ".join(dict.fromkeys(frame.method for frame in report.frames))
            text = f"method {methods}: model {model} did not help here; the archive does not need it"
            _write(printable(f"{name}: {text}"))

    def detail(self, text: str) -> None:
        """Writes a line for -vv."""
        if self.verbosity >= 2:
            _write(printable(text))

    def fact(self, text: str) -> None:
        """Writes a line of a long task's log."""
        if self.verbosity >= 0:
            _write(printable(text))

    def notice(self, text: str) -> None:
        """Writes a line about the run, such as the start of a download."""
        self.fact(f"{PROGRAM}: {text}")

    def slower(self, reason: str) -> None:
        """Says, for -v and once for each reason, why this run is slower than it could be."""
        self.remark(f"slower than it could be: {reason}")

    def remark(self, text: str) -> None:
        """Writes a line about the run, for -v and once for each text."""
        if self.verbosity >= 1 and text not in self._remarks:
            self._remarks.add(text)
            _write(printable(f"{PROGRAM}: {text}"))

    def stopped(self, signal_name: str, consequence: str = "unfinished output is removed") -> None:
        """Says that a signal ended the run.

        Called from a signal handler, so it uses no buffered stream: the handler may have interrupted its use.
        """
        if self.verbosity >= -1:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{PROGRAM}: stopped by {signal_name}; {consequence}\n".encode())

    @contextlib.contextmanager
    def progress(self, name: str, total_bytes: int | None) -> Iterator[Callable[[int], Any] | None]:
        """Shows a bar over the original bytes; yields the function that advances it, or None if there is no bar."""
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
    def counting(self, unit: str) -> Iterator[Callable[[int], Any]]:
        """Shows a growing number of things that are being found; yields the function that adds to it."""
        if not self.shows_progress:
            yield lambda count: None
            return
        from tqdm import tqdm

        with tqdm(file=StandardError(), unit=f" {unit}", leave=False, dynamic_ncols=True) as bar:
            yield bar.update

    @contextlib.contextmanager
    def stages(self, name: str) -> Iterator[Callable[[str], Any] | None]:
        """Shows what is being done with a file; yields the function that shows a text, or None if nothing is shown."""
        if not self.shows_progress:
            yield None
            return
        from tqdm import tqdm

        shown = printable(os.path.basename(name))
        with tqdm(
            desc=shown, file=StandardError(), bar_format="{desc} [{elapsed}]", leave=False, dynamic_ncols=True
        ) as line:
            yield lambda text: line.set_description_str(f"{shown}: {text}")

    @contextlib.contextmanager
    def steps(self, total: int, done: int) -> Iterator[Callable[[str], Any]]:
        """Shows a bar over training steps; yields the function that advances it by one step and shows a text."""
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


# -- texts about a file ----------------------------------------------------------------------------------------------


def summary_text(report: StreamReport, *, decoding: bool) -> str:
    """Returns the line that -v shows for a file."""
    original, compressed = report.original_bytes, report.compressed_bytes
    first, second = (compressed, original) if decoding else (original, compressed)
    text = f"{first:,} -> {second:,} bytes"
    if original:
        text += f" ({percentage_text(original, compressed)}, {bits_per_byte_text(original, compressed)} bits/byte)"
        text += f", {speed_text(original, report.elapsed_seconds)}"
    return text


def detail_texts(report: StreamReport) -> list[str]:
    """Returns the lines that -vv adds: the model, then the frames."""
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
