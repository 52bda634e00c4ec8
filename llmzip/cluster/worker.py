"""A worker: does tasks one after the other, and turns what goes wrong with a file into its row.

A task whose worker process dies is given to another one, as often as it takes. A file that kills every process, by the
memory that it needs or by a library's fault, would be tried for ever; so a worker leaves a note in the destination
while it is at a task, and who finds the note of a dead one notes each file before it begins it. A file under which
processes have died twice is given up. Notes of other runs do not count: those were interrupted, or are still at work.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, field, replace

from ..errors import CorruptError, ResourceError
from .job import ROWS, RUNNING, Job
from .large import LargeFiles, PartResult
from .rows import Row, error_row, read_rows, shown_path, write_rows
from .storage import with_retries
from .tasks import InputFile, Task
from .whole import WholeFiles

_MAX_DEATHS = 2
"""Processes that may die at a file before it is given up; the first death, at any file of the task, is not counted."""


@dataclass(frozen=True)
class TaskResult:
    """What became of a task.

    Attributes:
        rows: rows of the files that it completed, and of those that failed.
        num_bytes: input that it is done with.
        seconds: wall clock.
        worker: the process that did it.
        lost: path of a large file whose output was damaged, so that it must be made anew; None for none.
        made: path of a large file that had no complete output when the task began; None for none.
    """

    rows: list[Row]
    num_bytes: int
    seconds: float
    worker: str
    lost: str | None = None
    made: str | None = None


class Worker:
    """Does the tasks of a job in one process.

    Args:
        job: what is done.
        run: names the run that the worker belongs to.
    """

    def __init__(self, job: Job, run: str) -> None:
        self._job = job
        self._run = run
        self.name = f"{platform.node()}:{os.getpid()}"
        self._whole = WholeFiles(job, self.name)
        self._large = LargeFiles(job, self.name)

    def run(self, task: Task) -> TaskResult:
        """Does a task, and writes its rows unless they are rows of files in parts.

        Raises:
            OSError: the destination cannot be written; everything else becomes a row.
        """
        started = time.perf_counter()
        key = task.key(self._job)
        note = _Note(self._job, f"{RUNNING}/{self._run}/{key}.json")
        lost = made = None
        if task.part is not None:
            result = self._run_part(task, key, note)
            rows, path = result.rows, self._path(task.files[0])
            lost, made = path if result.is_lost else None, path if result.is_made else None
        else:
            rows = self._run_files(task, key, note)
        note.remove()
        seconds = time.perf_counter() - started
        return TaskResult(rows, task.input_bytes, round(seconds, 6), self.name, lost, made)

    def _run_files(self, task: Task, key: str, note: _Note) -> list[Row]:
        """Does whole files; returns their rows."""
        name = f"{ROWS}/{key}.parquet"
        before = {} if self._job.operation.writes_files else self._rows_before(name)
        numbers = {file: number for number, file in enumerate(task.files)}
        pending = [file for file in task.files if self._path(file) not in before]
        # What kills processes must do so in its own turn, so that it is found.
        upcoming = pending if note.follows_death else self._whole.upcoming(pending)
        done = {file: self._row(file, numbers[file], note) for file in upcoming}
        rows = [before.get(self._path(file)) or done[file] for file in task.files]
        self._write(name, rows)
        return rows

    def _rows_before(self, name: str) -> dict[str, Row]:
        """Returns the good rows of an earlier run, by path: what writes no outputs is not done twice."""
        try:
            rows = with_retries(lambda: read_rows(self._job.dest, name)) or []
        except CorruptError:
            return {}
        return {row.path: replace(row, kept=True) for row in rows if row.error is None}

    def _write(self, name: str, rows: list[Row]) -> None:
        with_retries(lambda: write_rows(self._job.dest, name, rows))

    def _row(self, file: InputFile, number: int, note: _Note) -> Row:
        try:
            note.begin(number)
            return self._whole.run(file)
        except Exception as error:
            return error_row(self._path(file), error, worker=self.name)

    def _run_part(self, task: Task, key: str, note: _Note) -> PartResult:
        """Does a part of a file."""
        (file,), part = task.files, task.part
        assert part is not None
        keeps_rows = not self._job.operation.writes_files
        name = f"{ROWS}/{key}.parquet"
        if keeps_rows and (before := self._rows_before(name)):
            return PartResult(list(before.values()))
        try:
            note.begin(0)
            result = self._large.run(file, part)
        except Exception as error:
            offset = part.text_begin if keeps_rows else 0
            result = PartResult([error_row(self._path(file), error, offset=offset, worker=self.name)])
        if keeps_rows:
            self._write(name, result.rows)
        return result

    def _path(self, file: InputFile) -> str:
        return shown_path(self._job.source.uri_of(file.name))


@dataclass
class _Note:
    """What a worker leaves in the destination while it is at a task.

    Attributes:
        job: the job.
        name: of the object.
        follows_death: whether a process has died at the task before.
    """

    job: Job
    name: str
    follows_death: bool = False
    _deaths: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        left = with_retries(self._left)
        if left is not None:
            self.follows_death = True
            try:
                found = json.loads(left)
                self._deaths = {str(number): int(count) for number, count in found["deaths"].items()}
                if found["at"] is not None:
                    self._deaths[str(found["at"])] = self._deaths.get(str(found["at"]), 0) + 1
            except (ValueError, KeyError, TypeError, AttributeError):
                self._deaths = {}
        self._write(None)

    def _left(self) -> bytes | None:
        """Returns the note that a process which died has left; None if there is none."""
        try:
            return self.job.dest.read_all(self.name)
        except FileNotFoundError:
            return None

    def _write(self, number: int | None) -> None:
        text = json.dumps({"at": number, "deaths": self._deaths}).encode("ascii")
        with_retries(lambda: self.job.dest.write(self.name, text))

    def begin(self, number: int) -> None:
        """Notes that a file is begun, where processes have died before.

        Raises:
            ResourceError: too many have died at this file.
        """
        deaths = self._deaths.get(str(number), 0)
        if deaths >= _MAX_DEATHS:
            raise ResourceError(
                f"{deaths + 1} processes died while they were at it, perhaps for lack of memory; given up"
            )
        if self.follows_death:
            self._write(number)

    def remove(self) -> None:
        """Removes the note: the task is done."""
        with_retries(lambda: self.job.dest.remove(self.name))
