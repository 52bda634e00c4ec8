"""Makes llmzip work in children of os.fork(): free locks, no half-done work, OpenMP threads that respond.

Must not know what the locks and threads are for. A child has a copy of everything except the other threads. So a lock
that one of them held stays locked, work that one of them was doing stays unfinished, and OpenMP waits for threads that
no longer exist. There are three remedies:

- A `Lock` is free in the child, unless the forking thread held it. Changes of what it guards must be one assignment.
- A fork waits until no other thread is in `whole`, which is for work that cannot stop in the middle, because it changes
  settings of the process or holds locks of other libraries. Such work must not wait for threads that may enter here.
- GNU OpenMP's threads are dismissed before a fork; both processes start new ones when they need them.

Children of `subprocess` run another program and need none of this.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import ctypes
import functools
import importlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ValueT = TypeVar("ValueT")

# Handlers registered last run first before a fork. These modules hold their locks during a fork, too, and the threads
# that a fork waits for here may need those locks: so they must be registered, that is imported, before this one.
_REGISTERED_BEFORE = (concurrent.futures.thread, logging)

_MAX_WAIT_SECONDS = 60.0
"""Longest wait of a fork, more than any work takes: if another library's lock makes a deadlock, it ends."""

_PACKAGES = {
    __name__.partition(".")[0],
    "torch",
    "numpy",
    "transformers",
    "tokenizers",
    "safetensors",
}
"""Packages whose modules must not be half imported in a child: llmzip, and what it imports in the middle of work."""

# -- locks -------------------------------------------------------------------------------------------------------------


class Lock:
    """A reentrant lock for `with` that other threads never hold in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._depth = 0
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()

    def renew(self) -> None:
        """Frees the lock in a child, unless this thread holds it: the other threads no longer exist."""
        if self._owner != threading.get_ident():
            self._lock, self._owner, self._depth = threading.RLock(), None, 0


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


class cached_property(functools.cached_property[ValueT]):
    """functools.cached_property with a `Lock`: before Python 3.12 its own lock could be inherited locked."""

    def __init__(self, function: Callable[..., ValueT]) -> None:
        super().__init__(function)
        if hasattr(self, "lock"):
            self.lock = Lock()


# -- work that a fork waits for ----------------------------------------------------------------------------------------


class _Whole:
    """A context that may be entered by many threads at once, and by no other thread while one forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._depths: dict[int, int] = {}
        self._forking: int | None = None

    def __enter__(self) -> None:
        thread = threading.get_ident()
        with self._changed:
            if thread not in self._depths:  # a thread that is inside must get out, or the fork would wait for ever
                self._changed.wait_for(lambda: self._forking is None)
            self._depths[thread] = self._depths.get(thread, 0) + 1

    def __exit__(self, *error: object) -> None:
        thread = threading.get_ident()
        with self._changed:
            self._depths[thread] -= 1
            if not self._depths[thread]:
                del self._depths[thread]
                self._changed.notify_all()

    def close(self) -> None:
        """Waits until no other thread is inside, and keeps them out."""
        thread = threading.get_ident()
        self._changed.acquire()
        self._changed.wait_for(lambda: self._forking is None)  # two threads may fork at once
        self._forking = thread
        self._changed.wait_for(lambda: not self._depths.keys() - {thread}, _MAX_WAIT_SECONDS)

    def open(self) -> None:
        """Lets other threads in again; does nothing if this thread did not close it."""
        if self._forking == threading.get_ident():
            self._forking = None
            self._changed.notify_all()
            self._changed.release()

    def renew(self) -> None:
        """Opens it in a child, whose only thread may be inside."""
        survivor = threading.get_ident()
        self._depths = {thread: depth for thread, depth in self._depths.items() if thread == survivor}
        self._changed, self._forking = threading.Condition(), None


whole = _Whole()
"""The context for work that a fork must wait for."""


def _others_locks() -> list[str]:
    """Returns the modules of _PACKAGES whose import locks other threads hold.

    They hold one before a module's import begins, while its file is searched for, and for a moment after its end.
    CPython keeps the locks in a private table, which may be absent one day: then only imports under way are noticed.
    """
    table, this_thread = getattr(importlib._bootstrap, "_module_locks", {}), threading.get_ident()
    locks = {name: reference() for name, reference in list(table.items()) if name.partition(".")[0] in _PACKAGES}
    return [name for name, lock in locks.items() if getattr(lock, "owner", None) not in (None, this_thread)]


def _free_import_locks() -> None:
    """Lets a child import what another thread of its parent was about to import at the fork."""
    for name in _others_locks():
        importlib._bootstrap._module_locks.pop(name, None)  # type: ignore[attr-defined]


def _others_import() -> bool:
    """Whether other threads are importing modules of _PACKAGES; in a child those imports would never be finished."""
    if _others_locks():
        return True
    imported_here, frame = set(), sys._getframe(1)
    while frame is not None:
        imported_here.add(frame.f_globals.get("__name__"))
        frame = frame.f_back  # type: ignore[assignment]
    for name in list(sys.modules):
        if name.partition(".")[0] in _PACKAGES and name not in imported_here:
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(spec, "_initializing", False):
                return True
    return False


# -- OpenMP ------------------------------------------------------------------------------------------------------------

_PAUSE_SOFT = 1  # omp_pause_soft of OpenMP 5.0: settings stay, such as the number of threads


class _SymbolInfo(ctypes.Structure):
    """Dl_info, the result of dladdr()."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("file", "base", "symbol", "address")]


def _library_of(function: object) -> int | None:
    """Returns the address at which the library of a C function begins; None if the function is in no library."""
    info = _SymbolInfo()
    is_known = ctypes.CDLL(None).dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))  # type: ignore[arg-type]
    return info.base if is_known else None


@functools.cache
def _openmp() -> tuple[bool, Callable[[int], int] | None]:
    """Returns whether torch's OpenMP fails in a child, and its function that dismisses its threads, if it has one.

    GNU's fails; LLVM's and Intel's handle forks themselves. The function came with GCC 9, and some builds of torch ship
    an older library. A library that was loaded before torch may replace torch's own.
    """
    paths = [None, *sorted(Path(sys.modules["torch"].__file__ or "").parent.glob("lib/libtorch_cpu.*"))]
    for path in paths:
        with contextlib.suppress(OSError, AttributeError):
            loaded = ctypes.CDLL(None if path is None else str(path))
            openmp = _library_of(loaded.GOMP_parallel)
            with contextlib.suppress(AttributeError):
                if _library_of(loaded.__kmpc_fork_call) == openmp:
                    return False, None
            with contextlib.suppress(AttributeError):
                if _library_of(loaded.omp_pause_resource_all) == openmp:
                    return True, loaded.omp_pause_resource_all
            return True, None
    return False, None


_single = False


def is_single() -> bool:
    """Whether torch may use only one thread: in a child whose OpenMP would wait for its parent's threads."""
    return _single


def _dismiss_threads() -> None:
    """Ends the threads that OpenMP keeps for the calling thread."""
    if "torch" in sys.modules:
        pause = _openmp()[1]
        if pause is not None:
            pause(_PAUSE_SOFT)


_torch_lock = Lock()
_torch_is_new = False


def settle_torch() -> None:
    """Rebuilds torch's pool in a child. Must be called before several threads use torch, which would race for it."""
    global _torch_is_new  # noqa: PLW0603 - of the process
    with _torch_lock:
        if _torch_is_new:
            torch = sys.modules["torch"]
            torch.set_num_threads(torch.get_num_threads())
            _torch_is_new = False


def _make_single() -> None:
    """Limits torch to one thread in a child, if its OpenMP could not dismiss the parent's threads."""
    global _single, _torch_is_new  # noqa: PLW0603 - of the process
    torch = sys.modules.get("torch")
    _torch_is_new = hasattr(torch, "set_num_threads")  # else its import was under way, and never ends
    if torch is not None and _torch_is_new and _openmp() == (True, None):
        _single = True
        torch.set_num_threads(1)


# -- the fork ----------------------------------------------------------------------------------------------------------

_in_child: list[Callable[[], object]] = []


def in_child(function: Callable[[], object]) -> None:
    """Registers a function to be called in every child right after the fork."""
    _in_child.append(function)


def _before() -> None:
    deadline = time.monotonic() + _MAX_WAIT_SECONDS
    whole.close()
    _dismiss_threads()  # before the imports are looked at: they may begin again while this runs
    while _others_import() and time.monotonic() < deadline:
        whole.open()  # the importing thread may have to get in
        time.sleep(0.002)
        whole.close()


def _after_in_child() -> None:
    whole.renew()
    _free_import_locks()
    for lock in list(_locks):
        lock.renew()
    for function in _in_child:
        function()
    _make_single()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=whole.open, after_in_child=_after_in_child)
