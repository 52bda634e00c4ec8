"""The number of threads to compute with, and a pool of threads that use one core each. Must not know what they compute.

The number is the process's: torch's wherever torch is imported, so that what a program sets there holds here; before
that, what was set here, or what torch would begin with. Nothing here imports torch.

The pool's threads either share the parts of one task, or each has a task of its own and does all its parts alone.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import forks

# -- how many ----------------------------------------------------------------------------------------------------------

_wanted: int | None = None
"""The number that was set here; None if none was, or since torch has it."""


def count() -> int:
    """Returns how many threads may compute at once, 1 or more."""
    settle()
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads"):  # else there is none, or it is being imported
        threads: int = torch.get_num_threads()
        return threads
    return _wanted or usual_count()


def set_count(number: int) -> None:
    """Sets how many threads may compute at once, here and in torch.

    Args:
        number: 1 or more; 0 for one for each processor of the machine.
    """
    global _wanted  # noqa: PLW0603 - of the process
    _wanted = number or os.cpu_count() or 1
    settle()


def settle() -> None:
    """Gives torch the number that was set before it was imported; does nothing without torch.

    Modules that import torch to compute with it call this.
    """
    global _wanted
    torch: Any = sys.modules.get("torch")
    if _wanted is not None and hasattr(torch, "set_num_threads"):
        number, _wanted = _wanted, None
        torch.set_num_threads(number)


@functools.cache
def usual_count() -> int:
    """Returns the number of threads where none was set, as torch chooses it: the cores, or OMP_NUM_THREADS if less.

    Only cores that this process may use count, and where the variable is not set, no more than a container's share of
    processor time keeps busy.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return min(int(first), _cores())
    quota = _quota()
    return max(1, min(_cores(), _cores() if quota is None else math.ceil(quota)))


def _cores() -> int:
    """Returns how many cores this process may use; threads of one core that share it count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    processors = os.sched_getaffinity(0)
    siblings = set()
    for number in processors:
        try:
            siblings.add(Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_bytes())
        except OSError:
            return len(processors)
    return len(siblings)


def _quota() -> float | None:
    """Returns how many processors' time a container may use (cgroup version 2); None without a limit."""
    try:
        share, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return int(share) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None


# -- the pool ----------------------------------------------------------------------------------------------------------


class Workers:
    """A pool of threads that use one core each, as many as `count` says."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._lock = forks.Lock()
        self._thread = threading.local()

    def forget(self) -> None:
        """Drops the threads in a forked child: they are the parent's."""
        self._pool, self._size = None, 0

    def run(self, tasks: list[Callable[[], None]]) -> None:
        """Runs tasks in parallel; raises the first error when all have ended."""
        if len(tasks) == 1:
            tasks[0]()
            return
        futures = [self._ready().submit(task) for task in tasks]
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Runs a function on one of the threads; what it passes to `share` runs on the same thread."""
        return self._ready().submit(self._alone, function, *arguments)

    def _alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._thread.is_alone = True
        try:
            return function(*arguments)
        finally:
            self._thread.is_alone = False

    def share(self, number: int, min_count: int, task: Callable[[int, int], Callable[[], None]]) -> None:
        """Splits items 0 to `number` - 1 among the threads and waits until all are done.

        Args:
            number: of items.
            min_count: the number of items that are worth a thread of their own.
            task: task(first, last) returns a function that does items `first` to `last` - 1.
        """
        is_alone = getattr(self._thread, "is_alone", False)
        parts = 1 if is_alone else max(1, min(number // min_count, count()))
        borders = [number * part // parts for part in range(parts + 1)]
        self.run([task(borders[part], borders[part + 1]) for part in range(parts)])

    def _ready(self) -> ThreadPoolExecutor:
        with self._lock:
            size = count()
            if self._pool is None or self._size < size:
                self._pool, self._size = ThreadPoolExecutor(size, "llmzip"), size
            return self._pool


workers = Workers()
forks.in_child(workers.forget)
