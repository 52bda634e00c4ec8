"""Passes of a frame's tokens through a model, by prefill or step by step; must not know coders.

Each row starts from an empty context; one that is full begins again with its last inputs. Prefill takes whole segments
of rows at once, in any order; steps take one token of every row. Both see the same masses, bit for bit. An engine that
cannot promise that is run step by step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.arrays import HOST, Array
from ..engines.base import Engine, PartedCache
from ..engines.compiled import CompiledRows, TokenSink
from ..format.plan import RowLayout, Rows
from ..system import forks
from .progress import TokenProgress

RESTART_CHUNK = 64
"""Inputs of a row that a full cache is refilled with at once."""

_HOST_MASSES = 1 << 20
"""Masses to compute per call on the processor: they must still be in its cache when they are used."""

_DEVICE_MASSES = 1 << 27
"""Masses to compute per call on other devices, which smaller calls would leave idle."""

_MIN_MASS_ROWS = 64
"""Rows of masses to compute per call, if there are as many: with fewer, reading a large head takes the time."""

_MIN_CHUNK = 256
"""Inputs of a row that go through the model at once, if there are as many: fewer waste time, more waste memory."""

NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Segment:
    """One run of a row's inputs through the model.

    Attributes:
        row: number of the row.
        begin, end: inputs, counted from the start token.
        known: inputs at the front whose predictions were made by the segment before.
    """

    row: int
    begin: int
    end: int
    known: int


def segments(row: int, length: int, context: int, overlap: int, known: int) -> Iterator[Segment]:
    """Yields the segments of a row.

    Args:
        row: its number.
        length: its inputs.
        context: inputs of a segment at most.
        overlap: inputs that a further segment begins with.
        known: inputs at the front of the first segment that are not predicted from.
    """
    begin = 0
    while True:
        end = min(length, begin + context)
        yield Segment(row, begin, end, known)
        if end == length:
            return
        begin, known = end - overlap, overlap


def token_masses(
    engine: Engine[Any],
    tokens: np.ndarray,
    plan: RowLayout,
    progress: TokenProgress | None = None,
    before: np.ndarray = NOTHING,
    context: int | None = None,
) -> Iterator[tuple[np.ndarray, Array]]:
    """Yields what the model expects of each token of a frame, by prefill unless the engine is stepwise.

    Args:
        engine: the model.
        tokens: (N,) int64, 0 <= id < V.
        plan: with N tokens in its rows.
        progress: called with the tokens that were just done.
        before: (p,) int64, what every row has read before; fewer than the context.
        context: most inputs that a token is predicted from; None for as many as the engine takes.

    Yields:
        places of tokens, (n,) int64, and their masses, (n, V) int32, until every token was there; in any order.
    """
    frame = _Frame(engine, tokens, plan, before, context or engine.context, progress)
    return frame.stepped() if engine.stepwise else frame.prefilled()


@dataclass(frozen=True, eq=False)
class _Frame:
    """The tokens of a frame on their way through a model; the attributes are those of `token_masses`."""

    engine: Engine[Any]
    tokens: np.ndarray
    plan: RowLayout
    before: np.ndarray
    context: int
    progress: TokenProgress | None

    def prefilled(self) -> Iterator[tuple[np.ndarray, Array]]:
        """Yields what `token_masses` yields, from whole segments of rows at once."""
        for batch in _batches(self._segments(), self.engine.batch_tokens):
            inputs = np.stack([self._inputs(segment) for segment in batch])
            places = np.stack([self._places(segment) for segment in batch])
            for columns, hidden in prefill(self.engine, inputs, batch[0].known):
                flat = places[:, columns].reshape(-1)
                for part, masses in masses_in_parts(self.engine, hidden):
                    yield flat[part], masses
            if self.progress is not None:
                self.progress(self.tokens[places.reshape(-1)])

    def stepped(self) -> Iterator[tuple[np.ndarray, Array]]:
        """Yields what `token_masses` yields, by the very calls that the decoder makes."""
        starts = np.array(self.plan.row_starts()[:-1], dtype=np.int64)
        history = History(self.engine, self.plan, self.before, self.context)
        for step in range(self.plan.steps):
            places = starts[: self.plan.active_rows(step)] + step
            yield places, history.step(step)
            history.take(step, self.tokens[places])
            if self.progress is not None:
                self.progress(self.tokens[places])

    def _segments(self) -> list[Segment]:
        """Returns the segments of all rows, those of equal shape next to each other."""
        skipped = len(self.before)
        runs = [
            segment
            for row, part in enumerate(self.plan.row_slices())
            for segment in segments(row, skipped + part.stop - part.start, self.context, self.plan.overlap, skipped)
        ]
        return sorted(runs, key=lambda segment: (segment.end - segment.begin, segment.known))

    def _inputs(self, segment: Segment) -> np.ndarray:
        """Returns a segment's inputs: input i of a row is the start token, then the prompt, then token i - p - 1."""
        skipped = len(self.before)
        front = np.concatenate([[self.engine.start_token], self.before])
        first = self._first_place(segment.row)
        shifted = self.tokens[first + max(skipped, segment.begin - 1) : first + segment.end - 1]
        return np.concatenate([front[segment.begin :], shifted])

    def _places(self, segment: Segment) -> np.ndarray:
        """Returns the places of the tokens that a segment predicts."""
        first = self._first_place(segment.row)
        return np.arange(first + segment.begin + segment.known, first + segment.end)

    def _first_place(self, row: int) -> int:
        """Returns where input 0 of a row would be among the tokens, were the prompt a part of them."""
        return self._row_starts[row] - len(self.before)

    @forks.cached_property
    def _row_starts(self) -> list[int]:
        return self.plan.row_starts()


class History:
    """All rows of a frame as far as they are known, and the model's state after them.

    Attributes:
        inputs: (rows, p + steps + 1) int64: the start token, the prompt, a row's tokens, fillers.
        compiled: takes the rows through the model in compiled code; None where there is none.
    """

    def __init__(
        self,
        engine: Engine[Any],
        plan: RowLayout,
        before: np.ndarray,
        context: int | None = None,
        chunk: int = RESTART_CHUNK,
    ) -> None:
        self._engine, self._plan, self._skipped, self._chunk = engine, plan, len(before), chunk
        self._context = context or engine.context
        self.inputs = np.full((plan.num_rows, len(before) + plan.steps + 1), engine.start_token, dtype=np.int64)
        self.inputs[:, 1 : 1 + len(before)] = before
        self._cache = engine.new_cache(plan.num_rows, max(chunk, RESTART_CHUNK), len(before) + plan.steps)
        self.compiled: CompiledRows | None = None
        if engine.is_compiled and isinstance(plan, Rows):
            self.compiled = engine.compiled_rows(self._cache, self.inputs, plan, len(before))
        if len(before):
            restart(engine, self._cache, self.inputs[:, : len(before)])

    def step(self, step: int) -> Array:
        """Returns the masses of the token of a step in every row that has one, (n, V) int32.

        The tokens of all steps before must have been taken.
        """
        at = self._skipped + step
        self.restart_if_full(step)
        hidden = self._engine.forward(self.inputs[:, at : at + 1], self._cache)
        return self._engine.masses(hidden[: self._plan.active_rows(step), 0])

    def place(self, tokens: np.ndarray) -> None:
        """Notes all tokens, (N,) int64, where they are known beforehand."""
        first = self._skipped + 1
        for row, part in enumerate(self._plan.row_slices()):
            self.inputs[row, first : first + part.stop - part.start] = tokens[part]

    def read(self, first_step: int, last_step: int) -> Iterator[tuple[np.ndarray, Array]]:
        """Reads the tokens of some steps, which were placed; the steps before them must be done.

        Yields:
            places of tokens, (n,) int64, and the hidden states before them, (n, hidden) float32.
        """
        engine, plan, step = self._engine, self._plan, first_step
        starts = np.array(plan.row_starts(), dtype=np.int64)
        while step < last_step:
            at = self._skipped + step
            self.restart_if_full(step)
            new = min(self._chunk, engine.batch_tokens, self._context - self._cache.length, last_step - step)
            batch = max(1, engine.batch_tokens // new)
            for row in range(0, plan.num_rows, batch):
                part = self._cache.rows(slice(row, row + batch))
                ids = self.inputs[row : row + batch, at : at + new]
                hidden = engine.forward(ids, part)
                places = starts[row : row + len(ids), None] + np.arange(step, step + new)
                exists = places < starts[row + 1 : row + 1 + len(ids), None]  # only long rows have a last token
                if exists.all():
                    yield places.reshape(-1), hidden.reshape(-1, hidden.shape[-1])
                else:
                    yield places[exists], hidden[exists]
            self._cache.adopt(part)
            step += new

    def read_compiled(self, rows: CompiledRows, sink: TokenSink, first_step: int, last_step: int, first: int) -> None:
        """Reads the tokens of some steps, which were placed, in compiled code.

        Args:
            rows: `compiled`.
            sink: gets their masses.
            first_step, last_step: the steps; those before them must be done.
            first: place of the first row's first token among those that the sink knows.
        """
        step = first_step
        while step < last_step:
            self.restart_if_full(step)
            end = min(step + min(self._chunk, rows.room(step)), last_step)
            rows.read(sink, step, end, first)
            step = end

    def places(self, first_step: int, last_step: int) -> np.ndarray:
        """Returns the places of the tokens of some steps, (n,) int64."""
        starts = np.array(self._plan.row_starts(), dtype=np.int64)
        places = starts[:-1, None] + np.arange(first_step, last_step)
        return places[places < starts[1:, None]]

    def restart_if_full(self, step: int) -> None:
        """Begins a new context with the last inputs of every row if the input of a step does not fit any more."""
        at = self._skipped + step
        if self._cache.length == self._context:
            restart(self._engine, self._cache, self.inputs[:, at - self._plan.overlap : at])

    def take(self, step: int, ids: np.ndarray) -> None:
        """Takes the tokens of a step, (n,) int64."""
        self.inputs[: len(ids), self._skipped + step + 1] = ids

    def taken(self, first_step: int, last_step: int) -> np.ndarray:
        """Returns the tokens of some steps, (n,) int64, which were taken."""
        first, plan = self._skipped + 1, self._plan
        steps = (self.inputs[: plan.active_rows(step), first + step] for step in range(first_step, last_step))
        return np.concatenate(list(steps))

    def tokens(self) -> np.ndarray:
        """Returns all tokens, (N,) int64, row after row."""
        first = self._skipped + 1
        slices = self._plan.row_slices()
        return np.concatenate(
            [self.inputs[row, first : first + part.stop - part.start] for row, part in enumerate(slices)]
        )


def prefill(engine: Engine[Any], inputs: np.ndarray, known: int) -> Iterator[tuple[slice, Array]]:
    """Runs whole rows through the model.

    Args:
        inputs: (rows, length) int64.
        known: columns at the front whose results are not wanted.

    Yields:
        slices of the columns from `known` on, and their final hidden states, (rows * columns, hidden).
    """
    rows, length = inputs.shape
    chunk = max(1, engine.batch_tokens // rows)
    cache = engine.new_cache(rows, chunk, length) if length > chunk else None
    for begin in range(0, length, chunk):
        hidden = engine.forward(inputs[:, begin : begin + chunk], cache)
        new = hidden[:, max(0, known - begin) :]
        if new.shape[1]:
            first = max(begin, known) - known
            yield slice(first, first + new.shape[1]), new.reshape(-1, new.shape[-1])


def masses_in_parts(engine: Engine[Any], hidden: Array) -> Iterator[tuple[slice, Array]]:
    """Yields slices of final hidden states, (n, hidden), and their masses, (k, V): as many as are best done at once."""
    step = max(_MIN_MASS_ROWS, (_HOST_MASSES if engine.device == HOST else _DEVICE_MASSES) // engine.vocab_size)
    for n in range(0, len(hidden), step):
        part = slice(n, min(n + step, len(hidden)))
        yield part, engine.masses(hidden[part])


def _batches(runs: list[Segment], batch_tokens: int) -> Iterator[list[Segment]]:
    """Yields runs of segments of equal shape, at most `batch_tokens` inputs or few enough rows to fill a chunk."""
    batch: list[Segment] = []
    for segment in runs:
        shape = (segment.end - segment.begin, segment.known)
        if batch and (
            shape != (batch[0].end - batch[0].begin, batch[0].known)
            or (len(batch) + 1) * min(shape[0], _MIN_CHUNK) > batch_tokens
        ):
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def restart(engine: Engine[Any], cache: PartedCache, inputs: np.ndarray) -> None:
    """Refills the cache with the last inputs of every row, a few rows at a time; a stepwise engine's by steps."""
    cache.reset()
    rows, length = inputs.shape
    if engine.stepwise:
        for column in range(length):
            engine.forward(inputs[:, column : column + 1], cache)
        return
    batch = max(1, engine.batch_tokens // _MIN_CHUNK)
    chunk = min(RESTART_CHUNK, engine.batch_tokens)
    for row in range(0, rows, batch):
        part = cache.rows(slice(row, row + batch))
        for begin in range(0, length, chunk):
            engine.forward(inputs[row : row + batch, begin : begin + chunk], part)
    cache.adopt(part)
