"""What a file would become by the model, with the mixer or without, from a sample; must not know the other methods.

The rows of a frame begin at evenly spread places and are coded in lockstep. A sample has fewer and shorter rows, and
is otherwise coded and decoded just as the file would be. What mixer and contexts gain later on is read off the sample's
own growth; what longer and more rows cost, off single steps.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..codec import levels
from ..codec.levels import LEVELS, PIECE_BYTES
from ..format.headers import LM, METHODS, MIXED
from ..format.plan import RowPlan
from ..settings import CompressSettings
from .candidates import FRAME_BYTES, MIN_TIME_SPREAD, Candidate, bytes_in_frames
from .extrapolation import Range, growth, standard_error
from .places import Places
from .trial import Coded, Trial

if TYPE_CHECKING:
    from ..inference.load import LoadedModel

_ROWS = 32
"""Rows of a sample: a frame has up to 2,048, but few long ones show more than many short ones."""

_FIRST_STEPS = 16
"""Steps of the first sample, which the second and third double."""

_MAX_STEPS = 512
"""Steps up to which a sample grows before it takes more rows."""

_PROBE_STEPS = 8
"""Steps of a first run, which is slow and not counted: it loads the mixer."""

_DEPTH = 2048
"""Where a step or a token takes as long as ever later on, in models of the usual contexts."""


class Alone(NamedTuple):
    """The mixer without a model on the sample.

    Attributes:
        seconds: that it takes for each byte.
        is_helped: whether the model helps it enough.
    """

    seconds: float
    is_helped: bool


class ByModel(NamedTuple):
    """The estimate by the model, and from level 2 on what the mixer does alone."""

    candidate: Candidate
    alone: Alone | None


class _Sample(NamedTuple):
    """Beginnings of rows.

    Attributes:
        tokens: (rows, steps) int64.
        rates: bits per byte of a fourth, a half and all of the steps.
    """

    tokens: np.ndarray
    rates: list[float]


def by_model(places: Places, model: LoadedModel, settings: CompressSettings, seconds: float) -> ByModel | None:
    """Estimates the model, with the mixer if the level says so; None if all of the file takes no longer than a sample.

    Args:
        seconds: about how long this may take.
    """
    mixed = LEVELS[settings.level].mixes
    look = places.spread(64, 256)
    per_byte = max(1, sum(len(model.tokenizer.encode(piece)) for piece in look)) / sum(map(len, look))
    frame_tokens = max(1, int(min(places.text_bytes, PIECE_BYTES) * per_byte))
    plan = levels.level_plan(settings.level, frame_tokens, model.engine, settings).rows
    trial = Trial(model, mixed=mixed, overlap=plan.overlap, prompt=model.prompt(settings.prompt))
    sample = _Sampler(places, model, plan, trial, per_byte).grown(seconds)
    if sample is None:
        return None
    coded = trial.run(sample.tokens)
    candidate = _candidate(places, model, plan, trial, sample, coded, mixed=mixed)
    if not mixed:
        return ByModel(candidate, None)
    return ByModel(candidate, _alone(model.table.decode(sample.tokens.reshape(-1)), coded.bits))


def _candidate(
    places: Places, model: LoadedModel, plan: RowPlan, trial: Trial, sample: _Sample, coded: Coded, *, mixed: bool
) -> Candidate:
    """Concludes from a sample to all text.

    Args:
        plan: of a frame of the file.
        coded: the sample, coded and decoded.
    """
    rows, steps = sample.tokens.shape
    error = standard_error(*trial.row_bits(sample.tokens[:, : steps // 2]))
    if mixed:
        size = bytes_in_frames(places.text_bytes, sample.rates, coded.num_bytes)
    else:  # nothing is learnt but from the row itself
        size = growth(sample.rates, math.log2(plan.steps / steps)).scaled(sample.rates[-1] * places.text_bytes / 8)
    frames = places.text_bytes / min(places.text_bytes, PIECE_BYTES)
    encode, decode = coded.encode_seconds / sample.tokens.size, coded.decode_seconds / steps
    if model.engine.stepwise:
        encode += coded.decode_seconds / sample.tokens.size  # the encoder tries whether it decodes
    else:
        more, decode = _later(trial, plan, (rows, steps), decode, model.engine.context)
        encode += more
    spread = max(MIN_TIME_SPREAD, 2 * coded.step_spread)
    return Candidate(
        METHODS[MIXED if mixed else LM],
        size.spread(2 * error).scaled(1, FRAME_BYTES * math.ceil(frames)),
        Range.exactly(encode * plan.num_tokens * frames).spread(spread),
        Range.exactly(decode * plan.steps * frames).spread(spread),
        coded.num_bytes,
        rows,
    )


class _Sampler:
    """Takes the beginnings of rows from places of a file.

    Args:
        plan: of a frame of the file.
        trial: codes the samples.
        per_byte: tokens of the text for each byte, about.
    """

    def __init__(self, places: Places, model: LoadedModel, plan: RowPlan, trial: Trial, per_byte: float) -> None:
        self._places, self._model, self._plan = places, model, plan
        self._trial, self._per_byte = trial, per_byte

    def grown(self, seconds: float) -> _Sample | None:
        """Returns as many tokens as are coded and decoded in the time; None if all of the file takes no longer.

        The sample doubles its steps; where it would become longer than few rows are worth, it takes more rows.
        """
        trial, plan = self._trial, self._plan
        trial.run(self._beginnings(_ROWS, _PROBE_STEPS))
        begun, is_one_frame = time.perf_counter(), self._places.size <= PIECE_BYTES
        rows, steps = _ROWS, _FIRST_STEPS
        rates: list[float] = []
        step_seconds = 0.0
        while True:
            tokens = self._beginnings(rows, steps)
            is_first = not rates
            coded = trial.run(tokens, decode=is_first)
            if is_first:
                step_seconds = coded.decode_seconds / steps
            rates.append(coded.bits / coded.num_bytes)
            work = coded.encode_seconds * plan.num_tokens / tokens.size + step_seconds * plan.steps
            if is_one_frame and (2 * work < seconds or 2 * tokens.size > plan.num_tokens):
                return None
            if len(rates) < 3:
                steps *= 2
                continue
            # Twice as much: coded, scored, decoded, with steps that become slower.
            needed = 2 * (1.6 * coded.encode_seconds + 2 * step_seconds * steps)
            is_over = tokens.shape[1] < steps or needed > seconds - (time.perf_counter() - begun)
            if is_over or (rows >= plan.num_rows and 2 * steps > plan.steps):
                return _Sample(np.ascontiguousarray(tokens), rates[-3:])
            if 2 * steps > min(_MAX_STEPS, plan.steps) and rows < plan.num_rows:
                rows, steps, rates = min(2 * rows, plan.num_rows), steps // 4, []
            else:
                steps *= 2

    def _beginnings(self, rows: int, steps: int) -> np.ndarray:
        """Returns the first tokens of pieces that are spread over the text; pieces that have fewer are left out."""
        max_bytes = max(16, self._places.text_bytes // rows)
        size = min(max_bytes, int(2 * steps / self._per_byte) + 32)
        while True:
            pieces = [self._model.tokenizer.encode(piece) for piece in self._places.spread(rows, size)]
            enough = [ids[:steps] for ids in pieces if len(ids) >= steps]
            if 2 * len(enough) >= rows or steps <= 4:
                return np.stack(enough or [ids[: min(map(len, pieces))] for ids in pieces])
            if size == max_bytes:
                steps //= 2
            size = min(max_bytes, 2 * size)


def _alone(data: bytes, bits_with_model: float) -> Alone:
    """Codes the sample by the mixer without a model."""
    from ..mixing.mixer import encode_bytes

    encode_bytes(data[:64])  # loads its machine code
    begun = time.perf_counter()
    _, bits = encode_bytes(data)
    return Alone((time.perf_counter() - begun) / len(data), levels.model_helps(bits_with_model, bits))


def _later(
    trial: Trial, plan: RowPlan, sampled: tuple[int, int], step_seconds: float, context: int
) -> tuple[float, float]:
    """Returns what a frame's rows cost, which are more and longer than those of a sample.

    Args:
        plan: of the frame.
        sampled: rows and steps of the sample.
        step_seconds: its mean step when decoding.

    Returns:
        Seconds more for each token when encoding, and seconds for each step when decoding.
    """
    rows, steps = sampled
    length = min(plan.steps, context, _DEPTH)
    near = min(steps // 2, length)
    depths = sorted({near, min(512, length), length})
    at = [trial.step_seconds(plan.num_rows, depth) for depth in depths]
    beside = max(0.0, step_seconds - trial.step_seconds(rows, near))  # the coder's and the mixer's part
    reach = np.linspace(0, min(plan.steps, context), 64)
    step = float(np.interp(reach, depths, at).mean()) + beside * plan.num_rows / rows
    short = trial.token_seconds(max(1, 4096 // steps), steps)
    long = trial.token_seconds(1, max(length, 1))
    passes = 1.0
    if plan.steps > context:  # what a new context begins with goes through the model again
        again = -(-(plan.steps - context) // (context - plan.overlap)) * plan.overlap / plan.steps
        passes += again
        step += again * plan.num_rows * long
    return max(0.0, passes * long - short), step
