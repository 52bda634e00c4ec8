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
        found = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor a user of this number
        return None
    # As the rule for these variables has it: a relative one would be another place in each folder.
    return found / "llmzip" / name if found.is_absolute() else None


def replace(path: Path, write: Callable[[str], object]) -> bool:
    """Makes a file, whole or not at all.

    Args:
        path: of the file.
        write: writes it to the path that it is given.

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
