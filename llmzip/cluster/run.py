"""A run on a cluster, as the driver sees it: finds the inputs, cuts them into tasks, follows the results.

Memory stays bounded: inputs are spooled to a file on this machine, tasks are written to the destination, rows go to a
file as they come. What is held is a few bytes for each task and for each file in parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from ..errors import LLMZipError
from . import pool
from .fleet import Build, Resources
from .job import ALL_ROWS, ROWS, Job, bind
from .rows import Row, error_row, shown_path, write_rows
from .sources import SourceFile, SourceProblem
from .storage import with_retries
from .tasks import InputFile, Task, TaskList, file_key, make_tasks
from .tidying import PathSet, kept_alive, new_run, remove_run, tidy
from .worker import TaskResult

_MAX_ROUNDS = 3
"""Times that files in parts are tried whose output did not come about."""


class Follower(Protocol):
    """Whoever follows a run."""

    def row(self, row: Row) -> None:
        """Takes the row of a file that is done or has failed."""

    def done(self, result: TaskResult) -> None:
        """Takes the result of a task."""


def _new_spool() -> IO[str]:
    """Returns a temporary file of lines, which has no name."""
    with _spooling():
        return tempfile.TemporaryFile("w+", encoding="ascii")


@contextlib.contextmanager
def _spooling() -> Iterator[None]:
    """Makes errors of temporary files say what they are about.

    Raises:
        LLMZipError: the disk is full, or the like; names the folder.
    """
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or os.environ.get("TMPDIR", "")
        raise LLMZipError(f"{folder} (TMPDIR): {error.strerror or error}") from error


def _close_spool(spool: IO[str]) -> None:
    """Removes a temporary file. Closing writes what is buffered, which may fail once more."""
    with contextlib.suppress(OSError):
        spool.close()


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
    _spool: IO[str] = field(default_factory=_new_spool)

    def add(self, found: SourceFile | SourceProblem) -> None:
        """Adds what was found."""
        if isinstance(found, SourceProblem):
            self.problems.append(error_row(shown_path(found.path), found.error))
            return
        self.num_files += 1
        self.num_bytes += found.size_bytes
        with _spooling():
            self._spool.write(json.dumps([found.name, found.size_bytes, found.etag]) + "\n")

    def __iter__(self) -> Iterator[InputFile]:
        with _spooling():
            self._spool.seek(0)  # writes what is buffered
        for line in self._spool:
            yield InputFile(*json.loads(line))

    def close(self) -> None:
        """Removes the spool."""
        _close_spool(self._spool)


def gather(
    found: Iterable[SourceFile | SourceProblem],
    limit: int | None,
    advance: Callable[[int], Any],
    *,
    may_repeat: bool = True,
) -> Inputs:
    """Lists the inputs, each once.

    Args:
        found: what the sources yield.
        limit: most files to take; None for all.
        advance: called with the number of files that were added.
        may_repeat: whether a file may come twice; telling so takes about 100 bytes for each.
    """
    inputs = Inputs()
    seen: set[bytes] = set()
    for item in found:
        if may_repeat:
            digest = hashlib.sha256(os.fsencode(item.path)).digest()[:16]
            if digest in seen:
                continue
            seen.add(digest)
        if limit is not None and inputs.num_files >= limit and isinstance(item, SourceFile):
            break
        inputs.add(item)
        advance(isinstance(item, SourceFile))
    return inputs


class Run:
    """One run.

    Args:
        job: what is done.
        inputs: what it is done with.
        follower: who follows it.
        takes_over: whether a destination with files that no run made is taken.
    """

    def __init__(self, job: Job, inputs: Inputs, follower: Follower, *, takes_over: bool = False) -> None:
        self._job, self._inputs, self._follower, self._takes_over = job, inputs, follower, takes_over
        self._tasks = TaskList(job.dest, new_run())
        self._keys: set[str] = set()
        self._paths = PathSet()
        self._large = _LargeFiles()
        self._errors: list[Row] = []  # that are in no task's rows
        self._failed = False

    def run(self, ray: Any, resources: Resources, build: Build) -> None:
        """Does it all.

        Raises:
            SettingsError: the destination belongs to a run with other settings.
            LLMZipError: the run could not be finished; what is done is kept.
        """
        with self._naming_errors():
            bind(self._job, takes_over=self._takes_over)
        with contextlib.ExitStack() as stack:
            lines = _new_spool()
            stack.callback(_close_spool, lines)
            num_tasks = stack.enter_context(self._listed_tasks())
            self._take_errors(self._inputs.problems, lines)
            numbers: range | list[int] = range(num_tasks)
            for _ in range(_MAX_ROUNDS):
                if not numbers:
                    break
                for result in pool.run_tasks(ray, self._job, self._tasks, numbers, resources, build):
                    self._take(self._large.without_theirs(result), lines)
                    self._follower.done(result)
                good, bad = self._large.completed()
                self._take(good, lines)
                self._take_errors(bad, lines)
                numbers = self._large.numbers()
            self._take_errors(self._large.given_up(), lines)
            with _spooling():
                lines.flush()
            with self._naming_errors():
                with_retries(self._write_errors)
                with_retries(lambda: self._write_lines(lines))
                with_retries(self._tidy)

    @contextlib.contextmanager
    def _listed_tasks(self) -> Iterator[int]:
        """Writes the tasks; yields how many there are, and removes them at the end."""
        count = 0
        try:
            with self._naming_errors():
                for number, task in self._tasks.write(make_tasks(self._job, self._inputs, self._inputs.num_bytes)):
                    self._note(number, task)
                    count = number + 1
                bind(self._job)  # once more: a run with other settings may have begun at the same moment
            with kept_alive(self._job.dest, self._tasks.run):
                yield count
        finally:
            with self._naming_errors():
                with_retries(lambda: remove_run(self._job.dest, self._tasks.run))

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Makes errors of the destination say what they are about."""
        try:
            yield
        except OSError as error:
            place = shown_path(os.fsdecode(error.filename or self._job.dest.uri_of("")))
            raise LLMZipError(f"{place}: {error.strerror or error}") from error

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
            with _spooling():
                lines.write(row.to_json() + "\n")
            self._follower.row(row)

    def _take_errors(self, rows: list[Row], lines: IO[str]) -> None:
        """Takes rows that no worker has written."""
        self._errors += rows
        self._take(rows, lines)

    def _write_errors(self) -> None:
        """Writes these rows in place of those of the run before."""
        key = self._job.key("errors")
        name = f"{ROWS}/{key}.parquet"
        if self._errors:
            self._keys.add(key)
            write_rows(self._job.dest, name, self._errors)
        else:
            self._job.dest.remove(name)

    def _tidy(self) -> None:
        tidy(self._job.dest, self._tasks.run, self._keys, self._paths, is_complete=not self._failed)

    def _write_lines(self, lines: IO[str]) -> None:
        """Writes the rows of the run as JSON lines."""
        lines.seek(0)
        with self._job.dest.create(ALL_ROWS) as sink:
            for line in lines:
                sink.write(line.encode("ascii"))


class _LargeFiles:
    """The files in parts whose output is one: complete once a row has come, unless a part finds it damaged."""

    def __init__(self) -> None:
        self._numbers: dict[str, range] = {}
        self._rows: dict[str, Row] = {}
        self._lost: set[str] = set()
        self._made: set[str] = set()

    def add(self, path: str, first: int, count: int) -> None:
        """Adds a file with the numbers of its tasks."""
        self._numbers[path] = range(first, first + count)

    def without_theirs(self, result: TaskResult) -> list[Row]:
        """Takes the rows of these files out of a result; returns the others."""
        if result.lost is not None:
            self._lost.add(result.lost)
        if result.made is not None:
            self._made.add(result.made)
        others = []
        for row in result.rows:
            if row.path not in self._numbers:
                others.append(row)
            elif self._rows.setdefault(row.path, row).error is None:  # the first error stands for all
                self._rows[row.path] = row
        return others

    def completed(self) -> tuple[list[Row], list[Row]]:
        """Returns the rows of the files that are complete and of those that have failed, and forgets these files."""
        # An output of which a part had to be made is not the one that another part has found to be right: whoever
        # removed that one died before it could say so.
        doubtful = {path for path in self._made if path in self._rows and self._rows[path].kept} | self._lost
        rows = [row for path, row in self._rows.items() if path not in doubtful]
        for row in rows:
            del self._numbers[row.path]
        self._rows, self._lost, self._made = {}, set(), set()
        return [row for row in rows if row.error is None], [row for row in rows if row.error is not None]

    def numbers(self) -> list[int]:
        """Returns the numbers of the tasks of the files that are not complete."""
        return [number for numbers in self._numbers.values() for number in numbers]

    def given_up(self) -> list[Row]:
        """Returns error rows of the files that are not complete."""
        error = LLMZipError("its parts did not come together; run it again")
        return [error_row(path, error) for path in self._numbers]
