"""The command `llmzip cluster`: compresses, decompresses, tests or measures files on many machines with Ray.

It is a group of its own rather than an option of the other commands, because it takes folders and URIs, writes to a
destination instead of beside each input, and can be run again: options such as -c, -o FILE and --rm mean nothing here.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import click

from ...errors import SettingsError
from ...settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, DecompressSettings, EngineSettings
from .. import options, values
from ..command import CONTEXT, Output, command, with_local_model
from ..messages import Messages
from ..records import range_fields
from ..units import duration_range_text
from .cluster_follow import RunPrinter

if TYPE_CHECKING:
    from ...cluster.fleet import Connection, Resources
    from ...cluster.job import Job, Operation
    from ...cluster.run import Inputs
    from ...cluster.storage import Store
    from ...measures.extrapolation import Range


@click.group("cluster", context_settings=CONTEXT, epilog=options.EXIT_STATUS)
def cluster_command() -> None:
    """Work on many files and machines with Ray.

    SRC are files, folders, patterns or URIs such as s3://bucket/folder; outputs and result rows go to the folder or URI
    DEST. Without --address, Ray runs on this machine for as long as the command. The outputs are those that llmzip
    makes of each file on one machine, bit for bit. A run that was stopped is continued by running it again: what is
    complete is checked and kept. Needs pip install "llmzip[ray]"; docs/cluster.md says more.

    \b
    llmzip cluster compress -9 corpus -o corpus.llmz.d
    llmzip cluster compress s3://raw -o s3://packed --address auto --workers 4-100
    llmzip cluster entropy 'texts/*.txt' -o rows --json
    """


_sources = options.together(
    click.argument("sources", nargs=-1, metavar="[SRC]..."),
    click.option(
        "-o", "--output", "dest", metavar="DEST", required=True,
        help="Folder or URI for outputs and rows: empty, or of an earlier run of the same command.",
    ),
    click.option(
        "-f", "--force", is_flag=True,
        help="Take a DEST with files that no run made; those with the name of an output are replaced.",
    ),
    click.option(
        "--filelist", metavar="FILE",
        help="Also take the names in FILE, one in each line, or between NUL bytes; - is the standard input.",
    ),
    click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Take only the first N files."),
)  # fmt: skip
_machines = options.together(
    click.option(
        "--address", metavar="ADDRESS", envvar="RAY_ADDRESS", show_envvar=True,
        help="Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT.  [default: start Ray on this machine]",
    ),
    click.option(
        "--workers", metavar="N|MIN-MAX", type=values.WorkerRange(),
        help="Number of workers.  [default: up to as many as there is room for]",
    ),
    click.option(
        "--cpus-per-worker", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
        help="CPUs of each worker, and its threads.",
    ),
    click.option(
        "--gpus-per-worker", metavar="N", type=click.FloatRange(min=0), default=0, show_default=True,
        help="GPUs of each worker; a part such as 0.5 shares one.",
    ),
    click.option(
        "--dry-run", is_flag=True,
        help="Only say what there is to do, and estimate sizes, hours and cost from a sample on one worker.",
    ),
    click.option(
        "--price-per-hour", metavar="PRICE", type=click.FloatRange(min=0),
        help="Price of a worker's hour, for the cost that --dry-run tells.",
    ),
)  # fmt: skip


@command(
    "compress", _sources, options.levels, options.compress_model, options.prompt, options.exact_rows, _machines,
    options.progress,
)  # fmt: skip
def compress_command(level: int | None, **use: Any) -> int:
    """Compress files, each to DEST/NAME.llmz.

    Names in DEST are relative to the deepest folder that holds all SRC. Files in a folder that end in .llmz are left
    out.
    """
    from ...cluster.job import Operation

    return _run(Operation.COMPRESS, level=level or DEFAULT_LEVEL, **use)


@command("decompress", _sources, options.decompress_model, options.prompt, _machines, options.progress)
def decompress_command(**use: Any) -> int:
    """Decompress archives, each to DEST/NAME without .llmz.

    Of a folder, only the files are taken that end in .llmz.
    """
    from ...cluster.job import Operation

    return _run(Operation.DECOMPRESS, **use)


@command("test", _sources, options.decompress_model, options.prompt, _machines, options.progress)
def test_command(**use: Any) -> int:
    """Decode and verify archives; only rows go to DEST.

    Of a folder, only the files are taken that end in .llmz.
    """
    from ...cluster.job import Operation

    return _run(Operation.TEST, **use)


@command("entropy", _sources, options.compress_model, options.context, _machines, options.progress)
def entropy_command(**use: Any) -> int:
    """Measure the bits of texts by the model; only rows go to DEST.

    A text is measured as llmzip entropy does it; one above 8 MiB in parts of 8 MiB, each from an empty context and with
    a row of its own. Numbers of bits are whole, so they add up to the same sum on any machines.
    """
    from ...cluster.job import Operation

    return _run(Operation.ENTROPY, **use)


for _command in (compress_command, decompress_command, test_command, entropy_command):
    cluster_command.add_command(_command)


# -- a run -----------------------------------------------------------------------------------------------------------


def _run(
    operation: Operation,
    *,
    output: Output,
    messages: Messages,
    sources: tuple[str, ...],
    dest: str,
    force: bool,
    filelist: str | None,
    limit: int | None,
    address: str | None,
    workers: tuple[int, int] | None,
    cpus_per_worker: int,
    gpus_per_worker: float,
    dry_run: bool,
    price_per_hour: float | None,
    **use: Any,
) -> int:
    """Does what one of the commands was asked for; returns the exit status."""
    from ...cluster import fleet
    from ...cluster.fleet import Resources
    from ...cluster.run import Run, gather
    from ...cluster.sources import Sources

    if not sources and filelist is None:
        raise click.UsageError("name the files, folders or URIs to work on, or a list of them with --filelist")
    engine = EngineSettings(device="cuda" if gpus_per_worker else "cpu", threads=cpus_per_worker)
    fleet.import_ray()
    with Sources(sources, filelist=filelist, wanted=operation.wants) as found:
        job = _job(operation, found.store, dest, engine, messages, use)
        with messages.counting("files") as count:
            inputs = gather(found, limit, count, may_repeat=found.may_repeat)
    try:
        with fleet.connected(address, is_quiet=messages.verbosity < 2 and not messages.debug) as cluster:
            ray = cluster.ray
            room = fleet.worker_room(ray, Resources(cpus_per_worker, gpus_per_worker))
            # A cluster may have other work; Ray on this machine has none.
            low, high = workers or (room if address is None else 1, room)
            resources = Resources(cpus_per_worker, gpus_per_worker, low, high)
            build = fleet.build_here(job)
            nodes = fleet.check_nodes(ray, build, job)
            _say_start(messages, cluster, inputs, resources, nodes)
            if dry_run:
                return _forecast(output, ray, job, inputs, resources, price_per_hour)
            with messages.progress(job.dest.uri_of(""), inputs.num_bytes) as advance:
                printer = RunPrinter(output, messages, operation, advance)
                Run(job, inputs, printer, takes_over=force).run(ray, resources, build)
            printer.summarize()
            return printer.exit_status
    finally:
        inputs.close()


def _job(
    operation: Operation, source: Store, dest: str, engine: EngineSettings, messages: Messages, use: dict[str, Any]
) -> Job:
    """Returns what every worker needs to know.

    Args:
        operation: what is done with each file.
        source: the folder that all inputs lie in.
        dest: name of the destination.
        engine: where workers compute.
        messages: where the download of a model is reported.
        use: the options about level and model.

    Raises:
        SettingsError: the destination cannot be seen by other processes, or a value is out of its range.
        ModelError: the model cannot be used.
    """
    from ...cluster import fleet
    from ...cluster.job import Job
    from ...cluster.storage import open_store

    store = open_store(dest)
    for place in (source, store):
        if not place.is_shared:
            raise SettingsError(f"{place.uri} lies in the memory of one process, where no worker can see it")
    prompt = values.read_prompt(use.pop("prompt_file", None))
    model, offline = use.pop("model", None), use.pop("offline", True)
    compress, decompress = CompressSettings(engine=engine), DecompressSettings(model, engine, prompt)
    if not operation.reads_archives:
        settings = CompressSettings(model=model or DEFAULT_MODEL, engine=engine, prompt=prompt, **use)
        compress = with_local_model(settings, messages, offline)
    digest = hashlib.sha256(prompt).hexdigest() if prompt else ""
    job = Job(operation, source, store, compress, decompress, prompt=digest)
    return dataclasses.replace(job, model=fleet.model_identity(job))


def _say_start(messages: Messages, cluster: Connection, inputs: Inputs, resources: Resources, nodes: int) -> None:
    """Says what there is to do, and where it is done."""
    workers = f"{resources.min_workers} to {resources.max_workers}"
    if resources.min_workers == resources.max_workers:
        workers = str(resources.max_workers)
    place = "this machine" if nodes == 1 else f"{nodes} nodes"
    messages.remark(f"{inputs.num_files:,} files, {inputs.num_bytes:,} bytes, on {workers} workers of {place}")
    if cluster.dashboard:
        messages.remark(f"Ray's dashboard: http://{cluster.dashboard}")


def _forecast(
    output: Output, ray: Any, job: Job, inputs: Inputs, resources: Resources, price_per_hour: float | None
) -> int:
    """Prints what the run would take; returns the exit status."""
    from ...cluster.forecast import forecast

    expected = forecast(ray, job, inputs, resources)
    hours = expected.seconds.scaled(1 / 3600)
    cost = None if price_per_hour is None else expected.worker_seconds.scaled(price_per_hour / 3600)
    output.record(
        files=inputs.num_files,
        bytes=inputs.num_bytes,
        problems=len(inputs.problems),
        **range_fields("output_bytes", expected.output_bytes, 0),
        **range_fields("worker_seconds", expected.worker_seconds, 3),
        **range_fields("hours", hours, 6),
        **range_fields("cost", cost, 6),
        workers=expected.workers,
        sampled_bytes=expected.sampled_bytes,
    )
    for problem in inputs.problems:
        output.line(f"{problem.path}: {problem.error}")
    output.line(f"{inputs.num_files:,} files, {inputs.num_bytes:,} bytes")
    if expected.output_bytes is not None:
        output.line(f"  output      {_numbers(expected.output_bytes, 'bytes')}")
    workers = "one worker" if expected.workers == 1 else f"{expected.workers:,} workers"
    output.line(f"  time        {duration_range_text(expected.seconds)} on {workers}")
    if expected.workers > 1:
        output.line(f"  work        {duration_range_text(expected.worker_seconds)} of one worker")
    if cost is not None:
        output.line(f"  cost        {_numbers(cost, f'at {price_per_hour:g} an hour of a worker', digits=2)}")
    output.line(f"  sample      {expected.sampled_bytes:,} bytes of {expected.sampled_files:,} files, on one worker")
    return 1 if inputs.problems else 0


def _numbers(number: Range, unit: str, digits: int = 0) -> str:
    return f"{number.value:,.{digits}f} {unit} ({number.low:,.{digits}f} to {number.high:,.{digits}f})"
