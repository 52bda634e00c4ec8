"""The commands on a real cluster: three raylets on this host, processes and nodes that die, a bucket server."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmzip

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")

_ROOT = Path(llmzip.__file__).parents[1]
_PROSE = (_ROOT / "corpora" / "prose-en.txt").read_bytes()
_STORE_BYTES = 80 << 20


class Machines:
    """A head without CPUs and nodes of one CPU each, all on this host."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False, "_system_config": soon}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add(), self.add()]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **environment: str) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES, env_vars=environment or None)

    def kill(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def machines(s3_server: str) -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(_ROOT), prepend=os.pathsep)
        patch.setenv("RAY_worker_niceness", "0")  # else other tests take all the time there is
        found = Machines()
        yield found
        found.stop()


def _command(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "llmzip", "cluster", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",  # Ray lets workers import from the driver's folder, too
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]), **options},
    )


def run(machines: Machines, *arguments: str, status: int = 0, **options: str) -> tuple[list[dict[str, Any]], str]:
    """Runs a command to its end; returns its JSON records and what it wrote to the standard error."""
    process = _command(*arguments, "--address", machines.address, "--json", **options)
    out, err = process.communicate(timeout=200)
    assert process.returncode == status, err.decode()
    return [json.loads(line) for line in out.splitlines()], err.decode()


def corpus(folder: Path, count: int = 24, seed: int = 1) -> dict[str, bytes]:
    """Small texts, some bytes that do not compress, and a file of two parts."""
    rng = random.Random(seed)
    texts = {}
    for number in range(count):
        begin = rng.randrange(len(_PROSE) - 3000)
        texts[f"{'abc'[number % 3]}/{number:03d}.txt"] = _PROSE[begin : begin + rng.randrange(3000)]
    big = b"all the same, " * 90_000 + rng.randbytes(1 << 19) + _PROSE[:2000] + rng.randbytes(1 << 19)
    texts |= {"noise.bin": rng.randbytes(5000), "big.bin": big}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return texts


def archives(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix().removesuffix(".llmz"): file.read_bytes() for file in folder.rglob("*.llmz")
    }


def alone(texts: dict[str, bytes]) -> dict[str, bytes]:
    return {name: llmzip.compress(text, level=1) for name, text in texts.items()}


def total(records: list[dict[str, Any]]) -> dict[str, Any]:
    assert records[-1]["total"] is True
    return records[-1]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1].decode()
        time.sleep(0.05)


def test_a_corpus_there_and_back(machines: Machines, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    source, dest, back = (tmp_path / name for name in ("in", "out", "back"))
    texts = corpus(source)
    expected = alone(texts)
    records, _ = run(machines, "compress", "-1", str(source), "-o", str(dest))
    assert archives(dest) == expected
    sums = total(records)
    assert sums["bits"] == sum(8 * len(archive) for archive in expected.values())
    assert (sums["files"], sums["kept"], sums["failed"]) == (len(texts), 0, 0)
    table = pq.read_table(dest / "_llmzip" / "rows")
    assert sorted(table["path"].to_pylist()) == sorted(str(source / name) for name in texts)
    assert sum(table["bits"].to_pylist()) == sums["bits"]
    lines = [json.loads(line) for line in (dest / "_llmzip" / "rows.jsonl").read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == sorted(table["path"].to_pylist())
    assert not (dest / "_llmzip" / "work").exists() and not (dest / "_llmzip" / "tasks").exists()

    records, _ = run(machines, "compress", "-1", str(source), "-o", str(dest))
    assert total(records)["kept"] == len(texts) and archives(dest) == expected
    assert len(pq.read_table(dest / "_llmzip" / "rows")) == len(texts)

    run(machines, "decompress", str(dest), "-o", str(back))
    assert {name: (back / name).read_bytes() for name in texts} == texts


def test_a_bad_file_and_a_missing_one_leave_the_others(machines: Machines, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        archive = bytearray(llmzip.compress(_PROSE[: 500 + number], level=1))
        archive[40] ^= number == 1
        (source / f"{number}.llmz").write_bytes(bytes(archive))
    missing = str(tmp_path / "in" / "missing.llmz")
    records, err = run(
        machines, "test", str(source), missing, "-o", str(tmp_path / "rows"), status=1
    )  # fmt: skip
    rows = {os.path.basename(record["path"]): record for record in records[:-1]}
    assert {name: row["error_kind"] for name, row in rows.items()} == {
        "0.llmz": None, "1.llmz": "CorruptError", "2.llmz": None, "missing.llmz": "FileNotFoundError",
    }  # fmt: skip
    assert (total(records)["files"], total(records)["failed"]) == (2, 2)
    assert sorted(line.split(": ")[1] for line in err.splitlines()) == [str(source / "1.llmz"), missing]


def test_entropy_is_the_same_sum_in_any_order(machines: Machines, tmp_path: Path) -> None:
    source = tmp_path / "in"
    texts = corpus(source, 12)
    os.remove(source / "big.bin")
    forward, _ = run(machines, "entropy", str(source), "-o", str(tmp_path / "one"))
    names = sorted((str(file) for file in source.rglob("*.*")), reverse=True)
    backward, _ = run(machines, "entropy", *names, "-o", str(tmp_path / "two"), "--workers", "1")
    sums = [
        {key: total(records)[key] for key in ("bits", "bytes", "tokens", "files")} for records in (forward, backward)
    ]
    assert sums[0] == sums[1] and sums[0]["files"] == len(texts) - 1
    kept, _ = run(machines, "entropy", str(source), "-o", str(tmp_path / "one"))
    assert total(kept)["bits"] == sums[0]["bits"]


def test_a_killed_driver_is_started_again(machines: Machines, tmp_path: Path) -> None:
    source, dest = tmp_path / "in", tmp_path / "out"
    texts = corpus(source, 80)
    arguments = ["compress", "-1", str(source), "-o", str(dest)]
    process = _command(*arguments, "--address", machines.address)
    wait_for(lambda: len(archives(dest)) >= 20, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for left in dest.rglob(".llmzip-*.tmp"):
        os.utime(left, (0, 0))  # as if it had been left hours ago
    records, _ = run(machines, *arguments)
    assert archives(dest) == alone(texts)
    assert 20 <= total(records)["kept"] < len(texts)
    assert not list(dest.rglob("*.tmp")) and not (dest / "_llmzip" / "tasks").exists()


@pytest.mark.parametrize("victim", [pytest.param("worker", marks=pytest.mark.slow), "node"])
def test_what_dies_is_replaced(machines: Machines, tmp_path: Path, victim: str) -> None:
    source, dest = tmp_path / "in", tmp_path / "out"
    texts = corpus(source, 80, seed=3)
    process = _command("compress", "-1", str(source), "-o", str(dest), "--address", machines.address, "--json")
    wait_for(lambda: len(archives(dest)) >= 20, process)
    if victim == "node":
        machines.kill(machines.nodes.pop())
        machines.nodes.append(machines.add())
    else:
        for pid in _worker_processes():
            os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err.decode()
    assert archives(dest) == alone(texts)
    sums = total([json.loads(line) for line in out.splitlines()])
    assert (sums["files"], sums["failed"]) == (len(texts), 0)


def _worker_processes() -> list[int]:
    """Processes of the pool's actors."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::MapWorker"):
                found.append(int(folder.name))
    assert found
    return found


def test_another_version_is_refused_before_work(machines: Machines, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(_ROOT / "llmzip", other / "llmzip", ignore=shutil.ignore_patterns("__pycache__"))
    version = other / "llmzip" / "_version.py"
    version.write_text(version.read_text().replace('__version__ = "', '__version__ = "9.'))
    (tmp_path / "a.txt").write_bytes(b"text")
    node = machines.add(PYTHONPATH=str(other))
    try:
        records, err = run(machines, "compress", str(tmp_path / "a.txt"), "-o", str(tmp_path / "out"), status=1)
    finally:
        machines.kill(node)
    assert records == [] and not (tmp_path / "out" / "a.txt.llmz").exists()
    assert "has llmzip 9." in err and len(err.splitlines()) == 1


def test_buckets(machines: Machines, tmp_path: Path, s3_bucket: str) -> None:
    import fsspec

    source = tmp_path / "in"
    texts = corpus(source, 6)
    run(machines, "compress", "-1", str(source), "-o", f"s3://{s3_bucket}/packed")
    run(machines, "decompress", f"s3://{s3_bucket}/packed", "-o", f"s3://{s3_bucket}/back")
    fs, root = fsspec.core.url_to_fs(f"s3://{s3_bucket}/back")
    assert {name: fs.cat_file(f"{root}/{name}") for name in texts} == texts


def test_dry_runs_make_nothing(machines: Machines, tmp_path: Path) -> None:
    source, dest = tmp_path / "in", tmp_path / "out"
    texts = corpus(source, 6)
    os.remove(source / "big.bin")
    records, _ = run(
        machines, "compress", "-1", str(source), "-o", str(dest), "--dry-run", "--price-per-hour", "0.5"
    )  # fmt: skip
    (record,) = records
    size = sum(map(len, texts.values())) - len(texts["big.bin"])
    assert (record["files"], record["bytes"]) == (len(texts) - 1, size)
    assert record["output_bytes_low"] <= record["output_bytes"] <= record["output_bytes_high"] <= size
    assert record["cost"] == pytest.approx(record["worker_seconds"] * 0.5 / 3600, abs=1e-5)
    assert not dest.exists()


def test_without_ray_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    code = "import sys; sys.modules['ray'] = None; from llmzip.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "cluster", "compress", str(tmp_path / "a"), "-o", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert 'pip install "llmzip[ray]"' in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-o", "memory://out", "IN"], "memory of one process"),
        (["-o", "OUT"], "name the files"),
        (["-o", "OUT", "IN", "--workers", "3-2"], "not a number of workers"),
        (["-o", "nosuch://x", "IN"], "nosuch"),
    ],
)
def test_bad_arguments_are_refused_in_a_line(tmp_path: Path, arguments: list[str], reason: str) -> None:
    (tmp_path / "in").write_bytes(b"a")
    named = {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out")}
    process = _command("compress", *(named.get(word, word) for word in arguments))
    _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 2) and reason in err.decode()
    assert len(err.decode().splitlines()) <= 2
