"""Workers on every kind of store, and on one whose connection breaks."""

from __future__ import annotations

import dataclasses
import io
from typing import BinaryIO

import pytest
from test_worker import _PROSE, input_files, make_job, rows_of, run_all

import llmzip
from llmzip.cluster import faults
from llmzip.cluster.job import Job, Operation
from llmzip.cluster.storage import Store, open_store
from llmzip.cluster.tasks import make_tasks
from llmzip.cluster.worker import Worker


def jobs_of(store: Store) -> tuple[Job, Job]:
    """Jobs that compress what is in a folder of a store, and decompress it into another folder."""
    source, packed, back = (open_store(f"{store.uri}/{name}") for name in ("in", "packed", "back"))
    compress = dataclasses.replace(make_job(".", "."), source=source, dest=packed)
    decompress = dataclasses.replace(make_job(".", ".", Operation.DECOMPRESS), source=packed, dest=back)
    return compress, decompress


def test_there_and_back_in_every_store(store: Store) -> None:
    compress, decompress = jobs_of(store)
    texts = {"a.txt": _PROSE[:500], "b/ü c.txt": _PROSE[500:900], "empty": b""}
    for name, text in texts.items():
        compress.source.write(name, text)
    rows = rows_of(run_all(compress, *texts))
    assert [row.error for row in rows] == [None] * 3
    assert {name: compress.dest.read_all(f"{name}.llmz") for name in texts} == {
        name: llmzip.compress(text, level=1) for name, text in texts.items()
    }
    assert all(row.kept for row in rows_of(run_all(compress, *texts)))
    run_all(decompress, *(f"{name}.llmz" for name in texts))
    assert {name: decompress.dest.read_all(name) for name in texts} == texts


class Breaking(io.BytesIO):
    """A file whose connection breaks in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(min(100, size) if size is not None and size >= 0 else 100)


@pytest.mark.parametrize(("breaks", "is_lost"), [(1, False), (4, False), (5, True)])
def test_connections_that_break_are_tried_again(
    memory_store: Store, monkeypatch: pytest.MonkeyPatch, breaks: int, is_lost: bool
) -> None:
    job, _ = jobs_of(memory_store)
    job.source.write("a", _PROSE[:400])
    (task,) = make_tasks(job, input_files(job, "a"), 400)
    real, left = type(job.source).open, breaks

    def open_breaking(self: Store, name: str) -> BinaryIO:
        nonlocal left
        file = real(self, name)
        if name != "a" or not left:
            return file
        left -= 1
        return Breaking(file.read())

    monkeypatch.setattr(type(job.source), "open", open_breaking)
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(faults.with_retries, "__kwdefaults__", {**faults.with_retries.__kwdefaults__, "sleep": print})
    (row,) = Worker(job, "run").run(task).rows
    assert (row.error is not None) == is_lost
    if is_lost:
        assert row.error_kind == "ConnectionResetError" and job.dest.stat("a.llmz") is None
    else:
        assert job.dest.read_all("a.llmz") == llmzip.compress(_PROSE[:400], level=1)
