"""How far texts are from each other by code lengths given one another; must not know files, options or terminals.

Source: "Approximating Human-Like Few-shot Learning with GPT-based Compression" (arXiv 2308.06942): the code length of a
text behind another one stands for the conditional Kolmogorov complexity. docs/distance.md has the formulas.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SettingsError

if TYPE_CHECKING:
    import numpy as np

    from ..inference.load import LoadedModel

Progress = Callable[[int], object]

MEASURES = {
    "max": "the larger conditional length by the larger length alone: the normalised information distance",
    "mean": "the sum of both conditional lengths by the sum of the lengths alone",
    "ncd": "normalised compression distance by the model, the row's text before the column's",
    "gzip": "normalised compression distance by gzip -9, the row's text before the column's",
    "given": "the row's text given the column's, by its length alone",
    "bits": "bits of the row's text given the column's; alone on the diagonal",
}
"""What `Distances.matrix` can tell: of equal texts the first five are near 0, of unlike ones near 1."""

_GZIP_LEVEL = 9


@dataclass(frozen=True)
class Distances:
    """Code lengths of n texts.

    Attributes:
        num_bytes, num_tokens: of each.
        alone: (n,) float64, bits of each text by itself, C(x).
        given: (n, n) float64, C(x|y) for row x and column y; C(x) on the diagonal.
        gzip_alone: (n,) int64, bytes of each text's gzip file.
        gzip_both: (n, n) int64, bytes of the gzip file of row and column one behind the other.
    """

    num_bytes: list[int]
    num_tokens: list[int]
    alone: np.ndarray
    given: np.ndarray
    gzip_alone: np.ndarray
    gzip_both: np.ndarray

    def matrix(self, measure: str = "max") -> np.ndarray:
        """(n, n) float64 by one of MEASURES, 0 on the diagonal but for bits.

        Raises:
            SettingsError: there is no such measure.
        """
        import numpy as np  # not before it is needed: --help must be quick

        if measure not in MEASURES:
            raise SettingsError(f"measure {measure!r} is not one of {', '.join(MEASURES)}")
        alone, given = self.alone, self.given
        found: np.ndarray = given.copy()
        if measure == "bits":
            return found
        least, most = np.minimum.outer(alone, alone), np.maximum.outer(alone, alone)
        if measure == "max":
            found = np.maximum(given, given.T) / most
        elif measure == "mean":
            found = (given + given.T) / np.add.outer(alone, alone)
        elif measure == "ncd":
            # C(xy) is C(x) + C(y|x): a model needs no coder to put one text behind the other.
            found = (alone[:, None] + given.T - least) / most
        elif measure == "gzip":
            size = self.gzip_alone
            found = (self.gzip_both - np.minimum.outer(size, size)) / np.maximum.outer(size, size)
        else:
            found = given / alone[:, None]
        np.fill_diagonal(found, 0.0)
        return found


def most_tokens(context: int) -> int:
    """Tokens that a text may have: as a condition it takes half of a context, and the other text the rest."""
    return max(1, context // 2) - 1


def joined(first: bytes, second: bytes) -> bytes:
    """One text behind the other, each on lines of its own."""
    return _as_lines(first) + second


def measure_distances(
    model: LoadedModel,
    texts: Sequence[bytes],
    *,
    first_tokens: int | None = None,
    begin: Callable[[int, float], Progress | None] | None = None,
) -> Distances:
    """Measures all texts by themselves and behind each other.

    Args:
        model: with its engine.
        texts: at least 1 byte each.
        first_tokens: only so many tokens of each text count.
        begin: called once the lengths alone are known, with the tokens that have to go through the model for the
            others and with the seconds that they may take; returns what is to be called with numbers of tokens, or
            None. What it raises ends the measuring.

    Raises:
        SettingsError: a text is empty, or too long.
    """
    import time

    import numpy as np

    from .scoring import score_many

    tokenizer = model.tokenizer
    most = most_tokens(model.engine.context)
    pieces, conditions, kept = [], [], []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text)[:first_tokens]
        if not len(ids):
            raise SettingsError(f"text {number} is empty")
        if len(ids) > most:
            raise SettingsError(f"text {number} has {len(ids):,} tokens, the model compares {most:,} at most")
        pieces.append(ids)
        kept.append(tokenizer.table.decode(ids) if first_tokens else text)
        conditions.append(tokenizer.encode(_as_lines(kept[-1])))
    begun = time.perf_counter()
    alone = np.array([scores.model_bits.sum() for scores in score_many(model, pieces)])
    total = sum(map(len, pieces))
    behind = (len(pieces) - 1) * (total + sum(map(len, conditions)))
    seconds = (time.perf_counter() - begun) * behind / total
    progress = None if begin is None else begin(behind, seconds)
    given = np.diag(alone)
    for number, condition in enumerate(conditions):
        others = [other for other in range(len(pieces)) if other != number]
        found = score_many(model, [pieces[other] for other in others], before=condition)
        for other, scores in zip(others, found, strict=True):
            given[other, number] = scores.model_bits.sum()
        if progress is not None:
            progress(total - len(pieces[number]) + len(condition) * len(others))
    size = np.array([_gzip_bytes(text) for text in kept])
    both = np.array([[_gzip_bytes(joined(one, two)) for two in kept] for one in kept])
    return Distances([len(text) for text in kept], [len(ids) for ids in pieces], alone, given, size, both)


def _as_lines(text: bytes) -> bytes:
    return text if text.endswith(b"\n") else text + b"\n"


def _gzip_bytes(data: bytes) -> int:
    """Of a whole file: 18 of them are gzip's own."""
    return len(gzip.compress(data, _GZIP_LEVEL, mtime=0))
