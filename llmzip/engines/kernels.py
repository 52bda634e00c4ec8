"""The compiled kernels of native/kernels.h: finding the library, and its functions; must not know models.

With LLMZIP_KERNELS in the environment as "plain", "avx2" or "avx512" the kernels of that instruction set are used, with
"none" no kernels: the bits are the same.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LEVELS = ("plain", "avx2", "avx512")
_VARIABLE = "LLMZIP_KERNELS"
FOLDER = Path(__file__).parent / "native"


class Library:
    """The kernels for one instruction set.

    Args:
        loaded: the shared library.
        level: one of "plain", "avx2", "avx512".

    Attributes:
        failed: they gave other bits than torch in the self-test.
    """

    def __init__(self, loaded: ctypes.CDLL, level: str) -> None:
        self.level, self.failed = level, False
        p, n, f = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        self.embed = self._function(loaded, "embed", n, n, p, p, p, f, p)
        self.norm = self._function(loaded, "norm", n, n, p, p, f, f, p, p, p)
        self.add_norm = self._function(loaded, "add_norm", n, n, p, p, p, p, p, f, f, p, p, p)
        self.gate = self._function(loaded, "gate", n, n, p, p, p, f, p, p, p, p)
        self.masses = self._function(loaded, "masses", n, n, p, p, f, p, p, p, p)
        self.heads = self._function(
            loaded, "heads", n, n, n, n, n, p, p, p, p, p, f, f, p, p, n, n, f, f, p, n, p, p, p, p
        )
        self.attention = self._function(loaded, "attention", n, n, n, n, n, p, p, p, p, n, n, p, p, p, p, p)

    def _function(self, loaded: ctypes.CDLL, name: str, *arguments: Any) -> Callable[..., None]:
        function = getattr(loaded, f"llmzip_{self.level}_{name}")
        function.argtypes, function.restype = arguments, None
        found: Callable[..., None] = function
        return found


@functools.cache
def library(level: str) -> Library | None:
    """The kernels of a level, "" for the best that this processor has; None if there are none, or it has not that."""
    for file in sorted(FOLDER.glob("_kernels*.*")):
        try:
            loaded = ctypes.CDLL(str(file))
            best = loaded.llmzip_best_level()
            wanted = _LEVELS.index(level) if level in _LEVELS else best
            if wanted <= best:
                return Library(loaded, _LEVELS[wanted])
        except (OSError, AttributeError):  # made for another machine, or by another version
            continue
    return None


def chosen() -> tuple[Library | None, str]:
    """The kernels to use, and why there are none."""
    level = os.environ.get(_VARIABLE, "")
    if level == "none":
        return None, f"{_VARIABLE}=none"
    found = library(level)
    if found is None:
        return None, "they were not built, or this processor has not what they need"
    return (None, "they failed their self-test") if found.failed else (found, "")


class Store(ctypes.Structure):
    """`struct Store` of kernels.h."""

    _fields_ = [
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("key_scale", ctypes.c_void_p),
        ("value_scale", ctypes.c_void_p),
        ("peak", ctypes.c_void_p),
        ("slots", ctypes.c_int64),
    ]
