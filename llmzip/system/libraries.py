"""Finds the libraries that were compiled at the installation and checks their sources. Must not know what they compute.

LLMZIP_KERNELS in the environment chooses another level of instructions, or none; the bits stay the same.
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
from typing import Any

from ..errors import PerformanceWarning, SettingsError
from . import forks

VARIABLE = "LLMZIP_KERNELS"
NONE = "none"
TRITON = "triton"
"""A value of the variable for tests, which run the kernels of GPUs in an interpreter; not among CHOICES."""

CHOICES = (NONE, "portable", "avx2", "avx512", "amx")
"""Values of the variable. Each library takes the nearest level that it has."""

KERNELS = (Path(__file__).parents[1] / "engines" / "cpu" / "native", "_kernels")
"""Folder and stem of the exact engine's library, which is optional and makes most of the speed."""

SHARED = Path(__file__).parent / "native"
"""Folder of the C++ sources that every library includes."""

MACHINES = ("x86_64", "amd64")
"""Names that `platform.machine` gives the processors with kernels."""

_has_warned = False


def wanted() -> str:
    """Returns what LLMZIP_KERNELS asks for: one of CHOICES, TRITON, or "" for the fastest.

    Raises:
        SettingsError: it has another value.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", TRITON, *CHOICES):
        raise SettingsError(f"{VARIABLE}: {value!r} is none of {', '.join(CHOICES)}")
    return value


def warn_if_missing() -> None:
    """Warns once per process if the kernels are missing where they could run, unless LLMZIP_KERNELS is "none".

    The command line has its own message for that.

    Raises:
        SettingsError: LLMZIP_KERNELS has an unknown value.
    """
    global _has_warned  # noqa: PLW0603 - once per process
    if _has_warned or wanted() == NONE:
        return
    _has_warned = True
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
        "sources. Install llmzip again: pip install . in a copy of the sources, or pip install -e . to work on them; "
        f"{VARIABLE}=none in the environment silences this",
        PerformanceWarning,
        stacklevel=level,
    )


@functools.cache
def sources(folder: Path) -> str:
    """Returns a digest of the C++ sources in a folder and in SHARED; setup.py puts the same into the library."""
    files = [file for part in (folder, SHARED) for file in sorted(part.iterdir()) if file.suffix in (".cpp", ".h")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def find(folder: Path, stem: str, levels: Sequence[str], level: str) -> tuple[ctypes.CDLL, str] | None:
    """Returns the library in a folder and a level that it has here; None without library or level.

    Args:
        folder, stem: where the library is, and how its file name begins.
        levels: names of the levels by the numbers that `llmzip_best_level` returns; "" for a number without code.
        level: one of `levels`; anything else for the best one.
    """
    for library in _candidates(folder, stem):
        best = library.llmzip_best_level()
        number = levels.index(level) if level and level in levels else best
        if number <= best and levels[number]:
            return library, levels[number]
    return None


def is_built(folder: Path, stem: str) -> bool:
    """Returns whether a folder has a library that can be loaded here, of whatever level."""
    return next(_candidates(folder, stem), None) is not None


def address_of(function: Any) -> int:
    """Returns the address of a library's function, for compiled code that calls it without Python."""
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None  # a function that is there has one
    return address


def _candidates(folder: Path, stem: str) -> Iterator[ctypes.CDLL]:
    """Yields the libraries in a folder that can be loaded here and were built from the sources next to them."""
    for file in sorted(folder.glob(f"{stem}*.*")):
        try:
            with forks.whole:  # the system's loader holds a lock
                library = ctypes.CDLL(str(file))
            library.llmzip_sources.restype = ctypes.c_char_p
            # Another version may lay out its structures differently.
            if library.llmzip_sources().decode() == sources(folder):
                yield library
        except (OSError, AttributeError):  # for another machine, or no library of llmzip
            continue
