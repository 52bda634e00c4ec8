"""What a file would become by the model, with the mixer or without, from a sample; must not know the other methods.

The rows of a frame begin at evenly spread places and are coded in lockstep. A sample has fewer and shorter rows, and
is otherwise coded and decoded just as the file would be. What mixer and contexts gain later on is read off the sample's
own growth; what longer and more rows cost, off single steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..codec import levels
from ..codec.levels import LEVELS, PIECE_BYTES
from ..format.headers import LM, METHODS, MIXED
from ..format.plan import RowPlan
from ..inference import row_start
from ..inference.row_start import RowStart
from ..settings import CompressSettings
from .budget import DEFAULT_SECONDS, Budget, now
from .candidates import FRAME_BYTES, MIN_TIME_SPREAD, Candidate, bytes_in_frames
from .extrapolation import Range, growth, standard_error
from .places import Places
from .prices import FIRST_STEPS, Prices, Timed
from .trial import Coded, Decoded, Trial

if TYPE_CHECKING:
    from ..inference.load import LoadedModel

_ROWS = (32, 16, 8)
"""Rows of a sample, fewer for slow models. A frame has up to 2,048; few long ones show more than many short ones."""

_MAX_STEPS = 512
"""Steps up to which a sample grows before it takes more rows."""

_PROBE_ROWS, _PROBE_STEPS = 4, 8
"""Size of a first run, which is slow and not counted, as it loads the mixer; and of a second one, which is timed."""

_DEPTH = 2048
"""Where a step or a token takes as long as ever later on, in models of the usual contexts."""

_START_PART = 0.25
"""Part of the time at most that is spent on what the start of a row costs."""

_UNMEASURED_SPREAD = 0.35
"""By how much the range of a time grows where that was not measured, so that the rows may be others."""

_UNMEASURED_START = 0.75
"""Part of the usual cost of a start by which the real one may differ, so that the size's range grows."""

_MIN_LATER_PART = 0.2
"""Part of a sample's bits at least that is not counted as the cost of its rows' starts."""

_LATER_PART = 0.3
"""Part of the time at most that single steps and prefills take: what longer and more rows cost."""

_MIN_GUESSED_STEPS = 64
"""Steps with guesses that are worth timing: the first ones have little to guess by."""

_GUESSES_SPREAD = 0.3
"""By how much the lower end of a decoding with guesses falls: long rows are guessed better than a sample's."""


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


def by_model(
    places: Places, model: LoadedModel, settings: CompressSettings, plain: Candidate, budget: Budget
) -> ByModel | None:
    """Estimates the model, with the mixer if the level says so; None if all of the file takes no longer.

    Args:
        plain: what the methods that need no model give.
    """
    text = _Text.of(places, model, settings)
    sampler = _Sampler(places, text, budget)
    start = _row_start(places, text, plain, sampler.prices, budget)
    sample = sampler.grown(text.plan(start), start)
    if sample is None:
        return None
    if start is not None and not start.places and row_start.num_places(text.frame_tokens):  # the encoder measures it
        start = replace(start, token_bits=_later_bits(sample.coded, start) / sample.coded.tokens.size)
    candidate = _candidate(places, text, start, sample, budget)
    if not LEVELS[settings.level].mixes:
        return ByModel(candidate, None)
    budget.says("coding the sample by the mixer alone")
    return ByModel(candidate, _alone(model.table.decode(sample.coded.tokens.reshape(-1)), sample.coded.bits))


@dataclass(frozen=True)
class _Text:
    """The text of a file before it is sampled.

    Attributes:
        model: what it would be compressed with.
        settings: the same.
        mixed: whether the mixer runs.
        per_byte: tokens for each byte, about.
        frame_tokens: of its largest frame.
    """

    model: LoadedModel
    settings: CompressSettings
    mixed: bool
    per_byte: float
    frame_tokens: int

    @classmethod
    def of(cls, places: Places, model: LoadedModel, settings: CompressSettings) -> _Text:
        """Looks at a few places of a file."""
        look = places.spread(64, 256)
        per_byte = max(1, sum(len(model.tokenizer.encode(piece)) for piece in look)) / sum(map(len, look))
        mixed = LEVELS[settings.level].mixes
        frame_tokens = max(1, int(min(places.text_bytes, PIECE_BYTES) * per_byte))
        return cls(model, settings, mixed, per_byte, frame_tokens)

    def plan(self, start: RowStart | None = None) -> RowPlan:
        """Returns the rows of a frame of the file."""
        level, prompt = self.settings.level, self.model.prompt(self.settings.prompt)
        prompt_tokens = 0 if prompt is None else len(prompt.context)
        return levels.level_plan(level, self.frame_tokens, self.model.engine, self.settings, prompt_tokens, start).rows

    def trial(self) -> Trial:
        """Returns what codes samples just as the file would be."""
        prompt = self.model.prompt(self.settings.prompt)
        return Trial(self.model, mixed=self.mixed, overlap=self.plan().overlap, prompt=prompt)


def _row_start(places: Places, text: _Text, plain: Candidate, prices: Prices, budget: Budget) -> RowStart | None:
    """Returns what a row's start costs, measured if there is time; None if that is part of what the levels mean."""
    engine = text.model.engine
    if text.settings.rows or not row_start.matters(text.model):
        return None
    usually = row_start.usual(engine, 8 * plain.size_bytes.value / (text.per_byte * places.text_bytes))
    affordable = int(_START_PART * budget.left / (row_start.PASSED_TOKENS * prices.token))
    count = min(affordable, row_start.num_places(text.frame_tokens))
    budget.says("measuring what the start of a row costs")
    pieces = places.spread(count, int(2 * row_start.RUN_TOKENS / text.per_byte))
    runs = [text.model.tokenizer.encode(piece)[: row_start.RUN_TOKENS] for piece in pieces]
    start = row_start.measured(engine, [run for run in runs if len(run) == row_start.RUN_TOKENS], usually)
    return start.mixed() if text.mixed else start


def _candidate(places: Places, text: _Text, start: RowStart | None, sample: _Sample, budget: Budget) -> Candidate:
    """Concludes from a sample to all text."""
    coded, decoded, trial, plan = sample.coded, sample.decoded, text.trial(), text.plan(start)
    engine = text.model.engine
    rows, steps = coded.tokens.shape
    prices = Prices.of(coded, decoded)
    budget.says("comparing the places of the sample")
    affordable = max(FIRST_STEPS, int(budget.left / 2 / (rows * prices.token)))  # one token says little of its place
    error = standard_error(*trial.row_bits(coded.tokens[:, : max(1, min(steps // 2, affordable))]))
    if text.mixed:
        size = bytes_in_frames(places.text_bytes, sample.rates, coded.num_bytes)
    else:  # nothing is learnt but from the row itself
        size = growth(sample.rates, math.log2(plan.steps / steps)).scaled(sample.rates[-1] * places.text_bytes / 8)
    frames = places.text_bytes / min(places.text_bytes, PIECE_BYTES)
    starts, unsure = 0.0, 0.0
    if start is not None:
        starts = frames * plan.num_rows * start.after(plan.steps) / 8
        if not start.places:
            sampled_starts = rows * start.after(steps) / 8 * places.text_bytes / coded.num_bytes
            unsure = _UNMEASURED_START * abs(sampled_starts - starts)
    encode, decode = prices.token, prices.step
    if engine.stepwise:
        encode += decoded.seconds / (rows * decoded.steps)  # the encoder tries whether it decodes
    else:
        more, decode = _later(trial, plan, sample, engine.context, budget)
        encode += more
    spread = max(MIN_TIME_SPREAD, 2 * decoded.spread)
    # Other rows would take other times.
    decode_spread = spread if start is None or start.places else spread + _UNMEASURED_SPREAD
    decode_seconds = Range.exactly(decode * plan.steps * frames).spread(decode_spread)
    if trial.guesses(plan.num_rows):
        decode_seconds = decode_seconds._replace(low=decode_seconds.low * (1 - _GUESSES_SPREAD))
    return Candidate(
        METHODS[MIXED if text.mixed else LM],
        size.scaled(1, starts).spread(2 * error + unsure / size.value).scaled(1, FRAME_BYTES * math.ceil(frames)),
        Range.exactly(encode * plan.num_tokens * frames).spread(spread),
        decode_seconds,
        coded.num_bytes,
        rows,
    )


class _Sampler:
    """Takes the beginnings of rows from places of a file.

    Args:
        text: of the file.
        budget: for all that it does.

    Attributes:
        prices: by a tiny sample.
    """

    def __init__(self, places: Places, text: _Text, budget: Budget) -> None:
        self._places, self._text, self._budget = places, text, budget
        self._trial = text.trial()
        self.prices = self._first_prices()

    def grown(self, plan: RowPlan, start: RowStart | None) -> _Sample | None:
        """Returns as many tokens as are coded and decoded in the time; None if all of the file takes no longer.

        The sample doubles its steps; where it would become longer than few rows are worth, it takes more rows.

        Args:
            plan: of a frame of the file.
            start: what the start of a row costs, which the sample's rates are without; None to count it as text.
        """
        trial, budget = self._trial, self._budget
        is_one_frame = self._places.size <= PIECE_BYTES
        reserve = _LATER_PART * budget.seconds
        rows, steps = self._first_rows(), FIRST_STEPS
        rates: list[float] = []
        decoded: Decoded | None = None
        while True:
            budget.says(f"coding {rows * steps:,} tokens of {rows} places")
            coded = trial.encode(self._beginnings(rows, steps))
            if not rates or decoded is None:
                decoded = trial.decode(coded)
            prices = Prices.of(coded, decoded)
            rates.append(coded.rate if start is None else _later_bits(coded, start) / coded.num_bytes)
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

    def _first_prices(self) -> Prices:
        """Returns what a tiny sample takes: coded twice, as the first time loads the mixer, unless that took long."""
        self._budget.says("measuring the speed")
        tokens, begun = self._beginnings(_PROBE_ROWS, _PROBE_STEPS), now()
        prices = self._probe(tokens)
        return self._probe(tokens) if now() - begun < max(self._budget.seconds, DEFAULT_SECONDS) / 16 else prices

    def _probe(self, tokens: np.ndarray) -> Prices:
        coded = self._trial.encode(tokens)
        return Prices.of(coded, self._trial.decode(coded))

    def _first_rows(self) -> int:
        """Returns how many rows samples begin with."""
        seconds = max(self._budget.left, DEFAULT_SECONDS) * (1 - _LATER_PART)
        return next((rows for rows in _ROWS if self.prices.first_samples(rows) < seconds), _ROWS[-1])

    def _beginnings(self, rows: int, steps: int) -> np.ndarray:
        """Returns the first tokens of pieces that are spread over the text; pieces that have fewer are left out."""
        max_bytes = max(16, self._places.text_bytes // rows)
        size = min(max_bytes, int(2 * steps / self._text.per_byte) + 32)
        while True:
            pieces = [self._text.model.tokenizer.encode(piece) for piece in self._places.spread(rows, size)]
            enough = [ids[:steps] for ids in pieces if len(ids) >= steps]
            if 2 * len(enough) >= rows or steps <= 4:
                return np.stack(enough or [ids[: min(map(len, pieces))] for ids in pieces])
            if size == max_bytes:
                steps //= 2
            size = min(max_bytes, 2 * size)


def _later_bits(coded: Coded, start: RowStart) -> float:
    """Returns what a sample's rows would need if they went on from earlier tokens."""
    rows, steps = map(int, coded.tokens.shape)
    starts = rows * start.after(steps)
    return max(coded.bits - starts, _MIN_LATER_PART * coded.bits)


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
    decoded, prices = sample.decoded, Prices.of(sample.coded, sample.decoded)
    steps = sample.coded.tokens.shape[1]
    length = min(plan.steps, context, _DEPTH)
    # A small sample of a fast model takes no time at all, and neither do these, however little of it is left.
    seconds = max(budget.left, _LATER_PART * budget.seconds)
    long_rows = min(plan.num_rows, trial.threads)  # a row's tokens alone do not keep all threads busy
    timed = Timed.within(seconds, length, long_rows, prices.steps(plan.num_rows, 1), prices)
    near = min(decoded.steps // 2, timed.depth)
    depths = sorted({near, min(512, timed.depth), timed.depth})
    budget.says(f"timing steps of {plan.num_rows} rows after up to {timed.depth:,} tokens")
    at = [trial.step_seconds(plan.num_rows, depth, timed.steps) for depth in depths]
    # The coder's and the mixer's part.
    beside = max(0.0, prices.step - trial.step_seconds(decoded.rows, near, timed.steps))
    reach = np.linspace(0, min(plan.steps, context), 64)
    beside *= plan.num_rows / decoded.rows
    step = float(_extended(reach, depths, at).mean()) + beside
    if trial.guesses(plan.num_rows):
        budget.says("decoding with guesses")
        step *= _guessed(trial, plan.num_rows, sample.coded.tokens, at[0] + beside, seconds)
    budget.says("timing the longest rows")
    short = trial.token_seconds(max(1, timed.tokens // steps), steps, timed.repeats)
    long = trial.token_seconds(long_rows, max(timed.depth, 1), timed.repeats)
    passes = 1.0
    if plan.steps > context:  # what a new context begins with goes through the model again
        again = -(-(plan.steps - context) // (context - plan.overlap)) * plan.overlap / plan.steps
        passes += again
        step += again * plan.num_rows * long
    return max(0.0, passes * long - short), step


def _extended(reach: np.ndarray, depths: list[int], at: list[float]) -> np.ndarray:
    """Returns the seconds of steps at any depth, from those at some: on lines between them.

    Beyond the last one they grow as they did just before it: layers with windows are full by then.
    """
    seconds = np.interp(reach, depths, at)
    growth_per_token = max(0.0, at[-1] - at[-2]) / (depths[-1] - depths[-2]) if len(depths) > 1 else 0.0
    extended: np.ndarray = seconds + growth_per_token * np.maximum(0, reach - depths[-1])
    return extended


def _guessed(trial: Trial, num_rows: int, tokens: np.ndarray, step_seconds: float, seconds: float) -> float:
    """Returns by what factor guesses shorten the steps of so many rows, at most 1.

    Args:
        tokens: (rows, steps) int64, of the sample; longer rows are guessed better, the more so the more repeats.
        step_seconds: of a step without guesses.
        seconds: that this may take.
    """
    steps = min(tokens.shape[1], int(seconds / step_seconds))
    if num_rows > len(tokens) or steps < _MIN_GUESSED_STEPS:
        return 1.0
    decoded = trial.decode(trial.encode(tokens[:num_rows, :steps]))
    return min(1.0, decoded.seconds / decoded.steps / step_seconds)
