"""Files in the user's cache that save work the next time. Must not know what is in them.

Such a file is a shortcut and nothing else: if it is missing, damaged or cannot be written, that costs time, never bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

_HALF = 16
"""Digits of each half of a name."""


def folder(name: str) -> Path | None:
    """Returns the folder for one kind of files in the user's cache, which need not exist; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor a user of this number
        return None
    # The XDG rules ignore relative paths: they would mean another place in each working directory.
    return cache / "llmzip" / name if cache.is_absolute() else None


def identity(file: Path) -> bytes:
    """Returns a line that changes when a file does: its name, place, size and times.

    The name counts beside the place, because links may swap places. The time of the last change of the inode counts
    beside that of the content, which archives and copies set to what it was elsewhere.

    Raises:
        OSError: there is no such file.
    """
    status = file.stat()
    times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{file.name}\0{file.resolve()}\0{times}\n".encode("utf-8", "surrogateescape")


def name(kind: str, files: Iterable[Path]) -> str:
    """Returns a name for what is kept of files, 32 hexadecimal digits: half for their places, half for their state.

    Args:
        kind: what is kept, and its version.
        files: what it is made from.

    Raises:
        OSError: there is no such file.
    """
    places, states = hashlib.sha256(f"{kind}\n".encode()), hashlib.sha256()
    for file in files:
        places.update(f"{file.name}\0{file.resolve()}\n".encode("utf-8", "surrogateescape"))
        states.update(identity(file))
    return places.hexdigest()[:_HALF] + states.hexdigest()[:_HALF]


def remove_older(path: Path) -> None:
    """Removes what was kept of the same files before they changed; backups that set links change them each night.

    Args:
        path: of what is kept of them now, with a stem that `name` has made.
    """
    for other in path.parent.glob(f"{path.stem[:_HALF]}*"):
        if other.stem != path.stem:
            with contextlib.suppress(OSError):
                other.unlink()


def replace(path: Path, write: Callable[[str], object]) -> bool:
    """Writes a file, whole or not at all.

    Args:
        path: the file's name.
        write: is called with the path of a temporary file, and writes the content to it.

    Returns:
        whether it was written.
    """
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
        os.close(descriptor)
        try:
            write(name)
            os.replace(name, path)
            return True
        finally:
            Path(name).unlink(missing_ok=True)
    return False
