"""Tasks: what one call of a worker does. Small files are packed many to a task, large ones are cut into parts.

The tasks of a run are written to the destination, some to a file, so that neither the driver nor Ray's object store
holds them; a worker is told a number and reads its task.
"""

from __future__ import annotations

import functools
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from ..codec import levels, writer
from ..format.index import ArchiveIndex, read_index
from .job import TASKS, Job, Operation
from .storage import Store, with_retries

ENTROPY_PART_BYTES = 1 << 23
"""Text of a part that is measured by itself, 8 MiB: fixed, because its bits depend on where it begins."""

_MIN_TASK_BYTES, _MAX_TASK_BYTES = 1 << 18, writer.UNIT_BYTES
"""Bounds of the text of a task: 256 KiB, some ten seconds of a core, and 64 MiB."""

_TASKS_WANTED = 1024
"""Tasks that a small run is cut into, so that its workers finish together; scheduling one costs milliseconds."""

_MAX_FILES = 1000
"""Files of a task."""

_MIN_CUT_ARCHIVE_BYTES = 1 << 21
"""Archives below this size, 2 MiB, are not looked into before the start: their text takes minutes."""

_ARCHIVE_RATIO = 5
"""About how much longer a text is than its archive, where only the sizes of tasks depend on it."""

_TASKS_PER_FILE = 64


@dataclass(frozen=True)
class InputFile:
    """An input as it was found; it must not change until it is done.

    Attributes:
        name: below the job's source.
        size_bytes: its size.
        etag: changes when the file changes.
    """

    name: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Part:
    """A part of a large file.

    Attributes:
        number: of the part, from 0.
        count: parts of the file.
        begin, end: compress, entropy: bytes of the text. decompress, test: numbers of frames.
        text_begin: where the part's text begins.
        text_bytes: bytes of the part's text.
        input_bytes: bytes of the input that the part takes.
        part_bytes: text of each part but the last one; of an archive's parts at least that, as frames stay whole. A
            number says which part it is only together with it.
    """

    number: int
    count: int
    begin: int
    end: int
    text_begin: int
    text_bytes: int
    input_bytes: int
    part_bytes: int

    @property
    def frames(self) -> range:
        """Numbers of the frames of a part of an archive."""
        return range(self.begin, self.end)


@dataclass(frozen=True)
class Task:
    """Some whole files, or a part of one.

    Attributes:
        files: the files; one if there is a part.
        part: of that file; None for whole files.
    """

    files: tuple[InputFile, ...]
    part: Part | None = None

    @property
    def input_bytes(self) -> int:
        """Bytes of the inputs that the task takes."""
        return self.part.input_bytes if self.part is not None else sum(file.size_bytes for file in self.files)

    def key(self, job: Job) -> str:
        """Returns the key of the task's rows."""
        part = None if self.part is None else asdict(self.part)
        return job.key("task", [list(asdict(file).values()) for file in self.files], part)

    def to_json(self) -> str:
        """Returns the task as one line of ASCII."""
        part = None if self.part is None else list(asdict(self.part).values())
        return json.dumps([[list(asdict(file).values()) for file in self.files], part])

    @classmethod
    def from_json(cls, line: str) -> Task:
        """Reads what `to_json` wrote."""
        files, part = json.loads(line)
        return cls(tuple(InputFile(*file) for file in files), None if part is None else Part(*part))


def file_key(job: Job, file: InputFile) -> str:
    """Returns the key of a file's result, which is not that of any task."""
    return job.key("file", list(asdict(file).values()))


# -- cutting and packing ---------------------------------------------------------------------------------------------


def task_bytes(total_bytes: int) -> int:
    """Returns about how much text a task has: a power of two, so that a corpus that grows a little is cut alike."""
    wanted = max(1, total_bytes // _TASKS_WANTED)
    return min(max(1 << wanted.bit_length() - 1, _MIN_TASK_BYTES), _MAX_TASK_BYTES)


def make_tasks(job: Job, files: Iterable[InputFile], total_bytes: int) -> Iterator[Task]:
    """Yields the tasks of a run; files are taken as they come, and not kept.

    Args:
        job: what is done with them.
        files: the inputs.
        total_bytes: sum of their sizes.
    """
    ratio = _ARCHIVE_RATIO if job.operation.reads_archives else 1
    size = task_bytes(ratio * total_bytes)
    pack = _Pack(size)
    for file in files:
        parts = list(_parts(job, file, size))
        if len(parts) > 1:
            yield from (Task((file,), part) for part in parts)
            continue
        if full := pack.add(file, ratio * file.size_bytes):
            yield full
    if rest := pack.take():
        yield rest


class _Pack:
    """Collects small files.

    A pack ends where the name of its last file says so, once it is half full. So a file that is added or removed moves
    the ends of few packs, and the others keep their keys.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._files: list[InputFile] = []
        self._bytes = 0

    def add(self, file: InputFile, weight: int) -> Task | None:
        """Adds a file; returns a task if that ends the pack."""
        self._files.append(file)
        self._bytes += weight
        fill = max(self._bytes / self._size_bytes, len(self._files) / _MAX_FILES)
        name = zlib.crc32(file.name.encode("utf-8", "surrogateescape"))
        return self.take() if fill >= 1 or (fill >= 0.5 and name % 4 == 0) else None

    def take(self) -> Task | None:
        """Returns what was collected as a task; None if there is nothing."""
        files, self._files, self._bytes = tuple(self._files), [], 0
        return Task(files) if files else None


def _parts(job: Job, file: InputFile, size_bytes: int) -> Iterator[Part]:
    """Yields the parts of a file, none or one if it is not cut."""
    if job.operation.reads_archives:
        yield from _parts_of_archive(job.source, file, size_bytes)
        return
    # A part of a text to compress holds whole pieces, and a unit holds whole parts.
    part_bytes = ENTROPY_PART_BYTES if job.operation is Operation.ENTROPY else max(size_bytes, levels.PIECE_BYTES)
    count = -(-file.size_bytes // part_bytes)
    for number in range(count):
        begin = number * part_bytes
        end = min(begin + part_bytes, file.size_bytes)
        yield Part(number, count, begin, end, begin, end - begin, end - begin, part_bytes)


def _parts_of_archive(store: Store, file: InputFile, size_bytes: int) -> Iterator[Part]:
    """Yields the parts of an archive, as its index tells its frames; none if the file is not one archive."""
    if file.size_bytes < _MIN_CUT_ARCHIVE_BYTES:
        return
    try:
        index = with_retries(lambda: _index_of(store, file))
    except OSError:
        return  # whoever decodes it will say what is wrong
    if index is None:
        return
    begins = index.begins
    starts = [0]  # numbers of the parts' first frames
    for number in range(1, len(index)):
        if begins[number] - begins[starts[-1]] >= size_bytes:
            starts.append(number)
    for place, (first, last) in enumerate(itertools.pairwise([*starts, len(index)])):
        packed = index.offsets[last] - index.offsets[first]
        text_bytes = begins[last] - begins[first]
        yield Part(place, len(starts), first, last, begins[first], text_bytes, packed, size_bytes)


def _index_of(store: Store, file: InputFile) -> ArchiveIndex | None:
    with store.open(file.name) as source:
        return read_index(source)


# -- the run's list of tasks -----------------------------------------------------------------------------------------


class TaskList:
    """The tasks of a run in the destination.

    Args:
        store: the destination.
        run: names the run.

    Attributes:
        run: as given.
    """

    def __init__(self, store: Store, run: str) -> None:
        self.run = run
        self._store = store
        self._folder = f"{TASKS}/{run}"

    def write(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Task]]:
        """Writes tasks; yields each with its number, as it is written."""
        numbered = enumerate(tasks)
        for place in itertools.count():
            some = list(itertools.islice(numbered, _TASKS_PER_FILE))
            if not some:
                return
            lines = "".join(f"{task.to_json()}\n" for _, task in some).encode("ascii")
            name = f"{self._folder}/{place:08d}.jsonl"
            with_retries(functools.partial(self._store.write, name, lines))
            yield from some

    def read(self, number: int) -> Task:
        """Returns a task."""
        place, line = divmod(number, _TASKS_PER_FILE)
        name = f"{self._folder}/{place:08d}.jsonl"
        lines = with_retries(lambda: self._store.read_all(name)).decode("ascii").splitlines()
        return Task.from_json(lines[line])
