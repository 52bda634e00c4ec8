"""Checks that estimates keep to their time with slow models, by a clock that only the model's tokens move."""

from __future__ import annotations

import dataclasses
import io
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmzip.engines import selftest
from llmzip.engines.compiled import CompiledDecoding, CompiledRows, TokenSink
from llmzip.engines.exact import ExactEngine
from llmzip.format.plan import Rows
from llmzip.inference import row_start
from llmzip.inference.load import LoadedModel, load
from llmzip.inference.row_start import RowStart
from llmzip.measures import budget, candidates, estimate
from llmzip.measures.budget import DEFAULT_SECONDS, Budget
from llmzip.measures.candidates import Candidate
from llmzip.measures.estimate import Estimate
from llmzip.measures.model_candidate import _extended, _guessed, _Sampler, by_model
from llmzip.measures.places import Places
from llmzip.measures.trial import Decoded, Trial, spread
from llmzip.models.choice import model_for_compressing
from llmzip.settings import CompressSettings, EngineSettings

CORPORA = Path(__file__).parents[2] / "corpora"
ENGINE = EngineSettings(threads=1)
TEXT = b"".join((CORPORA / name).read_bytes() for name in ("prose-en.txt", "service.log", "technical-en.txt"))


class SlowEngine:
    """An engine that takes its time by a clock of its own: for each call, and for each token.

    Args:
        engine: computes.
        token_seconds: of each token that goes through the model.
        call_seconds: of each call, as reading the weights takes.
    """

    def __init__(self, engine: Any, token_seconds: float, call_seconds: float) -> None:
        self._engine, self._token_seconds, self._call_seconds = engine, token_seconds, call_seconds
        self._lock = threading.Lock()
        self.tokens, self.seconds = 0, 0.0
        self.is_compiled = False  # all tokens come through `forward`, where they are counted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forward(self, ids: np.ndarray, cache: Any = None) -> Any:
        self.count(1, ids.size)
        return self._engine.forward(ids, cache)

    def compiled_rows(self, cache: Any, inputs: np.ndarray, rows: Rows, skipped: int) -> SlowRows:
        return SlowRows(self, self._engine.compiled_rows(cache, inputs, rows, skipped), rows)

    def count(self, calls: int, tokens: int) -> None:
        """Lets time pass."""
        with self._lock:
            self.tokens += tokens
            self.seconds += calls * self._call_seconds + tokens * self._token_seconds


class SlowRows:
    """Compiled rows that take the time of a slow engine."""

    def __init__(self, engine: SlowEngine, rows: CompiledRows, counts: Rows) -> None:
        self._engine, self._rows, self._counts = engine, rows, counts

    def room(self, step: int) -> int:
        return self._rows.room(step)

    def read(self, sink: TokenSink, first_step: int, last_step: int, first_place: int) -> None:
        self._engine.count(1, (last_step - first_step) * self._counts.num_rows)
        self._rows.read(sink, first_step, last_step, first_place)

    def decoding(self, *arguments: Any) -> SlowDecoding:
        return SlowDecoding(self._engine, self._rows.decoding(*arguments), self._counts.num_rows)


class SlowDecoding:
    """Decodes compiled rows in the time of a slow engine: each step is a call."""

    def __init__(self, engine: SlowEngine, decoding: CompiledDecoding, rows: int) -> None:
        self._engine, self._decoding, self._rows = engine, decoding, rows
        self._step = 0

    def advance(self, last_step: int) -> int:
        step, self._step = self._step, self._decoding.advance(last_step)
        self._engine.count(self._step - step, (self._step - step) * self._rows)
        return self._step

    def __enter__(self) -> SlowDecoding:
        self._decoding.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._decoding.__exit__(*details)


def estimated_slowly(
    monkeypatch: pytest.MonkeyPatch, num_bytes: int, token_seconds: float, call_seconds: float, **settings: Any
) -> tuple[Estimate, SlowEngine]:
    """Estimates some text with a slow model; returns the engine too, which has counted."""
    chosen = CompressSettings(model="small", engine=ENGINE, **settings)
    model = load(model_for_compressing(chosen), ENGINE)
    engine = SlowEngine(model.engine, token_seconds, call_seconds)
    slow = dataclasses.replace(model, engine=engine)

    def slow_load(*_: object) -> tuple[LoadedModel, float]:
        return slow, 0.0

    monkeypatch.setattr(estimate, "_load", slow_load)
    monkeypatch.setattr(budget, "_clock", lambda: engine.seconds)
    found = estimate.estimate(io.BytesIO(TEXT[:num_bytes]), chosen)
    return found, engine


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize(
    ("token_seconds", "call_seconds"),
    [(1 / 1000, 0.02), (1 / 350, 0.07), (1 / 200, 0.1)],
    ids=["fast", "as of 135 M parameters", "slow"],
)
def test_a_slow_model_is_estimated_in_time(
    monkeypatch: pytest.MonkeyPatch, level: int, token_seconds: float, call_seconds: float
) -> None:
    found, engine = estimated_slowly(monkeypatch, 60_000, token_seconds, call_seconds, level=level)
    assert not found.is_whole and found.pieces >= 8
    assert DEFAULT_SECONDS / 4 < engine.seconds < 2 * DEFAULT_SECONDS
    # What the clock says is what the estimate says: every token once, and more of those that a context repeats.
    tokens = found.original_bytes / 4
    assert found.compress_seconds.value > tokens * token_seconds / 2
    assert found.decompress_seconds.value > found.compress_seconds.value / 2


def test_places_are_compared_by_some_tokens_though_no_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    grown, row_bits, shapes = _Sampler.grown, Trial.row_bits, []

    def grown_late(self: _Sampler, *given: Any) -> Any:
        sample = grown(self, *given)
        self._budget._end = 0.0
        return sample

    def noted(self: Trial, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shapes.append(tokens.shape)
        return row_bits(self, tokens)

    monkeypatch.setattr(_Sampler, "grown", grown_late)
    monkeypatch.setattr(Trial, "row_bits", noted)
    estimated_slowly(monkeypatch, 60_000, 1 / 350, 0.07)
    assert shapes == [(8, 16)]


def test_a_fast_model_takes_larger_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, _ = estimated_slowly(monkeypatch, 60_000, 1 / 350, 0.07)
    fast, _ = estimated_slowly(monkeypatch, 60_000, 1 / 1000, 0.02)
    assert slow.sampled_bytes < fast.sampled_bytes and slow.pieces <= fast.pieces


def test_a_short_text_is_not_decoded_if_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine = estimated_slowly(monkeypatch, 3000, 1 / 350, 0.07)
    assert found.is_whole
    # Compressing itself runs the model that is in memory: only the single steps are the slow one's.
    assert 0 < engine.tokens < 400
    assert found.decompress_seconds.value > 0.07 * 3000 / 5 > found.decompress_seconds.low / 10
    assert found.decompress_seconds.low < found.decompress_seconds.value


@pytest.mark.parametrize("window_bits", [64, 256])
def test_windows_of_a_slow_model(monkeypatch: pytest.MonkeyPatch, window_bits: int) -> None:
    found, engine = estimated_slowly(monkeypatch, 60_000, 1 / 350, 0.07, window_bits=window_bits)
    assert found.method == "windows" and engine.seconds < 3 * DEFAULT_SECONDS


def test_a_budget_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(budget, "_clock", lambda: clock[0])
    said: list[str] = []
    one = Budget(10, said.append)
    clock[0] += 4
    assert one.left == pytest.approx(6) and one.at_least(9).left == pytest.approx(9)
    assert one.at_least(2).seconds == pytest.approx(6)
    clock[0] += 7
    assert one.left == 0
    one.says("this")
    Budget(1).says("that")
    assert said == ["this"]


# -- models that see far -----------------------------------------------------------------------------------------------


def by_a_far_model(
    monkeypatch: pytest.MonkeyPatch, folder: Path, start_bits: float, token_seconds: float
) -> tuple[Candidate, list[int]]:
    """The candidate by a random model that sees 2,048 tokens, and at how many places a start was measured each time."""
    settings = CompressSettings(6, folder, ENGINE)
    model = load(model_for_compressing(settings), ENGINE)
    engine = SlowEngine(model.engine, token_seconds, 10 * token_seconds)
    monkeypatch.setattr(budget, "_clock", lambda: engine.seconds)
    counts: list[int] = []

    def measured(engine: Any, runs: list[Any], usually: RowStart) -> RowStart:
        assert all(len(run) == row_start.RUN_TOKENS for run in runs)
        counts.append(len(runs))
        return RowStart(start_bits, 4.0, engine.context, len(runs))

    monkeypatch.setattr(row_start, "measured", measured)
    places = Places(io.BytesIO(TEXT[:60_000]))
    places.find_texts()
    slow = dataclasses.replace(model, engine=engine)
    found = by_model(places, slow, settings, candidates.plain(places), Budget(DEFAULT_SECONDS))
    assert found is not None
    return found.candidate, counts


def test_an_estimate_measures_what_a_start_costs(
    monkeypatch: pytest.MonkeyPatch, random_checkpoint: Any, write_checkpoint: Any, make_tokenizer: Any, tmp_path: Path
) -> None:
    config, tensors = random_checkpoint(vocab_size=320, max_position_embeddings=2048)
    folder = make_tokenizer(write_checkpoint(tmp_path / "far", config, tensors), vocab_size=320)
    cheap, places = by_a_far_model(monkeypatch, folder, 40.0, 1 / 4000)
    assert len(places) == 1 and places[0] >= 1
    dear, _ = by_a_far_model(monkeypatch, folder, 2000.0, 1 / 4000)
    # Fewer rows take more steps, and each step reads the weights.
    assert dear.decode_seconds.value > 1.5 * cheap.decode_seconds.value
    slow, places = by_a_far_model(monkeypatch, folder, 40.0, 1 / 200)
    assert places == [0]
    width, slow_width = ((c.decode_seconds.high / c.decode_seconds.value) for c in (cheap, slow))
    assert slow_width > width + 0.3


@pytest.mark.parametrize("context", [2, 60, 300])
def test_no_more_steps_are_timed_than_a_context_holds(hash_engine: Any, context: int) -> None:
    model: Any = SimpleNamespace(engine=hash_engine(vocab_size=16, context=context), followers=None)
    trial = Trial(model, mixed=False, overlap=1, prompt=None)
    for depth in (0, 1, context - 1, context, 2000):
        assert trial.step_seconds(3, depth) > 0


@pytest.mark.parametrize("context", [2, 5, 40])
def test_no_more_compiled_steps_are_timed_than_a_context_holds(context: int) -> None:
    model: Any = SimpleNamespace(engine=ExactEngine(selftest.compiled_model(context=context)), followers=None)
    assert model.engine.is_compiled
    trial = Trial(model, mixed=False, overlap=1, prompt=None)
    for depth in (0, 1, context - 1, context, 2000):
        assert trial.step_seconds(3, depth) > 0


def ticks(*seconds_per_token: float, tokens: int = 10) -> tuple[list[float], list[int]]:
    """Times and counts of pieces of work of as many tokens."""
    times = np.concatenate([[5.0], 5.0 + np.cumsum(np.array(seconds_per_token) * tokens)])
    return times.tolist(), [tokens * number for number in range(len(times))]


def test_the_spread_of_parts() -> None:
    assert spread(*ticks(*[0.1] * 15, 9.0)) > 0.5
    assert spread(*ticks(*[0.1] * 15)) == 0.0  # three parts of four ticks could vary as they like
    assert spread(*ticks(*[0.1] * 3, 0.7, *[0.1] * 11)) == 0.0
    assert spread(*ticks(*np.linspace(0.1, 0.3, 64))) == pytest.approx(0, abs=1e-9)  # steps take longer and longer
    # Eight parts that take 1 and 2 in turns: the line through them leaves nearly all of it.
    assert spread(*ticks(*([0.1] * 8 + [0.2] * 8) * 4)) == pytest.approx(1 / 3, rel=0.1)


def test_pieces_of_work_of_several_sizes_have_the_same_spread() -> None:
    times, counts = ticks(*[0.1] * 96)
    kept = [0, 1, 3, 7, *range(11, 97, 5), 96]  # as compiled rows report: a step, four, then about as many each time
    assert spread([times[n] for n in kept], [counts[n] for n in kept]) == pytest.approx(0, abs=1e-9)
    assert spread([0.0, 1.0], [0, 1000]) == 0.0
    all_in_one = [0, *range(1000, 1020)]
    assert spread(np.linspace(0, 1, 21).tolist(), all_in_one) == 0.0


def test_rows_with_a_thread_each_are_decoded_with_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(model_for_compressing(CompressSettings(model="small", engine=ENGINE)), ENGINE)
    assert model.engine.callers == 1
    trial = Trial(model, mixed=True, overlap=256, prompt=None)
    assert trial.guesses(1) and not trial.guesses(2)
    tokens = model.tokenizer.encode((b"One line that comes again. " * 200)[:3000])[None, :512]
    assert 0 < _guessed(trial, 1, tokens, 1e-4, 10.0) <= 1
    # Nothing is concluded from a few steps, nor from fewer rows than there are.
    assert _guessed(trial, 1, tokens, 1e-4, 60e-4) == _guessed(trial, 2, tokens, 1e-4, 10.0) == 1.0
    for factor, found in ((0.25, 0.25), (3.0, 1.0)):
        decoded = Decoded(1, 512, factor * 512 * 1e-4, 0.0)
        monkeypatch.setattr(Trial, "decode", lambda *_, decoded=decoded: decoded)
        assert _guessed(trial, 1, tokens, 1e-4, 10.0) == pytest.approx(found)


def test_steps_beyond_the_last_depth_grow_as_they_did_before_it() -> None:
    reach = np.array([0.0, 100.0, 400.0, 1000.0])
    assert _extended(reach, [100, 300, 500], [1.0, 2.0, 3.0]).tolist() == [1.0, 1.0, 2.5, 5.5]
    # Windows are full by the second depth: what grew until then says nothing of later.
    assert _extended(reach, [100, 300, 500], [1.0, 2.0, 2.0]).tolist() == [1.0, 1.0, 2.0, 2.0]
    assert _extended(reach, [100], [1.0]).tolist() == [1.0] * 4
    assert _extended(reach, [100, 300], [2.0, 1.5]).tolist() == [2.0, 2.0, 1.5, 1.5]
