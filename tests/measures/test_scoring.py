"""Scores are those of the definition, token by token, and agree with steps, archives and the other engine."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import llmzip
from llmzip.codec import rows
from llmzip.engines.exact import ExactEngine
from llmzip.engines.frequencies import TOTAL, group_size
from llmzip.errors import SettingsError
from llmzip.format import headers, reading
from llmzip.format.plan import RowPlan, header_plan
from llmzip.inference import load
from llmzip.inference.load import LoadedModel
from llmzip.inference.passes import NOTHING
from llmzip.measures import scoring
from llmzip.measures.scoring import Scorer, Scores
from llmzip.models.choice import choose_model
from llmzip.models.weights import load_model
from llmzip.settings import EngineSettings

MakeEngine = Callable[..., Any]
CORPORA = Path(__file__).parents[2] / "corpora"


def model_of(engine: Any) -> Any:
    """Makes what scoring needs of a loaded model."""
    return SimpleNamespace(engine=engine)


def by_the_definition(
    engine: Any, tokens: np.ndarray, context: int, stride: int, before: np.ndarray = NOTHING
) -> tuple[list[float], list[float], list[int], list[list[int]]]:
    """Computes coded bits, model bits, ranks and orders of ids in Python's integers, feeding each context by itself."""
    inputs = [engine.start_token, *before.tolist(), *tokens.tolist()]
    coded, own, ranks, orders = [], [], [], []
    begin = 0
    for place, token in enumerate(tokens.tolist()):
        end = 1 + len(before) + place
        if end - begin > context:
            begin = end - 1 - (context - stride)
        hidden = engine.forward(np.array([inputs[begin:end]]))
        masses = engine.masses(hidden[:, -1])[0].tolist()
        everything, size = sum(masses), len(masses)
        borders = [0]
        for mass in masses:
            borders.append(borders[-1] + mass)
        borders = [border * (TOTAL - size) // everything + n for n, border in enumerate(borders)]
        group = group_size(size)
        first = token // group * group
        low, high = borders[first], borders[min(first + group, size)]
        whole = high - low + max(0, first + group - size)
        inner = [(borders[n] - low) * TOTAL // whole for n in (token, token + 1)]
        coded.append(-math.log2((high - low) / TOTAL) - math.log2((inner[1] - inner[0]) / TOTAL))
        own.append(math.log2(everything / max(masses[token], 0.5)))
        order = sorted(range(size), key=lambda n: (-masses[n], n))
        ranks.append(order.index(token))
        orders.append(order)
    return coded, own, ranks, orders


def same(one: Scores, two: Scores) -> None:
    """Asserts that scores are equal, bit for bit."""
    for name in ("tokens", "coded_bits", "model_bits", "ranks", "alternatives", "alternative_bits"):
        first, second = getattr(one, name), getattr(two, name)
        assert (first is None) == (second is None) and (first is None or np.array_equal(first, second)), name


@pytest.mark.parametrize("vocab_size", [16, 17, 100, 1100])
@pytest.mark.parametrize(("context", "stride"), [(7, 1), (7, 3), (7, 7), (5, 2), (1, 1), (2, 1), (300, 150)])
def test_scores_are_those_of_the_definition(
    hash_engine: MakeEngine, vocab_size: int, context: int, stride: int, rng: np.random.Generator
) -> None:
    engine = hash_engine(vocab_size=vocab_size, context=300)
    tokens = rng.integers(0, vocab_size, 40)
    coded, own, ranks, orders = by_the_definition(engine, tokens, context, stride)
    scores = Scorer(model_of(engine), context, stride, ranks=True, alternatives=5).score(tokens)
    assert scores.coded_bits == pytest.approx(coded, rel=1e-12)
    assert scores.model_bits == pytest.approx(own, rel=1e-12)
    assert scores.ranks is not None and scores.ranks.tolist() == ranks and scores.ranks.dtype == np.int32
    assert scores.alternatives is not None and scores.alternatives.tolist() == [order[:5] for order in orders]
    assert (scores.context, scores.stride) == (context, stride)
    # The likeliest id costs what the token costs where it is the token.
    assert scores.alternative_bits is not None
    first = scores.ranks == 0
    assert np.array_equal(scores.alternative_bits[first, 0], scores.model_bits[first])


def test_a_stride_of_one_feeds_each_token_its_whole_context(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    engine, tokens, context = hash_engine(vocab_size=50, context=64), rng.integers(0, 50, 60), 9
    inputs = np.concatenate([[engine.start_token], tokens])
    scores = Scorer(model_of(engine), context, 1, ranks=True).score(tokens)
    for place, token in enumerate(tokens):
        seen = inputs[max(0, place + 1 - context) : place + 1]
        assert len(seen) == min(context, place + 1)
        masses = engine.masses(engine.forward(seen[None]).reshape(-1, 1))[-1].astype(float)
        assert 2.0 ** -scores.model_bits[place] == pytest.approx(max(masses[token], 0.5) / masses.sum())


@pytest.mark.parametrize("batch_tokens", [3, 64, 1 << 16])
def test_batches_and_steps_change_nothing(
    hash_engine: MakeEngine, batch_tokens: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, before = rng.integers(0, 40, 200), rng.integers(0, 40, 4)
    for context, stride, front in ((16, 5, NOTHING), (64, 64, before), (11, 1, before)):
        fields = {"vocab_size": 40, "context": 64}
        wanted = Scorer(
            model_of(hash_engine(**fields)), context, stride, ranks=True, before=front, alternatives=2
        ).score(tokens)
        engine = hash_engine(**fields, batch_tokens=batch_tokens)
        same(Scorer(model_of(engine), context, stride, ranks=True, before=front, alternatives=2).score(tokens), wanted)
        assert engine.most_tokens <= max(batch_tokens, 1)
        engine.stepwise = True
        same(Scorer(model_of(engine), context, stride, ranks=True, before=front, alternatives=2).score(tokens), wanted)


def test_pieces_are_scored_as_if_alone(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    engine = hash_engine(vocab_size=30, context=20)
    pieces = [rng.integers(0, 30, size) for size in (3, 0, 50, 1, 20, 50, 21, 0, 7)]
    for stepwise in (False, True):
        engine.stepwise = stepwise
        found = Scorer(model_of(engine), 12, 4, ranks=True, alternatives=1).score_many(pieces)
        assert [len(scores.tokens) for scores in found] == [len(piece) for piece in pieces]
        for piece, scores in zip(pieces, found, strict=True):
            same(scores, Scorer(model_of(engine), 12, 4, ranks=True, alternatives=1).score(piece))
    assert Scorer(model_of(engine)).score_many([]) == []


def test_what_was_read_before_counts(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    engine = hash_engine(vocab_size=30, context=40)
    before, tokens = rng.integers(0, 30, 15), rng.integers(0, 30, 20)
    both = Scorer(model_of(engine), 40, ranks=True).score(np.concatenate([before, tokens]))
    same(Scorer(model_of(engine), 40, ranks=True, before=before).score(tokens), both.part(slice(15, 35)))
    many = Scorer(model_of(engine), 40, before=before, ranks=True).score_many([tokens, tokens[:4]])
    same(many[0], both.part(slice(15, 35)))
    same(many[1], both.part(slice(15, 19)))
    # Of more than half of the context only the end.
    long = rng.integers(0, 30, 99)
    same(
        Scorer(model_of(engine), 40, ranks=True, before=long).score(tokens),
        Scorer(model_of(engine), 40, ranks=True, before=long[-20:]).score(tokens),
    )


def test_wishes_out_of_range(hash_engine: MakeEngine) -> None:
    model, tokens = model_of(hash_engine(context=7)), np.arange(5)
    with pytest.raises(SettingsError, match="a context of 8 tokens is out of range: the model takes 1 to 7"):
        Scorer(model, 8, ranks=True).score(tokens)
    for stride in (0, 6):
        with pytest.raises(SettingsError, match=f"the stride must be 1 to the context of 5, not {stride}"):
            Scorer(model, 5, stride, ranks=True).score(tokens)
    assert (Scorer(model, ranks=True).score(tokens).context, Scorer(model, ranks=True).score(tokens).stride) == (7, 3)
    assert len(Scorer(model, ranks=True).score(NOTHING).model_bits) == 0
    plain = Scorer(model).score(tokens)
    assert plain.ranks is None and plain.alternatives is None and plain.alternative_bits is None
    most = Scorer(model, ranks=True, alternatives=99).score(tokens).alternatives
    assert most is not None and most.shape == (5, 16)


def test_progress_tells_every_token_once(hash_engine: MakeEngine, rng: np.random.Generator) -> None:
    tokens, told = rng.integers(0, 16, 50), []
    Scorer(model_of(hash_engine()), 6, 2, ranks=True, progress=told.append).score(tokens)
    assert sorted(np.concatenate(told).tolist()) == sorted(tokens.tolist())


# -- with a model ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> LoadedModel:
    return load.load(choose_model("small"), EngineSettings())


def test_the_bits_are_those_of_an_archive(small: LoadedModel) -> None:
    text = (CORPORA / "prose-en.txt").read_bytes()[:12_000]
    archive = llmzip.compress(text, level=1, model="small")
    (frame,) = reading.read_archives(io.BytesIO(archive))
    assert frame.header.method == headers.LM and llmzip.decompress(archive) == text
    plan = header_plan(frame.header, small.engine.context)
    assert plan.num_rows > 8
    tokens = small.tokenizer.encode(text)
    scores = Scorer(small).score_rows(tokens, plan)
    bits = float(scores.coded_bits.sum())
    assert abs(len(frame.payload) - bits / 8) <= 0.001 * bits / 8 + 8
    assert len(archive) - bits / 8 <= 0.001 * bits / 8 + 16
    assert rows.FrameCoder(small.engine).encode(tokens, plan)[1] == pytest.approx(bits, rel=1e-12)
    # A token's least frequency costs next to nothing, and masses are the model's own.
    assert float(scores.model_bits.sum()) == pytest.approx(bits, rel=1e-3)


def test_steps_of_a_model_are_its_prefill(small: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = small.tokenizer.encode((CORPORA / "prose-de.txt").read_bytes()[:400])
    pieces = [tokens[:70], tokens[70:130], tokens[130:]]
    scores = Scorer(small, 40, 11, ranks=True, alternatives=3).score_many(pieces)
    monkeypatch.setattr(small.engine, "stepwise", True)
    for one, two in zip(scores, Scorer(small, 40, 11, ranks=True, alternatives=3).score_many(pieces), strict=True):
        same(one, two)


def test_scores_tell_a_text_from_noise(small: LoadedModel, rng: np.random.Generator) -> None:
    text = small.tokenizer.encode(b"The wind came over the hills, and nobody asked about the light again.")
    noise = rng.integers(0, small.engine.vocab_size, len(text))
    one, two = Scorer(small, ranks=True).score_many([text, noise])
    assert one.ranks is not None and two.ranks is not None
    assert one.model_bits.mean() < 8 and two.model_bits.mean() > 11
    assert np.median(one.ranks) < 50 and np.median(two.ranks) > 500


@pytest.fixture(scope="module")
def float_and_exact(
    random_checkpoint: Any, write_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """Loads one checkpoint of random weights into both engines."""
    pytest.importorskip("transformers")
    from llmzip.engines.floating import FloatEngine

    folder = write_checkpoint(tmp_path_factory.mktemp("both"), *random_checkpoint(seed=8))
    return model_of(FloatEngine(folder)), model_of(ExactEngine(load_model(folder)))


def test_the_float_engine_agrees_with_the_exact_one(float_and_exact: tuple[Any, Any], rng: np.random.Generator) -> None:
    floating, exact = float_and_exact
    tokens = rng.integers(2, 100, 300)
    for context, stride in ((96, 48), (20, 7)):
        one, two = (Scorer(model, context, stride, ranks=True).score(tokens) for model in (floating, exact))
        assert one.model_bits.sum() == pytest.approx(two.model_bits.sum(), rel=0.005)
        assert one.ranks is not None and two.ranks is not None
        assert np.corrcoef(one.ranks, two.ranks)[0, 1] > 0.99


def test_prefill_of_the_float_engine_costs_what_its_steps_do(
    float_and_exact: tuple[Any, Any], rng: np.random.Generator
) -> None:
    model, tokens = float_and_exact[0], rng.integers(2, 100, 60)
    plan = RowPlan(len(tokens), 2, 10)
    bits = rows.FrameCoder(model.engine).encode(tokens, plan)[1]
    assert Scorer(model).score_rows(tokens, plan).coded_bits.sum() == pytest.approx(bits, rel=1e-4)


def test_sizes_of_both_engines_agree(float_and_exact: tuple[Any, Any]) -> None:
    floating, exact = (model.engine for model in float_and_exact)
    assert floating.num_parameters == exact.num_parameters
    assert floating.flops_per_token(64) == exact.flops_per_token(64)
    assert floating.weights_bytes == 4 * floating.num_parameters
    assert exact.num_parameters < exact.weights_bytes < 2 * exact.num_parameters


def test_the_default_stride_is_half_of_the_context() -> None:
    assert [scoring.default_stride(context) for context in (1, 2, 3, 511, 1024)] == [1, 1, 1, 255, 512]
