"""What a file would become by the model, with the mixer or without, from a sample; must not know the other methods.

The rows of a frame begin at evenly spread places and are coded in lockstep. A sample has fewer and shorter rows, and
is otherwise coded and decoded just as the file would be. What mixer and contexts gain later on is read off the sample's
own growth; what longer and more rows cost, off single steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..codec import levels
from ..codec.levels import LEVELS, PIECE_BYTES
from ..format.headers import LM, METHODS, MIXED
from ..format.plan import RowPlan
from ..settings import CompressSettings
from .budget import DEFAULT_SECONDS, Budget, now
from .candidates import FRAME_BYTES, MIN_TIME_SPREAD, Candidate, bytes_in_frames
from .extrapolation import Range, growth, standard_error
from .places import Places
from .trial import MAX_STEPS, MIN_STEPS, Coded, Decoded, Trial

if TYPE_CHECKING:
    from ..inference.load import LoadedModel

_ROWS = (32, 16, 8)
"""Rows of a sample, fewer for slow models. A frame has up to 2,048; few long ones show more than many short ones."""

_FIRST_STEPS = 16
"""Steps of the first sample, which the second and third double."""

_MAX_STEPS = 512
"""Steps up to which a sample grows before it takes more rows."""

_PROBE_ROWS, _PROBE_STEPS = 4, 8
"""Size of a first run, which is slow and not counted, as it loads the mixer; and of a second one, which is timed."""

_DEPTH = 2048
"""Where a step or a token takes as long as ever later on, in models of the usual contexts."""

_PREFILL_TOKENS = 4096
"""Tokens of a prefill of short rows that is timed."""

_MIN_DEPTH, _MIN_PREFILL_TOKENS = 64, 256
"""What is timed of later steps and tokens at least, however little time there is."""

_LATER_PART = 0.3
"""Part of the time at most that single steps and prefills take: what longer and more rows cost."""


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
        coded: all of the steps.
        decoded: the same, or the first steps of a smaller sample if there was no time.
        rates: bits per byte of a fourth, a half and all of the steps.
    """

    coded: Coded
    decoded: Decoded
    rates: list[float]


class _Prices(NamedTuple):
    """Seconds that work took, to tell beforehand what more of it will take.

    Attributes:
        token: of each token, when rows are coded.
        step: of each step of `rows` rows, when they are decoded.
        rows: how many.
    """

    token: float
    step: float
    rows: int

    @classmethod
    def of(cls, coded: Coded, decoded: Decoded) -> _Prices:
        """Returns the prices by a sample that was coded, and by one that was decoded."""
        return cls(coded.seconds / coded.tokens.size, decoded.seconds / decoded.steps, decoded.rows)

    def steps(self, rows: int, steps: int) -> float:
        """Returns the seconds that decoding takes: each further row costs a step at most what coding a token does."""
        return steps * (self.step + max(0, rows - self.rows) * self.token)

    def first_samples(self, rows: int) -> float:
        """Returns the seconds of three samples, each twice as long as the one before, of which the first is decoded."""
        return 7 * _FIRST_STEPS * rows * self.token + self.steps(rows, _FIRST_STEPS)


class _Timed(NamedTuple):
    """How much is timed of what longer and more rows cost.

    Attributes:
        depth: tokens before the latest steps, and of the longest row of a prefill.
        steps: that are timed at each depth.
        tokens: of a prefill of short rows.
        repeats: of each prefill.
    """

    depth: int
    steps: int
    tokens: int
    repeats: int

    @classmethod
    def within(cls, seconds: float, length: int, step_seconds: float, prices: _Prices) -> _Timed:
        """Returns as much as there is time for, of what is timed at most.

        Args:
            length: tokens up to which steps and tokens take longer and longer.
            step_seconds: of all rows of a frame, about.
        """
        price = 3 * MAX_STEPS * step_seconds + (4 * length + 2 * _PREFILL_TOKENS) * prices.token
        part = min(1.0, seconds / price)
        return cls(
            min(length, max(_MIN_DEPTH, int(part * length))),
            max(MIN_STEPS, int(part * MAX_STEPS)),
            max(_MIN_PREFILL_TOKENS, int(part * _PREFILL_TOKENS)),
            2 if part == 1 else 1,
        )


def by_model(places: Places, model: LoadedModel, settings: CompressSettings, budget: Budget) -> ByModel | None:
    """Estimates the model, with the mixer if the level says so; None if all of the file takes no longer."""
    mixed = LEVELS[settings.level].mixes
    look = places.spread(64, 256)
    per_byte = max(1, sum(len(model.tokenizer.encode(piece)) for piece in look)) / sum(map(len, look))
    frame_tokens = max(1, int(min(places.text_bytes, PIECE_BYTES) * per_byte))
    plan = levels.level_plan(settings.level, frame_tokens, model.engine, settings).rows
    trial = Trial(model, mixed=mixed, overlap=plan.overlap, prompt=model.prompt(settings.prompt))
    sample = _Sampler(places, model, plan, trial, per_byte).grown(budget)
    if sample is None:
        return None
    candidate = _candidate(places, model, plan, trial, sample, budget, mixed=mixed)
    if not mixed:
        return ByModel(candidate, None)
    budget.says("coding the sample by the mixer alone")
    return ByModel(candidate, _alone(model.table.decode(sample.coded.tokens.reshape(-1)), sample.coded.bits))


def _candidate(
    places: Places, model: LoadedModel, plan: RowPlan, trial: Trial, sample: _Sample, budget: Budget, *, mixed: bool
) -> Candidate:
    """Concludes from a sample to all text.

    Args:
        plan: of a frame of the file.
    """
    coded, decoded = sample.coded, sample.decoded
    rows, steps = coded.tokens.shape
    prices = _Prices.of(coded, decoded)
    budget.says("comparing the places of the sample")
    affordable = int(budget.left / 2 / (rows * prices.token))
    error = standard_error(*trial.row_bits(coded.tokens[:, : max(1, min(steps // 2, affordable))]))
    if mixed:
        size = bytes_in_frames(places.text_bytes, sample.rates, coded.num_bytes)
    else:  # nothing is learnt but from the row itself
        size = growth(sample.rates, math.log2(plan.steps / steps)).scaled(sample.rates[-1] * places.text_bytes / 8)
    frames = places.text_bytes / min(places.text_bytes, PIECE_BYTES)
    encode, decode = prices.token, prices.step
    if model.engine.stepwise:
        encode += decoded.seconds / (rows * decoded.steps)  # the encoder tries whether it decodes
    else:
        more, decode = _later(trial, plan, sample, model.engine.context, budget)
        encode += more
    spread = max(MIN_TIME_SPREAD, 2 * decoded.spread)
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

    def grown(self, budget: Budget) -> _Sample | None:
        """Returns as many tokens as are coded and decoded in the time; None if all of the file takes no longer.

        The sample doubles its steps; where it would become longer than few rows are worth, it takes more rows.
        """
        trial, plan = self._trial, self._plan
        is_one_frame = self._places.size <= PIECE_BYTES
        prices = self._first_prices(budget)
        reserve = _LATER_PART * budget.seconds
        rows, steps = self._first_rows(prices, budget), _FIRST_STEPS
        rates: list[float] = []
        decoded: Decoded | None = None
        while True:
            budget.says(f"coding {rows * steps:,} tokens of {rows} places")
            coded = trial.encode(self._beginnings(rows, steps))
            if not rates or decoded is None:
                decoded = trial.decode(coded)
            prices = _Prices.of(coded, decoded)
            rates.append(coded.rate)
            tokens = coded.tokens
            encode = prices.token * plan.num_tokens
            is_quick = 2 * (encode + prices.steps(plan.num_rows, plan.steps)) < budget.seconds
            if is_one_frame and (is_quick or (2 * tokens.size > plan.num_tokens and encode < budget.left)):
                return None
            if len(rates) < 3:
                steps *= 2
                continue
            # Twice as much: coded, scored, decoded, with steps that become slower.
            needed = 2 * (1.6 * coded.seconds + 2 * prices.step * steps)
            is_over = tokens.shape[1] < steps or needed > budget.left - reserve
            if is_over or (rows >= plan.num_rows and 2 * steps > plan.steps):
                break
            if 2 * steps > min(_MAX_STEPS, plan.steps) and rows < plan.num_rows:
                rows, steps, rates = min(2 * rows, plan.num_rows), steps // 4, []
            else:
                steps *= 2
        if 1.5 * prices.steps(*tokens.shape) <= budget.left - reserve:
            budget.says(f"decoding {tokens.size:,} tokens")
            decoded = trial.decode(coded)
        return _Sample(coded, decoded, rates[-3:])

    def _first_prices(self, budget: Budget) -> _Prices:
        """Returns what a tiny sample takes: coded twice, as the first time loads the mixer, unless that took long."""
        budget.says("measuring the speed")
        tokens, begun = self._beginnings(_PROBE_ROWS, _PROBE_STEPS), now()
        prices = self._probe(tokens)
        return self._probe(tokens) if now() - begun < max(budget.seconds, DEFAULT_SECONDS) / 16 else prices

    def _probe(self, tokens: np.ndarray) -> _Prices:
        coded = self._trial.encode(tokens)
        return _Prices.of(coded, self._trial.decode(coded))

    def _first_rows(self, prices: _Prices, budget: Budget) -> int:
        """Returns how many rows samples begin with."""
        seconds = max(budget.left, DEFAULT_SECONDS) * (1 - _LATER_PART)
        return next((rows for rows in _ROWS if prices.first_samples(rows) < seconds), _ROWS[-1])

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
    begun = now()
    _, bits = encode_bytes(data)
    return Alone((now() - begun) / len(data), levels.model_helps(bits_with_model, bits))


def _later(trial: Trial, plan: RowPlan, sample: _Sample, context: int, budget: Budget) -> tuple[float, float]:
    """Returns what a frame's rows cost, which are more and longer than those of a sample.

    Args:
        plan: of the frame.
        context: tokens that the model sees.

    Returns:
        Seconds more for each token when encoding, and seconds for each step when decoding.
    """
    decoded, prices = sample.decoded, _Prices.of(sample.coded, sample.decoded)
    steps = sample.coded.tokens.shape[1]
    length = min(plan.steps, context, _DEPTH)
    # A small sample of a fast model takes no time at all, and neither do these, however little of it is left.
    seconds = max(budget.left, _LATER_PART * budget.seconds)
    timed = _Timed.within(seconds, length, prices.steps(plan.num_rows, 1), prices)
    near = min(decoded.steps // 2, timed.depth)
    depths = sorted({near, min(512, timed.depth), timed.depth})
    budget.says(f"timing steps of {plan.num_rows} rows after up to {timed.depth:,} tokens")
    at = [trial.step_seconds(plan.num_rows, depth, timed.steps) for depth in depths]
    # The coder's and the mixer's part.
    beside = max(0.0, prices.step - trial.step_seconds(decoded.rows, near, timed.steps))
    reach = np.linspace(0, min(plan.steps, context), 64)
    step = float(_extended(reach, depths, at).mean()) + beside * plan.num_rows / decoded.rows
    budget.says("timing the longest rows")
    short = trial.token_seconds(max(1, timed.tokens // steps), steps, timed.repeats)
    long = trial.token_seconds(1, max(timed.depth, 1), timed.repeats)
    passes = 1.0
    if plan.steps > context:  # what a new context begins with goes through the model again
        again = -(-(plan.steps - context) // (context - plan.overlap)) * plan.overlap / plan.steps
        passes += again
        step += again * plan.num_rows * long
    return max(0.0, passes * long - short), step


def _extended(reach: np.ndarray, depths: list[int], at: list[float]) -> np.ndarray:
    """Returns the seconds of steps at any depth, from those at some: on lines between them.

    Beyond the last one they grow as they did up to there.
    """
    seconds = np.interp(reach, depths, at)
    growth_per_token = max(0.0, at[-1] - at[0]) / max(1, depths[-1] - depths[0])
    extended: np.ndarray = seconds + growth_per_token * np.maximum(0, reach - depths[-1])
    return extended
