"""A run as the driver sees it, with a worker in this process: rows once each, drivers that die, several at once."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import llmzip
from llmzip.cluster import pool, tidying
from llmzip.cluster.fleet import Build, Resources
from llmzip.cluster.job import ALL_ROWS, ROWS, RUN_FILE, Job, Operation
from llmzip.cluster.localstore import LocalStore
from llmzip.cluster.rows import Row, read_rows
from llmzip.cluster.run import Inputs, Run, gather
from llmzip.cluster.sources import Sources
from llmzip.cluster.storage import open_store
from llmzip.cluster.tasks import TaskList
from llmzip.cluster.worker import TaskResult, Worker
from llmzip.codec import drafts, levels, writer
from llmzip.errors import LLMZipError
from llmzip.settings import CompressSettings, EngineSettings

_BUILD = Build("", 0, 0, "", "", "", "")
_ENGINE = EngineSettings(device="cpu", threads=1)


class Seen:
    """Collects what a run says."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.kept = 0

    def row(self, row: Row) -> None:
        self.rows.append(row)
        self.kept += row.kept

    def done(self, result: TaskResult) -> None:
        pass

    @property
    def errors(self) -> dict[str, str | None]:
        return {Path(row.path).name: row.error_kind for row in self.rows if row.error is not None}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker in this process instead of Ray, and units of four pieces of 2 KiB."""

    def run_tasks(
        ray: Any, job: Job, tasks: TaskList, numbers: Sequence[int], resources: Resources, build: Build
    ) -> Iterator[TaskResult]:
        worker = Worker(job, tasks.run)
        for number in numbers:
            yield worker.run(tasks.read(number))

    monkeypatch.setattr(pool, "run_tasks", run_tasks)
    monkeypatch.setattr(levels, "PIECE_BYTES", 1 << 11)
    monkeypatch.setattr(drafts, "PIECE_BYTES", 1 << 11)
    monkeypatch.setattr(writer, "UNIT_BYTES", 1 << 13)
    monkeypatch.setattr("llmzip.cluster.tasks._MIN_TASK_BYTES", 1 << 11)
    monkeypatch.setattr("llmzip.cluster.tasks._MIN_CUT_ARCHIVE_BYTES", 1)


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, bytes]:
    """Some small files and one of five parts in two units, most of it quick to compress."""
    rng = random.Random(1)
    made = {f"{number}.bin": rng.randbytes(rng.randrange(1500)) for number in range(5)}
    made |= {"big.bin": rng.randbytes(9000), "empty": b""}
    (tmp_path / "in").mkdir()
    for name, text in made.items():
        (tmp_path / "in" / name).write_bytes(text)
    return made


def run(
    folder: Path,
    *names: str,
    dest: str = "out",
    operation: Operation = Operation.COMPRESS,
    limit: int | None = None,
    source: str = "in",
) -> Seen:
    """Runs an operation over names in a folder, or over all of it."""
    seen = Seen()
    named = [str(folder / source / name) for name in names] or [str(folder / source)]
    with Sources(named, wanted=operation.wants) as found:
        job = Job(operation, found.store, open_store(str(folder / dest)), CompressSettings(1, "base", _ENGINE))
        inputs = gather(found, limit, lambda count: None, may_repeat=found.may_repeat)
    try:
        Run(job, inputs, seen).run(None, Resources(), _BUILD)
    finally:
        inputs.close()
    return seen


def written(dest: Path) -> list[Row]:
    store = open_store(str(dest))
    return [row for name in store.names(ROWS) for row in read_rows(store, name) or []]


def names_of(rows: Iterable[Row]) -> Counter[str]:
    return Counter(Path(row.path).name for row in rows)


def check_complete(dest: Path, texts: dict[str, bytes]) -> None:
    """Checks that there are all outputs, a row of each, and nothing else."""
    assert {file.name: file.read_bytes() for file in dest.glob("*.*")} == {
        f"{name}.llmz": llmzip.compress(text, level=1) for name, text in texts.items()
    }
    assert names_of(written(dest)) == Counter(list(texts))
    rest = {file.relative_to(dest).as_posix() for file in (dest / "_llmzip").iterdir()}
    assert rest == {ROWS, RUN_FILE, ALL_ROWS}


def test_each_row_is_there_once_whatever_part_is_run_again(tmp_path: Path, texts: dict[str, bytes]) -> None:
    for limit in (2, None, 4, 1, None):
        run(tmp_path, limit=limit)
        assert set(names_of(written(tmp_path / "out")).values()) == {1}
    assert run(tmp_path).kept == len(texts)
    check_complete(tmp_path / "out", texts)


def test_a_file_that_is_named_twice_is_done_once(tmp_path: Path, texts: dict[str, bytes]) -> None:
    seen = run(tmp_path, "1.bin", "big.bin", "*.bin", "1.bin", "missing", "big.bin", "missing")
    assert names_of(seen.rows) == names_of(written(tmp_path / "out")) == Counter({*texts, "missing"} - {"empty"})


def test_failures_have_rows_until_they_are_mended(tmp_path: Path, texts: dict[str, bytes]) -> None:
    run(tmp_path)
    archive = tmp_path / "out" / "big.bin.llmz"
    good = archive.read_bytes()
    archive.write_bytes(good[:4000] + b"?" + good[4001:])
    options = {"dest": "back", "source": "out", "operation": Operation.DECOMPRESS}
    named = ["1.bin.llmz", "big.bin.llmz", "missing.llmz"]
    seen = run(tmp_path, *named, **options)  # type: ignore[arg-type]
    assert seen.errors == {"big.bin.llmz": "CorruptError", "missing.llmz": "FileNotFoundError"}
    assert names_of(seen.rows) == names_of(written(tmp_path / "back")) == Counter(named)
    lines = (tmp_path / "back" / ALL_ROWS).read_text().splitlines()
    assert Counter(Path(json.loads(line)["path"]).name for line in lines) == Counter(named)
    archive.write_bytes(good)
    seen = run(tmp_path, *named[:2], **options)  # type: ignore[arg-type]
    assert not seen.errors and names_of(written(tmp_path / "back")) == Counter(named[:2])
    assert (tmp_path / "back" / "big.bin").read_bytes() == texts["big.bin"]


def test_runs_at_the_same_time_leave_each_other_alone(
    tmp_path: Path, texts: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, others = pool.run_tasks, []

    def run_tasks(*arguments: Any) -> Iterator[TaskResult]:
        for number, result in enumerate(real(*arguments)):
            if number in (1, 4):  # a whole run of other inputs in between
                with monkeypatch.context() as patch:
                    patch.setattr(pool, "run_tasks", real)
                    others.append(run(tmp_path, limit=2 + number))
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(pool, "run_tasks", run_tasks)
        seen = run(tmp_path)
    assert len(others) >= 2 and not any(each.errors for each in [seen, *others])
    assert names_of(seen.rows) == Counter(list(texts))
    assert set(names_of(written(tmp_path / "out"))) == set(texts)
    run(tmp_path)
    check_complete(tmp_path / "out", texts)


def test_a_driver_that_dies_at_any_step_is_started_again(
    tmp_path: Path, texts: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(tidying, "_is_running", lambda process: False)
    step = 0
    while True:
        dest, left = f"out{step}", step

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:  # nothing is done any more, not even to tidy
                    raise Killed
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("create", "remove", "remove_tree"):
                patch.setattr(LocalStore, name, counted(getattr(LocalStore, name)))
            try:
                run(tmp_path, dest=dest)
            except Killed:
                pass
            else:
                break
        assert not run(tmp_path, dest=dest).errors
        check_complete(tmp_path / dest, texts)
        step += 2
    assert step > 30


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_worker_that_dies_at_any_step_is_replaced(
    tmp_path: Path, texts: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    class Killed(BaseException):
        pass

    left = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real(*arguments, **options)

        return call

    def run_tasks(
        ray: Any, job: Job, tasks: TaskList, numbers: Sequence[int], resources: Resources, build: Build
    ) -> Iterator[TaskResult]:
        for number in numbers:
            task = tasks.read(number)
            with monkeypatch.context() as patch:
                for name in ("create", "remove", "remove_tree"):
                    patch.setattr(LocalStore, name, counted(getattr(LocalStore, name)))
                try:
                    result = Worker(job, tasks.run).run(task)
                except Killed:  # as Ray does
                    result = Worker(job, tasks.run).run(task)
            yield result

    monkeypatch.setattr(pool, "run_tasks", run_tasks)
    step = 0
    while left <= 0:
        step += 1
        dest = tmp_path / (f"out{step}" if not is_damaged else "out")
        if is_damaged:
            left = 0
            run(tmp_path)
            archive = bytearray((dest / "big.bin.llmz").read_bytes())
            archive[-300] ^= 1
            (dest / "big.bin.llmz").write_bytes(archive)
        left = step
        assert not run(tmp_path, dest=dest.name).errors
        check_complete(dest, texts)
    assert step > 20


def test_what_may_not_be_tidied_does_not_fail_the_run(
    tmp_path: Path, texts: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any, **options: Any) -> int:
        raise PermissionError(13, "Permission denied", "bucket")

    monkeypatch.setattr(LocalStore, "remove_leftovers", refused)
    run(tmp_path)
    check_complete(tmp_path / "out", texts)


def test_runs_that_are_over_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, name = open_store(str(tmp_path)), tidying.new_run()
    began, machine, process, chance = name.split("-")
    assert not tidying.is_dead(store, name)
    assert tidying.is_dead(store, f"{began}-{machine}-999999999-{chance}")
    assert tidying.is_dead(store, "something else")
    assert not tidying.is_dead(store, f"{began}-elsewhere-999999999-{chance}")
    elsewhere = f"{int(began) - 4000}-elsewhere-{process}-{chance}"
    assert tidying.is_dead(store, elsewhere)
    monkeypatch.setattr(tidying, "_BEAT_SECONDS", 0.01)
    with tidying.kept_alive(store, elsewhere):
        while not list(tmp_path.rglob("alive")):
            time.sleep(0.01)
        assert not tidying.is_dead(store, elsewhere)
    tidying.remove_run(store, elsewhere)
    assert not list(tmp_path.rglob("*.*")) and not list((tmp_path / "_llmzip").iterdir())


def test_a_destination_that_cannot_be_written_is_named(tmp_path: Path, texts: dict[str, bytes]) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(LLMZipError, match=r"/out(/_llmzip)?: (Not a directory|File exists)"):
        run(tmp_path)
    assert (tmp_path / "out").read_bytes() == b"a file"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_under_the_spool_is_named(tmp_path: Path, texts: dict[str, bytes]) -> None:
    full = open("/dev/full", "w", encoding="ascii")  # noqa: SIM115 - closing it fails
    inputs = Inputs(_spool=full)
    with Sources([str(tmp_path / "in")]) as found:
        for item in found:
            inputs.add(item)
    with pytest.raises(LLMZipError, match=r"\(TMPDIR\): No space left"):
        list(inputs)
    inputs.close()
