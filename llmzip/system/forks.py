"""What a child of os.fork() finds: free locks, nothing half done, threads that answer; must not know what they are for.

The child has a copy of everything but of the other threads. So a lock that one of them held stays locked there, work
that one of them was in the middle of stays as it is, and OpenMP waits for threads that are no more. Three remedies:

- `Lock` is free in the child, unless the thread that forked held it. What it guards must be changed by one assignment.
- A fork waits until nobody else is in `whole`: for work that cannot be left in the middle, because it changes settings
  of the process or holds locks of other libraries. Such work must not wait for anybody who may come here.
- GNU OpenMP's threads are dismissed before a fork; both processes start new ones when they need them.

Children of `subprocess` run another program, and none of this.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import ctypes
import functools
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

# What is registered last comes first before a fork: these modules, too, hold their locks over it, and whoever we wait
# for may need them.
_COME_AFTER = (concurrent.futures.thread, logging)

_PATIENCE_SECONDS = 60.0
"""Of a fork. More than anybody takes; but other libraries may hold locks over a fork, too, which end in a deadlock."""

_PACKAGES = {
    __name__.partition(".")[0],
    "torch",
    "numpy",
    "transformers",
    "tokenizers",
    "safetensors",
}
"""Whose modules a child must find whole: ours, and what ours import in the middle of their work."""

# -- locks -------------------------------------------------------------------------------------------------------------


class Lock:
    """A reentrant lock, used by `with`, that other threads do not hold in a forked child."""

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
        """Makes it as new, unless this thread holds it: the others are no more."""
        if self._owner != threading.get_ident():
            self._lock, self._owner, self._depth = threading.RLock(), None, 0


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


class cached_property(functools.cached_property[ValueT]):
    """As functools' one, whose lock before Python 3.12 is one that a child may inherit locked."""

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
        here = threading.get_ident()
        with self._changed:
            if here not in self._depths:  # who is in already must get out, or the fork would wait for ever
                self._changed.wait_for(lambda: self._forking is None)
            self._depths[here] = self._depths.get(here, 0) + 1

    def __exit__(self, *error: object) -> None:
        here = threading.get_ident()
        with self._changed:
            self._depths[here] -= 1
            if not self._depths[here]:
                del self._depths[here]
                self._changed.notify_all()

    def close(self) -> None:
        """Waits until no other thread is in here, and keeps them out."""
        here = threading.get_ident()
        self._changed.acquire()
        self._changed.wait_for(lambda: self._forking is None)  # two threads may fork at once
        self._forking = here
        self._changed.wait_for(lambda: not self._depths.keys() - {here}, _PATIENCE_SECONDS)

    def open(self) -> None:
        """Lets the others in again; does nothing if this thread did not close it."""
        if self._forking == threading.get_ident():
            self._forking = None
            self._changed.notify_all()
            self._changed.release()

    def renew(self) -> None:
        """Opens it in a child, where the only thread may be inside."""
        here = threading.get_ident()
        self._depths = {thread: depth for thread, depth in self._depths.items() if thread == here}
        self._changed, self._forking = threading.Condition(), None


whole = _Whole()
"""To be used as a context by work that a fork must wait for."""


def _others_import() -> bool:
    """Whether other threads are importing modules that are needed here; in a child nobody would ever finish them."""
    own, frame = set(), sys._getframe(1)
    while frame is not None:
        own.add(frame.f_globals.get("__name__"))
        frame = frame.f_back  # type: ignore[assignment]
    for name in list(sys.modules):
        if name.partition(".")[0] in _PACKAGES and name not in own:
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(spec, "_initializing", False):
                return True
    return False


# -- OpenMP ------------------------------------------------------------------------------------------------------------

_PAUSE_SOFT = 1  # omp_pause_soft of OpenMP 5.0: settings stay, such as the number of threads


class _Place(ctypes.Structure):
    """Dl_info of dladdr()."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("file", "base", "symbol", "address")]


def _library_of(function: object) -> int | None:
    """The address at which the library of a C function begins."""
    place = _Place()
    found = ctypes.CDLL(None).dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(place))  # type: ignore[arg-type]
    return place.base if found else None


@functools.cache
def _openmp() -> tuple[bool, Callable[[int], int] | None]:
    """Whether torch's OpenMP is one that does not work in a child, and its function to dismiss its threads.

    That is GNU's; LLVM's and Intel's look after their children themselves. Its function came with GCC 9, and some
    builds of torch bring an older one. A library that was loaded before torch may take the place of torch's own.
    """
    paths = [None, *sorted(Path(sys.modules["torch"].__file__ or "").parent.glob("lib/libtorch_cpu.*"))]
    for path in paths:
        with contextlib.suppress(OSError, AttributeError):
            loaded = ctypes.CDLL(None if path is None else str(path))
            home = _library_of(loaded.GOMP_parallel)
            with contextlib.suppress(AttributeError):
                if _library_of(loaded.__kmpc_fork_call) == home:
                    return False, None
            with contextlib.suppress(AttributeError):
                if _library_of(loaded.omp_pause_resource_all) == home:
                    return True, loaded.omp_pause_resource_all
            return True, None
    return False, None


_single = False


def is_single() -> bool:
    """Whether torch must not use more than one thread here: a child whose OpenMP waits for threads of its parent."""
    return _single


def _dismiss_threads() -> None:
    """Ends the threads that OpenMP keeps for this one."""
    if "torch" in sys.modules:
        pause = _openmp()[1]
        if pause is not None:
            pause(_PAUSE_SOFT)


_torch_lock = Lock()
_torch_is_new = False


def settle_torch() -> None:
    """Before torch is used by several threads of a child: the first of them makes a pool anew, and without a lock."""
    global _torch_is_new  # noqa: PLW0603 - of the process
    with _torch_lock:
        if _torch_is_new:
            torch = sys.modules["torch"]
            torch.set_num_threads(torch.get_num_threads())
            _torch_is_new = False


def _make_single() -> None:
    """In a child: lets torch use one thread, if its OpenMP could not dismiss the parent's."""
    global _single, _torch_is_new  # noqa: PLW0603 - of the process
    torch = sys.modules.get("torch")
    _torch_is_new = hasattr(torch, "set_num_threads")  # else another thread was importing it, and nobody will end that
    if torch is not None and _torch_is_new and _openmp() == (True, None):
        _single = True
        torch.set_num_threads(1)


# -- the fork ----------------------------------------------------------------------------------------------------------

_in_child: list[Callable[[], object]] = []


def in_child(function: Callable[[], object]) -> None:
    """Has a function called in every child, right after the fork."""
    _in_child.append(function)


def _before() -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    whole.close()
    while _others_import() and time.monotonic() < end:
        whole.open()  # who imports may have to come here
        time.sleep(0.002)
        whole.close()
    _dismiss_threads()


def _after_in_child() -> None:
    whole.renew()
    for lock in list(_locks):
        lock.renew()
    for function in _in_child:
        function()
    _make_single()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=whole.open, after_in_child=_after_in_child)
