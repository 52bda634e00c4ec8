"""Checks the numbers of a training: batches, rates and momentum over its steps."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmzip.training.schedule import MAX_BATCH, MIN_BATCH, Plan, batch_tokens, change_steps, make_plan


def plan(steps: int, tokens: int = 8192) -> Plan:
    return make_plan(steps, tokens // 512, 4, sequence=512)


@pytest.mark.parametrize(
    ("tokens", "batch"),
    [(0, 4096), (1, 4096), (10_000_000, 4096), (30_000_000, 8192), (118_000_000, 1 << 15), (500_000_000, 1 << 17)],
)
def test_batches_of_the_document(tokens: int, batch: int) -> None:
    assert batch_tokens(tokens) == batch
    assert (MIN_BATCH, MAX_BATCH) == (4096, 1 << 17)


@given(tokens=st.integers(0, 1 << 50), more=st.integers(0, 1 << 50))
def test_batches_are_powers_of_two_that_grow_with_the_budget(tokens: int, more: int) -> None:
    batch = batch_tokens(tokens)
    assert MIN_BATCH <= batch <= MAX_BATCH and batch.bit_count() == 1
    assert batch_tokens(tokens + more) >= batch


@given(tokens=st.integers(4096 * 3600, (1 << 17) * 3600))
@example(tokens=47_000_000)
def test_steps_are_about_as_many_as_wanted(tokens: int) -> None:
    assert 3600 / 1.42 < tokens / batch_tokens(tokens) < 3600 * 1.42


@given(steps=st.integers(1, 10**6), at=st.floats(0, 1))
@example(steps=1, at=0.0)
@example(steps=2, at=1.0)
def test_rates_are_above_0_and_at_most_1(steps: int, at: float) -> None:
    rate = plan(steps).rate(min(steps - 1, int(at * steps)))
    assert 0.03 < rate <= 1 or rate == 1 / (plan(steps).warm_up + 1)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 100, 299, 300, 5000])
def test_rates_rise_stay_and_fall(steps: int) -> None:
    made = plan(steps)
    rates = [made.rate(step) for step in range(steps)]
    warm, fall = made.warm_up, 2 * steps // 5
    assert warm == min(30, steps // 10)
    rising, flat, falling = rates[: warm + 1], rates[warm : fall + 1], rates[fall:]
    assert rising == pytest.approx([(step + 1) / (warm + 1) for step in range(warm + 1)])
    assert flat == [1.0] * len(flat)
    assert all(later < earlier for earlier, later in itertools.pairwise(falling))


@pytest.mark.parametrize("steps", [10, 100, 5000])
def test_the_last_rates_come_down_in_a_line(steps: int) -> None:
    made = plan(steps)
    assert made.rate(steps) == pytest.approx(0.03)
    slope = 0.97 / (0.6 * steps)
    assert [made.rate(steps - n) for n in (1, 2, 3)] == pytest.approx([0.03 + slope * n for n in (1, 2, 3)])
    assert made.rate(round(0.7 * steps)) == pytest.approx(0.03 + 0.97 / 2)


def test_momentum_rises_over_300_steps() -> None:
    made = plan(5000)
    values = [made.momentum_at(step) for step in range(1000)]
    assert values[0] == 0.85 and values[150] == pytest.approx(0.9) and values[300:] == pytest.approx([0.95] * 700)
    assert values == sorted(values) and max(values) < 1


def test_plans_say_what_they_were_made_for() -> None:
    made = make_plan(100, 16, 4, sequence=512, matrix_rate=0.01, weight_decay=0.2)
    assert (made.steps, made.batch, made.micro_batch, made.sequence) == (100, 16, 4, 512)
    assert made.batch_tokens == 8192
    assert (made.matrix_rate, made.weight_decay) == (0.01, 0.2)


@pytest.mark.parametrize(
    ("tokens", "embedding", "vector"),
    [
        (512, 0.001, 0.001),
        (8192, 0.004, 0.004),
        (32768, 0.008, 0.008),
        (65536, 0.0113137, 0.01),
        (1 << 20, 0.016, 0.01),
    ],
)
def test_adams_rates_grow_with_the_root_of_the_batch(tokens: int, embedding: float, vector: float) -> None:
    made = plan(100, tokens)
    assert (made.embedding_rate, made.vector_rate) == pytest.approx((embedding, vector), rel=1e-5)
    assert made.matrix_rate == 0.02


@given(before=st.integers(2, 10**5), data=st.data())
def test_changing_the_number_of_steps_makes_no_jump(before: int, data: st.DataObject) -> None:
    made = plan(before)
    done = data.draw(st.integers(1, before - 1), label="done")
    steps = data.draw(st.integers(done + 1, 10**6), label="steps")
    changed = change_steps(made, done, steps)
    assert changed.steps == steps
    assert changed.falling(done) == pytest.approx(made.falling(done))
    assert changed.falling(steps) == pytest.approx(made.final_rate)
    assert all(
        later <= earlier + 1e-12
        for earlier, later in itertools.pairwise(changed.falling(step) for step in range(done, min(steps, done + 50)))
    )


def test_changing_the_number_of_steps_keeps_the_usual_fall() -> None:
    assert change_steps(plan(1000), 300, 1000) == plan(1000)
    assert change_steps(plan(1000), 300, 4000) == replace(plan(4000), warm_up=plan(1000).warm_up)
    sooner = change_steps(plan(1000), 300, 400)
    assert sooner.falling(300) == 1 and sooner.falling(350) == pytest.approx((1 + 0.03) / 2)
    again = change_steps(sooner, 350, 500)
    assert again.falling(350) == sooner.falling(350) and again.falling(425) == pytest.approx((0.515 + 0.03) / 2)
