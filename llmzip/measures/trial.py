"""Timed coding and decoding of samples in rows; must not know files, nor what is concluded from the times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codec.rows import FrameCoder
from ..engines.base import Engine
from ..errors import EngineError
from ..format.plan import RowPlan
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
        spread: standard deviation of a step's time, as a part of it.
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
        self._coder = FrameCoder(model.engine, model.vocabulary if mixed else None, prompt)
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
        ticks: list[float] = []
        begun = now()
        limit = ByteMeter(self._model.table.num_bytes, coded.num_bytes, lambda _: ticks.append(now()))
        decoded = self._coder.decode(coded.payload, self._plan(coded.tokens), limit)
        seconds = now() - begun
        if not np.array_equal(decoded, coded.tokens.reshape(-1)):
            raise EngineError("a sample does not decode to what was encoded: results vary on this machine")
        return Decoded(len(coded.tokens), coded.tokens.shape[1], seconds, _spread(np.array([begun, *ticks])))

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

        That is the quarter of the steps timed: most take longer, as other processes get in the way.

        Args:
            steps: how many are timed.
        """
        engine: Any = self._engine
        steps = min(steps, engine.context)
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
        inputs, readout = np.full((num_rows, 1), engine.start_token, dtype=np.int64), engine.readout()
        taken = []
        for _ in range(steps):
            begun = now()
            readout.fetch(engine.masses(engine.forward(inputs, cache)[:, 0]))
            taken.append(now() - begun)
        return sorted(taken)[steps // 4]

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


def _spread(ticks: np.ndarray, parts: int = 8) -> float:
    """Returns by how much the time of a step varies between parts of all, apart from its growth with the depth."""
    if len(ticks) <= 4 * parts:
        return 0.0
    means = np.diff(ticks[np.linspace(0, len(ticks) - 1, parts + 1).astype(int)])
    means = means / np.diff(np.linspace(0, len(ticks) - 1, parts + 1).astype(int))
    line = np.polynomial.Polynomial.fit(np.arange(parts), means, 1)(np.arange(parts))
    return float(np.std(means - line) / means.mean())
