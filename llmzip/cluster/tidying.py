"""What is removed from a destination when a run ends: rows that are out of date, and what dead runs have left.

Another run may be at work in the same destination. It is known by its folder of tasks, whose name says where its driver
runs, and by an object that the driver renews; while one is there, nothing is removed but what belongs to dead runs.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Collection, Iterator

from ..errors import CorruptError
from .job import ROWS, RUNNING, TASKS, WORK
from .rows import read_rows, write_rows
from .storage import Store

_LEFTOVER_SECONDS = 86400.0
"""Age, a day, from which on a temporary object belongs to a process that has died: a program that is slow, or not part
of any run, may be at work in the same folder."""

_BEAT_SECONDS, _MAX_SILENT_SECONDS = 300.0, 3600.0
"""Time, 5 minutes, after which a driver says again that it lives; time without that, an hour, from which on it counts
as dead where its process cannot be looked for, because it is on another machine."""


class PathSet:
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


# -- runs ------------------------------------------------------------------------------------------------------------


def new_run() -> str:
    """Returns the name of a new run: when it began, machine and process of its driver, this one, and chance."""
    return f"{int(time.time())}-{_machine()}-{os.getpid()}-{uuid.uuid4().hex}"


def _machine() -> str:
    """Returns what this machine's process numbers belong to: a container may share the machine's name, not these."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:12]


def is_dead(store: Store, run: str) -> bool:
    """Whether the driver of a run in a destination has ended.

    Raises:
        OSError: the destination cannot be read.
    """
    try:
        began, machine, process, _ = run.split("-")
        if machine == _machine():
            return not _is_running(int(process))
        last = int(began)
    except ValueError:
        return True  # no name that `new_run` gives
    with contextlib.suppress(FileNotFoundError, ValueError):
        last = max(last, int(store.read_all(_beat_name(run))))
    return time.time() - last > _MAX_SILENT_SECONDS


def _beat_name(run: str) -> str:
    return f"{RUNNING}/{run}/alive"


@contextlib.contextmanager
def kept_alive(store: Store, run: str) -> Iterator[None]:
    """Says in the destination that the run's driver lives, again and again as long as the block runs."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):  # if it lasts, others find out
                store.write(_beat_name(run), str(int(time.time())).encode("ascii"))

    thread = threading.Thread(target=beat, name="llmzip-alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # a signal would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


# -- the end of a run ------------------------------------------------------------------------------------------------


def tidy(store: Store, run: str, keys: Collection[str], paths: PathSet, *, is_complete: bool) -> None:
    """Removes older rows of a run's inputs, and what interrupted runs have left.

    Inputs that were packed otherwise in an earlier run have rows in another file. Rows of inputs that are not of this
    run stay. The run's own tasks must still be there, for other runs to see.

    Args:
        store: the destination.
        run: the run that ends.
        keys: of all files of rows that are its own.
        paths: of its inputs.
        is_complete: whether no file has failed, so that parts of files are of no more use.

    Raises:
        OSError: the destination cannot be read or written.
    """
    is_alone = True
    for other in _runs(store):
        if other != run and is_dead(store, other):
            remove_run(store, other)
        elif other != run:
            is_alone = False
    if not is_alone:
        return
    with contextlib.suppress(OSError):  # not everyone may list unfinished uploads
        store.remove_leftovers("", min_age_s=_LEFTOVER_SECONDS)
    _remove_old_rows(store, keys, paths)
    if is_complete:
        store.remove_tree(WORK)


def _runs(store: Store) -> list[str]:
    """Returns the names of the runs that have tasks or notes in a destination."""
    found = set()
    for folder in (RUNNING, TASKS):
        with contextlib.suppress(FileNotFoundError):
            found |= {entry.name.rpartition("/")[2] for entry in store.entries(folder) if entry.is_folder}
    return sorted(found)


def remove_run(store: Store, run: str) -> None:
    """Removes a run's tasks and the notes of its workers."""
    for folder in (RUNNING, TASKS):
        store.remove_tree(f"{folder}/{run}")
        with contextlib.suppress(FileNotFoundError):
            if next(store.entries(folder), None) is None:
                store.remove_tree(folder)


def _remove_old_rows(store: Store, keys: Collection[str], paths: PathSet) -> None:
    for name in list(store.names(ROWS)):
        if name.rpartition("/")[2].removesuffix(".parquet") in keys:
            continue
        try:
            rows = read_rows(store, name) or []
        except CorruptError:
            rows = []
        others = [row for row in rows if row.path not in paths]
        if not others:
            store.remove(name)
        elif len(others) < len(rows):
            write_rows(store, name, others)
