"""Work on several items at once, with results in order; must not know what the items are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..inference.progress import Progress
from ..system.forks import Lock

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_order(
    items: Iterable[ItemT], work: Callable[[ItemT], ResultT], at_once: Callable[[ItemT], int]
) -> Iterator[tuple[ItemT, ResultT]]:
    """Works on items, on a thread each where several are done at once, and yields results in their order.

    Args:
        items: taken one after the other, and no further than the work has come.
        work: returns the result of an item.
        at_once: returns how many items like one may be worked on at once, 1 or more; asked in their order.

    Yields:
        each item with its result.

    Raises:
        what `items`, `work` or `at_once` raise: after the results of all items before, and once no thread works any
        more.
    """
    waiting: deque[tuple[ItemT, Future[ResultT]]] = deque()
    pool: ThreadPoolExecutor | None = None
    failed: Exception | None = None
    source = iter(items)
    try:
        while True:
            try:
                item = next(source)
                max_items = at_once(item)
            except StopIteration:
                break
            except Exception as error:
                failed = error
                break
            while len(waiting) >= max_items:
                before, future = waiting.popleft()
                yield before, future.result()
            if max_items == 1:
                yield item, work(item)
                continue
            pool = pool or ThreadPoolExecutor(max_items, "llmzip-frame")
            waiting.append((item, pool.submit(work, item)))
        while waiting:
            before, future = waiting.popleft()
            yield before, future.result()
        if failed is not None:
            raise failed
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def one_at_a_time(progress: Progress | None) -> Progress | None:
    """Returns a progress that several threads may call."""
    if progress is None:
        return None
    lock = Lock()

    def report(done: int) -> None:
        with lock:
            progress(done)

    return report
