"""Finds libraries that were compiled at the installation, and checks of what sources; must not know what they compute.

With LLMZIP_KERNELS in the environment as "none", or as instructions, others are chosen: the bits are the same.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import PerformanceWarning, SettingsError
from . import forks

VARIABLE = "LLMZIP_KERNELS"
NONE, TRITON = "none", "triton"
CHOICES = (NONE, "portable", "avx2", "avx512", "amx")
"""Of the variable. TRITON stands beside them for tests, which run the kernels of GPUs in an interpreter."""

KERNELS = (Path(__file__).parents[1] / "engines" / "cpu" / "native", "_kernels")
"""Folder and stem of the library that makes most of the speed."""

SHARED = Path(__file__).parent / "native"
"""Folder of the C++ sources that every library includes."""

MACHINES = ("x86_64", "amd64")
"""What `platform.machine` calls the processors that it is for."""

_told = False


def wanted() -> str:
    """What LLMZIP_KERNELS asks for: one of CHOICES, or TRITON, or "" for the fastest.

    Raises:
        SettingsError: it asks for something else.
    """
    found = os.environ.get(VARIABLE, "")
    if found not in ("", TRITON, *CHOICES):
        raise SettingsError(f"{VARIABLE}: {found!r} is none of {', '.join(CHOICES)}")
    return found


def warn_if_missing() -> None:
    """Warns a program, once, that the kernels were not compiled where they could be and nobody chose to go without.

    The command line has a line of its own for that.

    Raises:
        SettingsError: as `wanted`.
    """
    global _told  # noqa: PLW0603 - of the process
    if _told or wanted() == NONE:
        return
    _told = True
    if platform.machine().lower() not in MACHINES or is_built(*KERNELS):
        return
    frame, level = sys._getframe(1), 2
    while (
        frame.f_back is not None
        and frame.f_globals.get("__name__", "").partition(".")[0] == __package__.partition(".")[0]
    ):
        frame, level = frame.f_back, level + 1
    warnings.warn(
        "llmzip works without its compiled kernels here, several times slower: they were not built, or from other "
        "sources. Install it with a C++ compiler: pip install . in a copy of the sources, or pip install -e . to work "
        f"on them; {VARIABLE}=none in the environment silences this",
        PerformanceWarning,
        stacklevel=level,
    )


@functools.cache
def sources(folder: Path) -> str:
    """Returns a digest of the C++ sources in a folder and of those that all share; setup.py puts it into the library."""
    files = [
        file for part in (folder, SHARED) for file in sorted(part.iterdir()) if file.suffix in (".cpp", ".h")
    ]
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


def is_built(folder: Path, stem: str) -> bool:
    """Whether there is a library in a folder that can be loaded here, for whatever level."""
    return next(_candidates(folder, stem), None) is not None


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
