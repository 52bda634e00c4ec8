"""Checks that a text which both sides know primes model and mixer alike in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmzip.codec import rows
from llmzip.format.plan import RowPlan
from llmzip.inference.progress import ByteMeter
from llmzip.inference.prompt import Prompt
from llmzip.mixing.mixer import MixEncoder
from llmzip.mixing.vocabulary import Vocabulary

MakeEngine = Callable[..., Any]
VOCAB = 50


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary([bytes([97 + n % 26]) * (1 + n // 26) for n in range(VOCAB)])


def prompt_of(tokens: np.ndarray, context: int) -> Prompt:
    return Prompt(tokens, tokens[-max(1, context // 2) :])


def one_byte_each(ids: np.ndarray) -> int:
    return len(ids)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("context", "overlap"), [(2, 1), (7, 3), (16, 15), (200, 30)])
@pytest.mark.parametrize(("num_tokens", "num_rows", "before"), [(1, 1, 1), (60, 1, 9), (61, 7, 100), (13, 13, 40)])
def test_rows_with_a_prompt_come_back(
    hash_engine: MakeEngine, vocabulary: Vocabulary, rng: np.random.Generator, mixed: bool, context: int, overlap: int,
    num_tokens: int, num_rows: int, before: int,
) -> None:  # fmt: skip
    tokens, prompt = rng.integers(0, VOCAB, num_tokens), prompt_of(rng.integers(0, VOCAB, before), context)
    plan, tree = RowPlan(num_tokens, num_rows, overlap), vocabulary if mixed else None
    frames = {
        rows.FrameCoder(hash_engine(vocab_size=VOCAB, context=context, batch_tokens=size), tree, prompt).encode(
            tokens, plan
        )
        for size in (1, 13, 1 << 20)
    }
    assert len(frames) == 1
    ((payload, _),) = frames
    engine = hash_engine(vocab_size=VOCAB, context=context, batch_tokens=5)
    back = rows.FrameCoder(engine, tree, prompt).decode(payload, plan, ByteMeter(one_byte_each, num_tokens))
    assert back.tolist() == tokens.tolist()


@pytest.mark.parametrize("mixed", [False, True])
def test_another_prompt_gives_another_payload(
    hash_engine: MakeEngine, vocabulary: Vocabulary, rng: np.random.Generator, mixed: bool
) -> None:
    tokens, plan, tree = rng.integers(0, VOCAB, 40), RowPlan(40, 3, 2), vocabulary if mixed else None
    prompts = [None, *(prompt_of(rng.integers(0, VOCAB, 20), 64) for _ in range(3))]
    payloads = {
        rows.FrameCoder(hash_engine(vocab_size=VOCAB, context=64), tree, prompt).encode(tokens, plan)[0]
        for prompt in prompts
    }
    assert len(payloads) == 4


def test_the_model_sees_the_prompt_after_the_start_token(hash_engine: MakeEngine, vocabulary: Vocabulary) -> None:
    tokens, before = np.arange(12) % 7, np.arange(5) + 20
    engine, plan = hash_engine(vocab_size=VOCAB, context=32), RowPlan(12, 3, 2)
    learner = MixEncoder(vocabulary, before, 1, with_model=True)
    seen = engine.forward(np.array([[engine.start_token, *before[:-1]]]))[0]
    learner.add(np.arange(5), engine.masses(seen))
    encoder = MixEncoder(vocabulary, tokens, 3, with_model=True, primed=learner.learn(12))
    for row in range(3):
        inputs = [engine.start_token, *before, *tokens[4 * row : 4 * row + 3]]
        masses = engine.masses(engine.forward(np.array([inputs]))[0])[len(before) :]
        encoder.add(np.arange(4 * row, 4 * row + 4), masses)
    assert encoder.finish() == rows.FrameCoder(engine, vocabulary, prompt_of(before, 32)).encode(tokens, plan)


def test_the_mixer_learns_from_the_prompt(hash_engine: MakeEngine, vocabulary: Vocabulary) -> None:
    text = np.tile(np.array([3, 14, 15, 9, 26, 5, 35, 8, 9, 7]), 40)
    engine, plan = hash_engine(vocab_size=VOCAB, context=64), RowPlan(100, 1, 8)
    plain, _ = rows.FrameCoder(engine, vocabulary).encode(text[:100], plan)
    primed, _ = rows.FrameCoder(engine, vocabulary, prompt_of(text[:300], 64)).encode(text[:100], plan)
    assert len(primed) < 0.5 * len(plain)


def test_an_empty_prompt_is_none(hash_engine: MakeEngine, vocabulary: Vocabulary, rng: np.random.Generator) -> None:
    tokens, plan = rng.integers(0, VOCAB, 40), RowPlan(40, 3, 2)
    empty = Prompt(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    for tree in (None, vocabulary):
        assert rows.FrameCoder(hash_engine(vocab_size=VOCAB), tree, empty).encode(tokens, plan) == rows.FrameCoder(
            hash_engine(vocab_size=VOCAB), tree
        ).encode(tokens, plan)
