"""Timed coding and decoding of samples in rows; must not know files, nor what is concluded from the times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codec.intervals import CompiledIntervals
from ..codec.rows import FrameCoder
from ..engines.base import Engine
from ..engines.compiled import FrameRows
from ..errors import EngineError
from ..format.plan import RowPlan, Rows
from ..inference.passes import RESTART_CHUNK, prefill
from ..inference.progress import ByteMeter
from .budget import now
from .scoring import Scorer

if TYPE_CHECKING:
    from ..inference.load import LoadedModel
    from ..inference.prompt import Prompt

MAX_STEPS = 10
"""Steps that are timed one by one, where there is time."""

MIN_STEPS = 3
"""Steps that are timed where there is little."""

_FILLED = 64
"""Tokens at once that fill a cache before."""

_STEPS_AT_ONCE = 4
"""Steps that compiled code takes at once where a step takes less than _QUICK_SECONDS."""

_QUICK_TIMES = 5
"""How many times as often these are timed."""

_QUICK_SECONDS = 0.01
"""Time of a step that going to compiled code and back would falsify, in seconds."""

_MAX_PARTS, _MIN_PARTS = 8, 4
"""Parts of a decoding whose times are compared: with fewer, chance would say how much they vary."""

_MIN_TICKS = 4
"""Ticks in each of these parts at least."""


@dataclass(frozen=True)
class Coded:
    """Rows of equal length, coded.

    Attributes:
        tokens: (rows, steps) int64.
        payload: what they were coded to.
        num_bytes: size of the text.
        bits: its ideal length when coded.
        seconds: that coding took.
    """

    tokens: np.ndarray
    payload: bytes
    num_bytes: int
    bits: float
    seconds: float

    @property
    def rate(self) -> float:
        """Bits per byte."""
        return self.bits / self.num_bytes


@dataclass(frozen=True)
class Decoded:
    """Rows that were decoded.

    Attributes:
        rows, steps: how many.
        seconds: that decoding took.
        spread: standard deviation of a token's time between parts of all, as a part of it.
    """

    rows: int
    steps: int
    seconds: float
    spread: float


class Trial:
    """Codes samples.

    Args:
        model: with its engine.
        mixed: whether the mixer runs.
        overlap: as in a frame's plan.
        prompt: what every row has read before.
    """

    def __init__(self, model: LoadedModel, *, mixed: bool, overlap: int, prompt: Prompt | None) -> None:
        self._model, self._engine = model, model.engine
        self._coder = FrameCoder(model.engine, model.vocabulary if mixed else None, prompt, model.followers)
        self._overlap = overlap

    def encode(self, tokens: np.ndarray) -> Coded:
        """Codes rows of equal length, (rows, steps) int64."""
        flat = np.ascontiguousarray(tokens).reshape(-1)
        begun = now()
        payload, bits = self._coder.encode(flat, self._plan(tokens))
        return Coded(tokens, payload, self._model.table.num_bytes(flat), bits, now() - begun)

    def decode(self, coded: Coded) -> Decoded:
        """Decodes what was coded.

        Raises:
            EngineError: it does not decode to what was encoded.
        """
        times, counts = [now()], [0]

        def tick(tokens: int) -> None:
            times.append(now())
            counts.append(counts[-1] + tokens)

        meter = ByteMeter(len, coded.tokens.size, tick)  # tokens are more even than bytes
        decoded = self._coder.decode(coded.payload, self._plan(coded.tokens), meter)
        seconds = now() - times[0]
        if not np.array_equal(decoded, coded.tokens.reshape(-1)):
            raise EngineError("a sample does not decode to what was encoded: results vary on this machine")
        return Decoded(len(coded.tokens), coded.tokens.shape[1], seconds, spread(times, counts))

    @property
    def threads(self) -> int:
        """Number of threads that rows are shared out to."""
        return self._engine.callers

    def guesses(self, num_rows: int) -> bool:
        """Returns whether so many rows are decoded with guesses."""
        return self._coder.guesses(num_rows)

    def _plan(self, tokens: np.ndarray) -> RowPlan:
        return RowPlan(tokens.size, len(tokens), self._overlap)

    def row_bits(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns bits by the model alone and bytes of each row, to see how much the places differ."""
        num_rows, steps = tokens.shape
        flat = np.ascontiguousarray(tokens).reshape(-1)
        plan = RowPlan(tokens.size, num_rows, min(self._overlap, steps))
        bits = Scorer(self._model).score_rows(flat, plan).coded_bits.reshape(num_rows, steps).sum(1)
        table = self._model.table
        return bits, np.array([table.num_bytes(row) for row in tokens])

    def step_seconds(self, num_rows: int, depth: int, steps: int = MAX_STEPS) -> float:
        """Returns the seconds of one step of `num_rows` rows after `depth` tokens, fewer where the context is full.

        That is the quarter of the steps timed, or the eighth of quick ones: most take longer, as other processes get in
        the way. Guesses and the
        mixer are not part of it.

        Args:
            steps: how many are timed, or how many times a few quick ones.
        """
        engine: Engine[Any] = self._engine
        if not engine.is_compiled:
            steps = min(steps, engine.context)
            cache, _ = self._filled(num_rows, depth, steps)
            return sorted(self._stepped(num_rows, cache, steps))[steps // 4]
        taken = self._decoded(num_rows, depth, steps, 1)
        if min(taken) < _QUICK_SECONDS and engine.context > _STEPS_AT_ONCE:
            # Later steps are concluded from small differences: what gets in the way must not last as long as this.
            taken = self._decoded(num_rows, depth, _QUICK_TIMES * steps, _STEPS_AT_ONCE)
        return sorted(taken)[len(taken) // 8]

    def _filled(self, num_rows: int, depth: int, steps: int) -> tuple[Any, int]:
        """Returns a cache that has read `depth` tokens, or as many as leave room for some steps; and how many."""
        engine: Any = self._engine
        depth = min(depth, engine.context - steps)
        cache = engine.new_cache(num_rows, RESTART_CHUNK, depth + steps)
        if depth:
            # What is in the other rows makes no difference to the time.
            cache.reset()
            part = cache.rows(slice(0, 1))
            inputs = np.full((1, depth), engine.start_token, dtype=np.int64)
            for begin in range(0, depth, _FILLED):
                engine.forward(inputs[:, begin : begin + _FILLED], part)
            cache.adopt(part)
        return cache, depth

    def _stepped(self, num_rows: int, cache: Any, steps: int) -> list[float]:
        """Returns the seconds of each of some steps, without a coder."""
        engine: Engine[Any] = self._engine
        inputs, readout = np.full((num_rows, 1), engine.start_token, dtype=np.int64), engine.readout()
        taken = []
        for _ in range(steps):
            begun = now()
            readout.fetch(engine.masses(engine.forward(inputs, cache)[:, 0]))
            taken.append(now() - begun)
        return taken

    def _decoded(self, num_rows: int, depth: int, times: int, at_once: int) -> list[float]:
        """Returns the seconds of a step, several times, as compiled code decodes steps by method lm.

        Args:
            times: how many times, fewer where the context is full.
            at_once: steps each time.
        """
        engine: Engine[Any] = self._engine
        times = max(1, min(times, engine.context // at_once))
        steps = times * at_once
        cache, depth = self._filled(num_rows, depth, steps)
        inputs = np.full((num_rows, depth + steps + 1), engine.start_token, dtype=np.int64)
        counts = Rows(num_rows * steps, num_rows)
        rows = engine.compiled_rows(cache, inputs, counts, depth)
        coder = CompiledIntervals(engine, b"", num_rows)  # decodes to the first token over and over
        taken = []
        frame = FrameRows(counts, coder.source, self._coder.lane_rows)
        with rows.decoding([frame], engine.callers) as decoding:
            for end in range(at_once, steps + 1, at_once):
                begun = now()
                decoding.advance(end)
                taken.append((now() - begun) / at_once)
        return taken

    def token_seconds(self, num_rows: int, length: int, repeats: int = 2) -> float:
        """Returns the seconds of one token in a prefill of rows of `length` tokens, the best of some repeats."""
        engine: Engine[Any] = self._engine
        inputs, readout = np.full((num_rows, length), engine.start_token, dtype=np.int64), engine.readout()
        best = float("inf")
        for _ in range(repeats):
            begun = now()
            for _, hidden in prefill(engine, inputs, length - 1):
                readout.fetch(engine.masses(hidden))
            best = min(best, now() - begun)
        return best / inputs.size


def spread(times: Sequence[float], counts: Sequence[int]) -> float:
    """Returns by how much the time of a token varies between equal parts of all, apart from its growth with the depth.

    That is a standard deviation as a part of the mean, and 0.0 where there are too few ticks to tell.

    Args:
        times: at the beginning and after each of some pieces of work.
        counts: tokens done until then, from 0 on; each piece has some.
    """
    parts = min(_MAX_PARTS, (len(times) - 1) // _MIN_TICKS)
    if parts < _MIN_PARTS:
        return 0.0
    # Pieces of work differ in length, so borders between them are only about where parts should end.
    borders = np.searchsorted(counts, np.linspace(0, counts[-1], parts + 1))
    ends, tokens = np.array(times)[borders], np.array(counts)[borders]
    if not np.diff(tokens).all():
        return 0.0
    means = np.diff(ends) / np.diff(tokens)
    line = np.polynomial.Polynomial.fit(np.arange(parts), means, 1)(np.arange(parts))
    return float(np.std(means - line) / means.mean())
