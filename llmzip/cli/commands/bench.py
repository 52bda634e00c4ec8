"""The command `llmzip bench`: its options, and which compressors they mean; must not know how anything is measured."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...errors import EXIT_FAILED
from ...settings import DEFAULT_LEVEL, DEFAULT_MODEL, MAX_LEVEL, MIN_LEVEL, EngineSettings
from ...system import process
from .. import options
from ..command import Output, command
from ..messages import PROGRAM, Messages

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE = re.compile(r"([0-9]+) ?(|[kmg]i?)b?", re.IGNORECASE)


class Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of bytes: 5000, 64K, 64KiB, 1MB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _SIZE.fullmatch(str(value))
        if found is None or int(found[1]) < 1:
            self.fail(f"{value!r} is no number of bytes such as 5000, 64KiB or 1MB", param, ctx)
        return int(found[1]) * _UNITS[found[2].lower()]


def _names(values: Sequence[str]) -> list[str]:
    """Options that may be repeated, and hold lists with commas."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def _levels(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[int]:
    names = _names(values) or [str(DEFAULT_LEVEL)]
    for name in names:
        if not name.isdecimal() or not MIN_LEVEL <= int(name) <= MAX_LEVEL:
            raise click.BadParameter(f"{name!r} is not {MIN_LEVEL} to {MAX_LEVEL}", ctx, param)
    return [int(name) for name in names]


@command(
    "bench",
    click.argument("names", nargs=-1, required=True, metavar="FILE|DIR..."),
    click.option(
        "--level", "levels", metavar="LIST", multiple=True, callback=_levels,
        help=f"Levels of llmzip, with commas between; may be repeated.  [default: {DEFAULT_LEVEL}]",
    ),
    options.several_models,
    click.option("--no-llmzip", is_flag=True, help="Only the others."),
    click.option(
        "--peers", "peer_names", metavar="LIST", multiple=True,
        help="Of the libraries gzip, bzip2, xz, zstd, brotli only these.  [default: all]",
    ),
    click.option("--no-peers", is_flag=True, help="No libraries."),
    click.option(
        "--programs", "all_programs", is_flag=True,
        help="Also the programs gzip, bzip2, xz, zstd, brotli, zpaq, 7z (PPMd), paq8px and cmix, where on the PATH.",
    ),
    click.option("--program", "program_names", metavar="LIST", multiple=True, help="Also these programs."),
    click.option(
        "--pieces", metavar="BYTES", type=Size(),
        help="Besides whole files also pieces of this length, each compressed alone by every compressor.",
    ),
    click.option("--most-bytes", metavar="BYTES", type=Size(), help="Leave out larger files."),
    click.option("--text-only", is_flag=True, help="Leave out files that are a twentieth NUL bytes or more."),
    click.option(
        "--repeat", metavar="N", type=click.IntRange(1, 1000),
        help="Runs of each direction; the fastest counts.  [default: llmzip one, others up to three in half a second]",
    ),
    click.option(
        "--timeout", metavar="SECONDS", type=click.FloatRange(0, min_open=True), default=3600.0, show_default=True,
        help="For each direction of the others on one file.",
    ),
    click.option(
        "-o", "--output", "folder", metavar="DIR",
        help="Write results.json, results.csv, results.md, chart.png and chart.svg there. What DIR/results.jsonl has "
        "already is not measured again.",
    ),
    click.option("--again", is_flag=True, help="Measure everything, whatever DIR/results.jsonl has."),
    options.engine,
)  # fmt: skip
def bench_command(
    output: Output,
    messages: Messages,
    names: tuple[str, ...],
    levels: list[int],
    model_lists: tuple[str, ...],
    no_llmzip: bool,
    peer_names: tuple[str, ...],
    no_peers: bool,
    all_programs: bool,
    program_names: tuple[str, ...],
    pieces: int | None,
    most_bytes: int | None,
    text_only: bool,
    repeat: int | None,
    timeout: float,
    folder: str | None,
    again: bool,
    threads: int | None,
    device: str,
) -> int:
    """Compare llmzip with other compressors.

    Every file is compressed, decompressed and compared, by llmzip at the levels and with the models asked for, by
    libraries and by programs, each in a process of its own. Ratio is original by compressed bytes; speeds are original
    bytes per second, without the loading of models; memory is the peak of the process. Folders are searched; - is the
    standard input. A file or a row that fails is said, and the rest goes on; then the exit code is 1.

    \b
    llmzip bench notes.txt
    llmzip bench --text-only -o results canterbury
    llmzip bench --level 1,6,9 -m base,small --pieces 64KiB book.txt
    """
    from ...bench import machine, measure, peers  # not before they are needed: --help must be quick
    from ...bench.run import Run, check_results, find_files

    if no_peers and peer_names:
        raise click.UsageError("--peers and --no-peers exclude each other")
    wanted = _names(program_names)
    libraries = [] if no_peers else peers.choose_libraries(_names(peer_names))
    contenders = [measure.library(peer, bool(peer_names)) for peer in libraries]
    if all_programs or wanted:
        every = peers.choose_programs([] if all_programs else wanted)
        contenders += [measure.program(p, bool({p.label, p.family} & set(wanted))) for p in every]
    if not no_llmzip:
        engine = EngineSettings(device=device, threads=threads)
        for model in options.model_names(model_lists) or [DEFAULT_MODEL]:
            contenders += [measure.llmzip(level, model, engine) for level in levels]
    if not contenders:
        raise click.UsageError("nothing to compare: no llmzip, no libraries and no programs")
    run = Run(output, messages, contenders, [None, pieces] if pieces else [None], repeat, timeout)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmzip-bench-")))

        def announce(signal_name: str) -> None:
            measure.stop()
            shutil.rmtree(work, ignore_errors=True)
            messages.stopped(signal_name, "what was measured is kept" if folder else "nothing is kept")

        stack.enter_context(process.signals_clean_up(announce))
        files = find_files(names, work, most_bytes, text_only, run)
        if folder is not None:
            check_results(Path(folder), files)
            run.open_log(Path(folder), again)
        facts = {"machine": machine.facts(), "command": shlex.join([PROGRAM, "bench", *_arguments()])}
        for path, name in files:
            run.file(path, name, work / "pieces")
        run.finish()
        if folder is not None:
            run.write(Path(folder), facts)
    return EXIT_FAILED if run.has_failed else 0


def _arguments() -> list[str]:
    """What stands behind `bench` on the command line."""
    return sys.argv[sys.argv.index("bench") + 1 :] if "bench" in sys.argv else []
