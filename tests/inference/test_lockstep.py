"""Compiled rows: the payloads and tokens of steps in Python, whatever is guessed and however many threads there are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from llmzip.codec.rows import FrameCoder
from llmzip.engines.compiled import FrameRows, TokenGuesser, TokenSource
from llmzip.engines.cpu import kernels, lanes
from llmzip.engines.exact import ExactEngine
from llmzip.engines.selftest import compiled_model
from llmzip.errors import CorruptError
from llmzip.format.plan import RowPlan
from llmzip.inference import lockstep
from llmzip.inference.passes import NOTHING
from llmzip.inference.progress import ByteMeter
from llmzip.inference.prompt import Prompt
from llmzip.mixing.mixer import MixDecoder
from llmzip.mixing.vocabulary import Vocabulary
from llmzip.system import threads

pytestmark = pytest.mark.skipif(kernels.library("") is None, reason="no compiled kernels here")

VOCAB = 50
VOCABULARY = Vocabulary([bytes([65 + token]) for token in range(VOCAB)])
PLANS = [
    RowPlan(7, 1, 5), RowPlan(200, 1, 60), RowPlan(301, 2, 100), RowPlan(500, 5, 3), RowPlan(31, 31, 2),
    RowPlan(700, 33, 9), RowPlan(1000, 64, 7), RowPlan(1111, 97, 7), RowPlan(2000, 130, 7),
]  # fmt: skip
"""Short rows and rows of several contexts, single ones, lanes with and without rows of one step more."""


@pytest.fixture(params=[1, 2, 5])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = threads.count()
    threads.set_count(request.param)
    yield request.param
    threads.set_count(before)


@pytest.fixture(scope="module", params=[{}, {"floor_bits": 6, "windows": (9, 21)}, {"context": 40, "windows": (0, 0)}])
def engine(request: pytest.FixtureRequest) -> ExactEngine:
    return ExactEngine(compiled_model(**request.param))


def _tokens(plan: RowPlan, rng: np.random.Generator) -> np.ndarray:
    """Tokens with repetitions, so that some guesses are right."""
    words = [rng.integers(0, VOCAB, rng.integers(2, 9)) for _ in range(6)]
    chosen = [words[number] for number in rng.integers(0, len(words), plan.num_tokens)]
    tokens: np.ndarray = np.concatenate(chosen)[: plan.num_tokens].astype(np.int64)
    return tokens


def _limit() -> ByteMeter:
    return ByteMeter(len, 1 << 40)


@pytest.mark.parametrize("vocabulary", [None, VOCABULARY], ids=["lm", "mixed"])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.num_tokens}-{plan.num_rows}")
def test_payloads_and_tokens_are_those_of_steps_in_python(
    engine: ExactEngine, plan: RowPlan, vocabulary: Vocabulary | None, rng: np.random.Generator, num_threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plan = RowPlan(plan.num_tokens, plan.num_rows, min(plan.overlap, engine.context - 1))
    tokens, coder = _tokens(plan, rng), FrameCoder(engine, vocabulary)
    assert engine.is_compiled
    coded = coder.encode(tokens, plan)
    assert np.array_equal(coder.decode(coded.payload, plan, _limit()), tokens)
    monkeypatch.setattr(ExactEngine, "is_compiled", False)
    assert coder.encode(tokens, plan) == coded
    assert np.array_equal(coder.decode(coded.payload, plan, _limit()), tokens)


@pytest.mark.parametrize("vocabulary", [None, VOCABULARY], ids=["lm", "mixed"])
def test_a_prompt_comes_before_every_row(
    engine: ExactEngine, vocabulary: Vocabulary | None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, words = RowPlan(300, 2, 11), rng.integers(0, VOCAB, 15)
    tokens, coder = _tokens(plan, rng), FrameCoder(engine, vocabulary, Prompt(words, words))
    coded = coder.encode(tokens, plan)
    assert np.array_equal(coder.decode(coded.payload, plan, _limit()), tokens)
    monkeypatch.setattr(ExactEngine, "is_compiled", False)
    assert coder.encode(tokens, plan) == coded
    assert np.array_equal(coder.decode(coded.payload, plan, _limit()), tokens)


Guess = Callable[[int, int], list[int]]


class Guesses:
    """A guesser in Python, whose guesses the decoder always reads.

    Args:
        guess: called with a row and how many of its tokens are known; returns what it guesses.
    """

    def __init__(self, guess: Guess) -> None:
        known: dict[int, int] = {}

        def learn(_: Any, row: int, token: int) -> None:
            known[row] = known.get(row, 0) + 1

        def guesses(_: Any, row: int, count: int, ids: Any, chance: Any) -> int:
            found = guess(row, known[row])[:count]
            for place, token in enumerate(found):
                ids[place], chance[place] = token, 0.5
            return len(found)

        ids, floats = ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_float)
        self._functions = (
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(learn),
            ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ids, floats)(guesses),
            ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, floats, floats, ctypes.c_float)(lambda count, *_: count),
        )
        addresses = (ctypes.cast(function, ctypes.c_void_p).value for function in self._functions)
        self.guesser = TokenGuesser(1, *addresses)


def _decoded(engine: ExactEngine, payload: bytes, plan: RowPlan, guess: Guess, seen: list[Any]) -> np.ndarray:
    """Decodes with guesses; appends how the passes went."""
    mixer, guesses = MixDecoder(VOCABULARY, payload, plan.num_tokens, plan.num_rows, with_model=True), Guesses(guess)
    source = TokenSource(**mixer.compiled_source())
    decoding = lanes.CpuRows.decoding

    def watched(*arguments: Any) -> Any:
        seen.append(decoding(*arguments))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes.CpuRows, "decoding", watched)
        return lockstep.decode(engine, plan, NOTHING, FrameRows(plan, source, 32), lambda _: None, guesses.guesser)


@pytest.mark.parametrize("rows", [1, 2])
def test_no_guess_changes_what_is_decoded(engine: ExactEngine, rows: int, rng: np.random.Generator) -> None:
    threads.set_count(2)
    plan = RowPlan(201, rows, 11)
    tokens = _tokens(plan, rng)
    starts = plan.row_starts()
    coded = FrameCoder(engine, VOCABULARY).encode(tokens, plan)

    def right(row: int, known: int) -> list[int]:
        return list(tokens[starts[row] + known : starts[row + 1]])

    def right_at_first(row: int, known: int) -> list[int]:
        return [token if place < 3 else (token + 1) % VOCAB for place, token in enumerate(right(row, known))]

    def mostly_right(row: int, known: int) -> list[int]:
        return [token if rng.random() < 0.8 else int(rng.integers(0, VOCAB)) for token in right(row, known)]

    def wrong(row: int, known: int) -> list[int]:
        return [(token + 1) % VOCAB for token in right(row, known)]

    def senseless(row: int, known: int) -> list[int]:
        return [VOCAB, -1, 1 << 40, -(1 << 62), 3]

    passes = {}
    for guess in (right, right_at_first, mostly_right, wrong, senseless, lambda *_: []):
        seen: list[Any] = []
        assert np.array_equal(_decoded(engine, coded.payload, plan, guess, seen), tokens), guess
        passes[guess] = seen[0].experience.passes
        assert seen[0].experience.right <= seen[0].experience.read
    assert passes[right] < passes[right_at_first] < passes[wrong]
    assert passes[right] < 1.5 * plan.num_tokens / (1 + lanes.MAX_GUESSES) + 10 * rows


def test_rows_with_a_thread_each_are_guessed(engine: ExactEngine, rng: np.random.Generator) -> None:
    """By what the frame holds so far."""
    threads.set_count(2)
    plan = RowPlan(400, 1, 11)
    tokens = np.tile(rng.integers(0, VOCAB, 25), 16)
    coder, seen, decoding = FrameCoder(engine, VOCABULARY), [], lanes.CpuRows.decoding
    payload = coder.encode(tokens, plan).payload

    def watched(*arguments: Any) -> Any:
        seen.append(decoding(*arguments))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes.CpuRows, "decoding", watched)
        assert np.array_equal(coder.decode(payload, plan, _limit()), tokens)
    assert seen[0].experience.passes < 300 and seen[0].experience.right > 100


@pytest.mark.parametrize("vocabulary", [None, VOCABULARY], ids=["lm", "mixed"])
@pytest.mark.parametrize("plan", PLANS[1:8:2], ids=lambda plan: f"{plan.num_tokens}-{plan.num_rows}")
def test_damaged_payloads_decode_to_tokens_or_are_refused(
    engine: ExactEngine, plan: RowPlan, vocabulary: Vocabulary | None, rng: np.random.Generator, num_threads: int,
    effort: int,
) -> None:  # fmt: skip
    plan = RowPlan(plan.num_tokens, plan.num_rows, min(plan.overlap, engine.context - 1))
    coder = FrameCoder(engine, vocabulary)
    for payload in [b"", b"\xff" * 3000, *(rng.bytes(int(rng.integers(1, 400))) for _ in range(2 * effort))]:
        try:
            tokens = coder.decode(payload, plan, _limit())
        except CorruptError:
            continue
        assert len(tokens) == plan.num_tokens and tokens.min() >= 0 and tokens.max() < VOCAB


@pytest.mark.parametrize("vocabulary", [None, VOCABULARY], ids=["lm", "mixed"])
@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_frames_that_are_decoded_together_have_their_own_tokens(
    engine: ExactEngine, vocabulary: Vocabulary | None, count: int, num_threads: int, rng: np.random.Generator
) -> None:
    """Frames of any length and number of rows; damaged ones among them disturb no other."""
    coder, frames, expected = FrameCoder(engine, vocabulary), [], []
    for number in range(count):
        rows = int(rng.integers(1, 80 if number % 20 == 5 else 4))
        plan = RowPlan(int(rng.integers(rows, 38 * rows + 1)), rows, 5)
        tokens = _tokens(plan, rng)
        frames.append((coder.encode(tokens, plan).payload, plan))
        expected.append(tokens)
    for found, tokens in zip(coder.decode_together(frames), expected, strict=True):
        assert found is not None and np.array_equal(found, tokens)
    damaged = [(rng.bytes(len(payload)) if n % 3 == 0 else payload, plan) for n, (payload, plan) in enumerate(frames)]
    for n, (found, tokens) in enumerate(zip(coder.decode_together(damaged), expected, strict=True)):
        if n % 3:
            assert found is not None and np.array_equal(found, tokens)
        else:
            assert found is None or (len(found) == len(tokens) and found.max() < VOCAB)


def test_lanes_without_rows_at_a_frames_last_step_wait_for_nothing(
    engine: ExactEngine, rng: np.random.Generator
) -> None:
    """One part begins with the second of three lanes of a frame of whose rows only the first has a last step."""
    coder = FrameCoder(engine, VOCABULARY)
    lane = coder.lane_rows
    plans = [RowPlan(6 * lane, lane, 5), RowPlan(4 * 3 * lane + 1, 3 * lane, 5)]  # the one with more steps comes first
    texts = [_tokens(plan, rng) for plan in plans]
    frames = [(coder.encode(tokens, plan).payload, plan) for tokens, plan in zip(texts, plans, strict=True)]
    before = threads.count()
    threads.set_count(2)
    try:
        found = coder.decode_together(frames)
    finally:
        threads.set_count(before)
    assert all(one is not None and np.array_equal(one, text) for one, text in zip(found, texts, strict=True))


def test_frames_are_decoded_one_by_one_without_compiled_rows(
    engine: ExactEngine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    coder, plan = FrameCoder(engine, VOCABULARY), RowPlan(30, 2, 5)
    tokens = _tokens(plan, rng)
    frames = [(coder.encode(tokens, plan).payload, plan)] * 3
    monkeypatch.setattr(ExactEngine, "is_compiled", False)
    assert all(np.array_equal(found, tokens) for found in coder.decode_together(frames))


def test_an_error_of_the_check_ends_the_decoding(engine: ExactEngine, rng: np.random.Generator) -> None:
    plan = RowPlan(2000, 70, 11)
    tokens, coder = _tokens(plan, rng), FrameCoder(engine, VOCABULARY)
    payload = coder.encode(tokens, plan).payload
    with pytest.raises(CorruptError, match="more than the 100 bytes"):
        coder.decode(payload, plan, ByteMeter(len, 100))
    assert np.array_equal(coder.decode(payload, plan, _limit()), tokens)


def test_threads_that_cannot_begin_stop_those_that_have(
    engine: ExactEngine, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left inside, where the memory would go."""
    threads.set_count(3)
    plan = RowPlan(2000, 130, 7)
    tokens, coder = _tokens(plan, rng), FrameCoder(engine, VOCABULARY)
    payload, submit, futures = coder.encode(tokens, plan).payload, threads.workers.submit, []

    def one_only(*arguments: Any) -> Any:
        if futures:
            raise RuntimeError("can't start new thread")
        futures.append(submit(*arguments))
        return futures[0]

    with monkeypatch.context() as patch:
        patch.setattr(threads.workers, "submit", one_only)
        with pytest.raises(RuntimeError, match="new thread"):
            coder.decode(payload, plan, _limit())
    assert len(futures) == 1 and futures[0].done()
    assert np.array_equal(coder.decode(payload, plan, _limit()), tokens)


def test_structures_have_the_sizes_of_the_library() -> None:
    library = kernels.library("")
    assert library is not None
    assert library.function("llmzip_lanes_size")() == ctypes.sizeof(lanes.Decoding)
