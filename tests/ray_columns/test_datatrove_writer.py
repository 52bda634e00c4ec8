"""The step for datatrove: whole archives, one for each rank, that datatrove itself reads back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmzip

pytest.importorskip("datatrove", reason="datatrove is not installed")
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.io import get_datafolder
from datatrove.pipeline.readers import JsonlReader

from llmzip.datatrove import LLMZipReader, LLMZipWriter

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ROOT = Path(llmzip.__file__).resolve().parents[1]
TEXTS = [
    f"Document {number}: the ferry was late again, and the wind came over the wall. Größe.\n" for number in range(6)
]


def documents(data: Any, rank: int, world_size: int) -> Iterator[Document]:
    """Yields a rank's share of the texts."""
    for number in range(rank, len(TEXTS), world_size):
        yield Document(text=TEXTS[number], id=str(number), metadata={"number": number, "tags": ["a", None]})


def failing(data: Any, rank: int, world_size: int) -> Iterator[Document]:
    """Yields one document, then fails."""
    yield from list(documents(data, rank, world_size))[:1]
    raise OSError("the storage went away")


def run(folder: object, logs: Path, *steps: Any, tasks: int = 2) -> None:
    writer = LLMZipWriter(folder, model="small", level=1, threads=1)
    LocalPipelineExecutor([*steps, writer], tasks=tasks, workers=1, logging_dir=str(logs)).run()


def test_each_rank_writes_one_archive_of_json_lines(tmp_path: Path) -> None:
    run(str(tmp_path / "out"), tmp_path / "logs", documents)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["00000.jsonl.llmz", "00001.jsonl.llmz"]
    with llmzip.open(tmp_path / "out" / "00001.jsonl.llmz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert lines == [
        {"text": TEXTS[number], "id": str(number), "metadata": {"number": number, "tags": ["a", None]}}
        for number in (1, 3, 5)
    ]


def test_datatrove_reads_the_archives(tmp_path: Path) -> None:
    run(str(tmp_path / "out"), tmp_path / "logs", documents)
    (tmp_path / "out" / ".llmzip-0123456789abcdef.tmp").write_bytes(b"left by a rank that was killed")
    read = list(LLMZipReader(str(tmp_path / "out")).run())
    assert sorted(document.text for document in read) == TEXTS
    assert {document.metadata["number"] for document in read} == set(range(6))


def test_a_rank_that_fails_leaves_nothing_and_a_rerun_makes_the_rest(tmp_path: Path) -> None:
    folder, logs = tmp_path / "out", tmp_path / "logs"
    with pytest.raises(OSError, match="went away"):
        run(str(folder), logs, failing)
    assert list(folder.iterdir()) == []
    run(str(folder), logs, documents)
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert sorted(first) == ["00000.jsonl.llmz", "00001.jsonl.llmz"]
    run(str(folder), tmp_path / "other logs", documents)  # nothing is known to be complete: all is made again
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


KILLED = """
import os, signal, sys
from datatrove.data import Document
from llmzip.datatrove import LLMZipWriter

def documents():
    yield Document(text="The ferry was late again.", id="1")
    os.kill(os.getpid(), signal.SIGKILL)

list(LLMZipWriter(sys.argv[1], model="small").run(documents(), rank=0))
"""


def test_a_rank_that_is_killed_leaves_no_archive(tmp_path: Path) -> None:
    folder, logs = tmp_path / "out", tmp_path / "logs"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [file.suffix for file in folder.iterdir()] == [".tmp"]
    run(str(folder), logs, documents)
    assert sorted(document.text for document in LLMZipReader(str(folder)).run()) == TEXTS


def test_a_rerun_replaces_what_an_earlier_one_left(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "00000.jsonl.llmz").write_bytes(b"half an archi")
    run(str(folder), tmp_path / "logs", documents, tasks=1)
    assert llmzip.info(folder / "00000.jsonl.llmz").original_bytes > 6 * 80


def test_an_archive_of_another_format_version_stops_the_reader(tmp_path: Path) -> None:
    old = (ROOT / "tests" / "contract" / "vectors" / "unsupported-version-1.llmz").read_bytes()
    (tmp_path / "00000.jsonl.llmz").write_bytes(old)
    with pytest.raises(llmzip.FormatError, match="format version 1 is not supported, only version 2"):
        list(LLMZipReader(str(tmp_path)).run())


def test_remote_folders_get_whole_objects(tmp_path: Path) -> None:
    folder = get_datafolder("memory://llmzip-datatrove")
    with pytest.raises(OSError, match="went away"):
        run(folder, tmp_path / "logs", failing)
    assert folder.list_files() == []
    run(folder, tmp_path / "logs", documents)
    assert folder.list_files() == ["00000.jsonl.llmz", "00001.jsonl.llmz"]
    assert sorted(document.text for document in JsonlReader(folder).run()) == TEXTS
    assert sorted(document.text for document in LLMZipReader(folder, limit=3).run()) == TEXTS[::2]
    folder.rm("", recursive=True)


def test_settings_are_checked_before_the_pipeline_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="level must be 1 to 9"):
        LLMZipWriter(str(tmp_path), level=11)
