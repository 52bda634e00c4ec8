"""Token ids to a frame's payload and back: rows in lockstep through model and coder; must not know text or files.

Encoding keeps 16 bytes a token until all are there; decoding runs one token of every row at a time. Both see the same
masses, so both code the same intervals in the same order (format section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..engines.arrays import Array
from ..engines.base import Engine
from ..errors import CorruptError
from ..format.plan import RowPlan
from ..inference import capacity
from ..inference.lanes import Lane, Lanes
from ..inference.passes import NOTHING, token_masses
from ..inference.progress import ByteMeter, TokenProgress
from ..mixing.coder import Decoder, Encoder

if TYPE_CHECKING:
    from ..inference.prompt import Prompt
    from ..mixing.mixer import Primed
    from ..mixing.vocabulary import Vocabulary

_CHUNKS = 16
"""Parts of a frame's steps: when it encodes, the model is one part ahead of the mixer."""

_MIN_CHUNK_STEPS = 16
_MAX_CHUNK_STEPS = 128
"""Bounds of such a part, in steps: shorter ones waste the model's time, longer ones the memory."""

_MIN_LANE_ROWS = 32
"""Rows of a lane when method lm decodes: fewer side by side make too little use of the weights that are read."""

Take = Callable[[np.ndarray, Array], None]
"""Called with places of tokens, (n,) int64, and their masses, (n, V) int32; from threads of the engine."""


class CodedRows(NamedTuple):
    """The tokens of a frame, coded.

    Attributes:
        payload: for the frame.
        bits: sum of -log2 of the coded probabilities.
    """

    payload: bytes
    bits: float


class FrameCoder:
    """Codes the tokens of frames with a model, and decodes them.

    Args:
        engine: the model.
        vocabulary: the tokens' tree if they are mixed (method mixed), None for method lm.
        prompt: what every row has read before, if anything.
    """

    def __init__(self, engine: Engine[Any], vocabulary: Vocabulary | None = None, prompt: Prompt | None = None) -> None:
        self.engine = engine
        self._vocabulary, self._prompt = vocabulary, prompt
        self._before = NOTHING if prompt is None else prompt.context

    def encode(self, tokens: np.ndarray, plan: RowPlan, progress: TokenProgress | None = None) -> CodedRows:
        """Codes the tokens of a frame.

        Args:
            tokens: (N,) int64, 0 <= id < V.
            plan: with num_tokens == N.
            progress: called with the tokens that were just done.
        """
        if self._vocabulary is None:
            sink = _IntervalSink(self.engine, tokens, plan)
            self._predict(tokens, plan, sink.add, progress=progress)
            return sink.finish()
        from ..mixing.mixer import MixEncoder

        primed = self._primed(self._vocabulary, plan.num_tokens)
        mixer = MixEncoder(self._vocabulary, tokens, plan.num_rows, True, primed)
        readout = self.engine.readout()

        def add(places: np.ndarray, masses: Array) -> None:
            mixer.add(places, readout.fetch(masses))

        self._predict(tokens, plan, add, walk=mixer.walk, progress=progress)
        return CodedRows(*mixer.finish())

    def decode(self, payload: bytes, plan: RowPlan, limit: ByteMeter) -> np.ndarray:
        """Decodes the tokens of a frame.

        Args:
            payload: from `encode`, or hostile.
            plan: the one it was encoded with.
            limit: what the tokens may stand for.

        Returns:
            (N,) int64.

        Raises:
            CorruptError: the payload fits no text.
            ResourceError: the rows do not fit into the memory.
        """
        mixed = self._vocabulary is not None
        capacity.check_decoding(self.engine, plan, len(self._before), mixed=mixed)

        def check(ids: np.ndarray) -> None:
            if ids.max() >= self.engine.vocab_size:
                raise CorruptError("damaged: the compressed data names a token that does not exist")
            limit.add(ids)

        if self._vocabulary is None:
            return self._decode_intervals(payload, plan, check)
        return self._decode_mixed(payload, plan, check, self._vocabulary)

    def _predict(
        self,
        tokens: np.ndarray,
        plan: RowPlan,
        add: Take,
        *,
        walk: Callable[[int], None] | None = None,
        progress: TokenProgress | None = None,
    ) -> None:
        """Hands out the masses of all tokens: step by step if all rows fit into the memory, else row by row.

        Args:
            add: called with masses.
            walk: called with a number of steps whose tokens were all added, while the model continues; or never.
        """
        engine, before = self.engine, self._before
        chunk = min(max(plan.steps // _CHUNKS, _MIN_CHUNK_STEPS), _MAX_CHUNK_STEPS)
        # With fewer rows than threads, segments of rows are shared out better than rows.
        if (
            engine.stepwise
            or plan.num_rows < engine.callers
            or not capacity.all_rows_fit(engine, plan.num_rows, chunk, len(before) + plan.steps)
        ):
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
                if walk is not None:
                    walk(end)

    def _decode_intervals(self, payload: bytes, plan: RowPlan, check: Callable[[np.ndarray], None]) -> np.ndarray:
        """Decodes method lm."""
        source = _IntervalSource(self.engine, payload)

        def look(lane: Lane, step: int) -> _Look:
            return source.look(lane.history.step(step))

        with Lanes(self.engine, plan, self._before, _MIN_LANE_ROWS) as lanes:
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
        self, payload: bytes, plan: RowPlan, check: Callable[[np.ndarray], None], vocabulary: Vocabulary
    ) -> np.ndarray:
        """Decodes method mixed; while the mixer decodes some rows, the model computes what comes next in the others."""
        from ..mixing.mixer import MixDecoder
        from ..mixing.state import GROUP_ROWS

        primed = self._primed(vocabulary, plan.num_tokens)
        mixer = MixDecoder(vocabulary, payload, plan.num_tokens, plan.num_rows, with_model=True, primed=primed)
        readout = self.engine.readout()  # a device's lanes share one thread

        def predict(lane: Lane, step: int) -> None:
            mixer.take(readout.fetch(lane.history.step(step)), lane.first)

        with Lanes(self.engine, plan, self._before, GROUP_ROWS) as lanes:
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

    def _primed(self, vocabulary: Vocabulary, num_tokens: int) -> Primed | None:
        """Returns the mixer's state after the prompt, which goes through the model only once."""
        prompt = self._prompt
        if prompt is None or not len(prompt.tokens):
            return None
        if prompt.reader is None:
            from ..mixing.mixer import MixEncoder

            once = RowPlan(len(prompt.tokens), 1, max(1, self.engine.context // 2))
            reader, readout = MixEncoder(vocabulary, prompt.tokens, 1, with_model=True), self.engine.readout()
            for places, masses in token_masses(self.engine, prompt.tokens, once):
                reader.add(places, readout.fetch(masses))
            prompt.reader = reader
        return prompt.reader.learn(num_tokens)


class _IntervalSink:
    """Codes tokens with the model's frequencies alone (numerics section 8)."""

    def __init__(self, engine: Engine[Any], tokens: np.ndarray, plan: RowPlan) -> None:
        self._frequencies = engine.readout().frequencies
        self._tokens, self._plan = tokens, plan
        self._intervals = np.empty((len(tokens), 4), dtype=np.int64)

    def add(self, places: np.ndarray, masses: Array) -> None:
        """Takes the masses, (n, V) int32, of the tokens at some places."""
        self._intervals[places] = self._frequencies.intervals(masses, self._tokens[places])

    def finish(self) -> CodedRows:
        """Codes all intervals in the order of the format."""
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
        return CodedRows(encoder.finish(), bits)


class _Look(NamedTuple):
    """What decoding a step needs of some rows: arrays of the engine.

    Attributes:
        masses: (n, V) int32.
        sums, bounds: (n, groups + 1) int64, cumulative masses and frequencies at the borders of the groups.
    """

    masses: Array
    sums: Array
    bounds: Array


class _IntervalSource:
    """Decodes what `_IntervalSink` codes, step by step."""

    def __init__(self, engine: Engine[Any], payload: bytes) -> None:
        self._readout = engine.readout()
        self._frequencies = self._readout.frequencies
        self._decoder = Decoder(payload)

    def look(self, masses: Array) -> _Look:
        """Returns what `step` needs of the masses, (n, V) int32, of some rows."""
        return _Look(masses, *self._frequencies.group_bounds(masses))

    def step(self, looks: list[_Look]) -> Iterator[np.ndarray]:
        """Yields one token per row, (n,) int64 for each `look` at some of the rows that take part, in their order."""
        groups = [self._decoder.decode(self._readout.fetch(look.bounds)).astype(np.int64) for look in looks]
        for look, group in zip(looks, groups, strict=True):
            inner = self._frequencies.symbol_bounds(*look, group)
            yield group * self._frequencies.group_size + self._decoder.decode(self._readout.fetch(inner))


def _step_order(plan: RowPlan) -> Iterator[np.ndarray]:
    """Yields the places of the tokens in the order in which they are coded, step by step."""
    starts = np.array(plan.row_starts()[:-1], dtype=np.int64)
    yield (starts[None, :] + np.arange(plan.full_steps)[:, None]).reshape(-1)
    yield starts[: plan.long_rows] + plan.full_steps
