"""Timed coding and decoding of samples in rows; must not know files, nor what is concluded from the times."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..codec.rows import FrameCoder
from ..engines.base import Engine
from ..errors import EngineError
from ..format.plan import RowPlan
from ..inference.passes import RESTART_CHUNK, prefill
from ..inference.progress import ByteMeter
from .scoring import Scorer

if TYPE_CHECKING:
    from ..inference.load import LoadedModel
    from ..inference.prompt import Prompt

_STEPS = 10
"""Steps that are timed one by one."""

_FILLED = 64
"""Tokens at once that fill a cache before."""


@dataclass(frozen=True)
class Coded:
    """Size and times of coded rows.

    Attributes:
        num_bytes: size of the text.
        bits: its ideal length when coded.
        encode_seconds: that coding took.
        decode_seconds: that decoding took; 0 if it was not decoded.
        step_spread: standard deviation of a step's time, as a part of it.
    """

    num_bytes: int
    bits: float
    encode_seconds: float
    decode_seconds: float = 0.0
    step_spread: float = 0.0


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

    def run(self, tokens: np.ndarray, *, decode: bool = True) -> Coded:
        """Codes rows of equal length, (rows, steps) int64, and decodes them.

        Raises:
            EngineError: they do not decode to what was encoded.
        """
        plan = RowPlan(tokens.size, len(tokens), self._overlap)
        flat = np.ascontiguousarray(tokens).reshape(-1)
        table = self._model.table
        num_bytes = table.num_bytes(flat)
        begun = time.perf_counter()
        payload, bits = self._coder.encode(flat, plan)
        encode_seconds = time.perf_counter() - begun
        if not decode:
            return Coded(num_bytes, bits, encode_seconds)
        ticks: list[float] = []
        begun = time.perf_counter()
        limit = ByteMeter(table.num_bytes, num_bytes, lambda _: ticks.append(time.perf_counter()))
        decoded = self._coder.decode(payload, plan, limit)
        decode_seconds = time.perf_counter() - begun
        if not np.array_equal(decoded, flat):
            raise EngineError("a sample does not decode to what was encoded: results vary on this machine")
        return Coded(num_bytes, bits, encode_seconds, decode_seconds, _spread(np.array([begun, *ticks])))

    def row_bits(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns bits by the model alone and bytes of each row, to see how much the places differ."""
        num_rows, steps = tokens.shape
        flat = np.ascontiguousarray(tokens).reshape(-1)
        plan = RowPlan(tokens.size, num_rows, min(self._overlap, steps))
        bits = Scorer(self._model).score_rows(flat, plan).coded_bits.reshape(num_rows, steps).sum(1)
        table = self._model.table
        return bits, np.array([table.num_bytes(row) for row in tokens])

    def step_seconds(self, num_rows: int, depth: int) -> float:
        """Returns the seconds of one step of `num_rows` rows after `depth` tokens.

        That is the quarter of the steps timed: most take longer, as other processes get in the way.
        """
        engine: Any = self._engine
        cache = engine.new_cache(num_rows, RESTART_CHUNK, depth + _STEPS)
        if depth:
            # What is in the other rows makes no difference to the time.
            cache.reset()
            part = cache.rows(slice(0, 1))
            inputs = torch.full((1, depth), engine.start_token, dtype=torch.int64, device=engine.device)
            for begin in range(0, depth, _FILLED):
                engine.forward(inputs[:, begin : begin + _FILLED], part)
            cache.adopt(part)
        inputs = torch.full((num_rows, 1), engine.start_token, dtype=torch.int64, device=engine.device)
        taken = []
        for _ in range(_STEPS):
            begun = time.perf_counter()
            engine.masses(engine.forward(inputs, cache)[:, 0]).cpu()
            taken.append(time.perf_counter() - begun)
        return sorted(taken)[_STEPS // 4]

    def token_seconds(self, num_rows: int, length: int) -> float:
        """Returns the seconds of one token in a prefill of `num_rows` rows of `length` tokens, the better of two."""
        engine: Engine[Any] = self._engine
        inputs = np.full((num_rows, length), engine.start_token, dtype=np.int64)
        best = float("inf")
        for _ in range(2):
            begun = time.perf_counter()
            for _, hidden in prefill(engine, inputs, length - 1):
                engine.masses(hidden).cpu()
            best = min(best, time.perf_counter() - begun)
        return best / inputs.size


def _spread(ticks: np.ndarray, parts: int = 8) -> float:
    """Returns by how much the time of a step varies between parts of all, apart from its growth with the depth."""
    if len(ticks) <= 4 * parts:
        return 0.0
    means = np.diff(ticks[np.linspace(0, len(ticks) - 1, parts + 1).astype(int)])
    means = means / np.diff(np.linspace(0, len(ticks) - 1, parts + 1).astype(int))
    line = np.polynomial.Polynomial.fit(np.arange(parts), means, 1)(np.arange(parts))
    return float(np.std(means - line) / means.mean())
