"""Files that an interrupted run leaves for the next one; one process at a time has such a file."""

from __future__ import annotations

import os
import stat

from .filenames import FileProblem


def open_unfinished(name: str) -> int:
    """Opens a file that an interrupted run has left, or makes it; returns its descriptor, for one process at a time.

    Raises:
        FileProblem: it is no regular file, or another process works on it.
        OSError: it cannot be opened.
    """
    flags = (
        os.O_RDWR
        | os.O_CREAT
        | getattr(os, "O_BINARY", 0)
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
    )
    descriptor = os.open(name, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileProblem(f"{name} is not a regular file; remove it")
        _lock(descriptor, name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int, name: str) -> None:
    """Locks a file until its descriptor is closed.

    Raises:
        FileProblem: another process has locked it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileProblem(f"{name} is in use: another llmzip works on it") from None
    except OSError:
        pass  # a file system without locks
