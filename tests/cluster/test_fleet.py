"""Where a cluster is looked for, and what comes back from its machines."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

import llmzip
from llmzip.cluster import fleet, pool
from llmzip.cluster.forecast import take_samples
from llmzip.cluster.job import Job, Operation
from llmzip.cluster.storage import open_store
from llmzip.cluster.tasks import InputFile, TaskList
from llmzip.cluster.worker import Worker
from llmzip.errors import LLMZipError


def test_an_address_where_nothing_answers_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(fleet, "_CONNECT_SECONDS", 3)
    with pytest.raises(LLMZipError) as caught, fleet.connected("127.0.0.1:1"):
        pass
    assert str(caught.value) == "Ray cannot be reached at 127.0.0.1:1: no cluster answers within 3 s"


def test_the_cause_is_found_in_what_ray_says() -> None:
    error = RuntimeError(
        "ray::Worker() (pid=1)\n  File x\nllmzip.errors.EngineError: node b has llmzip 9\n"
        "To change retry attempts, configure `ray.data.DataContext` (`x`: y).\n"
    )
    assert fleet.last_line(error) == "llmzip.errors.EngineError: node b has llmzip 9"
    assert fleet.last_line(RuntimeError("one\ntwo")) == "two"
    assert fleet.last_line(KeyError()) == "KeyError"


def test_samples_leave_out_what_fails(tmp_path: Path) -> None:
    (tmp_path / "good.llmz").write_bytes(llmzip.compress(b"good", level=1))
    (tmp_path / "bad.llmz").write_bytes(b"no archive")
    job = Job(Operation.TEST, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))
    files = [InputFile(name, (tmp_path / name).stat().st_size, "") for name in ("bad.llmz", "good.llmz")]
    samples, problem = take_samples(job, files, 1.0)
    assert [sample.sampled_bytes for sample in samples] == [4]
    assert problem is not None and problem.startswith(f"{tmp_path}/bad.llmz: not an llmzip archive")
    assert take_samples(job, [], 1.0) == ([], None)


def test_a_destination_that_fails_comes_back_as_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "out").write_bytes(b"no folder")
    job = Job(Operation.ENTROPY, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))
    runner = pool.TaskRunner(job, TaskList(job.dest, "run"), fleet.build_here(job))
    (text,) = runner({"id": [0]})["result"]
    assert "Not a directory" in json.loads(text)["stopped"]

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Worker, "run", full)
    monkeypatch.setattr(TaskList, "read", lambda *arguments: None)
    (text,) = runner({"id": [0]})["result"]
    assert json.loads(text) == {"stopped": f"{tmp_path}/out: No space left on device"}
