"""numba's compiler for the mixer's inner loops, and where the machine code is kept; knows nothing of what they compute.

With NUMBA_DISABLE_JIT=1 in the environment the same source runs as plain Python: some hundred times slower, same bits.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba

from .. import mixing

_config: Any = numba.config
_njit: Any = numba.njit

Function = TypeVar("Function", bound=Callable[..., object])


@functools.cache
def cache_folder() -> Path | None:
    """Where the machine code is kept, or None if there is no place for it.

    numba notices when the source of a function changes, but not when that of a function it calls does; so each version
    of the mixer's source has a folder of its own.
    """
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    sha = hashlib.sha256(numba.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(file.read_bytes())
    try:
        folder = Path(base) if base else Path.home() / ".cache"
        folder = folder / "llmzip" / f"mixer-{sha.hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # Path.home() raises the latter
        return None
    return folder if os.access(folder, os.W_OK) else None


def announce_compiling() -> None:
    """Tells that a compilation is about to begin if there is no machine code yet; only the first call looks."""
    notify, mixing.on_compiling = mixing.on_compiling, None
    if notify is None or _config.DISABLE_JIT:
        return
    folder = cache_folder()
    if folder is None or not any(folder.rglob("walk.walk-*.nbc")):
        notify()


@contextlib.contextmanager
def _own_cache() -> Iterator[bool]:
    """numba reads the folder when a function is decorated; other users of numba in this process keep theirs."""
    folder, before = cache_folder(), _config.CACHE_DIR
    if folder is not None:
        _config.CACHE_DIR = str(folder)
    try:
        yield folder is not None
    finally:
        _config.CACHE_DIR = before


def _compile(function: Function, **options: bool) -> Function:
    # Without _nrt=False every access to an array counts references, atomically: half of the time.
    with _own_cache() as cache:
        result: Function = _njit(cache=cache, _nrt=False, **options)(function)
    return result


def compiled(function: Function) -> Function:
    """Compiles a function when it is first called; its callers take it in, whatever its size."""
    return _compile(function, forceinline=True)


def compiled_apart(function: Function) -> Function:
    """The same for a function that is called rather than taken in."""
    return _compile(function)
