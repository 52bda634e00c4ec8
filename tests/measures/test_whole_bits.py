"""Whole bits of a text: what exact arithmetic says, however close the sum is to a whole number."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from llmzip.measures import entropy, whole_bits
from llmzip.measures.scoring import Scorer, Scores


def rounded_up(numerators: np.ndarray, denominators: np.ndarray) -> int:
    """The least number of bits whose power of two is not below the product of all ratios."""
    ratio = math.prod(map(Fraction, numerators.tolist(), denominators.tolist()))
    bits = 0
    while 2**bits < ratio:
        bits += 1
    return bits


def test_sums_are_rounded_up(rng: np.random.Generator, effort: int) -> None:
    for size in (0, 1, 2, 3, 17, 100):
        for _ in range(5 * effort):
            denominators = rng.integers(1, 1 << 47, size)
            numerators = denominators + rng.integers(0, 1 << 47, size)
            expected = rounded_up(numerators, denominators)
            assert whole_bits.whole_bits(numerators, denominators) == expected
            assert whole_bits._exact(numerators, denominators) == expected


@pytest.mark.parametrize(("more", "bits"), [(-1, 94), (0, 94), (1, 95)])
def test_integers_decide_where_logarithms_cannot(more: int, bits: int) -> None:
    # The sum is 94 but for 10^-14 of a bit.
    numerators = np.array([1 << 47, (1 << 47) + more], dtype=np.int64)
    denominators = np.ones(2, dtype=np.int64)
    assert whole_bits.whole_bits(numerators, denominators) == bits
    assert 94 - 1e-12 < np.log2(numerators).sum() < 94 + 1e-12


def test_a_scored_text_has_the_bits_of_its_scores_rounded_up() -> None:
    from llmzip.inference.load import load
    from llmzip.models.choice import choose_model
    from llmzip.settings import EngineSettings

    model = load(choose_model("small"), EngineSettings(device="cpu"))
    texts = [b"", b"x", b"The ferry was late again, and the wind came over the harbour wall. \xff\x00"]
    for scores in Scorer(model).score_many([model.tokenizer.encode(text) for text in texts]):
        assert whole_bits.model_bits(scores) == math.ceil(entropy.total(scores.model_bits) - 1e-9)
        assert whole_bits.coded_bits(scores) == math.ceil(entropy.total(scores.coded_bits) - 1e-9)


def test_scores_without_integers_are_refused() -> None:
    empty = np.zeros(0)
    with pytest.raises(ValueError, match="without the integers"):
        whole_bits.model_bits(Scores(empty, empty, empty, None, None, None, 8, 4))
