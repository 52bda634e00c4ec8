"""The command `llmzip distance`: options, texts, tables and JSON; must not know how a distance is measured."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from ...errors import SettingsError
from ...inference.progress import Progress
from ...measures.distance import MEASURES, Distances, measure_distances, most_tokens
from ...models.choice import model_for_compressing
from ...settings import DEFAULT_MODEL, CompressSettings, EngineSettings
from ...system.filenames import FileProblem
from ...system.process import STDIN
from .. import options
from ..command import Output, command, read_text, with_model_here
from ..jobs import explain, overall_exit_code
from ..messages import PROGRAM, Messages
from ..records import json_error, json_name

if TYPE_CHECKING:
    from ...inference.load import LoadedModel

_MOST_TEXTS = 2000
_WORTH_A_WORD_SECONDS = 60.0


@command(
    "distance",
    options.files,
    options.compress_model,
    options.computation,
    click.option(
        "--measure", metavar="NAME", type=click.Choice(list(MEASURES)), default="max", show_default=True,
        help="What the matrix of more than two texts shows: max, mean, ncd, gzip, given or bits.",
    ),
    click.option(
        "--first", "first_tokens", metavar="N", type=click.IntRange(min=1),
        help="Compare the first N tokens of each text. A text may have half as many as the model's context.",
    ),
    click.option(
        "--minutes", metavar="N", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
        help="Refuse what would take longer.",
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
    """Compare texts by their code lengths given each other.

    A text takes fewer bits behind another one that tells something about it. Two files give a table of both directions,
    more give a matrix, --json gives everything. The normalised information distance is near 0 for texts that say the
    same and near 1 for texts that have nothing in common; gzip's compression distance stands beside it.

    \b
    llmzip distance draft.txt final.txt
    llmzip distance --measure gzip *.txt
    llmzip distance --json --first 500 a.txt b.txt c.txt
    """
    if files.count("-") > 1:
        raise click.UsageError("the standard input can be one text only")
    if len(files) < 2:
        raise click.UsageError("a distance needs two files at least")
    if len(files) > _MOST_TEXTS:
        raise click.UsageError(f"{len(files):,} texts are too many: {_MOST_TEXTS:,} at most")
    settings = CompressSettings(
        model=model or DEFAULT_MODEL,
        engine=EngineSettings(device=device, threads=threads),
        arithmetic=arithmetic,
        dtype=dtype,
    )
    work = _Work(output, messages, first_tokens, 60 * minutes)
    return work.run(files, settings, offline, measure)


class _Work:
    """Reads texts, has them measured, prints."""

    def __init__(self, output: Output, messages: Messages, first_tokens: int | None, most_seconds: float) -> None:
        self._output, self._messages = output, messages
        self._first_tokens, self._most_seconds = first_tokens, most_seconds
        self._codes: list[int] = []

    def run(self, files: tuple[str, ...], settings: CompressSettings, offline: bool, measure: str) -> int:
        """All files. Returns the exit code."""
        texts = self._texts(files)
        if len(texts) < 2:
            if not self._codes:
                raise FileProblem("a distance needs two texts at least")
            return overall_exit_code(self._codes)
        model = self._load(settings, offline)
        texts = [text for text in texts if self._fits(model, *text)]
        if len(texts) >= 2:
            names = [name for name, _ in texts]
            found = self._measured(model, [data for _, data in texts])
            self._print(names, found, measure, model.name)
        return overall_exit_code(self._codes)

    def _failed(self, name: str, error: Exception) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        shown = STDIN if name == "-" else name
        code, reason = explain(error, shown)
        self._codes.append(code)
        self._messages.error(shown, reason, error)
        self._output.record(**json_name(None if name == "-" else name), error=json_error(code, error, reason))

    def _texts(self, files: tuple[str, ...]) -> list[tuple[str, bytes]]:
        """Names and texts, of files that can be read."""
        texts = []
        for name in files:
            try:
                data = read_text(name, "distance", "compare")
            except Exception as error:
                self._failed(name, error)
                continue
            texts.append((name, data))
        return texts

    def _load(self, settings: CompressSettings, offline: bool) -> LoadedModel:
        from ...inference.load import load  # not before it is needed: --help must be quick

        settings = with_model_here(settings, self._messages, offline)
        return load(model_for_compressing(settings), settings.engine)

    def _fits(self, model: LoadedModel, name: str, data: bytes) -> bool:
        """Whether a text is short enough; says so if it is not."""
        most = most_tokens(model.engine.context)
        if self._first_tokens is not None:
            if self._first_tokens > most:
                raise SettingsError(f"--first {self._first_tokens} is too much: {model.name} compares {most:,} tokens")
            return True
        count = len(model.tokenizer.encode(data))
        if count > most:
            problem = (
                f"has {count:,} tokens, {model.name} compares {most:,} at most; --first N takes the first N of each"
            )
            self._failed(name, FileProblem(problem))
        return count <= most

    def _measured(self, model: LoadedModel, texts: list[bytes]) -> Distances:
        with contextlib.ExitStack() as stack:

            def begin(num_tokens: int, seconds: float) -> Progress | None:
                about = f"{len(texts):,} texts, {num_tokens:,} tokens: about {_duration(seconds)}"
                if seconds > self._most_seconds:
                    raise FileProblem(f"{about}; use fewer texts, --first N, -m small, or --minutes to let it")
                if seconds > _WORTH_A_WORD_SECONDS:
                    self._messages.fact(f"{PROGRAM}: {about}")
                return stack.enter_context(self._messages.progress("tokens", num_tokens))

            return measure_distances(model, texts, first_tokens=self._first_tokens, begin=begin)

    # -- what is printed ---------------------------------------------------------------------------------------------

    def _print(self, names: list[str], found: Distances, measure: str, model: str) -> None:
        matrices = {name: found.matrix(name) for name in MEASURES}
        if self._output.json:
            self._records(names, found, matrices, model)
        elif len(names) == 2:
            self._pair(names, found, matrices)
        else:
            self._matrix(names, matrices[measure], measure)

    def _records(self, names: list[str], found: Distances, matrices: dict[str, Any], model: str) -> None:
        """A line for each text, and one for each pair in both directions."""
        files = [json_name(None if name == "-" else name) for name in names]
        for number, file in enumerate(files):
            self._output.record(
                kind="text",
                **file,
                model=model,
                bytes=found.num_bytes[number],
                tokens=found.num_tokens[number],
                bits=float(found.alone[number]),
                gzip_bytes=int(found.gzip_alone[number]),
                error=None,
            )
        for one, first in enumerate(files):
            for two, second in enumerate(files):
                if one != two:
                    self._output.record(
                        kind="pair",
                        first=first,
                        second=second,
                        first_bits_given_second=float(found.given[one, two]),
                        second_bits_given_first=float(found.given[two, one]),
                        gzip_bytes_of_both=int(found.gzip_both[one, two]),
                        **{f"{name}_distance": float(matrices[name][one, two]) for name in ("max", "mean")},
                        model_ncd=float(matrices["ncd"][one, two]),
                        gzip_ncd=float(matrices["gzip"][one, two]),
                        error=None,
                    )

    def _pair(self, names: list[str], found: Distances, matrices: dict[str, Any]) -> None:
        line = self._output.line
        shown = [STDIN if name == "-" else name for name in names]
        for letter, name in zip("AB", shown, strict=True):
            line(f"{letter}  {name}")
        line("")
        rows: list[tuple[str, str, str]] = [
            ("", "A", "B"),
            ("bytes", *_cells(found.num_bytes, ",")),
            ("tokens", *_cells(found.num_tokens, ",")),
            ("bits alone", *_cells(found.alone, ",.1f")),
            ("bits given the other", *_cells([found.given[0, 1], found.given[1, 0]], ",.1f")),
            ("part that remains", *_cells([matrices["given"][0, 1], matrices["given"][1, 0]], ".4f")),
            ("bytes of gzip -9", *_cells(found.gzip_alone, ",")),
        ]
        for title, one, two in rows:
            line(f"{title:<22}{one:>12}{two:>12}")
        line("")
        for title, name in (("information distance, max", "max"), ("information distance, mean", "mean")):
            line(f"{title:<34}{matrices[name][0, 1]:>12.4f}")
        for title, name in (("compression distance, model", "ncd"), ("compression distance, gzip", "gzip")):
            both = f"{matrices[name][0, 1]:>12.4f}  A before B{matrices[name][1, 0]:>12.4f}  B before A"
            line(f"{title:<34}{both}")

    def _matrix(self, names: list[str], matrix: Any, measure: str) -> None:
        line = self._output.line
        line(f"{measure}: {MEASURES[measure]}")
        form = ",.0f" if measure == "bits" else ".4f"
        line(" ".join(f"{number + 1:>8}" for number in range(len(names))))
        for number, (name, row) in enumerate(zip(names, matrix.tolist(), strict=True)):
            cells = " ".join(f"{value:>8{form}}" for value in row)
            line(f"{cells}  {number + 1} {STDIN if name == '-' else name}")


def _cells(values: Any, form: str) -> tuple[str, str]:
    first, second = (format(value, form) for value in values)
    return first, second


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
