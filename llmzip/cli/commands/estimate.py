"""The command `llmzip estimate`: its options, files and tables. Knows nothing of how a size or time is estimated."""

from __future__ import annotations

import time
from typing import Any

import click

from ...format.headers import MAGIC
from ...measures.budget import DEFAULT_SECONDS, Report
from ...measures.estimate import Estimate, estimate
from ...measures.extrapolation import Range
from ...settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, EngineSettings
from ...system import fileops
from ...system.filenames import FileProblem, input_name
from ...system.streams import read_upto
from .. import options
from ..command import Output, command, with_local_model
from ..messages import Messages
from ..outcomes import Outcomes, shown_name
from ..records import range_fields
from ..units import duration_range_text
from ..values import read_prompt


@command(
    "estimate",
    options.files,
    options.levels,
    options.compress_model,
    options.prompt,
    options.arithmetic,
    options.windows,
    click.option(
        "--seconds", metavar="N", type=click.FloatRange(min=0, min_open=True), default=DEFAULT_SECONDS,
        show_default=True, help="Approximate time to spend on each file; more time gives a better estimate.",
    ),
    options.engine,
    options.progress,
)  # fmt: skip
def estimate_command(
    output: Output,
    messages: Messages,
    files: tuple[str, ...],
    seconds: float,
    level: int | None,
    model: str | None,
    offline: bool,
    prompt_file: str | None,
    threads: int | None,
    device: str,
    **use: Any,
) -> int:
    """Predict size and times of compressing.

    Compress and decompress some evenly spread pieces of each FILE on this machine, and extrapolate from them the size
    of the archive and the times, each with a likely range. A small file is compressed whole. No file is written.
    docs/estimate.md says how good the estimates are.

    \b
    llmzip estimate book.txt
    llmzip estimate -9 --seconds 60 *.log
    llmzip estimate -m small --json book.txt
    """
    if not files:
        raise click.UsageError("name the files; - is the standard input, which is read to its end first")
    settings = CompressSettings(
        level or DEFAULT_LEVEL,
        model or DEFAULT_MODEL,
        EngineSettings(device=device, threads=threads),
        prompt=read_prompt(prompt_file),
        **use,
    )
    settings = with_local_model(settings, messages, offline)
    outcomes = Outcomes(messages, output.file_record)
    for name in map(input_name, files):
        started = time.perf_counter()
        with outcomes.of_file(name):
            with messages.stages(shown_name(name)) as report:
                estimated = _estimate(name, settings, seconds, report)
            elapsed = time.perf_counter() - started
            output.file_record(name, **_facts(estimated, settings, elapsed))
            _print(output, shown_name(name), estimated, settings.level, elapsed)
    return outcomes.exit_status


def _estimate(name: str | None, settings: CompressSettings, seconds: float, report: Report | None) -> Estimate:
    with fileops.seekable_source(name) as source:
        if read_upto(source.file, len(MAGIC)) == MAGIC:
            raise FileProblem("is already an llmzip archive")
        return estimate(source.file, settings, seconds, report)


def _times(estimated: Estimate) -> dict[str, Range]:
    return {"compress": estimated.compress_seconds, "decompress": estimated.decompress_seconds}


def _facts(estimated: Estimate, settings: CompressSettings, elapsed_seconds: float) -> dict[str, Any]:
    """Returns the fields of the JSON record."""
    size, original = estimated.compressed_bytes, estimated.original_bytes
    times: dict[str, float | None] = {}
    for operation, taken in _times(estimated).items():
        times |= range_fields(f"{operation}_seconds", taken, 6)
    return {
        "original_bytes": original,
        **range_fields("compressed_bytes", size, 0),
        "bits_per_byte": 8 * size.value / original if original else None,
        **times,
        "start_seconds": round(estimated.start_seconds, 6),
        "method": estimated.method,
        "model": estimated.model,
        "level": settings.level,
        "is_whole": estimated.is_whole,
        "sampled_bytes": estimated.sampled_bytes,
        "pieces": estimated.pieces,
        "elapsed_seconds": round(elapsed_seconds, 6),
        "error": None,
    }


def _print(output: Output, name: str, estimated: Estimate, level: int, elapsed_seconds: float) -> None:
    """Prints the estimate of one file for people."""
    size, original = estimated.compressed_bytes, estimated.original_bytes
    method = f"{estimated.method}, model {estimated.model}" if estimated.model else estimated.method
    rate = f", {8 * size.value / original:.2f} bits/byte, {100 * size.value / original:.1f} %" if original else ""
    output.line(f"{name}: {original:,} bytes, level {level}, {method}")
    if estimated.is_whole:
        output.line(f"  size        {size.value:,.0f} bytes{rate}: all of it was compressed")
    else:
        output.line(f"  size        {size.value:,.0f} bytes ({size.low:,.0f} to {size.high:,.0f}){rate}")
    for operation, taken in _times(estimated).items():
        output.line(f"  {operation:<12}{duration_range_text(taken)}")
    if not estimated.is_whole:
        sample = "no sample, the data looks random"
        if estimated.pieces:
            places = "one place" if estimated.pieces == 1 else f"{estimated.pieces} evenly spread places"
            sample = f"{estimated.sampled_bytes:,} bytes from {places}"
        start = f"{estimated.start_seconds:.1f} s"
        output.line(f"  sample      {sample}, {elapsed_seconds:.0f} s; start-up takes another {start}")
