"""Lanes: rows of a frame that go through the model on their own while others are coded; must not know coders.

A lane is a run of neighbouring rows. While one lane's tokens are being coded, others are in the model: on a thread
each, where the engine takes several callers, else one after the other on a thread next to the coder's.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from ..engines.arrays import Array
from ..engines.base import Engine
from ..engines.compiled import TokenSink
from ..format.plan import RowPlan
from ..system.threads import workers
from .passes import History, masses_in_parts

_PER_CALLER = 2
"""Number of lanes for each thread: one is ready when the other goes to the coder."""


class MassSink(Protocol):
    """What takes the masses of known tokens.

    Attributes:
        compiled: takes them from compiled code; None if it cannot.
    """

    compiled: TokenSink | None

    def add(self, places: np.ndarray, masses: Array) -> None:
        """Takes the masses, (n, V), of the tokens at some places in the frame, (n,) int64; threads may call it."""


class Lane:
    """Neighbouring rows of a frame, and the model's state after them.

    Attributes:
        first: number of the first row.
        plan: of these rows alone.
        history: of these rows.
    """

    def __init__(self, engine: Engine[Any], plan: RowPlan, rows: range, before: np.ndarray, chunk: int) -> None:
        starts = plan.row_starts()
        self.first, self._engine = rows.start, engine
        self._tokens = slice(starts[rows.start], starts[rows.stop])
        self.plan = RowPlan(starts[rows.stop] - starts[rows.start], len(rows), plan.overlap)
        self.history = History(engine, self.plan, before, chunk=chunk)

    def place(self, tokens: np.ndarray) -> None:
        """Notes this lane's tokens among all of the frame, (N,) int64."""
        self.history.place(tokens[self._tokens])

    def read(self, first_step: int, last_step: int, sink: MassSink) -> np.ndarray:
        """Reads the tokens of some steps, which were placed; `sink` gets their masses.

        Returns:
            (n,) int64: all places in the frame.
        """
        # The last step may be one of long rows, of which this lane has none.
        last_step, history = min(last_step, self.plan.steps), self.history
        if sink.compiled is not None and history.compiled is not None:
            history.read_compiled(history.compiled, sink.compiled, first_step, last_step, self._tokens.start)
        else:
            for lane_places, hidden in history.read(first_step, last_step):
                for part, masses in masses_in_parts(self._engine, hidden):
                    sink.add(lane_places[part] + self._tokens.start, masses)
        return history.places(first_step, last_step) + self._tokens.start


class Lanes:
    """All lanes of a frame, and the threads on which they go through the model; used as a context.

    Args:
        engine: the model.
        plan: the frame's rows.
        before: (p,) int64, what every row has read before.
        unit: the number of rows of a lane is a multiple of this, except in the last one; a lane has no fewer.
        chunk: steps that a lane reads at once where tokens are known; 0 where they are not.
    """

    def __init__(self, engine: Engine[Any], plan: RowPlan, before: np.ndarray, unit: int, chunk: int = 0) -> None:
        units = plan.num_rows // unit
        # Rows of a stepwise engine depend on each other.
        count = 1 if engine.stepwise else max(1, min(units, _PER_CALLER * engine.callers))
        borders = [units * n // count * unit for n in range(count)] + [plan.num_rows]
        self._ahead: dict[Lane, Future[Any]] = {}
        self._own: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._waits = count == 1 and not chunk  # each step needs the one before: threads would only cost time
        if not self._waits and (count == 1 or engine.callers == 1):
            self._own = ThreadPoolExecutor(1, "llmzip-model")
        self.lanes = [Lane(engine, plan, range(*rows), before, max(chunk, 1)) for rows in itertools.pairwise(borders)]

    def __iter__(self) -> Iterator[Lane]:
        return iter(self.lanes)

    def start(self, lane: Lane, function: Callable[..., Any], *arguments: Any) -> None:
        """Begins a task with a lane, which must have none pending."""
        if self._waits:
            done: Future[Any] = Future()
            self._ahead[lane] = done
            done.set_result(function(*arguments))
        else:
            submit = workers.submit if self._own is None else self._own.submit
            self._ahead[lane] = submit(function, *arguments)

    def wait(self, lane: Lane) -> Any:
        """Waits for the lane's pending task; returns its result or raises its error."""
        return self._ahead.pop(lane).result()

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends or waits for all pending tasks, as they use memory that may be released now."""
        if os.getpid() != self._process:  # a child that was forked in between: the threads are its parent's
            return
        for future in self._ahead.values():
            if not future.cancel():
                future.exception()
        if self._own is not None:
            self._own.shutdown()
