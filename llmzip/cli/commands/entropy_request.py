"""What `llmzip entropy` was asked for, and whether its outputs can be made."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from ...measures import plots
from ...settings import CompressSettings
from ...system import filenames
from ...system.filenames import FileProblem

NUM_ALTERNATIVES = 5  # likely tokens that the page shows with each token


@dataclass(frozen=True)
class SpanRequest:
    """How --spans cuts a text.

    Attributes:
        rule: one of `surprisal.RULES`.
        percentile: percentage of the tokens that stay below the threshold.
        color: auto, always or never.
    """

    rule: str
    percentile: float
    color: str


@dataclass(frozen=True)
class EntropyRequest:
    """What the user asked for.

    Attributes:
        files: names of the texts as given; - is the standard input.
        models: names of the models.
        settings: engine and arithmetic of the models.
        contexts: context sizes in tokens; None for the model's own.
        stride: tokens that each pass scores; None for half of the context.
        piece_bytes: size of the pieces that are scored too; None for none.
        spans: how to print the text cut into spans; None to print rows.
        html: file of the page; None for none.
        plot: file of the plot; None for none.
        force: whether to overwrite files.
    """

    files: tuple[str, ...]
    models: tuple[str, ...]
    settings: CompressSettings
    contexts: tuple[int, ...] | None = None
    stride: int | None = None
    piece_bytes: int | None = None
    spans: SpanRequest | None = None
    html: str | None = None
    plot: str | None = None
    force: bool = False

    @property
    def num_alternatives(self) -> int:
        """Number of likely tokens that the scores must have for each token."""
        return 0 if self.html is None else NUM_ALTERNATIVES

    @property
    def plot_format(self) -> str:
        """Format of the plot, from its file's suffix."""
        return os.path.splitext(self.plot or "")[1].lower().lstrip(".")

    def check(self) -> None:
        """Finds what would fail after the work, before it begins.

        Raises:
            click.UsageError: options that exclude each other.
            FileProblem: an output exists, or there is no place for it.
            LLMZipError: matplotlib is missing.
        """
        is_single = len(self.files) == len(self.models) == len(self.contexts or (None,)) == 1
        for option, is_used in (("--html", self.html is not None), ("--spans", self.spans is not None)):
            if is_used and not is_single:
                raise click.UsageError(f"{option} takes one FILE, one --model and one --context")
        for option, file in (("--html", self.html), ("--plot", self.plot)):
            if file is not None:
                if file in ("", "-") or filenames.named_descriptor(file) in (0, 1, 2):
                    raise click.UsageError(f"{option} needs the name of a file")
                self._check_output(file)
        if self.plot is not None:
            if self.plot_format not in plots.FORMATS:
                raise click.UsageError(f"--plot {self.plot}: the name must end in .png or .svg")
            if self.html is not None and filenames.is_same_file(self.html, self.plot):
                raise click.UsageError("--html and --plot need different files")
            plots.check_matplotlib()

    def _check_output(self, name: str) -> None:
        """Refuses a file that exists or is a text. Writing checks again; this only saves the wait."""
        folder = os.path.dirname(name) or "."
        if not os.path.isdir(folder):
            raise FileProblem(f"{name}: there is no folder {folder}")
        if not os.path.lexists(name):
            return
        for source in self.files:
            if filenames.is_input(name, source):
                raise FileProblem(f"{name}: is the text itself; use another name")
        if not self.force:
            raise FileProblem(f"{name}: exists; use -f to overwrite it")
