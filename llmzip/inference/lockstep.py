"""Decoding a frame's rows in compiled code, a while at a time; must not know what decodes the tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..engines.base import Engine
from ..engines.compiled import TokenGuesser, TokenSource
from ..format.plan import RowPlan
from .passes import History

_SECONDS = 0.1
"""About how long compiled code runs before Python looks at interrupts, limits and progress."""


def decode(
    engine: Engine[Any],
    plan: RowPlan,
    before: np.ndarray,
    source: TokenSource,
    unit: int,
    check: Callable[[np.ndarray], None],
    guesser: TokenGuesser | None = None,
) -> np.ndarray:
    """Decodes the tokens of a frame.

    Args:
        engine: the model; with compiled rows.
        plan: the frame's rows.
        before: (p,) int64, what every row has read before.
        source: decodes tokens from masses.
        unit: it takes rows in multiples of so many.
        check: called with tokens that were just decoded, (n,) int64; it may raise an error.
        guesser: guesses tokens if there is a thread for each row; None for no guesses.

    Returns:
        (N,) int64.

    Raises:
        CorruptError: no encoder wrote this.
    """
    history = History(engine, plan, before)
    rows = history.compiled
    if rows is None:
        raise TypeError("the engine has no compiled rows")
    with rows.decoding(source, unit, engine.callers, guesser) as decoding:
        step, count = 0, 1
        while step < plan.steps:
            history.restart_if_full(step)
            begin = time.perf_counter()
            end = decoding.advance(min(step + count, plan.steps))
            seconds = time.perf_counter() - begin
            count = max(1, min(4 * count, int((end - step) * _SECONDS / max(seconds, 1e-6))))
            check(history.taken(step, end))
            step = end
    return history.tokens()
