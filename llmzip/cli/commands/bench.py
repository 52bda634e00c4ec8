"""The command `llmzip bench`: its options, and the compressors that they mean. Knows nothing of measuring."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import EXIT_FAILED, EXIT_OK
from ...settings import DEFAULT_LEVEL, DEFAULT_MODEL, MAX_LEVEL, MIN_LEVEL, EngineSettings
from ...system import process
from ...system.filenames import FileProblem
from .. import options
from ..command import Output, command, typed_arguments
from ..messages import PROGRAM, Messages
from ..values import Size, listed_names, model_names

if TYPE_CHECKING:
    from ...bench.measure import Contender
    from ...bench.run import Run


def _levels(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[int]:
    """Returns the levels of --level; its callback."""
    names = listed_names(values) or [str(DEFAULT_LEVEL)]
    for name in names:
        if not name.isdecimal() or not MIN_LEVEL <= int(name) <= MAX_LEVEL:
            raise click.BadParameter(f"{name!r} is not {MIN_LEVEL} to {MAX_LEVEL}", ctx, param)
    return [int(name) for name in names]


@command(
    "bench",
    click.argument("names", nargs=-1, required=True, metavar="FILE|DIR..."),
    click.option(
        "--level", "levels", metavar="LIST", multiple=True, callback=_levels,
        help=f"Levels of llmzip, separated by commas; may be repeated.  [default: {DEFAULT_LEVEL}]",
    ),
    options.several_models,
    click.option("--no-llmzip", is_flag=True, help="Measure only the other compressors."),
    click.option(
        "--peers", "peer_names", metavar="LIST", multiple=True,
        help="Measure only these of the libraries gzip, bzip2, xz, zstd and brotli.  [default: all]",
    ),
    click.option("--no-peers", is_flag=True, help="Skip the library compressors."),
    click.option(
        "--programs", "all_programs", is_flag=True,
        help="Also measure the programs gzip, bzip2, xz, zstd, brotli, zpaq, 7z (PPMd), paq8px and cmix, where they "
        "are on the PATH.",
    ),
    click.option("--program", "program_names", metavar="LIST", multiple=True, help="Also measure these programs."),
    click.option(
        "--pieces", metavar="BYTES", type=Size(),
        help="Also cut the files into pieces of this length, each compressed alone by every compressor.",
    ),
    click.option("--most-bytes", "max_bytes", metavar="BYTES", type=Size(), help="Skip larger files."),
    click.option("--text-only", is_flag=True, help="Skip files of which a twentieth or more are NUL bytes."),
    click.option(
        "--repeat", metavar="N", type=click.IntRange(1, 1000),
        help="Runs of each direction; the fastest counts.  [default: one for llmzip, up to three in half a second for "
        "others]",
    ),
    click.option(
        "--timeout", metavar="SECONDS", type=click.FloatRange(0, min_open=True), default=3600.0, show_default=True,
        help="Time limit for each direction of another compressor on one file.",
    ),
    click.option(
        "-o", "--output", "folder", metavar="DIR",
        help="Write results.json, results.csv, results.md, chart.png and chart.svg to DIR. Rows that DIR/results.jsonl "
        "already has are not measured again.",
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
    max_bytes: int | None,
    text_only: bool,
    repeat: int | None,
    timeout: float,
    folder: str | None,
    again: bool,
    threads: int | None,
    device: str,
) -> int:
    """Compare llmzip with other compressors.

    Compress, decompress and compare every file, with llmzip at the given levels and with the given models, with
    libraries and with programs, each in a process of its own. The ratio is original over compressed bytes; speeds are
    original bytes per second, without the loading of models; memory is the peak of the process. Folders are searched; -
    is the standard input. A file or row that fails is reported, the rest continues, and the exit status is then 1.

    \b
    llmzip bench notes.txt
    llmzip bench --text-only -o results canterbury
    llmzip bench --level 1,6,9 -m base,small --pieces 64KiB book.txt
    """
    from ...bench import measure  # here, so that --help is quick
    from ...bench.files import find_files
    from ...bench.run import Run
    from .bench_print import Printer

    if no_peers and peer_names:
        raise click.UsageError("--peers and --no-peers exclude each other")
    contenders: list[Contender] = []
    if not no_peers:
        contenders += _libraries(listed_names(peer_names))
    contenders += _programs(listed_names(program_names), every=all_programs)
    if not no_llmzip:
        engine = EngineSettings(device=device, threads=threads)
        for model in model_names(model_lists) or [DEFAULT_MODEL]:
            contenders += [measure.llmzip(level, model, engine) for level in levels]
    if not contenders:
        raise click.UsageError("nothing to compare: no llmzip, no libraries and no programs")
    run = Run(Printer(output, messages), contenders, [None, pieces] if pieces else [None], repeat, timeout)

    def find(copies: Path) -> list[tuple[Path, str]]:
        return find_files(names, copies, max_bytes=max_bytes, text_only=text_only, on_problem=run.problem)

    _measure(run, find, messages, folder=Path(folder) if folder is not None else None, again=again)
    return EXIT_FAILED if run.has_failed else EXIT_OK


def _measure(
    run: Run,
    find: Callable[[Path], list[tuple[Path, str]]],
    messages: Messages,
    *,
    folder: Path | None,
    again: bool,
) -> None:
    """Finds the files, measures them, and writes the results.

    Args:
        run: the benchmark.
        find: finds the files and their names, given a folder for copies of pipes.
        messages: what the user reads.
        folder: folder of the results; None for none.
        again: whether to measure known rows again.
    """
    from ...bench import machine, measure
    from ...bench.files import check_results

    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmzip-bench-")))

        def announce(signal_name: str) -> None:
            measure.stop()
            shutil.rmtree(work, ignore_errors=True)
            messages.stopped(signal_name, "what was measured is kept" if folder else "nothing is kept")

        stack.enter_context(process.signals_clean_up(announce))
        files = find(work)
        if not files and not run.problems:
            raise FileProblem("there is no file to measure; see --most-bytes and --text-only")
        if folder is not None:
            check_results(folder, files)
            run.open_log(folder, again=again)
        facts = {"machine": machine.facts(), "command": shlex.join([PROGRAM, "bench", *typed_arguments()])}
        for path, name in files:
            run.file(path, name, work / "pieces")
        run.finish()
        no_chart = run.write(folder, facts) if folder is not None else None
        if no_chart is not None:
            messages.notice(f"no chart: {no_chart}")


def _libraries(names: list[str]) -> list[Contender]:
    """Returns the library compressors of these names; all of them for no names."""
    from ...bench import measure, peers

    return [measure.library(peer, is_wanted=bool(names)) for peer in peers.choose_libraries(names)]


def _programs(names: list[str], *, every: bool) -> list[Contender]:
    """Returns the programs of these names, or every one."""
    from ...bench import measure, peers

    if not names and not every:
        return []
    programs = peers.choose_programs([] if every else names)
    return [
        measure.program(program, is_wanted=program.label in names or program.family in names) for program in programs
    ]
