"""The command `llmzip entropy`: its options, and the line from a request over scores to what prints them."""

from __future__ import annotations

import click

from ...measures import entropy, surprisal
from ...settings import DEFAULT_MODEL, CompressSettings, EngineSettings
from .. import options
from ..command import Output, command
from ..messages import Messages
from ..outcomes import Outcomes
from ..values import Numbers, model_names
from .entropy_files import Page, Plot
from .entropy_print import Csv, JsonLines, Printer, Spans, Tables
from .entropy_request import EntropyRequest, SpanRequest
from .entropy_scores import TextScorer

_MIN_PIECE_BYTES = 16


@command(
    "entropy",
    options.files,
    options.several_models,
    options.computation,
    click.option(
        "--context", "contexts", metavar="N[,N]...", type=Numbers(),
        help="Tokens that a prediction is made from; several make a sweep.  [default: the model's maximum]",
    ),
    click.option(
        "--stride", metavar="N", type=click.IntRange(min=1),
        help="Tokens that each pass scores; the rest of the context is known text before them. 1 gives each token the "
        "whole context, and is slowest.  [default: half of the context]",
    ),
    click.option(
        "--piece-bytes", metavar="N", type=click.IntRange(min=_MIN_PIECE_BYTES),
        help=f"Also score pieces of N bytes, each by itself. LMIC uses {entropy.LMIC_PIECE_BYTES}.",
    ),
    click.option("--csv", "as_csv", is_flag=True, help="Write comma-separated values."),
    click.option(
        "--html", metavar="FILE",
        help="Write a self-contained page with the text coloured by its bits. One text, model and context.",
    ),
    click.option(
        "--plot", metavar="FILE",
        help="Plot the bits along each text, or against contexts and model sizes if there are several, as FILE.png or "
        "FILE.svg. Needs matplotlib.",
    ),
    click.option(
        "--spans", is_flag=True,
        help="Print the text cut where surprisal rises, instead of the tables: in two colours, or with | after each "
        "span. One text, model and context.",
    ),
    options.color,
    click.option(
        "--span-rule", type=click.Choice(surprisal.RULES),
        help="Join a token to the span before it if its bits are below a threshold (global), below the previous "
        "token's (monotonic), or either (combined).  [default: combined]",
    ),
    click.option(
        "--span-percentile", metavar="P", type=click.FloatRange(0, 100),
        help="Set the threshold to the bits that P percent of the tokens stay below.  "
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
    """Measure how well models predict texts.

    Print bits per byte and character, perplexity, and the size under several coding schemes. With no FILE, or when FILE
    is -, read the standard input. entropy makes no archive; it runs the text through the model once. Each file, model
    and context is one row. docs/entropy.md explains each measure and its source.

    \b
    llmzip entropy book.txt
    llmzip entropy --context 31,127,255,511,1023 book.txt
    llmzip entropy -m small,base --piece-bytes 2048 *.txt
    llmzip entropy --json - < book.txt
    llmzip entropy --html page.html --plot curve.png book.txt
    """
    if as_csv and (output.json or spans):
        raise click.UsageError(f"--csv and {'--json' if output.json else '--spans'} exclude each other")
    request = EntropyRequest(
        files=files or ("-",),
        models=model_names(model_lists) or (DEFAULT_MODEL,),
        settings=CompressSettings(
            engine=EngineSettings(device=device, threads=threads), arithmetic=arithmetic, dtype=dtype
        ),
        contexts=contexts,
        stride=stride,
        piece_bytes=piece_bytes,
        spans=_span_request(spans, span_rule, span_percentile, color),
        html=html,
        plot=plot,
        force=force,
    )
    request.check()
    outcomes = Outcomes(messages, output.file_record)
    printers = _printers(request, output, messages, as_csv=as_csv)
    for scored in TextScorer(request, messages, outcomes).run():
        for printer in printers:
            with outcomes.of_run():
                printer.add(scored)
    for printer in printers:
        with outcomes.of_run():
            printer.finish()
    return outcomes.exit_status


def _span_request(is_wanted: bool, rule: str | None, percentile: float | None, color: str) -> SpanRequest | None:
    """Returns how to cut the text into spans; None if they were not asked for.

    Raises:
        click.UsageError: options that need --spans, or exclude each other.
    """
    if not is_wanted:
        if rule is not None or percentile is not None:
            raise click.UsageError("--span-rule and --span-percentile need --spans")
        if color != "auto":
            raise click.UsageError("--color needs --spans")
        return None
    if rule == "monotonic" and percentile is not None:
        raise click.UsageError("--span-percentile has no effect with --span-rule monotonic")
    return SpanRequest(
        rule or surprisal.RULES[0], surprisal.DEFAULT_PERCENTILE if percentile is None else percentile, color
    )


def _printers(request: EntropyRequest, output: Output, messages: Messages, *, as_csv: bool) -> list[Printer]:
    """Returns what takes the scores: one that prints, and one for each file."""
    printers: list[Printer] = []
    if request.spans is not None:
        printers.append(Spans(output, request.spans))
    elif as_csv:
        printers.append(Csv(output))
    else:
        printers.append(JsonLines(output) if output.json else Tables(output, request.stride))
    if request.html is not None:
        printers.append(Page(request.html, request, messages))
    if request.plot is not None:
        printers.append(Plot(request.plot, request, messages))
    return printers
