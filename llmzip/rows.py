"""Token ids to a frame's payload and back: rows in lockstep through engine and coder; must not know text or files.

Each row starts from an empty context. Encoding runs whole segments of a row at once (prefill), in any order, and keeps
16 bytes a token; decoding runs one token of every row at a time. Both see the same masses, bit for bit, so both code
the same intervals in the same order (format section 4). An engine that cannot promise that is run step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .coder import Decoder, Encoder
from .engines.base import Cache, Engine
from .engines.freqs import Frequencies
from .engines.memory import free_bytes
from .errors import CorruptError, ResourceError
from .plan import RowPlan, header_plan, profile_plan

if TYPE_CHECKING:
    from .mixing.vocabulary import Vocabulary

__all__ = ["RowPlan", "decode", "encode", "header_plan", "profile_plan"]

_RESTART_CHUNK = 64
"""Inputs of a row that a full cache is filled with at once when its context begins anew."""

_LEAST_CHUNK = 256
"""Inputs of a row that go through the model at once, if there are as many: fewer waste time, more waste memory."""


@dataclass(frozen=True)
class _Segment:
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


def _segments(row: int, length: int, context: int, overlap: int) -> Iterator[_Segment]:
    begin = known = 0
    while True:
        end = min(length, begin + context)
        yield _Segment(row, begin, end, known)
        if end == length:
            return
        begin, known = end - overlap, overlap


def encode(
    engine: Engine[Any],
    tokens: np.ndarray,
    plan: RowPlan,
    progress: Callable[[np.ndarray], None] | None = None,
    vocabulary: Vocabulary | None = None,
) -> tuple[bytes, float]:
    """Codes the tokens of a frame.

    Args:
        engine: the model.
        tokens: (N,) int64, 0 <= id < V.
        plan: with num_tokens == N.
        progress: called with the tokens that were just done.
        vocabulary: the tokens' tree if they are to be mixed (method mixed), None for method lm.

    Returns:
        The payload, and the sum of -log2 of the coded probabilities in bits.
    """
    found = (_stepped_masses if engine.stepwise else _token_masses)(engine, tokens, plan, progress)
    if vocabulary is None:
        sink = _IntervalSink(engine.vocab_size, tokens, plan)
        for places, masses in found:
            sink.add(places, masses)
        return sink.finish()
    from .mixing.mixer import MixEncoder

    mixer = MixEncoder(vocabulary, tokens, plan.num_rows, with_model=True)
    for places, masses in found:
        mixer.add(places, masses.cpu().numpy())
    return mixer.finish()


class _IntervalSink:
    """Codes tokens with the model's frequencies alone (numerics section 8)."""

    def __init__(self, vocab_size: int, tokens: np.ndarray, plan: RowPlan) -> None:
        self._frequencies = Frequencies(vocab_size)
        self._tokens, self._plan = tokens, plan
        self._intervals = np.empty((len(tokens), 4), dtype=np.int64)

    def add(self, places: np.ndarray, masses: torch.Tensor) -> None:
        """The masses, (n, V) int32, of some of the tokens."""
        targets = torch.from_numpy(self._tokens[places]).to(masses.device)
        self._intervals[places] = self._frequencies.intervals(masses, targets).cpu().numpy()

    def finish(self) -> tuple[bytes, float]:
        """Payload and bits, as `encode` returns them."""
        plan, num_tokens = self._plan, len(self._tokens)
        coded = self._intervals[np.concatenate(list(_step_order(plan)))]
        encoder = Encoder()
        left = np.empty(2 * num_tokens, dtype=np.int64)
        frequency = np.empty_like(left)
        # Within a step: the groups of all rows, then the places of all rows.
        bulk, rows = plan.full_steps * plan.num_rows, plan.num_rows
        for target, column in ((left, 0), (frequency, 1)):
            pairs = coded[:bulk, column::2].reshape(-1, rows, 2).transpose(0, 2, 1)
            target[: 2 * bulk] = pairs.reshape(-1)
            target[2 * bulk :] = coded[bulk:, column::2].T.reshape(-1)
        encoder.encode(left, frequency)
        bits = -float(np.log2(frequency * 2.0**-24).sum())
        return encoder.finish(), bits


class _IntervalSource:
    """Decodes what `_IntervalSink` codes, step by step."""

    def __init__(self, vocab_size: int, payload: bytes) -> None:
        self._frequencies = Frequencies(vocab_size)
        self._decoder = Decoder(payload)

    def step(self, masses: torch.Tensor) -> np.ndarray:
        """One token per row, (n,) int64, from its masses, (n, V) int32."""
        sums, bounds = self._frequencies.group_bounds(masses)
        groups = self._decoder.decode(bounds.cpu().numpy()).astype(np.int64)
        chosen = torch.from_numpy(groups).to(masses.device)
        inner = self._frequencies.symbol_bounds(masses, sums, bounds, chosen)
        ids: np.ndarray = groups * self._frequencies.group_size + self._decoder.decode(inner.cpu().numpy())
        return ids


def _step_order(plan: RowPlan) -> Iterator[np.ndarray]:
    """Indices of the tokens, step by step."""
    starts = np.array(plan.row_starts()[:-1], dtype=np.int64)
    yield (starts[None, :] + np.arange(plan.full_steps)[:, None]).reshape(-1)
    yield starts[: plan.long_rows] + plan.full_steps


def _token_masses(
    engine: Engine[Any], tokens: np.ndarray, plan: RowPlan, progress: Callable[[np.ndarray], None] | None
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Places of tokens, (n,) int64, and their masses, (n, V) int32, until every token was there; in any order."""
    slices = plan.row_slices()
    segments = [
        segment
        for row, part in enumerate(slices)
        for segment in _segments(row, part.stop - part.start, engine.context, plan.overlap)
    ]
    segments.sort(key=lambda segment: (segment.end - segment.begin, segment.known))
    for batch in _batches(segments, engine.batch_tokens):
        inputs = np.empty((len(batch), batch[0].end - batch[0].begin), dtype=np.int64)
        places = []
        for number, segment in enumerate(batch):
            start = slices[segment.row].start
            shifted = tokens[start + max(0, segment.begin - 1) : start + segment.end - 1]
            inputs[number] = shifted if segment.begin else np.concatenate([[engine.start_token], shifted])
            places.append(np.arange(start + segment.begin + segment.known, start + segment.end))
        place = np.stack(places)
        for columns, masses in _prefill(engine, inputs, batch[0].known):
            yield place[:, columns].reshape(-1), masses
        if progress is not None:
            progress(tokens[place.reshape(-1)])


def _stepped_masses(
    engine: Engine[Any], tokens: np.ndarray, plan: RowPlan, progress: Callable[[np.ndarray], None] | None
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """As `_token_masses`, by the very calls that the decoder makes."""
    starts = np.array(plan.row_starts()[:-1], dtype=np.int64)
    history = _History(engine, plan)
    for step in range(plan.steps):
        active = plan.active_rows(step)
        places = starts[:active] + step
        yield places, history.step(step)
        history.inputs[:active, step + 1] = tokens[places]
        if progress is not None:
            progress(tokens[places])


class _History:
    """All rows of a frame as far as they are known, and the model's state behind them.

    Attributes:
        inputs: (rows, steps + 1) int64: the start token, then a row's tokens, then fillers.
    """

    def __init__(self, engine: Engine[Any], plan: RowPlan) -> None:
        self._engine, self._plan = engine, plan
        self.inputs = np.full((plan.num_rows, plan.steps + 1), engine.start_token, dtype=np.int64)
        self._cache = engine.new_cache(plan.num_rows, _RESTART_CHUNK, plan.steps)

    def step(self, step: int) -> torch.Tensor:
        """Masses of every row's token of a step, (rows, V) int32; the inputs before it must be there."""
        if self._cache.length == self._engine.context:
            _restart(self._engine, self._cache, self.inputs[:, step - self._plan.overlap : step])
        ids = torch.from_numpy(self.inputs[:, step : step + 1]).to(self._engine.device)
        return self._engine.masses(self._engine.forward(ids, self._cache)[: self._plan.active_rows(step), 0])


def _prefill(engine: Engine[Any], inputs: np.ndarray, known: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Masses behind the inputs from `known` on: slices of those columns, and ((rows * columns), V) masses."""
    rows, length = inputs.shape
    chunk = max(1, engine.batch_tokens // rows)
    cache = engine.new_cache(rows, chunk, length) if length > chunk else None
    ids = torch.from_numpy(inputs).to(engine.device)
    for begin in range(0, length, chunk):
        hidden = engine.forward(ids[:, begin : begin + chunk], cache)
        new = hidden[:, max(0, known - begin) :]
        if new.shape[1]:
            first = max(begin, known) - known
            yield slice(first, first + new.shape[1]), engine.masses(new.reshape(-1, new.shape[-1]))


def _batches(segments: list[_Segment], batch_tokens: int) -> Iterator[list[_Segment]]:
    """Runs of segments of equal shape, at most `batch_tokens` inputs together or few enough rows to fill a chunk."""
    batch: list[_Segment] = []
    for segment in segments:
        shape = (segment.end - segment.begin, segment.known)
        if batch and (
            shape != (batch[0].end - batch[0].begin, batch[0].known)
            or (len(batch) + 1) * min(shape[0], _LEAST_CHUNK) > batch_tokens
        ):
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def decode(
    engine: Engine[Any],
    payload: bytes,
    plan: RowPlan,
    num_bytes: Callable[[np.ndarray], int],
    most_bytes: int,
    progress: Callable[[int], None] | None = None,
    vocabulary: Vocabulary | None = None,
) -> np.ndarray:
    """The tokens of a frame.

    Args:
        engine: the model that encoded it.
        payload: from `encode`.
        plan: the one it was encoded with.
        num_bytes: bytes that an array of tokens stands for.
        most_bytes: what the tokens may stand for at most: a damaged payload must not fill the memory.
        progress: called with the number of bytes that a step gave.
        vocabulary: as for `encode`.

    Returns:
        (N,) int64.

    Raises:
        CorruptError: the payload fits no text.
    """
    rows, steps = plan.num_rows, plan.steps
    _check_memory(engine, rows, steps, plan.num_tokens if vocabulary is not None else None)
    step_tokens = _step_decoder(engine, payload, plan, vocabulary)
    history = _History(engine, plan)
    seen_bytes = 0
    for step in range(steps):
        ids = step_tokens(history.step(step))
        if ids.max() >= engine.vocab_size:
            raise CorruptError("damaged: the compressed data names a token that does not exist")
        history.inputs[: len(ids), step + 1] = ids
        step_bytes = num_bytes(ids)
        seen_bytes += step_bytes
        if seen_bytes > most_bytes:
            raise CorruptError(f"damaged: the compressed data stands for more than the {most_bytes} bytes it should")
        if progress is not None:
            progress(step_bytes)
    tokens = [history.inputs[row, 1 : 1 + part.stop - part.start] for row, part in enumerate(plan.row_slices())]
    return np.concatenate(tokens)


def _step_decoder(
    engine: Engine[Any], payload: bytes, plan: RowPlan, vocabulary: Vocabulary | None
) -> Callable[[torch.Tensor], np.ndarray]:
    """A function from the masses of a step, (n, V) int32, to its tokens, (n,) int64."""
    if vocabulary is None:
        return _IntervalSource(engine.vocab_size, payload).step
    from .mixing.mixer import MixDecoder

    mixer = MixDecoder(vocabulary, payload, plan.num_tokens, plan.num_rows, with_model=True)
    return lambda masses: mixer.step(masses.cpu().numpy())


def _check_memory(engine: Engine[Any], rows: int, steps: int, mixed_tokens: int | None) -> None:
    """Refuses before the allocation: a hostile header may ask for any number of rows.

    Raises:
        ResourceError: it does not fit.
    """
    needed, free = engine.step_bytes(rows, _RESTART_CHUNK, steps), free_bytes(engine.device)
    if mixed_tokens is not None:
        from .mixing.mixer import memory_bytes

        needed += memory_bytes(mixed_tokens, rows, engine.vocab_size)
    if free is not None and needed > free:
        raise ResourceError(
            f"decoding {rows} rows at once needs {needed / 1e9:.1f} GB of memory on {engine.device}, "
            f"{free / 1e9:.1f} GB are free"
        )


def _restart(engine: Engine[Any], cache: Cache, inputs: np.ndarray) -> None:
    """Fills the cache anew with the last inputs of every row, a few rows at a time."""
    cache.reset()
    rows, length = inputs.shape
    if engine.stepwise:
        for column in range(length):
            engine.forward(torch.from_numpy(inputs[:, column : column + 1].copy()).to(engine.device), cache)
        return
    ids = torch.from_numpy(np.ascontiguousarray(inputs)).to(engine.device)
    batch = max(1, engine.batch_tokens // _LEAST_CHUNK)
    for row in range(0, rows, batch):
        part = cache.rows(slice(row, row + batch))
        for begin in range(0, length, _RESTART_CHUNK):
            engine.forward(ids[row : row + batch, begin : begin + _RESTART_CHUNK], part)
    cache.adopt(part)
