"""Checks what a row's start costs, with an engine whose bits for each place in a row are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmzip.engines.base import Readout
from llmzip.engines.readout import readout
from llmzip.inference import row_start
from llmzip.inference.row_start import RowStart


class PlaceEngine:
    """An engine that needs LATER + EXCESS / (16 + p) bits for token 1 at place p of a row, whatever was before."""

    LATER, EXCESS = 2.0, 100.0
    vocab_size, context, start_token, stepwise, callers = 4, 2048, 0, False, 1
    device, floor_bits = "cpu", 0

    def __init__(self, batch_tokens: int = 1024) -> None:
        self.batch_tokens, self.tokens = batch_tokens, 0

    def new_cache(self, rows: int, chunk: int, positions: int) -> Any:
        return SimpleNamespace(length=0)

    def forward(self, ids: np.ndarray, cache: Any = None) -> np.ndarray:
        self.tokens += ids.size
        begin = 0 if cache is None else cache.length
        if cache is not None:
            cache.length += ids.shape[1]
        places = np.arange(begin, begin + ids.shape[1], dtype=np.float32)
        return np.repeat(places[None, :, None], len(ids), 0)

    def masses(self, hidden: np.ndarray) -> np.ndarray:
        bits = self.bits(hidden[:, 0].astype(np.float64))
        masses = np.zeros((len(hidden), self.vocab_size), dtype=np.int32)
        masses[:, 0] = 1 << 20
        masses[:, 1] = ((1 << 20) / (2**bits - 1)).round()
        return masses

    def readout(self, total_bits: int = 24) -> Readout:
        return readout(self.vocab_size, self.device, total_bits=total_bits)

    @classmethod
    def bits(cls, places: np.ndarray) -> np.ndarray:
        return cls.LATER + cls.EXCESS / (16 + places)


ONES = np.ones(row_start.RUN_TOKENS, dtype=np.int64)
NOTHING_ASSUMED = RowStart(0.0, 0.0, 2048)


def of_places(begin: int, end: int) -> float:
    """The bits of tokens at some places of a row."""
    return float(PlaceEngine.bits(np.arange(begin, end, dtype=np.float64)).sum())


@pytest.mark.parametrize("batch_tokens", [1024, 300])
def test_a_start_is_measured(monkeypatch: pytest.MonkeyPatch, batch_tokens: int) -> None:
    monkeypatch.setattr(row_start, "_USUAL_WEIGHT", 0.0)
    monkeypatch.setattr(row_start, "_PLAIN_WEIGHT", 0.0)
    engine: Any = PlaceEngine(batch_tokens)
    start = row_start.measured(engine, [ONES, ONES], NOTHING_ASSUMED)
    late = of_places(512, 1024)
    assert start.bits == pytest.approx(of_places(0, 512) - late, rel=0.01)
    assert start.token_bits == pytest.approx(late / 512, rel=0.01)
    assert (start.context, start.places) == (2048, 2)
    assert engine.tokens == 2 * row_start.PASSED_TOKENS
    # The excess of the first 64 tokens follows from that of 512, as it falls with the place.
    assert start.after(64) == pytest.approx(of_places(0, 64) - 64 * start.token_bits, rel=0.2)


def test_no_batch_changes_a_bit() -> None:
    """Nor does a device: what is measured decides about the archive's bytes."""
    usually = RowStart(350.0, 4.0, 2048)
    engines: list[Any] = [PlaceEngine(size) for size in (1024, 600, 300, 77)]
    found = {row_start.measured(engine, [ONES, ONES], usually) for engine in engines}
    assert len(found) == 1


def test_the_usual_cost_counts_where_little_is_measured() -> None:
    engine: Any = PlaceEngine()
    usually = row_start.usual(engine, 10.0)
    assert usually.token_bits == pytest.approx(4.0) and usually.places == 0 and usually.context == engine.context
    assert row_start.measured(engine, [], usually) == usually
    one, four = (row_start.measured(engine, [ONES] * count, usually) for count in (1, 4))
    true = of_places(0, 512) - of_places(512, 1024)
    assert usually.bits > one.bits > four.bits > true
    assert four.bits - true < (one.bits - true) / 2
    # The size by LZMA is that of all of the text.
    late = of_places(512, 1024) / 512
    assert one.token_bits == pytest.approx((2 * 4.0 + late) / 3, rel=0.01)


def test_a_row_costs_more_up_to_the_context() -> None:
    start = RowStart(300.0, 4.0, 1024)
    assert start.after(0) == 0 and start.after(512) == pytest.approx(300)
    costs = [start.after(length) for length in (1, 16, 100, 1000, 1024)]
    assert costs == sorted(costs) and costs[-1] == start.after(10**6) < 400
    assert start.mixed().after(512) == pytest.approx(240)


@pytest.mark.parametrize("num_tokens", [1, 100, 5000, 42_000, 500_000])
def test_rows_are_as_many_as_the_loss_allows(num_tokens: int) -> None:
    start, last = RowStart(300.0, 4.0, 1024), 0
    for max_loss in (0.0, 0.005, 0.03, 0.15):
        rows = start.max_rows(num_tokens, max_loss, 256)
        assert 1 <= rows <= 256 and last <= rows
        assert start.loss(num_tokens, rows) <= max_loss
        if rows < min(256, num_tokens):
            assert start.loss(num_tokens, rows + 1) > max_loss
        last = rows
    assert start.max_rows(num_tokens, 0.0, 256) == 1
    assert start.loss(num_tokens, 1) == 0


def test_six_loses_three_percent_on_150_kilobytes() -> None:
    # 42,000 tokens of prose by a model of 135 M parameters, whose starts cost 357 bits of 168,000.
    start = RowStart(300.0, 4.0, 1024)
    assert start.max_rows(42_000, 0.03, 256) == 1 + math.floor(0.03 * 168_000 / start.after(1024)) == 15


def test_places_are_in_the_text() -> None:
    assert [row_start.num_places(n) for n in (0, 16_383, 16_384, 40_000, 10**6)] == [0, 0, 1, 2, 4]
    for num_tokens in (5, 16_384, 40_000, 100_000):
        tokens = np.arange(num_tokens)
        runs = row_start.runs_of(tokens)
        assert len(runs) == row_start.num_places(num_tokens)
        assert all(len(run) == row_start.RUN_TOKENS for run in runs)
        assert row_start.PASSED_TOKENS * len(runs) < num_tokens / 10
        if len(runs) > 1:
            gaps = np.diff([run[0] for run in runs])
            assert gaps.min() >= num_tokens // len(runs) - 1


def test_short_contexts_and_single_steps_are_left_alone() -> None:
    def engine(**fields: object) -> Any:
        return SimpleNamespace(**{"context": 1024, "stepwise": False} | fields)

    assert row_start.is_measured(engine())
    assert not row_start.is_measured(engine(context=1023))
    assert not row_start.is_measured(engine(stepwise=True))
