"""Several things at once, their results in order; must not know what they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..system.forks import Lock

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_order(
    items: Iterable[ItemT], work: Callable[[ItemT], ResultT], at_once: Callable[[ItemT], int]
) -> Iterator[tuple[ItemT, ResultT]]:
    """Does the work for items, on a thread each where several are done at once, and yields results in their order.

    Args:
        items: taken one after the other, and no further than the work has come.
        at_once: of an item: how many like it may be worked on at once, 1 or more; asked in their order.

    Raises:
        what the work raised, or whoever gives the items: after the results of all items before, and when no work goes
        on any more.
    """
    waiting: deque[tuple[ItemT, Future[ResultT]]] = deque()
    pool: ThreadPoolExecutor | None = None
    failed: Exception | None = None
    source = iter(items)
    try:
        while True:
            try:
                item = next(source)
                most = at_once(item)
            except StopIteration:
                break
            except Exception as error:
                failed = error
                break
            while len(waiting) >= most:
                before, future = waiting.popleft()
                yield before, future.result()
            if most == 1:
                yield item, work(item)
                continue
            pool = pool or ThreadPoolExecutor(most, "llmzip-frame")
            waiting.append((item, pool.submit(work, item)))
        while waiting:
            before, future = waiting.popleft()
            yield before, future.result()
        if failed is not None:
            raise failed
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def one_at_a_time(progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """The same for callers on several threads."""
    if progress is None:
        return None
    lock = Lock()

    def tell(done: int) -> None:
        with lock:
            progress(done)

    return tell
