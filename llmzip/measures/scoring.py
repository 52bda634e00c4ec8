"""What a model expects of every token of a text: bits, ranks, alternatives; must not know files, archives or measures.

Nothing is coded, so all goes through the model by prefill, whatever the engine. A token's costs come from the integers
that the coder would use: its frequency of 2^24 in the two coding steps is what an archive pays, its mass among all
masses is what the model itself says, before every token is given a frequency of at least 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engines.base import Engine
from ..engines.floating import FloatEngine
from ..engines.frequencies import TOTAL_BITS, Frequencies
from ..errors import ResourceError, SettingsError
from ..format.plan import RowPlan
from ..inference.passes import NOTHING, token_masses
from ..system.memory import allocations_checked

if TYPE_CHECKING:
    from ..inference.load import LoadedModel

Progress = Callable[[np.ndarray], None]

_LEAST_BATCH_TOKENS = 64
_FLOAT_LOGITS = 1 << 26
_LEAST_MASS = 0.5

_ID_BITS = 19
"""Ids are below 300,000."""


@dataclass(frozen=True)
class Scores:
    """What each token of a text costs; all arrays in the order of the text.

    Attributes:
        tokens: (N,) int64 ids.
        coded_bits: (N,) float64: -log2 of the integer frequencies, what method lm pays, a coder's end of some bytes
            apart.
        model_bits: (N,) float64: -log2 of the mass among all masses, the model's own probability. Masses are whole
            parts of 2^20 of the largest one, and one that is rounded to 0 counts as half a part.
        ranks: (N,) int32: how many ids are more likely, 0 for none; of equal masses the lower id comes first. None if
            they were not wanted.
        alternatives: (N, k) int32: the likeliest ids, in the order of the ranks; None if none were wanted.
        alternative_bits: (N, k) float64: what they would have cost, as `model_bits`; None likewise.
        context: most tokens that a prediction was made from.
        stride: tokens that each pass after a row's first one scores, behind context - stride known ones.
    """

    tokens: np.ndarray
    coded_bits: np.ndarray
    model_bits: np.ndarray
    ranks: np.ndarray | None
    alternatives: np.ndarray | None
    alternative_bits: np.ndarray | None
    context: int
    stride: int

    def part(self, places: slice) -> Scores:
        """The scores of neighbouring tokens."""

        def cut(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[places]

        return Scores(
            self.tokens[places],
            self.coded_bits[places],
            self.model_bits[places],
            cut(self.ranks),
            cut(self.alternatives),
            cut(self.alternative_bits),
            self.context,
            self.stride,
        )


def default_stride(context: int) -> int:
    """Half of the context: each prediction but a row's first ones is made from at least the other half."""
    return max(1, context // 2)


def score(
    model: LoadedModel,
    tokens: np.ndarray,
    context: int | None = None,
    stride: int | None = None,
    *,
    before: np.ndarray = NOTHING,
    ranks: bool = True,
    alternatives: int = 0,
    progress: Progress | None = None,
) -> Scores:
    """Scores one text.

    Args:
        model: with its engine.
        tokens: (N,) int64, 0 <= id < V.
        context: most tokens that a prediction is made from, the start token included; None for the engine's.
        stride: 1 to context; None for half of the context. 1 gives every token all the context there is, at the price
            of a pass of the whole context for each; the context itself is the cheapest: contexts do not overlap.
        before: (p,) int64, what the model has read before the text; of more than half of the context only the end
            counts. Contexts that begin anew do not go back to it.
        ranks: whether they are wanted.
        alternatives: how many likeliest ids to tell for each token.
        progress: called with the tokens that were just done.

    Raises:
        SettingsError: the context is longer than the engine's, or the stride out of range.
        ResourceError: there is not enough memory.
    """
    return _score(model, [tokens], context, stride, before, ranks, alternatives, progress)[0]


def score_many(
    model: LoadedModel,
    pieces: Sequence[np.ndarray],
    context: int | None = None,
    stride: int | None = None,
    *,
    before: np.ndarray = NOTHING,
    ranks: bool = False,
    alternatives: int = 0,
    progress: Progress | None = None,
) -> list[Scores]:
    """Scores texts that know nothing of each other, many at once; the rest as `score`."""
    return _score(model, pieces, context, stride, before, ranks, alternatives, progress)


def score_rows(
    model: LoadedModel,
    tokens: np.ndarray,
    plan: RowPlan,
    context: int | None = None,
    *,
    before: np.ndarray = NOTHING,
    ranks: bool = False,
    alternatives: int = 0,
    progress: Progress | None = None,
) -> Scores:
    """Scores a text that lies in rows, such as those of a frame; the rest as `score`.

    Args:
        plan: with num_tokens == N; its overlap is 0 to context - 1.
    """
    engine = model.engine
    context = checked_context(engine, context)
    if not 0 <= plan.overlap < context:
        raise SettingsError(f"the stride must be 1 to the context of {context:,}, not {context - plan.overlap:,}")
    before = before[-max(1, context // 2) :] if context > 1 else NOTHING
    while True:
        sink = _Sink(tokens, engine, ranks, min(alternatives, engine.vocab_size))
        try:
            with allocations_checked("not enough memory for the model"):
                for places, masses in _masses(engine, tokens, plan, progress, before, context):
                    sink.add(places, masses)
            return sink.finish(context, context - plan.overlap)
        except ResourceError:
            if engine.batch_tokens <= _LEAST_BATCH_TOKENS or isinstance(engine, FloatEngine):
                raise
            engine.batch_tokens //= 2
            progress = None  # what is done again is not told again


def checked_context(engine: Engine[Any], context: int | None) -> int:
    """The context to score with.

    Raises:
        SettingsError: the engine's is shorter.
    """
    if context is None:
        return engine.context
    if not 1 <= context <= engine.context:
        raise SettingsError(f"a context of {context:,} tokens is out of range: the model takes 1 to {engine.context:,}")
    return context


def _score(
    model: LoadedModel,
    pieces: Sequence[np.ndarray],
    context: int | None,
    stride: int | None,
    before: np.ndarray,
    ranks: bool,
    alternatives: int,
    progress: Progress | None,
) -> list[Scores]:
    context = checked_context(model.engine, context)
    overlap = context - (default_stride(context) if stride is None else stride)
    # Rows take part in a step as long as they last, so the long ones come first.
    order = sorted(range(len(pieces)), key=lambda number: -len(pieces[number]))
    lengths = tuple(len(pieces[number]) for number in order)
    tokens = np.concatenate([NOTHING, *(pieces[number] for number in order)])
    filled = tuple(length for length in lengths if length)
    plan = _Pieces(len(tokens), len(filled), overlap, filled)
    scores = score_rows(
        model, tokens, plan, context, before=before, ranks=ranks, alternatives=alternatives, progress=progress
    )
    found: list[Scores] = [scores] * len(pieces)
    begin = 0
    for number, length in zip(order, lengths, strict=True):
        found[number] = scores.part(slice(begin, begin + length))
        begin += length
    return found


@dataclass(frozen=True)
class _Pieces(RowPlan):
    """Rows of any lengths, which fall."""

    lengths: tuple[int, ...]

    @property
    def steps(self) -> int:
        return max(self.lengths, default=0)

    def active_rows(self, step: int) -> int:
        return sum(length > step for length in self.lengths)

    def row_starts(self) -> list[int]:
        return [0, *np.cumsum(self.lengths, dtype=np.int64).tolist()]


def _masses(
    engine: Engine[Any] | FloatEngine,
    tokens: np.ndarray,
    plan: RowPlan,
    progress: Progress | None,
    before: np.ndarray,
    context: int,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Masses of all tokens, some at a time."""
    if not len(tokens):
        return iter(())
    if isinstance(engine, FloatEngine):
        whole: Any = _FloatPrefill(engine, context)  # an engine but for the caches, which it never needs
        return token_masses(whole, tokens, plan, progress, before, context, context)
    return token_masses(engine, tokens, plan, progress, before, context)


class _FloatPrefill:
    """The float engine as one that is fed whole contexts at once.

    That gives other last bits than its steps do, which would spoil an archive and change nothing here.
    """

    stepwise = False

    def __init__(self, engine: FloatEngine, context: int) -> None:
        self.vocab_size, self.start_token, self.device = engine.vocab_size, engine.start_token, engine.device
        self.context = context
        self.batch_tokens = max(context, _FLOAT_LOGITS // engine.vocab_size)
        self.masses = engine.masses
        self._engine = engine

    def forward(self, ids: torch.Tensor, cache: None = None) -> torch.Tensor:
        """Logits behind all inputs, (B, T, V) float32."""
        return self._engine.prefill(ids)


class _Sink:
    """Takes masses and keeps the few integers that matter of each token's."""

    def __init__(self, tokens: np.ndarray, engine: Engine[Any], ranks: bool, alternatives: int) -> None:
        size = len(tokens)
        self._tokens = tokens
        self._frequencies = Frequencies(engine.vocab_size)
        # Product of the two steps' frequencies, mass, sum of masses.
        self._numbers = np.ones((3, size), dtype=np.int64)
        self._ranks = np.zeros(size, dtype=np.int32) if ranks else None
        self._alternatives = np.zeros((2, size, alternatives), dtype=np.int32) if alternatives else None

    @torch.inference_mode()
    def add(self, places: np.ndarray, masses: torch.Tensor) -> None:
        """The masses, (n, V) int32, of some of the tokens."""
        targets = torch.from_numpy(self._tokens[places]).to(masses.device)
        sums = self._frequencies.sums(masses, targets, self._ranks is not None)
        intervals = self._frequencies.intervals_of(sums, targets)
        numbers = torch.stack([intervals[:, 1] * intervals[:, 3], sums[:, 2] - sums[:, 1], sums[:, 4]])
        self._numbers[:, places] = numbers.cpu().numpy()
        if self._ranks is not None:
            self._ranks[places] = sums[:, 5].cpu().numpy()
        if self._alternatives is not None:
            count = self._alternatives.shape[2]
            ids = torch.arange((1 << _ID_BITS) - 1, (1 << _ID_BITS) - 1 - masses.shape[1], -1, device=masses.device)
            keys = (masses.to(torch.int64) << _ID_BITS).add_(ids).topk(count).values
            self._alternatives[0, places] = ((1 << _ID_BITS) - 1 - (keys & ((1 << _ID_BITS) - 1))).cpu().numpy()
            self._alternatives[1, places] = (keys >> _ID_BITS).cpu().numpy()

    def finish(self, context: int, stride: int) -> Scores:
        """Everything in bits."""
        product, mass, total = self._numbers
        all_bits = np.log2(total)
        ids = bits = None
        if self._alternatives is not None:
            ids = self._alternatives[0]
            bits = all_bits[:, None] - np.log2(np.maximum(self._alternatives[1], _LEAST_MASS))
        return Scores(
            self._tokens,
            2 * TOTAL_BITS - np.log2(product),
            all_bits - np.log2(np.maximum(mass, _LEAST_MASS)),
            self._ranks,
            ids,
            bits,
            context,
            stride,
        )
