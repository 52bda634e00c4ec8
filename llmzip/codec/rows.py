"""Token ids to a frame's payload and back: rows in lockstep through model and coder; must not know text or files.

Encoding keeps 16 bytes a token until all are there; decoding runs one token of every row at a time. Both see the same
masses, so both code the same intervals in the same order (format section 4).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engines.base import Engine
from ..engines.gpu.devices import HostCopies
from ..engines.gpu.frequencies import frequencies
from ..errors import CorruptError, ResourceError
from ..format.plan import RowPlan, header_plan, profile_plan
from ..inference.lanes import Lane, Lanes
from ..inference.passes import NOTHING, RESTART_CHUNK, token_masses
from ..mixing.coder import Decoder, Encoder
from ..system.memory import free_bytes

if TYPE_CHECKING:
    from ..inference.prompt import Prompt
    from ..mixing.mixer import Primed
    from ..mixing.vocabulary import Vocabulary

_CHUNKS, _LEAST_STEPS, _MOST_STEPS = 16, 16, 128
"""Steps that the model goes ahead of the mixer when it encodes: a part of all, within bounds."""

_MEMORY_PART = 0.5
"""Of the free memory, at most, for the caches of all rows when that is not needed."""

_THREADS_PER_FRAME, _FRAMES_PER_DEVICE = 8, 4
"""Threads that a frame's lanes keep busy before its mixer does not keep up; frames that hide it from a device."""

_ENCODER_BYTES = 400
"""About what an encoder keeps of each token's decisions."""

_LEAST_LANE_ROWS = 32
"""Fewer rows side by side make too little use of the weights that are read."""

__all__ = ["RowPlan", "decode", "encode", "header_plan", "profile_plan"]


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
    before = _before(prompt)
    if vocabulary is None:
        sink = _IntervalSink(engine, tokens, plan)
        _read(engine, tokens, plan, before, sink.add, progress, None)
        return sink.finish()
    from ..mixing.mixer import MixEncoder

    mixer = MixEncoder(vocabulary, tokens, plan.num_rows, True, _primed(engine, vocabulary, plan, prompt))
    copies = HostCopies()
    add = lambda places, masses: mixer.add(places, copies.fetch(masses))  # noqa: E731
    _read(engine, tokens, plan, before, add, progress, mixer.walk)
    return mixer.finish()


def _read(
    engine: Engine[Any],
    tokens: np.ndarray,
    plan: RowPlan,
    before: np.ndarray,
    add: Callable[[np.ndarray, torch.Tensor], None],
    progress: Callable[[np.ndarray], None] | None,
    done: Callable[[int], None] | None,
) -> None:
    """What the model expects of all tokens: step by step if all rows at once fit into the memory, else row by row.

    Args:
        add: called with places of tokens, (n,) int64, and their masses, (n, V) int32; from threads of the engine.
        done: called with a number of steps whose tokens were all added, while the model goes on; or never.
    """
    chunk = min(max(plan.steps // _CHUNKS, _LEAST_STEPS), _MOST_STEPS)
    # With fewer rows than threads, segments of rows are shared out better than rows.
    if engine.stepwise or plan.num_rows < engine.callers or not _fits(engine, plan, chunk, len(before)):
        for places, masses in token_masses(engine, tokens, plan, progress, before):
            add(places, masses)
        return
    with Lanes(engine, plan, before, 1, chunk) as lanes:
        for lane in lanes:
            lane.place(tokens)
            lanes.start(lane, lane.read, 0, min(chunk, plan.steps), add)
        for step in range(0, plan.steps, chunk):
            end = min(step + chunk, plan.steps)
            for lane in lanes:
                places = lanes.wait(lane)
                if end < plan.steps:
                    lanes.start(lane, lane.read, end, min(end + chunk, plan.steps), add)
                if progress is not None:
                    progress(tokens[places])
            if done is not None:
                done(end)


def frames_at_once(engine: Engine[Any], plan: RowPlan, mixed: bool, devices: int = 1) -> int:
    """How many frames like one may be worked on side by side, 1 or more.

    A frame's lanes keep some threads busy, and a device while its coder is not at work; what is beyond that goes to
    other frames, as far as half of the free memory reaches.

    Args:
        engine: of the first of `devices` alike.
        plan: of the frame; mixed: whether its method is mixed.
    """
    on_processor = engine.device.type == "cpu"
    wanted = torch.get_num_threads() // _THREADS_PER_FRAME if on_processor else devices * _FRAMES_PER_DEVICE
    wanted = min(wanted, os.cpu_count() or 1)
    if engine.stepwise or wanted < 2:
        return 1
    needed = {engine.device: engine.step_bytes(plan.num_rows, RESTART_CHUNK, plan.steps)}
    if mixed:
        from ..mixing.mixer import memory_bytes

        host = torch.device("cpu")
        size = memory_bytes(plan.num_tokens, plan.num_rows, engine.vocab_size) + _ENCODER_BYTES * plan.num_tokens
        needed[host] = needed.get(host, 0) + size
    for device, size in needed.items():
        if (free := free_bytes(device)) is not None:
            share = devices if device == engine.device and not on_processor else 1
            wanted = min(wanted, share * int(_MEMORY_PART * free // max(1, size)))
    return max(1, wanted)


def _fits(engine: Engine[Any], plan: RowPlan, chunk: int, before: int) -> bool:
    """Whether there is memory enough, and to spare, for all rows at once."""
    free = free_bytes(engine.device)
    return free is None or engine.step_bytes(plan.num_rows, chunk, before + plan.steps) <= _MEMORY_PART * free


class _IntervalSink:
    """Codes tokens with the model's frequencies alone (numerics section 8)."""

    def __init__(self, engine: Engine[Any], tokens: np.ndarray, plan: RowPlan) -> None:
        self._frequencies = frequencies(engine.vocab_size, engine.device)
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

    def __init__(self, engine: Engine[Any], payload: bytes) -> None:
        self._frequencies = frequencies(engine.vocab_size, engine.device)
        self._copies = HostCopies()
        self._decoder = Decoder(payload)

    def look(self, masses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `step` needs of the masses, (n, V) int32, of some rows."""
        return (masses, *self._frequencies.group_bounds(masses))

    def step(self, looks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> Iterator[np.ndarray]:
        """One token per row, (n,) int64 for each `look` at some of the rows that take part, in their order."""
        groups = [self._decoder.decode(self._copies.fetch(bounds)).astype(np.int64) for _, _, bounds in looks]
        for (masses, sums, bounds), group in zip(looks, groups, strict=True):
            chosen = torch.from_numpy(group).to(masses.device)
            inner = self._frequencies.symbol_bounds(masses, sums, bounds, chosen)
            yield group * self._frequencies.group_size + self._decoder.decode(self._copies.fetch(inner))


def _step_order(plan: RowPlan) -> Iterator[np.ndarray]:
    """Indices of the tokens, step by step."""
    starts = np.array(plan.row_starts()[:-1], dtype=np.int64)
    yield (starts[None, :] + np.arange(plan.full_steps)[:, None]).reshape(-1)
    yield starts[: plan.long_rows] + plan.full_steps


def _before(prompt: Prompt | None) -> np.ndarray:
    return NOTHING if prompt is None else prompt.context


def _primed(engine: Engine[Any], vocabulary: Vocabulary, plan: RowPlan, prompt: Prompt | None) -> Primed | None:
    """The mixer after it has read the prompt, which goes through the model only once."""
    if prompt is None or not len(prompt.tokens):
        return None
    if prompt.reader is None:
        from ..mixing.mixer import MixEncoder

        once = RowPlan(len(prompt.tokens), 1, max(1, engine.context // 2))
        reader = MixEncoder(vocabulary, prompt.tokens, 1, with_model=True)
        for places, masses in token_masses(engine, prompt.tokens, once):
            reader.add(places, masses.cpu().numpy())
        prompt.reader = reader
    return prompt.reader.learn(plan.num_tokens)


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
    before = _before(prompt)
    mixed_tokens = plan.num_tokens if vocabulary is not None else None
    _check_memory(engine, plan.num_rows, len(before) + plan.steps, mixed_tokens)
    seen_bytes = 0

    def check(ids: np.ndarray) -> None:
        nonlocal seen_bytes
        if ids.max() >= engine.vocab_size:
            raise CorruptError("damaged: the compressed data names a token that does not exist")
        step_bytes = num_bytes(ids)
        seen_bytes += step_bytes
        if seen_bytes > most_bytes:
            raise CorruptError(f"damaged: the compressed data stands for more than the {most_bytes} bytes it should")
        if progress is not None:
            progress(step_bytes)

    if vocabulary is not None:
        return _decode_mixed(engine, payload, plan, check, vocabulary, prompt)
    source = _IntervalSource(engine, payload)

    def look(lane: Lane, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return source.look(lane.history.step(step))

    with Lanes(engine, plan, before, _LEAST_LANE_ROWS) as lanes:
        for lane in lanes:
            lanes.start(lane, look, lane, 0)
        for step in range(plan.steps):
            busy = [lane for lane in lanes if step < lane.plan.steps]
            # The groups of all rows come before any place in a group.
            for lane, ids in zip(busy, source.step([lanes.wait(lane) for lane in busy]), strict=True):
                check(ids)
                lane.history.take(step, ids)
                if step + 1 < lane.plan.steps:
                    lanes.start(lane, look, lane, step + 1)
        return np.concatenate([lane.history.tokens() for lane in lanes])


def _decode_mixed(
    engine: Engine[Any],
    payload: bytes,
    plan: RowPlan,
    check: Callable[[np.ndarray], None],
    vocabulary: Vocabulary,
    prompt: Prompt | None,
) -> np.ndarray:
    """As `decode`; while the mixer decodes some rows, the model computes what comes next in the others."""
    from ..mixing.mixer import MixDecoder
    from ..mixing.state import GROUP_ROWS

    primed = _primed(engine, vocabulary, plan, prompt)
    mixer = MixDecoder(vocabulary, payload, plan.num_tokens, plan.num_rows, with_model=True, primed=primed)

    copies = HostCopies()  # a device's lanes share one thread

    def predict(lane: Lane, step: int) -> None:
        mixer.take(copies.fetch(lane.history.step(step)), lane.first)

    with Lanes(engine, plan, _before(prompt), GROUP_ROWS) as lanes:
        for lane in lanes:
            lanes.start(lane, predict, lane, 0)
        for step in range(plan.steps):
            for lane in lanes:
                if step == lane.plan.steps:  # one of long rows, of which this lane has none
                    continue
                lanes.wait(lane)
                ids = mixer.decode(lane.first, lane.first + lane.plan.active_rows(step))
                check(ids)
                lane.history.take(step, ids)
                if step + 1 < lane.plan.steps:
                    lanes.start(lane, predict, lane, step + 1)
        return np.concatenate([lane.history.tokens() for lane in lanes])


def _check_memory(engine: Engine[Any], rows: int, steps: int, mixed_tokens: int | None) -> None:
    """Refuses before the allocation: a hostile header may ask for any number of rows.

    Raises:
        ResourceError: it does not fit.
    """
    needed, free = engine.step_bytes(rows, RESTART_CHUNK, steps), free_bytes(engine.device)
    if mixed_tokens is not None:
        from ..mixing.mixer import memory_bytes

        needed += memory_bytes(mixed_tokens, rows, engine.vocab_size)
    if free is not None and needed > free:
        raise ResourceError(
            f"decoding {rows} rows at once needs {needed / 1e9:.1f} GB of memory on {engine.device}, "
            f"{free / 1e9:.1f} GB are free"
        )
