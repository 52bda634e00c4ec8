"""What small inputs hold before their turn comes. Reads them, and neither reports nor changes anything."""

from __future__ import annotations

import os
import stat

from ..system import fileops
from ..system.filenames import FileProblem, named_descriptor
from ..system.streams import read_upto
from .request import Request


def small_input(name: str | None, request: Request, max_bytes: int) -> bytes | None:
    """Returns what an input holds now.

    Args:
        name: name of the input; None for the standard input.
        request: what the user asked for.
        max_bytes: size up to which an input is small.

    Returns:
        its bytes; None if it is not a small regular file, if it cannot be read, if its output is already there, and for
        open descriptors, whose position would move.
    """
    try:
        if name is None or named_descriptor(name) is not None:
            return None
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= max_bytes:
            return None
        if _is_refused(name, request):
            return None
        with fileops.open_source(name, special=False) as source:
            data = read_upto(source.file, max_bytes + 1)
        return data if len(data) <= max_bytes else None
    except (FileProblem, OSError, ValueError):  # its turn will report it
        return None


def _is_refused(name: str, request: Request) -> bool:
    """Whether an input will not be decoded because of the name of its output.

    Raises:
        FileProblem: no name can be derived from the input's.
    """
    if request.force or not request.mode.writes_files:
        return False
    target = request.target(name)
    return target is not None and os.path.lexists(target)
