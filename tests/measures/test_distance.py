"""Distances are those of the formulas, from scores of single texts; empty and long texts are refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmzip.errors import SettingsError
from llmzip.inference import load
from llmzip.inference.load import LoadedModel
from llmzip.measures.distance import MEASURES, Distances, joined, measure_distances, most_tokens
from llmzip.measures.scoring import Scorer
from llmzip.models.choice import model_for_compressing
from llmzip.settings import CompressSettings, EngineSettings

TEXTS = [
    b"The ferry leaves the harbour at nine and comes back in the evening.\n",
    b"At nine the ferry leaves the harbour; in the evening it comes back.",
    b"for row in rows:\n    total += row.price * row.count\n",
]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load.load(model_for_compressing(CompressSettings(model="small")), EngineSettings())


@pytest.fixture(scope="module")
def found(model: LoadedModel) -> Distances:
    return measure_distances(model, TEXTS)


def test_lengths_are_those_of_single_scores(model: LoadedModel, found: Distances) -> None:
    encode = model.tokenizer.encode
    for one, text in enumerate(TEXTS):
        assert found.num_bytes[one] == len(text) and found.num_tokens[one] == len(encode(text))
        alone = Scorer(model).score(encode(text)).model_bits.sum()
        assert found.alone[one] == found.given[one, one] == pytest.approx(alone)
        for two, other in enumerate(TEXTS):
            if one != two:
                before = encode(other if other.endswith(b"\n") else other + b"\n")
                given = Scorer(model, before=before).score(encode(text)).model_bits.sum()
                assert found.given[one, two] == pytest.approx(given)


def test_the_formulas(found: Distances) -> None:
    alone, given = found.alone, found.given
    matrices = {name: found.matrix(name) for name in MEASURES}
    for x in range(3):
        for y in range(3):
            if x == y:
                assert all(matrices[name][x, x] == 0 for name in MEASURES if name != "bits")
                continue
            most, least = max(alone[x], alone[y]), min(alone[x], alone[y])
            assert matrices["max"][x, y] == pytest.approx(max(given[x, y], given[y, x]) / most)
            assert matrices["mean"][x, y] == pytest.approx((given[x, y] + given[y, x]) / (alone[x] + alone[y]))
            assert matrices["ncd"][x, y] == pytest.approx((alone[x] + given[y, x] - least) / most)
            assert matrices["given"][x, y] == pytest.approx(given[x, y] / alone[x])
            sizes = [len(gzip.compress(data, 9, mtime=0)) for data in (TEXTS[x], TEXTS[y], joined(TEXTS[x], TEXTS[y]))]
            gzip_ncd = (sizes[2] - min(sizes[:2])) / max(sizes[:2])
            assert matrices["gzip"][x, y] == pytest.approx(gzip_ncd)
    assert np.array_equal(matrices["bits"], given)
    assert np.allclose(matrices["max"], matrices["max"].T) and np.allclose(matrices["mean"], matrices["mean"].T)


def test_what_says_the_same_is_near(found: Distances) -> None:
    for name in ("max", "mean", "ncd", "given", "gzip"):
        matrix = found.matrix(name)
        assert matrix[0, 1] < matrix[0, 2] and matrix[0, 1] < matrix[1, 2]
        assert matrix[0, 1] < 0.9
    assert found.given[2, 0] < 1.2 * found.alone[2]


def test_equal_texts_are_nearest(model: LoadedModel) -> None:
    distances = measure_distances(model, [TEXTS[0], TEXTS[0]])
    assert distances.matrix("max")[0, 1] < 0.5


def test_an_unknown_measure(found: Distances) -> None:
    with pytest.raises(SettingsError, match="not one of max, mean"):
        found.matrix("euclid")


def test_texts_are_joined_by_lines() -> None:
    assert joined(b"a\n", b"b") == b"a\nb" and joined(b"a", b"b") == b"a\nb"


def test_only_beginnings(model: LoadedModel) -> None:
    cut = measure_distances(model, TEXTS, first_tokens=5)
    assert cut.num_tokens == [5, 5, 5]
    pieces = [model.table.decode(model.tokenizer.encode(text)[:5]) for text in TEXTS]
    whole = measure_distances(model, pieces)
    assert cut.num_bytes == whole.num_bytes and np.array_equal(cut.gzip_both, whole.gzip_both)
    assert cut.alone == pytest.approx(whole.alone)


def test_what_is_refused(model: LoadedModel) -> None:
    assert most_tokens(16384) == 8191
    with pytest.raises(SettingsError, match="text 1 is empty"):
        measure_distances(model, [b"a", b""])
    long = Path(__file__).parents[2].joinpath("corpora", "prose-en.txt").read_bytes() * 3
    with pytest.raises(SettingsError, match=r"text 0 has [0-9,]+ tokens, the model compares at most 8,191"):
        measure_distances(model, [long, b"a"])


def test_what_is_to_do_is_told(model: LoadedModel) -> None:
    done: list[int] = []
    told: list[Any] = []

    def begin(num_tokens: int, seconds: float) -> Any:
        told[:] = [num_tokens, seconds]
        return done.append

    measure_distances(model, TEXTS, begin=begin)
    assert told[0] == sum(done) and told[1] > 0 and len(done) == 3

    def refuse(num_tokens: int, seconds: float) -> Any:
        raise KeyError(num_tokens)

    with pytest.raises(KeyError):
        measure_distances(model, TEXTS, begin=refuse)
