"""The files that `llmzip entropy` writes: the page of --html and the plot of --plot."""

from __future__ import annotations

from collections.abc import Iterable

from ...measures import plots, surprisal
from ...measures.entropy import context_text, is_seen_whole
from ...system import fileops
from ...system.filenames import FileProblem
from ...system.process import signals_clean_up
from ..messages import Messages
from .entropy_print import Printer
from .entropy_request import EntropyRequest
from .entropy_scores import Scored


class _FilePrinter(Printer):
    """Writes one file.

    Args:
        name: name of the file.
        request: what the user asked for.
        messages: what the user reads if a signal ends the run.
    """

    def __init__(self, name: str, request: EntropyRequest, messages: Messages) -> None:
        self._name = name
        self._request = request
        self._messages = messages

    def _write(self, parts: Iterable[bytes]) -> None:
        """Writes the file under a temporary name until it is complete.

        Raises:
            FileProblem: it cannot be written.
        """
        name = self._name
        try:
            with (
                signals_clean_up(self._messages.stopped),
                fileops.new_file(name, force=self._request.force) as sink,
            ):
                for part in parts:
                    sink.write(part)
        except FileProblem as error:
            raise FileProblem(f"{name}: {error}") from error
        except OSError as error:
            raise FileProblem(f"{name}: {error.strerror}") from error


class Page(_FilePrinter):
    """The page with a text coloured by its bits."""

    def add(self, scored: Scored) -> None:
        from ...measures.surprisal_page import Subject, page

        scores, facts = scored.scores, scored.text.facts
        num_tokens, context = len(scores.tokens), scores.context
        passes = context_text(num_tokens, context)
        if not is_seen_whole(num_tokens, context):
            passes += f" tokens, stride {scores.stride:,}"
        subject = Subject(
            scored.text.shown,
            scored.model.name,
            scored.model.table.entries,
            facts.num_characters,
            float(scores.coded_bits.sum()),
            passes,
        )
        self._write(page(subject, scored.units, scores))


class Plot(_FilePrinter):
    """The plot of the bits along texts, or against contexts and sizes of models."""

    def __init__(self, name: str, request: EntropyRequest, messages: Messages) -> None:
        super().__init__(name, request, messages)
        self._rows: list[plots.Row] = []

    def add(self, scored: Scored) -> None:
        scores, units, num_bytes = scored.scores, scored.units, len(scored.text.data)
        self._rows.append(
            plots.Row(
                scored.text.shown,
                scored.model.name,
                scores.context,
                context_text(len(scores.tokens), scores.context),
                scored.model.engine.num_parameters,
                float(units.bits.sum()) / num_bytes,
                num_bytes,
                surprisal.profile(units, plots.PARTS),
            )
        )

    def finish(self) -> None:
        if self._rows:
            self._write([plots.picture(self._rows, self._request.plot_format)])
