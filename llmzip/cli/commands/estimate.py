"""The command `llmzip estimate`: options, files and what is printed; must not know how anything is estimated."""

from __future__ import annotations

import time
from typing import Any

import click

from ...format.headers import MAGIC
from ...measures.estimate import DEFAULT_SECONDS, Estimate, estimate
from ...measures.extrapolation import Range
from ...settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, EngineSettings
from ...system import filenames, fileops
from ...system.filenames import FileProblem
from ...system.streams import read_upto
from .. import options
from ..command import Output, command, with_model_here
from ..jobs import explain, overall_exit_code
from ..messages import Messages
from ..records import json_error, json_name


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
        show_default=True, help="About how long the estimate of each file may take; a longer one is better.",
    ),
    options.engine,
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
    """Tell size and times before compressing.

    A sample of each FILE, evenly spread pieces, is really compressed and decompressed on this machine, and from how it
    went the archive's size and the times are estimated, with a range that is likely but not sure. A small file is
    compressed whole. No file is written. docs/estimate.md says how good estimates are.

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
        prompt=options.read_prompt(prompt_file),
        **use,
    )
    settings = with_model_here(settings, messages, offline)
    codes: list[int] = []
    for name in files:
        begun = time.perf_counter()
        try:
            found = _estimated(name, settings, seconds)
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                raise
            code, reason = explain(error, name)
            codes.append(code)
            messages.error(name, reason, error)
            output.record(**json_name(name), error=json_error(code, error, reason))
            continue
        _print(output, name, found, settings, time.perf_counter() - begun)
    return overall_exit_code(codes)


def _estimated(name: str, settings: CompressSettings, seconds: float) -> Estimate:
    with fileops.seekable_source(filenames.input_name(name)) as source:
        if read_upto(source.file, len(MAGIC)) == MAGIC:
            raise FileProblem("is an llmzip archive already")
        return estimate(source.file, settings, seconds)


def _print(output: Output, name: str, found: Estimate, settings: CompressSettings, elapsed: float) -> None:
    """One file, for people or for programs."""
    size, original = found.compressed_bytes, found.original_bytes
    times = {"compress_seconds": found.compress_seconds, "decompress_seconds": found.decompress_seconds}
    output.record(
        **json_name(name),
        original_bytes=original,
        **_range_fields("compressed_bytes", size, 0),
        bits_per_byte=8 * size.value / original if original else None,
        **{key: value for title, taken in times.items() for key, value in _range_fields(title, taken, 6).items()},
        start_seconds=round(found.start_seconds, 6),
        method=found.method,
        model=found.model,
        level=settings.level,
        is_whole=found.is_whole,
        sampled_bytes=found.sampled_bytes,
        pieces=found.pieces,
        elapsed_seconds=round(elapsed, 6),
        error=None,
    )
    rate = f", {8 * size.value / original:.2f} bits/byte, {100 * size.value / original:.1f} %" if original else ""
    output.line(f"{name}: {original:,} bytes, level {settings.level}, {_method(found)}")
    if found.is_whole:
        output.line(f"  size        {size.value:,.0f} bytes{rate}: all of it was compressed")
    else:
        output.line(f"  size        {size.value:,.0f} bytes ({size.low:,.0f} to {size.high:,.0f}){rate}")
    for title, taken in times.items():
        low, high = _duration(taken.low), _duration(taken.high)
        shown = f"{_duration(taken.value)} ({low} to {high})" if low != high else _duration(taken.value)
        output.line(f"  {title.removesuffix('_seconds'):<12}{shown}")
    if not found.is_whole:
        sample = "no sample: it looks like noise"
        if found.pieces:
            places = "one place" if found.pieces == 1 else f"{found.pieces} evenly spread places"
            sample = f"{found.sampled_bytes:,} bytes of {places}"
        output.line(f"  sample      {sample}, {elapsed:.0f} s; start {found.start_seconds:.1f} s, in no time above")


def _method(found: Estimate) -> str:
    return f"{found.method} by {found.model}" if found.model else found.method


def _range_fields(name: str, number: Range, digits: int) -> dict[str, float]:
    def rounded(value: float) -> float:
        return round(value, digits) if digits else round(value)

    return {name: rounded(number.value), f"{name}_low": rounded(number.low), f"{name}_high": rounded(number.high)}


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "under 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
