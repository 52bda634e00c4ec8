"""Decoding rows in compiled code, a while at a time; must not know what decodes the tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engines.base import Engine
from ..engines.compiled import CompiledDecoding, FrameRows, TokenGuesser
from ..errors import CorruptError
from ..format.plan import RowPlan, Rows
from .passes import NOTHING, RESTART_CHUNK, History

_SECONDS = 0.25
"""About how long compiled code runs before Python looks at interrupts, limits and progress."""


class _Pace:
    """Chooses how many steps are decoded at a time."""

    def __init__(self) -> None:
        self._count = 1

    def advance(self, decoding: CompiledDecoding, step: int, last_step: int) -> int:
        """Decodes for about _SECONDS; returns the step that was reached."""
        begin = time.perf_counter()
        reached = decoding.advance(min(step + self._count, last_step))
        seconds = max(time.perf_counter() - begin, 1e-6)
        self._count = max(1, min(4 * self._count, int((reached - step) * _SECONDS / seconds)))
        return reached


def decode(
    engine: Engine[Any],
    plan: RowPlan,
    before: np.ndarray,
    frame: FrameRows,
    check: Callable[[np.ndarray], None],
    guesser: TokenGuesser | None = None,
) -> np.ndarray:
    """Decodes the tokens of a frame.

    Args:
        engine: the model, which must be compiled.
        plan: the frame's rows.
        before: (p,) int64, what every row has read before.
        frame: what decodes them.
        check: called with tokens that were just decoded, (n,) int64; it may raise an error.
        guesser: guesses tokens if there is a thread for each row; None for no guesses.

    Returns:
        (N,) int64.

    Raises:
        CorruptError: no encoder wrote this.
    """
    history, pace, step = History(engine, plan, before), _Pace(), 0
    rows = history.compiled
    if rows is None:
        raise TypeError("the engine has no compiled rows")
    with rows.decoding([frame], engine.callers, guesser) as decoding:
        while step < plan.steps:
            history.restart_if_full(step)
            reached = pace.advance(decoding, step, plan.steps)
            if decoding.has_failed(0):
                if decoding.sound_steps(0) > step:
                    check(history.taken(step, decoding.sound_steps(0)))
                raise CorruptError("damaged: the compressed data fits no text")
            check(history.taken(step, reached))
            step = reached
    return history.tokens()


def decode_together(engine: Engine[Any], frames: Sequence[FrameRows]) -> list[np.ndarray | None]:
    """Decodes the tokens of several frames, whose rows go through the model together.

    Args:
        engine: the model, which must be compiled.
        frames: of rows that fit into one context.

    Returns:
        for each frame (N,) int64, or None if no encoder wrote it.

    Raises:
        ValueError: a row is longer than the context.
    """
    if any(frame.counts.steps > engine.context for frame in frames):
        raise ValueError("rows that are decoded together must fit into one context")
    # Rows of a part advance together, so frames of about the same length come together.
    order = sorted(range(len(frames)), key=lambda number: -frames[number].counts.steps)
    sorted_frames = [frames[number] for number in order]
    num_rows, steps = sum(frame.counts.num_rows for frame in frames), max(frame.counts.steps for frame in frames)
    inputs = np.full((num_rows, steps + 1), engine.start_token, dtype=np.int64)
    cache, pace, step = engine.new_cache(num_rows, RESTART_CHUNK, steps), _Pace(), 0
    rows = engine.compiled_rows(cache, inputs, Rows(num_rows * steps, num_rows), len(NOTHING))
    found: list[np.ndarray | None] = [None] * len(frames)
    with rows.decoding(sorted_frames, engine.callers) as decoding:
        while step < steps:
            step = pace.advance(decoding, step, steps)
        row = 0
        for place, (number, frame) in enumerate(zip(order, sorted_frames, strict=True)):
            counts, first = frame.counts, row
            row += counts.num_rows
            if not decoding.has_failed(place):
                lengths = [counts.full_steps + (n < counts.long_rows) for n in range(counts.num_rows)]
                found[number] = np.concatenate(
                    [inputs[first + n, 1 : 1 + length] for n, length in enumerate(lengths)]
                )  # fmt: skip
    return found
