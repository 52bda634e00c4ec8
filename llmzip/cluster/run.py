"""A run on a cluster, as the driver sees it: finds the inputs, cuts them into tasks, follows the results.

Memory stays bounded: inputs are spooled to a file on this machine, tasks are written to the destination, rows go to a
file as they come. What is held is a few bytes for each task and for each file in parts.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from ..errors import CorruptError, LLMZipError
from ..system.failures import error_kind, explain
from . import pool
from .fleet import Build, Resources
from .job import ALL_ROWS, ROWS, RUNNING, TASKS, WORK, Job, bind
from .rows import Row, read_rows, shown_path, write_rows
from .sources import SourceFile, SourceProblem
from .storage import with_retries
from .tasks import InputFile, Task, TaskList, file_key, make_tasks
from .worker import TaskResult

_MAX_ROUNDS = 3
"""Times that files in parts are tried whose output did not come about."""

_LEFTOVER_SECONDS = 3600.0
"""Time without a write, an hour, from which on a temporary object belongs to a process that has died."""


class Follower(Protocol):
    """Whoever follows a run."""

    def row(self, row: Row) -> None:
        """Takes the row of a file that is done or has failed."""

    def done(self, result: TaskResult) -> None:
        """Takes the result of a task."""


@dataclass
class Inputs:
    """The inputs of a run, spooled.

    Attributes:
        num_files, num_bytes: how many there are, and the sum of their sizes.
        problems: rows of the names that cannot be inputs.
    """

    num_files: int = 0
    num_bytes: int = 0
    problems: list[Row] = field(default_factory=list)
    _spool: IO[str] = field(default_factory=lambda: tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115

    def add(self, found: SourceFile | SourceProblem) -> None:
        """Adds what was found."""
        if isinstance(found, SourceProblem):
            self.problems.append(problem_row(found.path, found.error))
            return
        self.num_files += 1
        self.num_bytes += found.size_bytes
        self._spool.write(json.dumps([found.name, found.size_bytes, found.etag]) + "\n")

    def __iter__(self) -> Iterator[InputFile]:
        self._spool.seek(0)
        for line in self._spool:
            yield InputFile(*json.loads(line))

    def close(self) -> None:
        """Removes the spool."""
        self._spool.close()


def gather(found: Iterable[SourceFile | SourceProblem], limit: int | None, advance: Callable[[int], Any]) -> Inputs:
    """Lists the inputs.

    Args:
        found: what the sources yield.
        limit: most files to take; None for all.
        advance: called with the number of files that were added.
    """
    inputs = Inputs()
    for item in found:
        if limit is not None and inputs.num_files >= limit and isinstance(item, SourceFile):
            break
        inputs.add(item)
        advance(isinstance(item, SourceFile))
    return inputs


def problem_row(uri: str, error: Exception) -> Row:
    """Returns the row of an input that cannot be read."""
    path = shown_path(uri)
    status, reason = explain(error, path)
    return Row(path, error=" ".join(reason.split()), error_kind=error_kind(error), exit_status=status or 1)


class Run:
    """One run.

    Args:
        job: what is done.
        inputs: what it is done with.
        follower: who follows it.
    """

    def __init__(self, job: Job, inputs: Inputs, follower: Follower) -> None:
        self._job, self._inputs, self._follower = job, inputs, follower
        self._tasks = TaskList(job.dest, uuid.uuid4().hex)
        self._keys: set[str] = set()
        self._paths = _Paths()
        self._large = _LargeFiles()
        self._failed = False

    def run(self, ray: Any, resources: Resources, build: Build) -> None:
        """Does it all.

        Raises:
            SettingsError: the destination belongs to a run with other settings.
            LLMZipError: the run could not be finished; what is done is kept.
        """
        bind(self._job)
        with tempfile.TemporaryFile("w+", encoding="ascii") as lines, self._listed_tasks() as num_tasks:
            self._take(self._inputs.problems, lines)
            numbers: range | list[int] = range(num_tasks)
            for _ in range(_MAX_ROUNDS):
                if not numbers:
                    break
                for result in pool.run_tasks(ray, self._job, self._tasks, numbers, resources, build):
                    self._take(self._large.without_theirs(result), lines)
                    self._follower.done(result)
                self._take(self._large.completed(), lines)
                numbers = self._large.numbers()
            self._take(self._large.given_up(), lines)
            with_retries(lambda: self._write_lines(lines))
        self._tidy()

    @contextlib.contextmanager
    def _listed_tasks(self) -> Iterator[int]:
        """Writes the tasks; yields how many there are, and removes them at the end."""
        count = 0
        try:
            for number, task in self._tasks.write(make_tasks(self._job, self._inputs, self._inputs.num_bytes)):
                self._note(number, task)
                count = number + 1
            yield count
        finally:
            self._tasks.remove()

    def _note(self, number: int, task: Task) -> None:
        """Notes whose rows a task will bring."""
        for file in task.files:
            self._paths.add(shown_path(self._job.source.uri_of(file.name)))
        if task.part is None or not self._job.operation.writes_files:
            self._keys.add(task.key(self._job))
        elif task.part.number == 0:
            (file,) = task.files
            self._keys.add(file_key(self._job, file))
            self._large.add(shown_path(self._job.source.uri_of(file.name)), number, task.part.count)

    def _take(self, rows: Iterable[Row], lines: IO[str]) -> None:
        for row in rows:
            self._failed = self._failed or row.error is not None
            lines.write(row.to_json() + "\n")
            self._follower.row(row)

    def _write_lines(self, lines: IO[str]) -> None:
        """Writes the rows of the run as JSON lines."""
        lines.seek(0)
        with self._job.dest.create(ALL_ROWS) as sink:
            for line in lines:
                sink.write(line.encode("ascii"))

    def _tidy(self) -> None:
        """Removes older rows of this run's inputs, and what interrupted runs have left.

        Inputs that were packed otherwise in an earlier run have rows in another file. Rows of inputs that are not of
        this run stay.
        """
        store = self._job.dest
        store.remove_leftovers("", min_age_s=_LEFTOVER_SECONDS)
        for name in list(store.names(ROWS)):
            if name.rpartition("/")[2].removesuffix(".parquet") in self._keys:
                continue
            try:
                rows = read_rows(store, name) or []
            except CorruptError:
                rows = []
            others = [row for row in rows if row.path not in self._paths]
            if not others:
                store.remove(name)
            elif len(others) < len(rows):
                write_rows(store, name, others)
        if not self._failed:
            for folder in (WORK, RUNNING, TASKS):
                store.remove_tree(folder)


class _Paths:
    """A set of paths that are only added to, in 8 bytes each: two are taken for one with a chance of 2^-64."""

    def __init__(self) -> None:
        self._hashes = array.array("Q")
        self._is_sorted = True

    def add(self, path: str) -> None:
        """Adds a path."""
        self._hashes.append(self._hash(path))
        self._is_sorted = False

    def __contains__(self, path: str) -> bool:
        import numpy as np

        numbers = np.frombuffer(self._hashes, dtype=np.uint64)
        if not self._is_sorted:
            numbers.sort()
            self._is_sorted = True
        wanted = np.uint64(self._hash(path))
        place = int(numbers.searchsorted(wanted))
        return place < len(numbers) and bool(numbers[place] == wanted)

    @staticmethod
    def _hash(path: str) -> int:
        return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")


class _LargeFiles:
    """The files in parts whose output is one: complete once a row has come, unless a part finds it damaged."""

    def __init__(self) -> None:
        self._numbers: dict[str, range] = {}
        self._rows: dict[str, Row] = {}
        self._lost: set[str] = set()

    def add(self, path: str, first: int, count: int) -> None:
        """Adds a file with the numbers of its tasks."""
        self._numbers[path] = range(first, first + count)

    def without_theirs(self, result: TaskResult) -> list[Row]:
        """Takes the rows of these files out of a result; returns the others."""
        if result.lost is not None:
            self._lost.add(result.lost)
        others = []
        for row in result.rows:
            if row.path not in self._numbers:
                others.append(row)
            elif self._rows.setdefault(row.path, row).error is None:  # the first error stands for all
                self._rows[row.path] = row
        return others

    def completed(self) -> list[Row]:
        """Returns the rows of the files that are complete or have failed, and forgets these files."""
        rows = [row for path, row in self._rows.items() if path not in self._lost]
        for row in rows:
            del self._numbers[row.path]
        self._rows, self._lost = {}, set()
        return rows

    def numbers(self) -> list[int]:
        """Returns the numbers of the tasks of the files that are not complete."""
        return [number for numbers in self._numbers.values() for number in numbers]

    def given_up(self) -> list[Row]:
        """Returns error rows of the files that are not complete."""
        error = LLMZipError("its parts did not come together; run it again")
        return [problem_row(path, error) for path in self._numbers]
