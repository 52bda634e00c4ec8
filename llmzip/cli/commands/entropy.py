"""The command `llmzip entropy`: options, texts, models; must not know how anything is measured or shown."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ...errors import ModelUnsupportedError, SettingsError
from ...measures import entropy, surprisal
from ...measures.entropy import ModelFacts, TextFacts, Value
from ...models import layout
from ...models.choice import model_for_compressing
from ...settings import DEFAULT_MODEL, USUAL_CONTEXT, CompressSettings, EngineSettings
from ...system.process import STDIN
from .. import options
from ..command import Output, command, read_text
from ..jobs import explain, overall_exit_code
from ..messages import PROGRAM, Messages
from ..records import json_error
from .entropy_extras import Extras, Wanted
from .entropy_print import Csv, Json, OnlyErrors, Printer, Tables

if TYPE_CHECKING:
    import numpy as np

    from ...inference.load import LoadedModel
    from ...measures.scoring import Scores

_LEAST_PIECE_BYTES = 16


class Contexts(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Numbers of tokens, joined by commas."""

    name = "contexts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        parts = value.split(",")
        if not all(part.isascii() and part.isdecimal() and 0 < len(part) < 8 and int(part) for part in parts):
            self.fail(f"{value!r} is no list of numbers like 31,127,255", param, ctx)
        return tuple(dict.fromkeys(map(int, parts)))


@command(
    "entropy",
    options.files,
    options.several_models,
    options.computation,
    click.option(
        "--context", "contexts", metavar="N[,N]...", type=Contexts(),
        help="Tokens that a prediction is made from; several are a sweep.  [default: as many as the model takes]",
    ),
    click.option(
        "--stride", metavar="N", type=click.IntRange(min=1),
        help="Tokens that each pass scores, behind a context less N known ones. 1 gives each token the whole context, "
        "and takes as long as that.  [default: half of the context]",
    ),
    click.option(
        "--piece-bytes", metavar="N", type=click.IntRange(min=_LEAST_PIECE_BYTES),
        help=f"Also score pieces of N bytes, each by itself. LMIC has {entropy.LMIC_PIECE_BYTES}.",
    ),
    click.option("--csv", "as_csv", is_flag=True, help="Write comma-separated values."),
    click.option(
        "--html", metavar="FILE",
        help="Write a page with the text coloured by its bits; it needs no network. One text, model and context.",
    ),
    click.option(
        "--plot", metavar="FILE",
        help="Draw the bits along each text, or against contexts and sizes of models if there are several, as "
        "FILE.png or FILE.svg. Needs matplotlib.",
    ),
    click.option(
        "--spans", is_flag=True,
        help="Print the text cut where surprise rises, instead of the tables: in two colours, or with | behind each "
        "span. One text, model and context.",
    ),
    options.color,
    click.option(
        "--span-rule", type=click.Choice(surprisal.RULES),
        help="What joins a token to the span before it: being below a threshold (global), below the token before it "
        "(monotonic), or either.  [default: combined]",
    ),
    click.option(
        "--span-percentile", metavar="P", type=click.FloatRange(0, 100),
        help="The threshold is the bits that P percent of the tokens stay below.  "
        f"[default: {surprisal.DEFAULT_PERCENTILE:g}]",
    ),
    click.option("-f", "--force", is_flag=True, help="Overwrite the files of --html and --plot."),
    options.engine,
    options.progress,
)  # fmt: skip
def entropy_command(
    output: Output,
    messages: Messages,
    files: tuple[str, ...],
    model_lists: tuple[str, ...],
    arithmetic: str,
    dtype: str,
    contexts: tuple[int, ...] | None,
    stride: int | None,
    piece_bytes: int | None,
    as_csv: bool,
    html: str | None,
    plot: str | None,
    spans: bool,
    color: str,
    span_rule: str | None,
    span_percentile: float | None,
    force: bool,
    threads: int | None,
    device: str,
) -> int:
    """Measure texts by language models: bits per byte and character, perplexity, what schemes of coding would take.

    With no FILE, or when FILE is -, the text is the standard input. Nothing is compressed or decoded, so this is as
    fast as the model reads. Each file, model and context is one row. docs/entropy.md says what each measure means and
    where it comes from.

    \b
    llmzip entropy book.txt
    llmzip entropy --context 31,127,255,511,1023 book.txt
    llmzip entropy -m small,base --piece-bytes 2048 *.txt
    llmzip entropy --json - < book.txt
    llmzip entropy --html page.html --plot curve.png book.txt
    """
    if as_csv and output.json:
        raise click.UsageError("--csv and --json exclude each other")
    settings = CompressSettings(
        engine=EngineSettings(device=device, threads=threads), arithmetic=arithmetic, dtype=dtype
    )
    if as_csv and spans:
        raise click.UsageError("--csv and --spans exclude each other")
    names, files = options.model_names(model_lists) or (DEFAULT_MODEL,), files or ("-",)
    wanted = Wanted(html, plot, spans, span_rule, span_percentile, force, color)
    wanted.check(files, len(names), len(contexts or (None,)))
    rows = Csv(output) if as_csv else Json(output) if output.json else Tables(output, stride)
    printer = OnlyErrors(output) if spans else rows
    work = _Work(settings, contexts, stride, piece_bytes, messages, printer, Extras(wanted, output, messages))
    return work.run(names, files)


# -- the work --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    """A text in memory.

    Attributes:
        name: as the user gave it; None for the standard input.
    """

    name: str | None
    data: bytes
    facts: TextFacts

    @property
    def shown(self) -> str:
        return STDIN if self.name is None else self.name


class _Work:
    """Measures texts with models; what fails is told in one line, and does not stop the others."""

    def __init__(
        self,
        settings: CompressSettings,
        contexts: tuple[int, ...] | None,
        stride: int | None,
        piece_bytes: int | None,
        messages: Messages,
        printer: Printer,
        extras: Extras,
    ) -> None:
        self._settings, self._contexts, self._stride = settings, contexts, stride
        self._piece_bytes, self._messages, self._printer, self._extras = piece_bytes, messages, printer, extras
        self._codes: list[int] = []

    def run(self, names: tuple[str, ...], files: tuple[str, ...]) -> int:
        """All models with all texts. Returns the exit code."""
        texts = list(self._texts(files))
        for name in names if texts else ():
            try:
                folder, model = self._load(name)
            except Exception as error:
                self._failed(None, error, model=name)
                continue
            with_context = list(self._usable_contexts(model))
            for text in texts:
                self._measure(text, folder, model, with_context)
        self._printer.finish()
        try:
            self._extras.finish()
        except Exception as error:
            self._failed(None, error)
        return overall_exit_code(self._codes)

    def _failed(self, text: _Text | str | None, error: Exception, **facts: Value) -> None:
        """Tells what went wrong with a text, or with a model."""
        if isinstance(error, BrokenPipeError):
            raise error
        name = text.name if isinstance(text, _Text) else None if text == "-" else text
        shown = None if text is None else STDIN if name is None else name
        code, reason = explain(error, shown)
        self._codes.append(code)
        self._messages.error(shown, reason, error)
        self._printer.error(name, json_error(code, error, reason), facts)

    def _texts(self, files: tuple[str, ...]) -> Iterator[_Text]:
        """The texts that can be read. Once, for several models may want them and the standard input comes once."""
        for file in files:
            try:
                data = read_text(file, "entropy", "measure")
            except Exception as error:
                self._failed(file, error)
                continue
            text = _Text(None if file == "-" else file, data, TextFacts.of(data))
            if text.facts.num_characters is None:
                self._note(text, "is no UTF-8: there are bits per byte, and none per character")
            yield text

    def _note(self, text: _Text, what: str) -> None:
        self._messages.fact(f"{PROGRAM}: {text.shown}: {what}")

    def _load(self, name: str) -> tuple[ModelFacts, LoadedModel]:
        """A model, with as long a context as is asked for and can be had."""
        from ...inference.load import load  # not before it is needed: --help must be quick

        choice = model_for_compressing(dataclasses.replace(self._settings, model=name))
        own = choice.embedded is not None or (choice.folder / layout.INT8).exists()
        longer = () if own else sorted((n for n in self._contexts or () if n > USUAL_CONTEXT), reverse=True)
        for context in (*longer, None):
            try:
                model = load(dataclasses.replace(choice, context=context) if context else choice, self._settings.engine)
                break
            except ModelUnsupportedError:  # perhaps only in so long a context
                if context is None:
                    raise
        engine = model.engine
        stored = choice.folder / layout.INT8
        is_int8 = self._settings.arithmetic == "exact" and stored.exists()
        size = stored.stat().st_size if is_int8 else engine.weights_bytes
        facts = ModelFacts(engine.num_parameters, size, engine.flops_per_token(entropy.CAPACITY_TOKENS))
        return facts, model

    def _usable_contexts(self, model: LoadedModel) -> Iterator[int]:
        """Those that were asked for and that the model and the stride allow."""
        most = model.engine.context
        for context in self._contexts or (most,):
            if context > most:
                text = f"model {model.name} takes {most:,} tokens, fewer than --context {context}"
            elif self._stride is not None and self._stride > context:
                text = f"--stride {self._stride} is more than the context of {context:,}"
            else:
                yield context
                continue
            self._failed(None, SettingsError(text), model=model.name, context=context)

    def _measure(self, text: _Text, facts: ModelFacts, model: LoadedModel, contexts: list[int]) -> None:
        """All rows of a text with a model."""
        if not contexts:
            return
        try:
            tokens = model.tokenizer.encode(text.data)
            short = [str(context) for context in contexts if context > len(tokens)]
            if self._contexts and short:
                has = f"has {len(tokens):,} tokens with the model {model.name}"
                self._note(text, f"{has}, fewer than a context of {', '.join(short)}: all of it is seen at once")
            pieces = self._pieces(text, facts, model)
        except Exception as error:
            self._failed(text, error, model=model.name)
            return
        for context in contexts:
            try:
                row, scores = self._row(text, tokens, facts, model, context)
            except Exception as error:
                self._failed(text, error, model=model.name, context=context)
                continue
            self._printer.row(text.name, row | pieces)
            try:
                self._extras.add(text.shown, text.data, text.facts, model, scores)
            except Exception as error:
                self._failed(None, error)

    def _row(
        self, text: _Text, tokens: np.ndarray, facts: ModelFacts, model: LoadedModel, context: int
    ) -> tuple[dict[str, Value], Scores]:
        from ...measures.scoring import Scorer

        begun = time.perf_counter()
        table = model.table
        with self._messages.progress(text.shown, text.facts.num_bytes) as advance:
            report = None if advance is None else lambda ids: advance(table.num_bytes(ids))
            alternatives = self._extras.alternatives
            scorer = Scorer(model, context, self._stride, ranks=True, alternatives=alternatives, progress=report)
            scores = scorer.score(tokens)
        found = entropy.measures(scores, text.facts, facts)
        seconds = round(time.perf_counter() - begun, 6)
        row = {"model": model.name, "engine": self._settings.arithmetic, **found, "elapsed_seconds": seconds}
        return row, scores

    def _pieces(self, text: _Text, facts: ModelFacts, model: LoadedModel) -> dict[str, Value]:
        """Measures of --piece-bytes."""
        size = self._piece_bytes
        if size is None:
            return {}
        from ...measures.scoring import Scorer

        data = text.data
        cut = [model.tokenizer.encode(data[n : n + size]) for n in range(0, len(data), size)]
        return entropy.piece_measures(Scorer(model).score_many(cut), size, text.facts, facts)
