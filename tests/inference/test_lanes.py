"""Rows in lanes: the same payloads however many there are, no step too many, errors that stop everything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmzip.codec import rows
from llmzip.format.plan import RowPlan
from llmzip.inference.lanes import Lanes
from llmzip.inference.passes import NOTHING
from llmzip.inference.progress import ByteMeter
from llmzip.mixing.vocabulary import Vocabulary

VOCAB = 40
PLANS = [
    RowPlan(200, 64, 3), RowPlan(201, 64, 3), RowPlan(223, 64, 3), RowPlan(224, 64, 3), RowPlan(255, 64, 3),
    RowPlan(700, 333, 3), RowPlan(333, 333, 3), RowPlan(90, 1, 3), RowPlan(1000, 33, 3), RowPlan(1000, 96, 2),
]  # fmt: skip
"""Rows of which some lanes have long ones only, some none."""


@pytest.fixture
def make_engine(hash_engine: type[Any]) -> Callable[..., Any]:
    class Strict(hash_engine):  # type: ignore[misc]
        """An engine that several threads may use, and that notes how long caches become."""

        def __init__(self, callers: int) -> None:
            super().__init__(vocab_size=VOCAB, context=50)
            self.callers = callers
            self.most: dict[int, int] = {}

        def new_cache(self, rows: int, chunk: int, positions: int) -> Any:
            cache = super().new_cache(rows, chunk, positions)
            self.most[id(cache)] = min(positions, self.context)
            return cache

        def forward(self, ids: np.ndarray, cache: Any = None) -> np.ndarray:
            hidden: np.ndarray = super().forward(ids, cache)
            if cache is not None and id(cache) in self.most:
                assert cache.length <= self.most[id(cache)], "more positions than there is room for"
            return hidden

    return Strict


def tokens_of(plan: RowPlan, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(VOCAB, size=plan.num_tokens)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.num_tokens} in {plan.num_rows}")
def test_payloads_are_the_same_with_any_number_of_lanes(
    plan: RowPlan, mixed: bool, make_engine: Callable[..., Any]
) -> None:
    tokens = tokens_of(plan)
    vocabulary = Vocabulary([bytes([65 + n]) for n in range(VOCAB)]) if mixed else None
    expected = rows.FrameCoder(make_engine(1), vocabulary).encode(tokens, plan)
    for callers in (2, 5):
        assert rows.FrameCoder(make_engine(callers), vocabulary).encode(tokens, plan) == expected
    for callers in (1, 2, 5):
        engine = make_engine(callers)
        assert np.array_equal(
            rows.FrameCoder(engine, vocabulary).decode(expected[0], plan, ByteMeter(len, 1 << 20)), tokens
        )


@pytest.mark.parametrize(("num_rows", "unit", "callers", "expected"), [
    (1, 1, 4, [1]), (3, 1, 4, [1, 1, 1]), (64, 32, 1, [32, 32]), (95, 32, 4, [32, 63]), (100, 32, 1, [32, 68]),
    (31, 32, 4, [31]), (256, 32, 2, [64, 64, 64, 64]),
])  # fmt: skip
def test_lanes_are_of_whole_units(
    num_rows: int, unit: int, callers: int, expected: list[int], make_engine: Callable[..., Any]
) -> None:
    plan = RowPlan(5 * num_rows + num_rows // 2, num_rows, 3)
    with Lanes(make_engine(callers), plan, NOTHING, unit) as lanes:
        assert [lane.plan.num_rows for lane in lanes] == expected
        assert sum(lane.plan.num_tokens for lane in lanes) == plan.num_tokens
        assert all(lane.first % unit == 0 for lane in lanes)
        assert {lane.plan.steps for lane in lanes} <= {plan.steps, plan.full_steps}


def test_an_error_ends_all_lanes_before_it_is_raised(make_engine: Callable[..., Any]) -> None:
    plan, running = RowPlan(400, 8, 3), []

    def work(number: int) -> None:
        running.append(number)
        threading.Event().wait(0.02)
        running.remove(number)
        if number == 1:
            raise ValueError("the second lane")

    with pytest.raises(ValueError, match="the second lane"), Lanes(make_engine(4), plan, NOTHING, 1, 9) as lanes:
        for number, lane in enumerate(lanes):
            lanes.start(lane, work, number)
        for lane in lanes:
            lanes.wait(lane)
    assert running == []
