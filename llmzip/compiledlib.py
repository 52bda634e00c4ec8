"""Finds libraries that were compiled at the installation, and checks of what sources; must not know what they compute.

With LLMZIP_KERNELS in the environment as "none", or as instructions, others are chosen: the bits are the same.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import forks

VARIABLE = "LLMZIP_KERNELS"


@functools.cache
def sources(folder: Path) -> str:
    """A digest of the C++ sources in a folder; setup.py writes the same into the library."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".cpp", ".h"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def find(folder: Path, stem: str, levels: Sequence[str], level: str) -> tuple[ctypes.CDLL, str] | None:
    """The library in a folder for a level of instructions, and the level; None if this processor has none of them.

    Args:
        levels: their names, by the numbers that `llmzip_best_level` gives; "" where there is nothing for it.
        level: one of them; any other for the best.
    """
    for loaded in _candidates(folder, stem):
        best = loaded.llmzip_best_level()
        wanted = levels.index(level) if level and level in levels else best
        if wanted <= best and levels[wanted]:
            return loaded, levels[wanted]
    return None


def _candidates(folder: Path, stem: str) -> Iterator[ctypes.CDLL]:
    """The libraries in a folder that can be loaded here and were built of the sources that lie beside them."""
    for file in sorted(folder.glob(f"{stem}*.*")):
        try:
            with forks.whole:  # the loader of libraries has a lock
                loaded = ctypes.CDLL(str(file))
            loaded.llmzip_sources.restype = ctypes.c_char_p
            # What lies where in memory may differ between versions.
            if loaded.llmzip_sources().decode() == sources(folder):
                yield loaded
        except (OSError, AttributeError):  # made for another machine, or something else
            continue
