"""How files become tasks: packs that move little when files come and go, parts that make whole units."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.cluster.job import Job, Operation
from llmzip.cluster.storage import open_store
from llmzip.cluster.tasks import InputFile, Task, TaskList, make_tasks, task_bytes
from llmzip.codec.levels import PIECE_BYTES
from llmzip.codec.writer import UNIT_BYTES

JOB = Job(Operation.COMPRESS, open_store("memory://in"), open_store("memory://out"))


def files_of(sizes: list[int]) -> list[InputFile]:
    return [InputFile(f"folder/{number:06d}.txt", size, f"tag {number}") for number, size in enumerate(sizes)]


def tasks_of(files: list[InputFile], job: Job = JOB) -> list[Task]:
    return list(make_tasks(job, files, sum(file.size_bytes for file in files)))


@given(st.lists(st.one_of(st.integers(0, 5000), st.integers(0, 300 << 20)), max_size=60))
def test_every_byte_is_in_one_task(sizes: list[int]) -> None:
    files = files_of(sizes)
    whole = [file for task in tasks_of(files) if task.part is None for file in task.files]
    ends: dict[str, int] = {}
    for task in tasks_of(files):
        if task.part is not None:
            (file,), part = task.files, task.part
            assert ends.get(file.name, 0) == part.begin == part.text_begin < part.end
            assert part.begin % part.part_bytes == 0 and UNIT_BYTES % part.part_bytes == 0
            assert part.part_bytes % PIECE_BYTES == 0 and 0 < part.text_bytes <= part.part_bytes
            assert part.count == -(-file.size_bytes // part.part_bytes)
            ends[file.name] = part.end
    assert ends == {file.name: file.size_bytes for file in files if file not in whole}
    assert [file for file in files if file.name not in ends] == whole


def test_tasks_are_bounded() -> None:
    for size in (0, 1, 1 << 20, 1 << 30, 1 << 40, 1 << 60):
        assert 1 << 18 <= task_bytes(size) <= UNIT_BYTES
    tiny = tasks_of(files_of([10] * 20_000))
    assert max(len(task.files) for task in tiny) <= 1000 and len(tiny) < 60
    terabyte = sum(-(-(1 << 40) // task_bytes(1 << 40)) for _ in range(1))
    assert terabyte == 1 << 14


def test_a_new_file_moves_few_packs() -> None:
    rng = random.Random(4)
    files = files_of([rng.randrange(20_000) for _ in range(5000)])
    before = {task.key(JOB) for task in tasks_of(files)}
    files.insert(2500, InputFile("folder/002499.new", 700, "new"))
    after = {task.key(JOB) for task in tasks_of(files)}
    assert len(before) > 100 and len(after - before) <= 12


def test_keys_depend_on_everything_that_a_result_depends_on() -> None:
    (task,) = tasks_of([InputFile("a", 5, "tag")])
    others = [Task((InputFile(*facts),)) for facts in (("b", 5, "tag"), ("a", 6, "tag"), ("a", 5, "tag2"))]
    keys = {task.key(JOB), *(other.key(JOB) for other in others)}
    jobs = [Job(operation, JOB.source, JOB.dest) for operation in (Operation.ENTROPY, Operation.TEST)]
    keys |= {task.key(job) for job in jobs} | {task.key(Job(JOB.operation, JOB.source, JOB.dest, model="02"))}
    assert len(keys) == 7
    elsewhere = Job(JOB.operation, JOB.source, open_store("memory://elsewhere"))
    assert task.key(elsewhere) == task.key(JOB)


def test_entropy_is_cut_alike_in_every_corpus() -> None:
    job = Job(Operation.ENTROPY, JOB.source, JOB.dest)
    large = InputFile("large", 20 << 20, "")
    alone = [task.part for task in tasks_of([large], job)]
    among = [task.part for task in tasks_of([large, *files_of([100 << 20] * 50)], job) if task.files == (large,)]
    assert alone == among and len(alone) == 3


@pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
def test_tasks_are_read_by_their_number(tmp_path: Path, count: int) -> None:
    names = ["plain", "with\nline end", "\udcff not UTF-8", "ünïcode", ""]
    tasks = [Task((InputFile(f"{names[n % 5]}{n}", n, str(n)),)) for n in range(count)]
    listed = TaskList(open_store(str(tmp_path)), "run")
    assert list(listed.write(tasks)) == list(enumerate(tasks))
    assert [listed.read(number) for number in range(count)] == tasks
