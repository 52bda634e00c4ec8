"""Tokens coded with a model's frequencies alone, method lm (docs/numerics.md section 8); must not know files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..engines.arrays import Array
from ..engines.base import Engine
from ..engines.frequencies import SUMS
from ..format.plan import RowPlan
from ..mixing.coder import Decoder, Encoder
from ..mixing.rangecoder import RangeDecoder

_AT_ONCE = 1 << 14
"""Tokens whose intervals are computed at once: those of a frame would take hundreds of bytes each."""


class CodedRows(NamedTuple):
    """The tokens of a frame, coded.

    Attributes:
        payload: for the frame.
        bits: sum of -log2 of the coded probabilities.
    """

    payload: bytes
    bits: float


class IntervalSink:
    """Codes tokens with the model's frequencies alone (numerics section 8).

    Args:
        engine: the model.
        tokens: (N,) int64.
        plan: the frame's rows.

    Attributes:
        compiled: takes masses from compiled code; None where there is none.
    """

    def __init__(self, engine: Engine[Any], tokens: np.ndarray, plan: RowPlan) -> None:
        self._frequencies = engine.readout().frequencies
        self._tokens, self._plan = tokens, plan
        collected = self._frequencies.compiled_sums(tokens) if engine.is_compiled else None
        self._collected = collected  # lives as long as the sink
        self._sums = np.empty((len(tokens), SUMS), dtype=np.int64) if collected is None else collected.sums
        self.compiled = None if collected is None else collected.sink

    def add(self, places: np.ndarray, masses: Array) -> None:
        """Takes the masses, (n, V) int32, of the tokens at some places."""
        self._sums[places] = self._frequencies.sums(masses, self._tokens[places])

    def finish(self) -> CodedRows:
        """Codes all intervals in the order of the format."""
        plan, num_tokens = self._plan, len(self._tokens)
        order = np.concatenate(list(_step_order(plan)))
        coded = np.empty((num_tokens, 4), dtype=np.int64)
        for begin in range(0, num_tokens, _AT_ONCE):
            places = order[begin : begin + _AT_ONCE]
            coded[begin : begin + _AT_ONCE] = self._frequencies.intervals_of(self._sums[places], self._tokens[places])
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


class Look(NamedTuple):
    """What decoding a step needs of some rows: arrays of the engine.

    Attributes:
        masses: (n, V) int32.
        sums, bounds: (n, groups + 1) int64, cumulative masses and frequencies at the borders of the groups.
    """

    masses: Array
    sums: Array
    bounds: Array


class IntervalSource:
    """Decodes what `IntervalSink` codes, step by step.

    Args:
        engine: the model.
        payload: from `IntervalSink.finish`, or anything.
    """

    def __init__(self, engine: Engine[Any], payload: bytes) -> None:
        self._readout = engine.readout()
        self._frequencies = self._readout.frequencies
        self._decoder = Decoder(payload)

    def look(self, masses: Array) -> Look:
        """Returns what `step` needs of the masses, (n, V) int32, of some rows."""
        return Look(masses, *self._frequencies.group_bounds(masses))

    def step(self, looks: list[Look]) -> Iterator[np.ndarray]:
        """Yields one token per row, (n,) int64 for each `look` at some of the rows that take part, in their order."""
        groups = [self._decoder.decode(self._readout.fetch(look.bounds)).astype(np.int64) for look in looks]
        for look, group in zip(looks, groups, strict=True):
            inner = self._frequencies.symbol_bounds(*look, group)
            yield group * self._frequencies.group_size + self._decoder.decode(self._readout.fetch(inner))


class CompiledIntervals:
    """Decodes what `IntervalSink` codes in compiled code, while it lives.

    Args:
        engine: the model, which must be compiled.
        payload: as for `IntervalSource`.
        rows: number of rows.

    Attributes:
        source: for `lockstep.decode`.
    """

    def __init__(self, engine: Engine[Any], payload: bytes, rows: int) -> None:
        self._decoder = RangeDecoder(payload)
        decoding = engine.readout().frequencies.compiled_source(rows, *self._decoder.compiled)
        self._decoding = decoding  # lives as long as the source
        self.source = decoding.source


def _step_order(plan: RowPlan) -> Iterator[np.ndarray]:
    """Yields the places of the tokens in the order in which they are coded, step by step."""
    starts = np.array(plan.row_starts()[:-1], dtype=np.int64)
    yield (starts[None, :] + np.arange(plan.full_steps)[:, None]).reshape(-1)
    yield starts[: plan.long_rows] + plan.full_steps
