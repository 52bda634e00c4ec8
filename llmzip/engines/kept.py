"""Files that save work the next time: where they lie, and how one is written; must not know what is in them.

Such a file is a shortcut and nothing else: one that is missing, damaged or cannot be written costs time, never bits.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def folder(name: str) -> Path | None:
    """The folder for one kind of files in the user's cache, which need not exist; None if the user has no place."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "llmzip" / name
    except RuntimeError:  # neither HOME nor a user of this number
        return None


def replace(path: Path, write: Callable[[str], object]) -> None:
    """Makes a file, whole or not at all; that it cannot be written does not matter.

    Args:
        path: of the file.
        write: writes it to the path that it is given.
    """
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
        os.close(descriptor)
        try:
            write(name)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
