"""A pool of threads that use one core each, as many as torch may use. Must not know what they compute.

Either they share the parts of one task, or each has a task of its own and does all its parts alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from . import forks


class Workers:
    """A pool of threads that use one core each, as many as torch may use."""

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
        futures = [self._ready().submit(_inference, task) for task in tasks]
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

    def share(self, count: int, min_count: int, task: Callable[[int, int], Callable[[], None]]) -> None:
        """Splits items 0 to `count` - 1 among the threads and waits until all are done.

        Args:
            count: the number of items.
            min_count: the number of items that are worth a thread of their own.
            task: task(first, last) returns a function that does items `first` to `last` - 1.
        """
        is_alone = getattr(self._thread, "is_alone", False)
        parts = 1 if is_alone else max(1, min(count // min_count, torch.get_num_threads()))
        borders = [count * part // parts for part in range(parts + 1)]
        self.run([task(borders[part], borders[part + 1]) for part in range(parts)])

    def _ready(self) -> ThreadPoolExecutor:
        with self._lock:
            size = torch.get_num_threads()
            if self._pool is None or self._size < size:
                self._pool, self._size = ThreadPoolExecutor(size, "llmzip"), size
            return self._pool


def _inference(task: Callable[[], None]) -> None:
    with torch.inference_mode():
        task()


workers = Workers()
forks.in_child(workers.forget)
