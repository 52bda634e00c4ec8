"""A local folder as a store. Knows no fsspec: its paths have patterns, tildes and chains that file names may contain.

The folder may be on a network file system that all machines mount.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat as modes
import time
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, cast

from ..system.fileops import new_file
from ..system.streams import DescriptorWriter
from .sinks import PartSink
from .stores import READ_AHEAD_BYTES, Entry, Stat, Store, checked, checked_folder, is_temporary

RUN_NAMES = 10_000
"""Names of a folder that are sorted at a time; more are listed in runs, so that a folder of any size fits in memory."""

_REMOVALS = 5  # attempts, while other processes add files to the folder or remove some


class LocalStore(Store):
    """A folder of this machine's file system.

    Args:
        path: the folder; need not exist. Relative to the current directory.
    """

    is_local = True

    def __init__(self, path: str) -> None:
        super().__init__(os.path.abspath(path))

    def _path(self, name: str) -> str:
        return os.path.join(self.uri, *checked_folder(name, self.uri_of(name)).split("/")) if name else self.uri

    def _file(self, name: str) -> str:
        return self._path(checked(name, self.uri_of(name)))

    def stat(self, name: str) -> Stat | None:
        try:
            status = os.stat(self._file(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _stat(status) if modes.S_ISREG(status.st_mode) else None

    def is_folder(self, name: str) -> bool:
        return os.path.isdir(self._path(name))

    def open(self, name: str) -> BinaryIO:
        return open(self._file(name), "rb", buffering=READ_AHEAD_BYTES)

    def read(self, name: str, begin: int, end: int) -> bytes:
        with open(self._file(name), "rb", buffering=0) as file:
            file.seek(begin)
            parts = []
            while begin < end and (part := file.read(end - begin)):
                parts.append(part)
                begin += len(part)
        return b"".join(parts)

    @contextlib.contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        path = self._file(name)
        if os.path.exists(path) and not os.path.isfile(path):
            number = errno.EISDIR if os.path.isdir(path) else errno.EEXIST
            raise OSError(number, "the name belongs to something that is not a regular file", path)
        with contextlib.ExitStack() as stack:
            file = _entered(stack, path)
            with PartSink(file.write, READ_AHEAD_BYTES) as sink:
                yield cast("BinaryIO", sink)
                sink.finish()

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._file(name))

    def remove_tree(self, name: str) -> None:
        path = self._file(name)
        if os.path.islink(path):
            os.unlink(path)
            return
        for attempt in range(_REMOVALS):
            try:
                shutil.rmtree(path)
                return
            except FileNotFoundError:  # all of it, or a part that another process has removed
                if not os.path.lexists(path):
                    return
                if attempt == _REMOVALS - 1:
                    raise
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or attempt == _REMOVALS - 1:  # another process has added a file
                    raise

    def entries(self, folder: str) -> Iterator[Entry]:
        prefix = f"{folder}/" if folder else ""
        with os.scandir(self._path(folder)) as names:
            while run := list(islice(names, RUN_NAMES)):
                run.sort(key=lambda item: os.fsencode(item.name), reverse=True)
                while run:
                    item = run.pop()  # not kept: each holds its status once it has been asked for
                    if not is_temporary(item.name):
                        yield from _entry(prefix + item.name, item)

    def remove_leftovers(self, folder: str, *, min_age_s: float) -> int:
        count = 0
        newest = time.time() - min_age_s
        for path, _, files in os.walk(self._path(folder)):
            for file in files:
                if is_temporary(file):
                    with contextlib.suppress(FileNotFoundError):
                        full = os.path.join(path, file)
                        if os.lstat(full).st_mtime <= newest:
                            os.unlink(full)
                            count += 1
        return count


def _entered(stack: contextlib.ExitStack, path: str) -> DescriptorWriter:
    """Makes the folders above a new file, again if another process removes them at that moment, and opens it."""
    for _ in range(_REMOVALS - 1):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return stack.enter_context(new_file(path, force=True))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return stack.enter_context(new_file(path, force=True))


def _entry(name: str, item: os.DirEntry[str]) -> Iterator[Entry]:
    try:
        if item.is_dir(follow_symlinks=False):
            yield Entry(name, is_folder=True)
            return
        status = item.stat()
    except OSError as error:
        yield Entry(name, is_folder=False, error=error)
        return
    if modes.S_ISREG(status.st_mode):
        yield Entry(name, is_folder=False, stat=_stat(status))


def _stat(status: os.stat_result) -> Stat:
    return Stat(status.st_size, f"{status.st_size}-{status.st_mtime_ns}")
