"""How `llmzip cluster` scales: workers that compress, workers that only wait, memory of many files and of a large one.

    python benchmarks/cluster.py --output bench-results

Compressing is measured with 1 and 2 workers on this machine. More workers are simulated: tasks that wait as long as
one of 256 KiB took, many of them at once in a few processes, so that what is measured is Ray and the driver. Numbers
are written to cluster.json and as a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmzip.cluster import fleet, pool
from llmzip.cluster.fleet import Resources
from llmzip.cluster.job import Job, Operation
from llmzip.cluster.run import Run, gather
from llmzip.cluster.sources import Sources
from llmzip.cluster.storage import open_store
from llmzip.cluster.tasks import TaskList, make_tasks
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings

_ROOT = Path(__file__).parents[1]
_AT_ONCE = 125
"""Tasks that wait in one process of the simulation."""


class Waiter:
    """Waits instead of working.

    Args:
        seconds: that a task takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __call__(self, batch: dict[str, Any]) -> Any:
        await asyncio.sleep(self._seconds)
        yield {"result": ["" for _ in batch["id"]]}


class Watcher:
    """Follows a run: how long tasks took, and how much memory there was in use after each.

    Args:
        ray: the module, connected.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.busy_seconds = 0.0
        self.tasks = 0
        self.errors: list[str] = []
        self.driver_mib: list[float] = []
        self.worker_mib = self.store_mib = 0.0

    def row(self, row: Any) -> None:
        if row.error is not None:
            self.errors.append(f"{row.path}: {row.error}")

    def done(self, result: Any) -> None:
        self.busy_seconds += result.seconds
        self.tasks += 1
        self.driver_mib.append(resident_mib())
        self.worker_mib = max(self.worker_mib, resident_mib(result.worker.rpartition(":")[2]))
        name = "object_store_memory"
        total, free = self._ray.cluster_resources()[name], self._ray.available_resources().get(name, 0)
        self.store_mib = max(self.store_mib, (total - free) / (1 << 20))


def resident_mib(process: str = "self") -> float:
    """Memory of a process; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def make_job(source: Path, dest: Path, level: int, threads: int = 1) -> Job:
    engine = EngineSettings(device="cpu", threads=threads)
    job = Job(
        Operation.COMPRESS, open_store(str(source)), open_store(str(dest)),
        CompressSettings(level, engine=engine), DecompressSettings(None, engine),
    )  # fmt: skip
    return Job(job.operation, job.source, job.dest, job.compress, job.decompress, fleet.model_identity(job))


def compressed(ray: Any, source: Path, workers: int, level: int, cpus: int = 1) -> dict[str, Any]:
    """Compresses a folder; returns what it took from the list of tasks to the last row."""
    with tempfile.TemporaryDirectory() as dest:
        job = make_job(source, Path(dest), level, cpus)
        inputs = gather(Sources([str(source)], wanted=job.operation.wants), None, lambda count: None)
        follower = Watcher(ray)
        started = time.perf_counter()
        Run(job, inputs, follower).run(ray, Resources(cpus, 0, workers, workers), fleet.build_here(job))
        elapsed = time.perf_counter() - started
        assert not follower.errors, follower.errors
        return {
            "workers": workers,
            "cpus_per_worker": cpus,
            "files": inputs.num_files,
            "bytes": inputs.num_bytes,
            "tasks": follower.tasks,
            "seconds": elapsed,
            "busy_seconds": follower.busy_seconds,
            "efficiency": follower.busy_seconds / (workers * elapsed),
            "driver_mib_first": follower.driver_mib[0],
            "driver_mib_last": follower.driver_mib[-1],
            "worker_mib": follower.worker_mib,
            "object_store_mib": follower.store_mib,
        }


def simulated(ray: Any, workers: int, seconds: float, tasks_each: int) -> dict[str, Any]:
    """Lets a number of workers wait; returns how much longer than ideal it took, and what it cost the driver."""
    actors = -(-workers // _AT_ONCE)
    at_once = -(-workers // actors)
    count = workers * tasks_each
    used, memory = processor_seconds(), resident_mib()
    first = started = time.perf_counter()
    results = pool.results_of(
        ray, Waiter, (seconds,), range(count), Resources(0, 0, actors, actors), max_concurrency=at_once
    )  # fmt: skip
    for number, _ in enumerate(results):
        if number == 0:
            first = time.perf_counter() - seconds  # the pool is there
    elapsed = time.perf_counter() - first
    return {
        "workers": workers,
        "tasks": count,
        "task_seconds": seconds,
        "start_seconds": first - started,
        "seconds": elapsed,
        "efficiency": seconds * tasks_each / elapsed,
        "driver_seconds_per_task": (processor_seconds() - used) / count,
        "driver_mib": resident_mib(),
        "driver_mib_grown": resident_mib() - memory,
    }


def tiny_files_into(folder: Path, count: int) -> None:
    """Makes files of some 12 bytes, 1,000 to a folder."""
    for number in range(count):
        place = folder / f"{number // 1000:05d}"
        if number % 1000 == 0:
            place.mkdir()
        (place / f"{number:08d}.txt").write_bytes(b"text %d\n" % number)


def listed(count: int) -> dict[str, Any]:
    """Lists tiny files and writes their tasks; returns time and memory."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as dest:
        tiny_files_into(Path(folder), count)
        job = make_job(Path(folder), Path(dest), 6)
        memory, started = resident_mib(), time.perf_counter()
        inputs = gather(Sources([folder], wanted=job.operation.wants), None, lambda count: None)
        tasks = sum(1 for _ in TaskList(job.dest, "bench").write(make_tasks(job, inputs, inputs.num_bytes)))
        return {
            "files": inputs.num_files,
            "tasks": tasks,
            "seconds": time.perf_counter() - started,
            "grown_mib": resident_mib() - memory,
        }


def texts_into(folder: Path, total_bytes: int) -> None:
    """Makes files of 64 KiB from the texts under corpora/."""
    texts = b"".join(file.read_bytes() for file in sorted((_ROOT / "corpora").glob("*.txt")))
    for number in range(total_bytes >> 16):
        begin = (number << 16) % (len(texts) - (1 << 16))
        (folder / f"{number:04d}.txt").write_bytes(texts[begin : begin + (1 << 16)])


def measured(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    for count in options.files:
        yield "listing", listed(count)
    with tempfile.TemporaryDirectory() as folder:
        texts_into(Path(folder), options.bytes)
        task_seconds = options.task_seconds
        for workers in options.workers:
            with fleet.connected(None) as cluster:
                found = compressed(cluster.ray, Path(folder), workers, options.level, options.cpus)
            task_seconds = task_seconds or found["busy_seconds"] / found["tasks"]
            yield "compressing", found
    workers = max(options.workers, default=1)
    for count in options.tiny:
        with tempfile.TemporaryDirectory() as folder, fleet.connected(None) as cluster:
            tiny_files_into(Path(folder), count)
            yield "tiny files", compressed(cluster.ray, Path(folder), workers, 1)
    for size in options.sparse:
        with tempfile.TemporaryDirectory() as folder, fleet.connected(None) as cluster:
            with open(os.path.join(folder, "sparse.bin"), "wb") as file:
                file.truncate(size)
            yield "sparse file", compressed(cluster.ray, Path(folder), workers, 1)
    with fleet.connected(None) as cluster:
        for workers in options.simulate:
            yield "simulation", simulated(cluster.ray, workers, task_seconds or 10.0, options.tasks_each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="workers that compress")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of each of them")
    parser.add_argument("--bytes", type=int, default=1 << 21, help="text that they compress")
    parser.add_argument("--level", type=int, default=6)
    parser.add_argument("--simulate", type=int, nargs="*", default=[4, 16, 64, 250, 1000], help="workers that wait")
    parser.add_argument("--tasks-each", type=int, default=4, help="tasks of each worker that waits")
    parser.add_argument("--task-seconds", type=float, help="how long they wait; by default as long as was measured")
    parser.add_argument("--files", type=int, nargs="*", default=[1000, 100_000], help="tiny files to list")
    parser.add_argument("--tiny", type=int, nargs="*", default=[10_000], help="tiny files to compress at -1")
    parser.add_argument("--sparse", type=int, nargs="*", default=[1 << 28], help="bytes of sparse files, likewise")
    options = parser.parse_args()
    stdout = sys.stdout  # Ray's prints are kept out of it while it is connected
    results: dict[str, list[dict[str, Any]]] = {}
    for kind, found in measured(options):
        results.setdefault(kind, []).append(found)
        shown = ", ".join(f"{name} {value:,.4g}" for name, value in found.items())
        print(f"{kind}: {shown}", flush=True, file=stdout)
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "cluster.json").write_text(json.dumps(results, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
