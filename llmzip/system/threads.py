"""Threads that use one core each, as many as torch may use; must not know what they compute.

Either the parts of one thing are shared out to them, or each has a thing of its own, whose parts it does alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from . import forks


class Workers:
    """Threads that use one core each, as many as torch may use."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._lock = forks.Lock()
        self._here = threading.local()

    def forget(self) -> None:
        """In a forked child: the threads are the parent's."""
        self._pool, self._size = None, 0

    def run(self, tasks: list[Callable[[], None]]) -> None:
        """Runs tasks side by side; the first error of one is raised when all are done."""
        if len(tasks) == 1:
            tasks[0]()
            return
        futures = [self._ready().submit(_inference, task) for task in tasks]
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Runs a function on one of the threads; what it shares out is done there."""
        return self._ready().submit(self._alone, function, *arguments)

    def _alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._here.alone = True
        try:
            return function(*arguments)
        finally:
            self._here.alone = False

    def share(self, count: int, least: int, task: Callable[[int, int], Callable[[], None]]) -> None:
        """Shares out things to threads, at least so many to each: task(first, last) does those."""
        alone = getattr(self._here, "alone", False)
        parts = 1 if alone else max(1, min(count // least, torch.get_num_threads()))
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
