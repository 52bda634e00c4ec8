"""Token ids to a frame's payload and back: rows in lockstep through model and coder; must not know text or files.

Encoding is one part of the steps behind the model; decoding runs one token of every row at a time. Both see the same
masses, so both code the same intervals in the same order (format section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.arrays import Array
from ..engines.base import Engine
from ..engines.compiled import FrameRows, TokenGuesser, TokenSink, TokenSource
from ..errors import CorruptError
from ..format.plan import RowPlan
from ..inference import capacity, lockstep
from ..inference.lanes import Lane, Lanes, MassSink
from ..inference.passes import NOTHING, token_masses
from ..inference.progress import ByteMeter, TokenProgress
from ..mixing.state import GROUP_ROWS
from .intervals import CodedRows, CompiledIntervals, IntervalSink, IntervalSource, Look

if TYPE_CHECKING:
    from ..inference.prompt import Prompt
    from ..mixing.followers import Followers
    from ..mixing.mixer import MixEncoder, Primed
    from ..mixing.vocabulary import Vocabulary

_CHUNKS = 16
"""Parts of a frame's steps: when it encodes, the model is one part ahead of the mixer."""

_MIN_CHUNK_STEPS = 16
_MAX_CHUNK_STEPS = 128
"""Bounds of such a part, in steps: shorter ones waste the model's time, longer ones the memory."""

_MIN_LANE_ROWS = 32
"""Rows of a lane when method lm decodes: fewer side by side make too little use of the weights that are read."""


class FrameCoder:
    """Codes the tokens of frames with a model, and decodes them.

    Args:
        engine: the model.
        vocabulary: the tokens' tree if they are mixed (method mixed), None for method lm.
        prompt: what every row has read before, if anything.
        followers: for guesses when decoding, if they are known; they change no bit.
    """

    def __init__(
        self,
        engine: Engine[Any],
        vocabulary: Vocabulary | None = None,
        prompt: Prompt | None = None,
        followers: Followers | None = None,
    ) -> None:
        self.engine, self._followers = engine, followers
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
            sink = IntervalSink(self.engine, tokens, plan)
            self._predict(tokens, plan, sink, progress=progress)
            return sink.finish()
        from ..mixing.mixer import MixEncoder

        primed = self._primed(self._vocabulary, plan.num_tokens)
        mixer = MixEncoder(self._vocabulary, tokens, plan.num_rows, True, primed)
        self._predict(tokens, plan, _MixedSink(self.engine, mixer), walk=mixer.walk, progress=progress)
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
        sink: MassSink,
        *,
        walk: Callable[[int], None] | None = None,
        progress: TokenProgress | None = None,
    ) -> None:
        """Hands out the masses of all tokens: step by step if all rows fit into the memory, else row by row.

        Args:
            sink: gets the masses.
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
                sink.add(places, masses)
            return
        with Lanes(engine, plan, before, 1, chunk) as lanes:
            for lane in lanes:
                lane.place(tokens)
                lanes.start(lane, lane.read, 0, min(chunk, plan.steps), sink)
            for step in range(0, plan.steps, chunk):
                end = min(step + chunk, plan.steps)
                for lane in lanes:
                    places = lanes.wait(lane)
                    if end < plan.steps:
                        lanes.start(lane, lane.read, end, min(end + chunk, plan.steps), sink)
                    if progress is not None:
                        progress(tokens[places])
                if walk is not None:
                    walk(end)

    def _decode_intervals(self, payload: bytes, plan: RowPlan, check: Callable[[np.ndarray], None]) -> np.ndarray:
        """Decodes method lm."""
        if self.engine.is_compiled:
            coder = CompiledIntervals(self.engine, payload, plan.num_rows)
            return self._decode_compiled(coder.source, plan, _MIN_LANE_ROWS, check)
        source = IntervalSource(self.engine, payload)

        def look(lane: Lane, step: int) -> Look:
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

        primed = self._primed(vocabulary, plan.num_tokens)
        mixer = MixDecoder(vocabulary, payload, plan.num_tokens, plan.num_rows, with_model=True, primed=primed)
        if self.engine.is_compiled:
            return self._decode_compiled(TokenSource(**mixer.compiled_source()), plan, GROUP_ROWS, check)
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

    def _decode_compiled(
        self, source: TokenSource, plan: RowPlan, unit: int, check: Callable[[np.ndarray], None]
    ) -> np.ndarray:
        """Decodes in compiled code; with guesses where there is a thread for each row, which then has time for them."""
        frame = FrameRows(plan, source, unit)
        if plan.num_rows > self.engine.callers:
            return lockstep.decode(self.engine, plan, self._before, frame, check)
        from ..mixing.lookahead import Lookahead

        lookahead = Lookahead(self.engine.vocab_size, plan.num_tokens, plan.num_rows, self._followers)
        guesser = TokenGuesser(**lookahead.compiled())
        return lockstep.decode(self.engine, plan, self._before, frame, check, guesser)

    def decode_together(self, frames: Sequence[tuple[bytes, RowPlan]]) -> list[np.ndarray | None]:
        """Decodes the tokens of several frames, whose rows go through the model together where the engine can do that.

        It is for many short frames without a prompt, whose rows fit into one context: steps of a few rows take about as
        long as those of many.

        Args:
            frames: payloads and plans, as for `decode`.

        Returns:
            for each frame (N,) int64, or None if its payload fits no text.

        Raises:
            ResourceError: the rows do not fit into the memory.
        """
        if not self.engine.is_compiled:
            return [self._decode_or_none(payload, plan) for payload, plan in frames]
        rows, steps = sum(plan.num_rows for _, plan in frames), max(plan.steps for _, plan in frames)
        mixed = self._vocabulary is not None
        capacity.check_decoding(self.engine, RowPlan(rows * steps, rows, 1), 0, mixed=mixed)
        coders = [self._compiled_source(payload, plan) for payload, plan in frames]
        unit = _MIN_LANE_ROWS if self._vocabulary is None else GROUP_ROWS
        return lockstep.decode_together(
            self.engine,
            [FrameRows(plan, source, unit) for (_, plan), (_, source) in zip(frames, coders, strict=True)],
        )

    def _decode_or_none(self, payload: bytes, plan: RowPlan) -> np.ndarray | None:
        try:
            return self.decode(payload, plan, ByteMeter(len, plan.num_tokens))
        except CorruptError:
            return None

    def _compiled_source(self, payload: bytes, plan: RowPlan) -> tuple[Any, TokenSource]:
        """Returns what decodes a frame without a prompt in compiled code, and what must live as long."""
        if self._vocabulary is None:
            intervals = CompiledIntervals(self.engine, payload, plan.num_rows)
            return intervals, intervals.source
        from ..mixing.mixer import MixDecoder

        mixer = MixDecoder(self._vocabulary, payload, plan.num_tokens, plan.num_rows, with_model=True)
        return mixer, TokenSource(**mixer.compiled_source())

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


class _MixedSink:
    """Gives masses to the mixer.

    Args:
        engine: whose masses they are.
        mixer: of the frame.

    Attributes:
        compiled: takes masses from compiled code.
    """

    def __init__(self, engine: Engine[Any], mixer: MixEncoder) -> None:
        self._readout, self._mixer = engine.readout(), mixer
        self.compiled: TokenSink | None = TokenSink(*mixer.compiled_sink())

    def add(self, places: np.ndarray, masses: Array) -> None:
        """Takes the masses, (n, V), of the tokens at some places."""
        self._mixer.add(places, self._readout.fetch(masses))
