"""What `llmzip entropy` makes beside its rows: --html, --plot and --spans; must not know how anything is measured."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ...measures import plots, surprisal
from ...measures.entropy import TextFacts, context_text, is_seen_whole
from ...system import filenames, fileops
from ...system.filenames import FileProblem
from ...system.process import signals_clean_up
from ..command import Output, has_colours, piece_text
from ..messages import Messages

if TYPE_CHECKING:
    from ...inference.load import LoadedModel
    from ...measures.scoring import Scores
    from ...measures.surprisal import Units

ALTERNATIVES = 5
"""Likely tokens that the page shows beside each one."""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        html: file of the page; None for none.
        plot: file of the plot; None for none.
        spans: whether to print them.
        span_rule: None for the default.
        span_percentile: None for the default.
        force: overwrite files.
        color: of the spans: auto, always or never.
    """

    html: str | None
    plot: str | None
    spans: bool
    span_rule: str | None
    span_percentile: float | None
    force: bool
    color: str = "auto"

    def check(self, files: tuple[str, ...], num_models: int, num_contexts: int) -> None:
        """Finds out what cannot go well, before any work is done.

        Raises:
            click.UsageError: options that do not go together.
            FileProblem: an output that exists, or for which there is no place.
            LLMZipError: matplotlib is missing.
        """
        if not self.spans and (self.span_rule is not None or self.span_percentile is not None):
            raise click.UsageError("--span-rule and --span-percentile go with --spans")
        if self.span_rule == "monotonic" and self.span_percentile is not None:
            raise click.UsageError("--span-percentile has no meaning with --span-rule monotonic")
        if not self.spans and self.color != "auto":
            raise click.UsageError("--color goes with --spans")
        one = len(files) == num_models == num_contexts == 1
        for name, used in (("--html", self.html is not None), ("--spans", self.spans)):
            if used and not one:
                raise click.UsageError(f"{name} is for one FILE, one --model and one --context at a time")
        for name, file in (("--html", self.html), ("--plot", self.plot)):
            if file is not None:
                if file in ("", "-") or filenames.named_descriptor(file) in (0, 1, 2):
                    raise click.UsageError(f"{name} needs the name of a file")
                _check_output(file, files, self.force)
        if self.plot is not None:
            _form(self.plot)
            if self.html is not None and filenames.is_same_file(self.html, self.plot):
                raise click.UsageError("--html and --plot need different files")
            plots.check_matplotlib()


def _form(file: str) -> str:
    """The format that a plot's name asks for."""
    form = os.path.splitext(file)[1].lower().lstrip(".")
    if form not in plots.FORMATS:
        raise click.UsageError(f"--plot {file}: the name must end in .png or .svg")
    return form


def _check_output(name: str, sources: Iterable[str], force: bool) -> None:
    """Refuses a name that is taken or a source. Writing checks again: this only saves the wait."""
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise FileProblem(f"{name}: there is no folder {folder}")
    if not os.path.lexists(name):
        return
    for source in sources:
        if filenames.is_input(name, source):
            raise FileProblem(f"{name}: is the text itself; use another name")
    if not force:
        raise FileProblem(f"{name}: exists; use -f to overwrite it")


def _write(name: str, parts: Iterable[bytes], messages: Messages, force: bool) -> None:
    """Writes a file under a temporary name, which it loses when it is whole."""
    with signals_clean_up(messages.stopped), fileops.new_file(name, force=force) as sink:
        for part in parts:
            sink.write(part)


class Extras:
    """Takes each scored text, and makes of it what is wanted.

    Args:
        wanted: after its `check`.
        output: where spans go.
        messages: for signals while a file is written.
    """

    def __init__(self, wanted: Wanted, output: Output, messages: Messages) -> None:
        self._wanted, self._output, self._messages = wanted, output, messages
        self._rows: list[plots.Row] = []

    @property
    def alternatives(self) -> int:
        """How many likely tokens the scores must have."""
        return 0 if self._wanted.html is None else ALTERNATIVES

    def add(self, name: str, data: bytes, facts: TextFacts, model: LoadedModel, scores: Scores) -> None:
        """A text that was scored. Spans are printed and the page is written at once."""
        wanted = self._wanted
        if wanted.html is None and wanted.plot is None and not wanted.spans:
            return
        table = model.table
        sizes = surprisal.token_sizes(scores.tokens, table.entries, table.escape)
        units = surprisal.units_of(data, sizes, scores.model_bits)
        num_tokens, context = len(scores.tokens), scores.context
        seen = context_text(num_tokens, context)
        if wanted.spans:
            self._show(units)
        if wanted.html is not None:
            from ...measures.surprisal_page import Subject, page

            pass_text = seen if is_seen_whole(num_tokens, context) else f"{seen} tokens, stride {scores.stride:,}"
            bits = float(scores.coded_bits.sum())
            subject = Subject(name, model.name, table.entries, facts.num_characters, bits, pass_text)
            self._file(wanted.html, page(subject, units, scores))
        if wanted.plot is not None:
            curve = surprisal.profile(units, plots.PARTS)
            bits = float(units.bits.sum()) / len(data)
            size = model.engine.num_parameters
            self._rows.append(plots.Row(name, model.name, context, seen, size, bits, len(data), curve))

    def finish(self) -> None:
        """After the last text: draws the plot, if any text was scored."""
        plot = self._wanted.plot
        if plot is not None and self._rows:
            self._file(plot, [plots.picture(self._rows, _form(plot))])

    def _file(self, name: str, parts: Iterable[bytes]) -> None:
        try:
            _write(name, parts, self._messages, self._wanted.force)
        except FileProblem as error:
            raise FileProblem(f"{name}: {error}") from error
        except OSError as error:
            raise FileProblem(f"{name}: {error.strerror}") from error

    def _show(self, units: Units) -> None:
        """The spans: a line of JSON for each, or the text cut by bars, or coloured."""
        output, wanted = self._output, self._wanted
        coloured = has_colours(wanted.color, output.stdout.fileno())
        rule = wanted.span_rule or surprisal.RULES[0]
        percentile = surprisal.DEFAULT_PERCENTILE if wanted.span_percentile is None else wanted.span_percentile
        parts: list[str] = []
        for number, span in enumerate(surprisal.spans_of(units, rule, percentile)):
            text = span.text.decode("utf-8", "backslashreplace")
            if output.json:
                facts: dict[str, Any] = {"begin": span.begin, "bytes": len(span.text), "tokens": span.tokens}
                output.record(**facts, bits=span.bits, text=text)
                continue
            parts.append(piece_text(text, number, coloured))
        if parts:
            output.stdout.write(("".join(parts) + "\n").encode("utf-8", "replace"))
