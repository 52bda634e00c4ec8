"""What it costs a model to begin a row with an empty context, measured on a text; must not know levels or frames.

A model that sees thousands of tokens needs hundreds of them before it predicts as well as it ever will. The excess
falls about as 1 / (16 + p) with a token's place p in its row: so it did with a model of 135 M parameters on prose,
documentation and code, and a start cost about as many bits in each, though a token of code needs a fourth of the bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.base import Engine
from .passes import masses_in_parts, prefill

if TYPE_CHECKING:
    from .load import LoadedModel

MIN_CONTEXT = 1024
"""Context in tokens from which on a start is measured: that of models with less is part of what the levels mean."""

_HALF = 512
"""Tokens of a place that are predicted with the same number before them, and with none."""

RUN_TOKENS = 2 * _HALF
"""Tokens of the text at each place."""

PASSED_TOKENS = 3 * _HALF
"""Tokens that go through the model at each place."""

_MIN_PLACE_TOKENS = 16_384
"""Tokens of a text for each place: then measuring takes less than a tenth of what encoding does."""

_MAX_PLACES = 4

_DECAY = 16
"""Place in a row at which the excess is half of what it is at the row's first token, in tokens."""

_USUAL_BITS = 350.0
"""Bits that a start costs after _HALF tokens: between what it costs in several kinds of text."""

_USUAL_WEIGHT = 0.4
"""Weight of the usual bits beside one measured place, which are about as far from the true ones as their ratio says."""

_PLAIN_WEIGHT = 2.0
"""Weight of a token's bits by LZMA or Zstandard, which see all of the text, beside one measured place."""

_MIXED_PART = 0.8
"""What remains of a start's cost, as a part of the text's size, where the mixer runs: all rows share what it learns."""

_PART_OF_PLAIN = 0.4
"""Part of the size by LZMA or Zstandard that a model needs for a text in one row, about, where it is not measured."""


@dataclass(frozen=True)
class RowStart:
    """What a start costs in one text.

    Attributes:
        bits: more than later on, that the first _HALF tokens of a row need.
        token_bits: of a token later on.
        context: tokens that the model sees.
        places: of the text that it was measured at; 0 where the usual bits are assumed.
    """

    bits: float
    token_bits: float
    context: int
    places: int = 0

    def mixed(self) -> RowStart:
        """Returns what a start costs where the mixer runs."""
        return replace(self, bits=_MIXED_PART * self.bits)

    def after(self, length: int) -> float:
        """Returns the bits that a row of `length` tokens needs more, as it began with an empty context."""
        reach = min(length, self.context)
        return self.bits * math.log1p(reach / _DECAY) / math.log1p(_HALF / _DECAY)

    def loss(self, num_tokens: int, rows: int) -> float:
        """Returns by what part of its size a text of some tokens becomes larger in rows than in one."""
        return (rows - 1) * self.after(-(-num_tokens // rows)) / (num_tokens * self.token_bits)

    def max_rows(self, num_tokens: int, max_loss: float, max_rows: int) -> int:
        """Returns the largest number of rows, 1 to `max_rows`, that costs no more than a part of the text's size."""
        low, high = 1, max(1, max_rows)
        while low < high:
            middle = (low + high + 1) // 2
            if self.loss(num_tokens, middle) <= max_loss:
                low = middle
            else:
                high = middle - 1
        return low


def is_measured(engine: Engine[Any]) -> bool:
    """Whether a start matters with this model: it sees far, and takes whole rows at once."""
    return engine.context >= MIN_CONTEXT and not engine.stepwise


def matters(model: LoadedModel) -> bool:
    """Whether levels choose rows by what a start costs under a model; for embedded ones it is part of the levels."""
    return model.embedded_code is None and is_measured(model.engine)


def num_places(num_tokens: int) -> int:
    """Returns at how many places of a text a start is measured."""
    return min(num_tokens // _MIN_PLACE_TOKENS, _MAX_PLACES)


def usual(engine: Engine[Any], token_bits_of_plain: float) -> RowStart:
    """Returns what a start costs in a text that is too short to measure it.

    Args:
        token_bits_of_plain: bits of each token by the methods that need no model.
    """
    return RowStart(_USUAL_BITS, _PART_OF_PLAIN * token_bits_of_plain, engine.context)


def measured(engine: Engine[Any], runs: list[np.ndarray], usually: RowStart) -> RowStart:
    """Measures what a start costs: each run's second half is predicted with the first half before it, and without it.

    Args:
        runs: (RUN_TOKENS,) int64 each, from places of the text.
        usually: what to assume; its bits count less than a run's, those of a token more.
    """
    bits, token_bits = _USUAL_WEIGHT * usually.bits, _PLAIN_WEIGHT * usually.token_bits
    for run in runs:
        late = _bits(engine, run, _HALF)
        bits += max(0.0, _bits(engine, run[_HALF:], 0) - late)
        token_bits += late / _HALF
    count = len(runs)
    return RowStart(bits / (_USUAL_WEIGHT + count), token_bits / (_PLAIN_WEIGHT + count), engine.context, count)


def runs_of(tokens: np.ndarray) -> list[np.ndarray]:
    """Returns runs of a text at evenly spread places, in the middle of equal parts; none if it is short."""
    count = num_places(len(tokens))
    begins = ((2 * place + 1) * len(tokens) // (2 * count) - _HALF for place in range(count))
    return [tokens[begin : begin + RUN_TOKENS] for begin in begins]


def _bits(engine: Engine[Any], tokens: np.ndarray, first: int) -> float:
    """Returns the bits of a row's tokens from `first` on, by the model's masses.

    Neither the sizes of batches nor the device's logarithm may change it, as it decides about the archive's bytes.
    """
    inputs = np.concatenate([[engine.start_token], tokens[:-1]])
    targets, frequencies = tokens[first:], engine.readout().frequencies
    bits: list[float] = []
    for columns, hidden in prefill(engine, inputs[None], first):
        for part, masses in masses_in_parts(engine, hidden):
            mass, total = frequencies.mass_and_total(masses, targets[columns][part])
            pairs = zip(total.tolist(), np.maximum(mass, 1).tolist(), strict=True)
            bits += [math.log2(all_masses / one) for all_masses, one in pairs]
    return math.fsum(bits)
