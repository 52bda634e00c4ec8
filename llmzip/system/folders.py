"""Folders that appear whole or not at all. Must not know what is in them.

A folder that is being written has a temporary name beside its final one, and is renamed when everything in it is on the
disk. So whatever happens, including kill -9 and a power cut, no half-written folder gets the final name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .fileops import sync_folder, unfinished

_PREFIX = ".llmzip-"
_OLD_SECONDS = 86_400  # a day: whoever began such a folder has ended
_IS_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextlib.contextmanager
def temporary(parent: Path) -> Iterator[Path]:
    """Makes a folder inside another one, which is made too if it is missing, and removes it at the end.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_old(parent)
    path = parent / f"{_PREFIX}{os.urandom(8).hex()}.tmp"
    with unfinished(str(path)):
        try:
            path.mkdir()
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def publish(path: Path, name: Path, is_whole: Callable[[Path], bool]) -> bool:
    """Gives a complete folder its final name. One of this name that is whole stays, another one is replaced.

    Args:
        path: of the folder, as `temporary` made it.
        name: that it gets, beside the temporary one.
        is_whole: whether a folder that has the name already holds what it should.

    Returns:
        whether it got the name; false if the name is that of a whole folder.

    Raises:
        OSError: it cannot be written or renamed.
    """
    for file in path.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    sync_folder(str(path))
    while True:
        try:
            os.rename(path, name)
        except OSError as error:
            if error.errno not in _IS_TAKEN:
                raise
            if is_whole(name):
                return False
            remove(name)
        else:
            sync_folder(str(name.parent))
            return True


def remove(path: Path) -> None:
    """Removes a folder; its name is free at once, so nobody finds a part of it.

    Raises:
        OSError: it cannot be removed.
    """
    away = path.parent / f"{_PREFIX}{os.urandom(8).hex()}.tmp"
    try:
        os.rename(path, away)
    except FileNotFoundError:  # another process was quicker
        return
    with unfinished(str(away)):
        if away.is_dir():
            shutil.rmtree(away)
        else:
            away.unlink()


def _remove_old(parent: Path) -> None:
    """Removes what killed processes left behind."""
    for path in parent.glob(f"{_PREFIX}*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
