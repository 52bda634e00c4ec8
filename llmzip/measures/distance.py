"""Distances between texts: how many bits one text saves when the other is known; must not know files or options.

If y says much of what x says, a model that has read y needs few bits for x. Source: "Approximating Human-Like Few-shot
Learning with GPT-based Compression" (arXiv 2308.06942), where the code length of a text after another one stands for
the conditional Kolmogorov complexity. docs/distance.md has the formulas.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..inference.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from ..inference.load import LoadedModel

MEASURES = {
    "max": "the larger conditional length over the larger length alone: the normalised information distance",
    "mean": "the sum of both conditional lengths over the sum of the lengths alone",
    "ncd": "normalised compression distance by the model, the row's text before the column's",
    "gzip": "normalised compression distance by gzip -9, the row's text before the column's",
    "given": "the length of the row's text given the column's, over its length alone",
    "bits": "bits of the row's text given the column's; alone on the diagonal",
}
"""The measures of `Distances.matrix`: the first five are near 0 for equal texts and near 1 for unlike ones."""

_GZIP_LEVEL = 9


@dataclass(frozen=True)
class Distances:
    """Code lengths of n texts.

    Attributes:
        num_bytes, num_tokens: size of each text.
        alone: (n,) float64, C(x), the bits of each text by itself.
        given: (n, n) float64, C(x|y) for row x and column y; C(x) on the diagonal.
        gzip_alone: (n,) int64, size in bytes of each text's gzip file.
        gzip_both: (n, n) int64, size in bytes of the gzip file of the row's text followed by the column's.
    """

    num_bytes: list[int]
    num_tokens: list[int]
    alone: np.ndarray
    given: np.ndarray
    gzip_alone: np.ndarray
    gzip_both: np.ndarray

    def matrix(self, measure: str = "max") -> np.ndarray:
        """Computes the distances of all pairs.

        Args:
            measure: one of MEASURES.

        Returns:
            (n, n) float64, 0 on the diagonal except for bits.

        Raises:
            SettingsError: there is no such measure.
        """
        import numpy as np  # not before it is needed: --help must be quick

        if measure not in MEASURES:
            raise SettingsError(f"measure {measure!r} is not one of {', '.join(MEASURES)}")
        alone, given = self.alone, self.given
        if measure == "bits":
            bits: np.ndarray = given.copy()
            return bits
        smaller, larger = np.minimum.outer(alone, alone), np.maximum.outer(alone, alone)
        distances: np.ndarray
        if measure == "max":
            distances = np.maximum(given, given.T) / larger
        elif measure == "mean":
            distances = (given + given.T) / np.add.outer(alone, alone)
        elif measure == "ncd":
            # C(xy) is C(x) + C(y|x): a model needs no coder to put one text after the other.
            distances = (alone[:, None] + given.T - smaller) / larger
        elif measure == "gzip":
            size = self.gzip_alone
            distances = (self.gzip_both - np.minimum.outer(size, size)) / np.maximum.outer(size, size)
        else:
            distances = given / alone[:, None]
        np.fill_diagonal(distances, 0.0)
        return distances


def most_tokens(context: int) -> int:
    """Returns how many tokens a text may have: as a condition it takes half of a context, the other text the rest."""
    return max(1, context // 2) - 1


def joined(first: bytes, second: bytes) -> bytes:
    """Joins two texts, each on lines of its own."""
    return _as_lines(first) + second


def measure_distances(
    model: LoadedModel,
    texts: Sequence[bytes],
    *,
    first_tokens: int | None = None,
    begin: Callable[[int, float], Progress | None] | None = None,
) -> Distances:
    """Measures all texts by themselves and after each other.

    Args:
        model: the model, with its engine.
        texts: texts of at least 1 byte.
        first_tokens: how many tokens of each text count, at most; None for all.
        begin: called when the lengths alone are known, with the number of tokens that still have to go through the
            model and with an estimate of the seconds that this takes. Returns a callback for numbers of tokens, or
            None. What it raises ends the measuring.

    Raises:
        SettingsError: a text is empty, or too long.
    """
    import time

    import numpy as np

    from .scoring import Scorer

    tokenizer = model.tokenizer
    max_tokens = most_tokens(model.engine.context)
    pieces, conditions, kept = [], [], []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text)[:first_tokens]
        if not len(ids):
            raise SettingsError(f"text {number} is empty")
        if len(ids) > max_tokens:
            raise SettingsError(f"text {number} has {len(ids):,} tokens, the model compares at most {max_tokens:,}")
        pieces.append(ids)
        kept.append(tokenizer.table.decode(ids) if first_tokens else text)
        conditions.append(tokenizer.encode(_as_lines(kept[-1])))
    begun = time.perf_counter()
    alone = np.array([scores.model_bits.sum() for scores in Scorer(model).score_many(pieces)])
    total = sum(map(len, pieces))
    num_tokens = (len(pieces) - 1) * (total + sum(map(len, conditions)))
    seconds = (time.perf_counter() - begun) * num_tokens / total
    progress = None if begin is None else begin(num_tokens, seconds)
    given = np.diag(alone)
    for number, condition in enumerate(conditions):
        others = [other for other in range(len(pieces)) if other != number]
        conditional = Scorer(model, before=condition).score_many([pieces[other] for other in others])
        for other, scores in zip(others, conditional, strict=True):
            given[other, number] = scores.model_bits.sum()
        if progress is not None:
            progress(total - len(pieces[number]) + len(condition) * len(others))
    size = np.array([_gzip_bytes(text) for text in kept])
    both = np.array([[_gzip_bytes(joined(one, two)) for two in kept] for one in kept])
    return Distances([len(text) for text in kept], [len(ids) for ids in pieces], alone, given, size, both)


def _as_lines(text: bytes) -> bytes:
    """Ends a text with a newline if it has none."""
    return text if text.endswith(b"\n") else text + b"\n"


def _gzip_bytes(data: bytes) -> int:
    """Returns the size of a gzip file of some data; 18 bytes of it are gzip's own."""
    return len(gzip.compress(data, _GZIP_LEVEL, mtime=0))
