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
from .engines.base import Engine, PartedCache
from .engines.freqs import Frequencies
from .engines.memory import free_bytes
from .errors import CorruptError, ResourceError
from .plan import RowPlan, header_plan, profile_plan

if TYPE_CHECKING:
    from .mixing.mixer import Primed
    from .mixing.vocabulary import Vocabulary
    from .prompt import Prompt

__all__ = ["RowPlan", "decode", "encode", "header_plan", "profile_plan"]

_RESTART_CHUNK = 64
"""Inputs of a row that a full cache is filled with at once when its context begins anew."""

_LEAST_CHUNK = 256
"""Inputs of a row that go through the model at once, if there are as many: fewer waste time, more waste memory."""


_NOTHING = np.zeros(0, dtype=np.int64)


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


def _segments(row: int, length: int, context: int, overlap: int, known: int) -> Iterator[_Segment]:
    begin = 0
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
    prompt: Prompt | None = None,
) -> tuple[bytes, float]:
    """Codes the tokens of a frame.

    Args:
        engine: the model.
        tokens: (N,) int64, 0 <= id < V.
        plan: with num_tokens == N.
        progress: called with the tokens that were just done.
        vocabulary: the tokens' tree if they are to be mixed (method mixed), None for method lm.
        prompt: what every row has read before, if anything.

    Returns:
        The payload, and the sum of -log2 of the coded probabilities in bits.
    """
    found = _masses(engine, tokens, plan, progress, prompt)
    if vocabulary is None:
        sink = _IntervalSink(engine.vocab_size, tokens, plan)
        for places, masses in found:
            sink.add(places, masses)
        return sink.finish()
    from .mixing.mixer import MixEncoder

    primed = _primed(engine, vocabulary, plan, prompt)
    mixer = MixEncoder(vocabulary, tokens, plan.num_rows, with_model=True, primed=primed)
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


def _masses(
    engine: Engine[Any],
    tokens: np.ndarray,
    plan: RowPlan,
    progress: Callable[[np.ndarray], None] | None,
    prompt: Prompt | None,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Places of tokens, (n,) int64, and their masses, (n, V) int32, until every token was there; in any order."""
    before = _NOTHING if prompt is None else prompt.context
    return (_stepped_masses if engine.stepwise else _token_masses)(engine, tokens, plan, progress, before)


def _primed(engine: Engine[Any], vocabulary: Vocabulary, plan: RowPlan, prompt: Prompt | None) -> Primed | None:
    """The mixer after it has read the prompt, which goes through the model only once."""
    if prompt is None or not len(prompt.tokens):
        return None
    if prompt.reader is None:
        from .mixing.mixer import MixEncoder

        once = RowPlan(len(prompt.tokens), 1, max(1, engine.context // 2))
        reader = MixEncoder(vocabulary, prompt.tokens, 1, with_model=True)
        for places, masses in _masses(engine, prompt.tokens, once, None, None):
            reader.add(places, masses.cpu().numpy())
        prompt.reader = reader
    return prompt.reader.learn(plan.num_tokens)


def _token_masses(
    engine: Engine[Any],
    tokens: np.ndarray,
    plan: RowPlan,
    progress: Callable[[np.ndarray], None] | None,
    before: np.ndarray,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """As `_masses`, by prefill; `before`: (p,) tokens of the prompt."""
    slices, skipped = plan.row_slices(), len(before)
    segments = [
        segment
        for row, part in enumerate(slices)
        for segment in _segments(row, skipped + part.stop - part.start, engine.context, plan.overlap, skipped)
    ]
    front = np.concatenate([[engine.start_token], before])
    segments.sort(key=lambda segment: (segment.end - segment.begin, segment.known))
    for batch in _batches(segments, engine.batch_tokens):
        inputs = np.empty((len(batch), batch[0].end - batch[0].begin), dtype=np.int64)
        places = []
        for number, segment in enumerate(batch):
            # Input number i of a row is the start token, then the prompt, then token i - p - 1 of the row.
            start = slices[segment.row].start - skipped
            shifted = tokens[start + max(skipped, segment.begin - 1) : start + segment.end - 1]
            inputs[number] = np.concatenate([front[segment.begin :], shifted])
            places.append(np.arange(start + segment.begin + segment.known, start + segment.end))
        place = np.stack(places)
        for columns, masses in _prefill(engine, inputs, batch[0].known):
            yield place[:, columns].reshape(-1), masses
        if progress is not None:
            progress(tokens[place.reshape(-1)])


def _stepped_masses(
    engine: Engine[Any],
    tokens: np.ndarray,
    plan: RowPlan,
    progress: Callable[[np.ndarray], None] | None,
    before: np.ndarray,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """As `_token_masses`, by the very calls that the decoder makes."""
    starts = np.array(plan.row_starts()[:-1], dtype=np.int64)
    history = _History(engine, plan, before)
    for step in range(plan.steps):
        active = plan.active_rows(step)
        places = starts[:active] + step
        yield places, history.step(step)
        history.take(step, tokens[places])
        if progress is not None:
            progress(tokens[places])


class _History:
    """All rows of a frame as far as they are known, and the model's state behind them.

    Attributes:
        inputs: (rows, p + steps + 1) int64: the start token, the prompt, a row's tokens, fillers.
    """

    def __init__(self, engine: Engine[Any], plan: RowPlan, before: np.ndarray) -> None:
        self._engine, self._plan, self._skipped = engine, plan, len(before)
        self.inputs = np.full((plan.num_rows, len(before) + plan.steps + 1), engine.start_token, dtype=np.int64)
        self.inputs[:, 1 : 1 + len(before)] = before
        self._cache = engine.new_cache(plan.num_rows, _RESTART_CHUNK, len(before) + plan.steps)
        if len(before):
            _restart(engine, self._cache, self.inputs[:, : len(before)])

    def step(self, step: int) -> torch.Tensor:
        """Masses of the token of a step in every row that has one, (n, V) int32; those before it must be there."""
        at = self._skipped + step
        if self._cache.length == self._engine.context:
            _restart(self._engine, self._cache, self.inputs[:, at - self._plan.overlap : at])
        ids = torch.from_numpy(self.inputs[:, at : at + 1]).to(self._engine.device)
        return self._engine.masses(self._engine.forward(ids, self._cache)[: self._plan.active_rows(step), 0])

    def take(self, step: int, ids: np.ndarray) -> None:
        """The tokens of a step, (n,) int64."""
        self.inputs[: len(ids), self._skipped + step + 1] = ids

    def tokens(self) -> np.ndarray:
        """(N,) int64, row after row."""
        first = self._skipped + 1
        slices = self._plan.row_slices()
        return np.concatenate(
            [self.inputs[row, first : first + part.stop - part.start] for row, part in enumerate(slices)]
        )


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
    prompt: Prompt | None = None,
) -> np.ndarray:
    """The tokens of a frame.

    Args:
        engine: the model that encoded it.
        payload: from `encode`.
        plan: the one it was encoded with.
        num_bytes: bytes that an array of tokens stands for.
        most_bytes: what the tokens may stand for at most: a damaged payload must not fill the memory.
        progress: called with the number of bytes that a step gave.
        vocabulary, prompt: as for `encode`.

    Returns:
        (N,) int64.

    Raises:
        CorruptError: the payload fits no text.
    """
    rows, steps = plan.num_rows, plan.steps
    before = _NOTHING if prompt is None else prompt.context
    _check_memory(engine, rows, len(before) + steps, plan.num_tokens if vocabulary is not None else None)
    step_tokens = _step_decoder(engine, payload, plan, vocabulary, prompt)
    history = _History(engine, plan, before)
    seen_bytes = 0
    for step in range(steps):
        ids = step_tokens(history.step(step))
        if ids.max() >= engine.vocab_size:
            raise CorruptError("damaged: the compressed data names a token that does not exist")
        history.take(step, ids)
        step_bytes = num_bytes(ids)
        seen_bytes += step_bytes
        if seen_bytes > most_bytes:
            raise CorruptError(f"damaged: the compressed data stands for more than the {most_bytes} bytes it should")
        if progress is not None:
            progress(step_bytes)
    return history.tokens()


def _step_decoder(
    engine: Engine[Any], payload: bytes, plan: RowPlan, vocabulary: Vocabulary | None, prompt: Prompt | None
) -> Callable[[torch.Tensor], np.ndarray]:
    """A function from the masses of a step, (n, V) int32, to its tokens, (n,) int64."""
    if vocabulary is None:
        return _IntervalSource(engine.vocab_size, payload).step
    from .mixing.mixer import MixDecoder

    primed = _primed(engine, vocabulary, plan, prompt)
    mixer = MixDecoder(vocabulary, payload, plan.num_tokens, plan.num_rows, with_model=True, primed=primed)
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


def _restart(engine: Engine[Any], cache: PartedCache, inputs: np.ndarray) -> None:
    """Fills the cache anew with the last inputs of every row, a few rows at a time; a stepwise engine's by steps."""
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
