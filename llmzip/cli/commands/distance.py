"""The command `llmzip distance`: its options, texts, tables and JSON. Knows nothing of how a distance is measured."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ...errors import SettingsError
from ...inference.progress import Progress
from ...measures.distance import MEASURES, Distances, measure_distances, most_tokens
from ...models.choice import model_for_compressing
from ...settings import DEFAULT_MODEL, CompressSettings, EngineSettings
from ...system.filenames import FileProblem, input_name
from .. import options
from ..command import Output, command, read_text, with_local_model
from ..messages import Messages
from ..outcomes import Outcomes, shown_name
from ..records import json_name
from ..units import duration_text

if TYPE_CHECKING:
    from ...inference.load import LoadedModel

_MAX_TEXTS = 2000
_ANNOUNCED_SECONDS = 60.0  # what takes longer is announced


@command(
    "distance",
    options.files,
    options.compress_model,
    options.computation,
    click.option(
        "--measure", metavar="NAME", type=click.Choice(list(MEASURES)), default="max", show_default=True,
        help="Measure to show for more than two texts: max, mean, ncd, gzip, given or bits.",
    ),
    click.option(
        "--first", "first_tokens", metavar="N", type=click.IntRange(min=1),
        help="Compare only the first N tokens of each text; at most half of the model's context.",
    ),
    click.option(
        "--minutes", metavar="N", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
        help="Give up if the estimate exceeds N minutes.",
    ),
    options.engine,
    options.progress,
)  # fmt: skip
def distance_command(
    output: Output,
    messages: Messages,
    files: tuple[str, ...],
    model: str | None,
    offline: bool,
    arithmetic: str,
    dtype: str,
    measure: str,
    first_tokens: int | None,
    minutes: float,
    threads: int | None,
    device: str,
) -> int:
    """Measure how similar texts are.

    A text takes fewer bits after another one that says something about it. Two files give a table of both directions,
    more files give a matrix of one measure, and --json gives everything. The normalised information distance is near 0
    for texts that say the same and near 1 for texts that have nothing in common; gzip's compression distance is shown
    next to it.

    \b
    llmzip distance draft.txt final.txt
    llmzip distance --measure gzip *.txt
    llmzip distance --json --first 500 a.txt b.txt c.txt
    """
    names = [input_name(file) for file in files]
    if names.count(None) > 1:
        raise click.UsageError("the standard input can be one text only")
    if len(names) < 2:
        raise click.UsageError("a distance needs at least two files")
    if len(names) > _MAX_TEXTS:
        raise click.UsageError(f"{len(names):,} texts are too many: the limit is {_MAX_TEXTS:,}")
    settings = CompressSettings(
        model=model or DEFAULT_MODEL,
        engine=EngineSettings(device=device, threads=threads),
        arithmetic=arithmetic,
        dtype=dtype,
    )
    outcomes = Outcomes(messages, output.file_record)
    texts = _read(names, outcomes)
    if len(texts) < 2:
        return outcomes.exit_status
    settings = with_local_model(settings, messages, offline)
    loaded = _load(settings)
    texts = _short_enough(texts, loaded, first_tokens, outcomes)
    if len(texts) >= 2:
        distances = _measure(texts, loaded, first_tokens, 60 * minutes, messages)
        _Printer(output, texts, distances, loaded.name).print(measure)
    return outcomes.exit_status


# -- texts to distances ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    """A text in memory; its name is None for the standard input."""

    name: str | None
    data: bytes


def _read(names: list[str | None], outcomes: Outcomes) -> list[_Text]:
    """Returns the texts that can be read."""
    texts = []
    for name in names:
        with outcomes.of_file(name):
            texts.append(_Text(name, read_text(name, "distance", "compare")))
    return texts


def _load(settings: CompressSettings) -> LoadedModel:
    from ...inference.load import load  # here, so that --help is quick

    return load(model_for_compressing(settings), settings.engine)


def _short_enough(texts: list[_Text], model: LoadedModel, first_tokens: int | None, outcomes: Outcomes) -> list[_Text]:
    """Returns the texts that the model's context has room for; the others are failures."""
    limit = most_tokens(model.engine.context)
    if first_tokens is not None:
        if first_tokens > limit:
            raise SettingsError(f"--first {first_tokens} is too much: {model.name} compares {limit:,} tokens")
        return texts
    fitting = []
    for text in texts:
        with outcomes.of_file(text.name):
            count = len(model.tokenizer.encode(text.data))
            if count > limit:
                raise FileProblem(
                    f"has {count:,} tokens, but {model.name} compares at most {limit:,}; "
                    "--first N takes the first N of each"
                )
            fitting.append(text)
    return fitting


def _measure(
    texts: list[_Text], model: LoadedModel, first_tokens: int | None, max_seconds: float, messages: Messages
) -> Distances:
    """Measures all distances.

    Raises:
        FileProblem: it would take more than `max_seconds`.
    """
    with contextlib.ExitStack() as stack:

        def begin(num_tokens: int, seconds: float) -> Progress | None:
            effort = f"{len(texts):,} texts, {num_tokens:,} tokens: estimated time {duration_text(seconds)}"
            if seconds > max_seconds:
                raise FileProblem(f"{effort}; use fewer texts, --first N, -m small, or more --minutes")
            if seconds > _ANNOUNCED_SECONDS:
                messages.notice(effort)
            return stack.enter_context(messages.progress("tokens", num_tokens))

        return measure_distances(model, [text.data for text in texts], first_tokens=first_tokens, begin=begin)


# -- output ----------------------------------------------------------------------------------------------------------


class _Printer:
    """Prints distances as a table, a matrix or JSON lines.

    Args:
        output: where they go.
        texts: the texts, in the order of the distances.
        distances: what was measured.
        model: name of the model.
    """

    def __init__(self, output: Output, texts: list[_Text], distances: Distances, model: str) -> None:
        self._output = output
        self._names = [text.name for text in texts]
        self._distances = distances
        self._model = model
        self._matrices: dict[str, Any] = {name: distances.matrix(name) for name in MEASURES}

    def print(self, measure: str) -> None:
        """Prints everything as JSON, the table of a pair, or the matrix of one measure."""
        if self._output.json:
            self._records()
        elif len(self._names) == 2:
            self._pair()
        else:
            self._matrix(measure)

    def _records(self) -> None:
        """Prints a JSON line for each text, and one for each pair in both directions."""
        distances, matrices = self._distances, self._matrices
        for number, name in enumerate(self._names):
            self._output.record(
                kind="text",
                **json_name(name),
                model=self._model,
                bytes=distances.num_bytes[number],
                tokens=distances.num_tokens[number],
                bits=float(distances.alone[number]),
                gzip_bytes=int(distances.gzip_alone[number]),
                error=None,
            )
        for one, first in enumerate(self._names):
            for two, second in enumerate(self._names):
                if one != two:
                    self._output.record(
                        kind="pair",
                        first=json_name(first),
                        second=json_name(second),
                        first_bits_given_second=float(distances.given[one, two]),
                        second_bits_given_first=float(distances.given[two, one]),
                        gzip_bytes_of_both=int(distances.gzip_both[one, two]),
                        **{f"{measure}_distance": float(matrices[measure][one, two]) for measure in ("max", "mean")},
                        model_ncd=float(matrices["ncd"][one, two]),
                        gzip_ncd=float(matrices["gzip"][one, two]),
                        error=None,
                    )

    def _pair(self) -> None:
        """Prints the table of two texts."""
        line, distances, matrices = self._output.line, self._distances, self._matrices
        for letter, name in zip("AB", self._names, strict=True):
            line(f"{letter}  {shown_name(name)}")
        line("")
        rows: list[tuple[str, str, str]] = [
            ("", "A", "B"),
            ("bytes", *_cells(distances.num_bytes, ",")),
            ("tokens", *_cells(distances.num_tokens, ",")),
            ("bits alone", *_cells(distances.alone, ",.1f")),
            ("bits given the other", *_cells([distances.given[0, 1], distances.given[1, 0]], ",.1f")),
            ("fraction that remains", *_cells([matrices["given"][0, 1], matrices["given"][1, 0]], ".4f")),
            ("bytes of gzip -9", *_cells(distances.gzip_alone, ",")),
        ]
        for title, one, two in rows:
            line(f"{title:<22}{one:>12}{two:>12}")
        line("")
        for title, measure in (("information distance, max", "max"), ("information distance, mean", "mean")):
            line(f"{title:<34}{matrices[measure][0, 1]:>12.4f}")
        for title, measure in (("compression distance, model", "ncd"), ("compression distance, gzip", "gzip")):
            both = f"{matrices[measure][0, 1]:>12.4f}  A before B{matrices[measure][1, 0]:>12.4f}  B before A"
            line(f"{title:<34}{both}")

    def _matrix(self, measure: str) -> None:
        """Prints the matrix of one measure."""
        line = self._output.line
        line(f"{measure}: {MEASURES[measure]}")
        form = ",.0f" if measure == "bits" else ".4f"
        line(" ".join(f"{number + 1:>8}" for number in range(len(self._names))))
        rows = self._matrices[measure].tolist()
        for number, (name, row) in enumerate(zip(self._names, rows, strict=True), 1):
            cells = " ".join(f"{value:>8{form}}" for value in row)
            line(f"{cells}  {number} {shown_name(name)}")


def _cells(values: Any, form: str) -> tuple[str, str]:
    first, second = (format(value, form) for value in values)
    return first, second
