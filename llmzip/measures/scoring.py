"""Scores the tokens of texts with a model: bits, ranks, alternatives; must not know files, archives or measures.

Nothing is coded, so texts go through the model by prefill, whatever the engine. A token's costs come from the integers
that the coder would use: its frequency of 2^24 in the two coding steps is what an archive pays, its mass among all
masses is what the model itself says, before every token is given a frequency of at least 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.arrays import Array
from ..engines.base import Engine
from ..engines.frequencies import TOTAL_BITS
from ..errors import SettingsError
from ..format.plan import RowLayout
from ..inference.capacity import with_smaller_batches
from ..inference.passes import NOTHING, Segment, masses_in_parts, segments, token_masses
from ..inference.progress import TokenProgress

if TYPE_CHECKING:
    from ..engines.floating import FloatEngine
    from ..inference.load import LoadedModel

_MAX_FLOAT_LOGITS = 1 << 26
"""Logits of a batch of the float engine, 256 MiB."""

_MIN_MASS = 0.5
"""What a mass that was rounded to 0 counts as."""


@dataclass(frozen=True)
class Scores:
    """What each token of a text costs; all arrays are in the order of the text.

    Attributes:
        tokens: (N,) int64, the ids.
        coded_bits: (N,) float64, -log2 of the integer frequencies: what method lm pays, but for the few bytes that end
            a payload.
        model_bits: (N,) float64, -log2 of the mass among all masses: the model's own probability. Masses are whole
            multiples of 2^-20 of the largest one, of large vocabularies down to 2^-28, and one that was rounded
            to 0 counts as half of that.
        ranks: (N,) int32, how many ids are more likely, 0 for none; of equal masses the lower id comes first. None if
            they were not requested.
        alternatives: (N, k) int32, the likeliest ids, in the order of the ranks; None if none were requested.
        alternative_bits: (N, k) float64, what they would have cost, as `model_bits`; None likewise.
        context: tokens that a prediction was made from, at most.
        stride: tokens that each pass after a row's first one scores, after context - stride known ones.
        integers: (3, N) int64, what all bits are computed from: the product of the two steps' frequencies, the mass and
            the sum of all masses; None where only the bits are known.
    """

    tokens: np.ndarray
    coded_bits: np.ndarray
    model_bits: np.ndarray
    ranks: np.ndarray | None
    alternatives: np.ndarray | None
    alternative_bits: np.ndarray | None
    context: int
    stride: int
    integers: np.ndarray | None = None

    def part(self, places: slice) -> Scores:
        """Returns the scores of consecutive tokens."""

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
            None if self.integers is None else self.integers[:, places],
        )


def default_stride(context: int) -> int:
    """Returns half of the context: all predictions but a row's first ones are then made from at least the rest."""
    return max(1, context // 2)


def checked_context(engine: Engine[Any], context: int | None) -> int:
    """Returns the context to score with, in tokens.

    Raises:
        SettingsError: the engine's context is shorter.
    """
    if context is None:
        return engine.context
    if not 1 <= context <= engine.context:
        raise SettingsError(f"a context of {context:,} tokens is out of range: the model takes 1 to {engine.context:,}")
    return context


@dataclass(frozen=True)
class Scorer:
    """Scores texts with one model, all in the same way.

    Attributes:
        model: the model, with its engine.
        context: tokens that a prediction is made from, at most, the start token included; None for the engine's.
        stride: 1 to context; None for half of the context. 1 gives every token all the context there is, at the price
            of a pass of the whole context for each; the context itself is the cheapest: contexts do not overlap.
        before: (p,) int64, what the model has read before each text; of more than half of the context only the end
            counts. Contexts that are restarted do not go back to it.
        ranks: whether to find the rank of each token.
        alternatives: number of likeliest ids to find for each token.
        progress: called with the tokens that were just scored.
    """

    model: LoadedModel
    context: int | None = None
    stride: int | None = None
    _: KW_ONLY
    before: np.ndarray = field(default_factory=lambda: NOTHING)
    ranks: bool = False
    alternatives: int = 0
    progress: TokenProgress | None = None

    def score(self, tokens: np.ndarray) -> Scores:
        """Scores one text.

        Args:
            tokens: (N,) int64, 0 <= id < V.

        Raises:
            SettingsError: the context is longer than the engine's, or the stride is out of range.
            ResourceError: there is not enough memory.
        """
        return self.score_many([tokens])[0]

    def score_many(self, pieces: Sequence[np.ndarray]) -> list[Scores]:
        """Scores texts that know nothing of each other, many at once; errors as with `score`."""
        context = checked_context(self.model.engine, self.context)
        overlap = context - (default_stride(context) if self.stride is None else self.stride)
        # Rows take part in a step as long as they last, so the long ones come first.
        order = sorted(range(len(pieces)), key=lambda number: -len(pieces[number]))
        lengths = tuple(len(pieces[number]) for number in order)
        tokens = np.concatenate([NOTHING, *(pieces[number] for number in order)])
        scores = self.score_rows(tokens, _UnevenRows(tuple(filter(None, lengths)), overlap))
        parts: list[Scores] = [scores] * len(pieces)
        begin = 0
        for number, length in zip(order, lengths, strict=True):
            parts[number] = scores.part(slice(begin, begin + length))
            begin += length
        return parts

    def score_rows(self, tokens: np.ndarray, plan: RowLayout) -> Scores:
        """Scores a text that is laid out in rows, such as those of a frame; errors as with `score`.

        Args:
            tokens: (N,) int64, row after row.
            plan: the rows, with N tokens; their overlap, 0 to context - 1, takes the place of the stride.
        """
        engine = self.model.engine
        context = checked_context(engine, self.context)
        if not 0 <= plan.overlap < context:
            raise SettingsError(f"the stride must be 1 to the context of {context:,}, not {context - plan.overlap:,}")

        def work(progress: TokenProgress | None) -> Scores:
            sink = _Sink(tokens, engine, self.ranks, min(self.alternatives, engine.vocab_size))
            for places, masses in self._masses(tokens, plan, context, progress):
                sink.add(places, masses)
            return sink.finish(context, context - plan.overlap)

        return with_smaller_batches(engine, work, self.progress)

    def _masses(
        self, tokens: np.ndarray, plan: RowLayout, context: int, progress: TokenProgress | None
    ) -> Iterator[tuple[np.ndarray, Array]]:
        """Yields places of tokens and their masses, as `token_masses`."""
        engine: Any = self.model.engine
        before = self.before[-max(1, context // 2) :] if context > 1 else NOTHING
        if not len(tokens):
            return iter(())
        if hasattr(engine, "prefill"):  # the float engine, whose module imports torch
            return _whole_context_masses(engine, tokens, plan, before, context, progress)
        return token_masses(engine, tokens, plan, progress, before, context)


@dataclass(frozen=True)
class _UnevenRows:
    """Rows of any lengths, none of them longer than the one before it.

    Attributes:
        lengths: tokens of each row, at least 1.
        overlap: known inputs that a new context begins with.
    """

    lengths: tuple[int, ...]
    overlap: int

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    @property
    def steps(self) -> int:
        return max(self.lengths, default=0)

    def active_rows(self, step: int) -> int:
        return sum(length > step for length in self.lengths)

    def row_starts(self) -> list[int]:
        return [0, *itertools.accumulate(self.lengths)]

    def row_slices(self) -> list[slice]:
        return [slice(begin, end) for begin, end in itertools.pairwise(self.row_starts())]


def _whole_context_masses(
    engine: FloatEngine,
    tokens: np.ndarray,
    plan: RowLayout,
    before: np.ndarray,
    context: int,
    progress: TokenProgress | None,
) -> Iterator[tuple[np.ndarray, Array]]:
    """Yields what `token_masses` yields, feeding the float engine whole contexts at once.

    That gives other last bits than its steps do, which would spoil an archive and changes nothing here.
    """
    slices, skipped = plan.row_slices(), len(before)
    front = np.concatenate([[engine.start_token], before])
    inputs = [np.concatenate([front, tokens[part]])[:-1] for part in slices]
    shapes: dict[tuple[int, int], list[Segment]] = {}
    for row, row_inputs in enumerate(inputs):
        for segment in segments(row, len(row_inputs), context, plan.overlap, skipped):
            shapes.setdefault((segment.end - segment.begin, segment.known), []).append(segment)
    for (length, known), equal in sorted(shapes.items(), key=lambda item: item[0]):
        size = max(1, max(context, _MAX_FLOAT_LOGITS // engine.vocab_size) // length)
        for batch in (equal[n : n + size] for n in range(0, len(equal), size)):
            ids = np.stack([inputs[segment.row][segment.begin : segment.end] for segment in batch])
            starts = np.array([slices[segment.row].start - skipped + segment.begin for segment in batch])
            places = (starts[:, None] + np.arange(known, length)).reshape(-1)
            logits = engine.prefill(ids)[:, known:]
            for part, masses in masses_in_parts(engine, logits.reshape(len(places), -1)):
                yield places[part], masses
            if progress is not None:
                progress(tokens[places])


class _Sink:
    """Keeps the few integers of each token's masses that its scores need."""

    def __init__(self, tokens: np.ndarray, engine: Engine[Any], ranks: bool, alternatives: int) -> None:
        size = len(tokens)
        self._tokens = tokens
        self._frequencies = engine.readout().frequencies
        # Product of the two steps' frequencies, mass, sum of masses.
        self._numbers = np.ones((3, size), dtype=np.int64)
        self._ranks = np.zeros(size, dtype=np.int32) if ranks else None
        self._alternatives = np.zeros((2, size, alternatives), dtype=np.int32) if alternatives else None

    def add(self, places: np.ndarray, masses: Array) -> None:
        """Takes the masses, (n, V) int32, of the tokens at some places, (n,) int64."""
        targets = self._tokens[places]
        sums = self._frequencies.sums(masses, targets, self._ranks is not None)
        intervals = self._frequencies.intervals_of(sums, targets)
        self._numbers[:, places] = (intervals[:, 1] * intervals[:, 3], sums[:, 2] - sums[:, 1], sums[:, 4])
        if self._ranks is not None:
            self._ranks[places] = sums[:, 5]
        if self._alternatives is not None:
            self._alternatives[:, places] = self._frequencies.likeliest(masses, self._alternatives.shape[2])

    def finish(self, context: int, stride: int) -> Scores:
        """Converts the collected integers to bits."""
        product, mass, total = self._numbers
        all_bits = np.log2(total)
        ids = bits = None
        if self._alternatives is not None:
            ids = self._alternatives[0]
            bits = all_bits[:, None] - np.log2(np.maximum(self._alternatives[1], _MIN_MASS))
        return Scores(
            self._tokens,
            2 * TOTAL_BITS - np.log2(product),
            all_bits - np.log2(np.maximum(mass, _MIN_MASS)),
            self._ranks,
            ids,
            bits,
            context,
            stride,
            self._numbers,
        )
