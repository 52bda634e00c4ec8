"""The user's folder for data that must last, by the XDG rules. Must not know what is in it."""

from __future__ import annotations

import os
from pathlib import Path


def folder(name: str) -> Path | None:
    """Returns the folder for one kind of files among the user's data, which need not exist; None without a home."""
    base = os.environ.get("XDG_DATA_HOME")
    try:
        # The XDG rules ignore relative paths: they would mean another place in each working directory.
        data = Path(base) if base and os.path.isabs(base) else Path.home() / ".local" / "share"
    except RuntimeError:  # neither HOME nor a user of this number
        return None
    return data / "llmzip" / name if data.is_absolute() else None
