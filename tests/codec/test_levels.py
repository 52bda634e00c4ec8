"""Checks the policy of levels: what is sampled, and when the model is worth its time."""

from __future__ import annotations

from typing import Any

import pytest

from llmzip.codec import levels
from llmzip.codec.levels import LEVELS, Look
from llmzip.inference.row_start import RowStart
from llmzip.settings import MAX_LEVEL, MIN_LEVEL, CompressSettings


def test_every_level_has_a_meaning() -> None:
    assert list(LEVELS) == list(range(MIN_LEVEL, MAX_LEVEL + 1))
    assert [LEVELS[level].profile for level in LEVELS] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [level for level in LEVELS if not LEVELS[level].mixes] == [1]


@pytest.mark.parametrize("size", [32_768, 100_000, 2_097_152])
def test_samples_are_spread_from_the_beginning_to_the_end(size: int) -> None:
    piece = bytes(n % 251 for n in range(size))
    for sample_bytes in (levels.mixer_sample_bytes(size), *(look.sample_bytes(size) for look in levels.LOOKS)):
        samples = levels.samples(piece, sample_bytes)
        assert len(samples) == levels.NUM_SAMPLES and {len(sample) for sample in samples} == {sample_bytes}
        assert samples[0] == piece[:sample_bytes] and all(sample in piece for sample in samples)
        assert levels.NUM_SAMPLES * sample_bytes <= size / 4


def test_samples_for_the_mixer_have_bounds() -> None:
    assert levels.mixer_sample_bytes(levels.SAMPLED_FROM_BYTES) == 512
    assert levels.mixer_sample_bytes(128_000) == 2000
    assert levels.mixer_sample_bytes(1 << 21) == 4096


def test_short_pieces_are_not_sampled() -> None:
    assert not levels.needs_samples((1 << 15) - 1)
    assert levels.needs_samples(1 << 15)


def test_the_model_must_bring_three_percent() -> None:
    assert levels.model_helps(97.0, 100.0)
    assert not levels.model_helps(97.5, 100.0)
    assert not levels.model_helps(float("inf"), 100.0)


def test_far_repetitions_make_the_model_hopeless() -> None:
    assert levels.model_may_be_hopeless(0.9, 2.0) and not levels.model_may_be_hopeless(1.0, 2.0)
    assert levels.model_is_hopeless(499, 1000) and not levels.model_is_hopeless(500, 1000)


def test_a_look_compares_bits_per_byte() -> None:
    look = Look(1 / 32, 1536, 1.25)
    assert look.sample_bytes(32_768) == 1024 and look.sample_bytes(1 << 20) == 1536
    assert look.is_good(2500.0, 1000, 2.0) and not look.is_good(2501.0, 1000, 2.0)
    assert not look.is_good(float("inf"), 1000, 2.0)
    assert look.is_clear(1500.0, 1000, 2.0) and not look.is_clear(1501.0, 1000, 2.0)


class FarEngine:
    """An engine that sees 1,024 tokens, and needs little memory."""

    context, stepwise = 1024, False

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        return rows


@pytest.mark.parametrize("num_tokens", [500, 5000, 42_000, 700_000])
def test_starts_cost_no_more_than_the_level_allows(num_tokens: int) -> None:
    engine: Any = FarEngine()
    start = RowStart(300.0, 4.0, engine.context)
    losses = []
    for level, meaning in LEVELS.items():
        settings = CompressSettings(level)
        as_usual = levels.level_plan(level, num_tokens, engine, settings).rows
        plan = levels.level_plan(level, num_tokens, engine, settings, start=start).rows
        assert plan.num_rows <= as_usual.num_rows
        assert plan.overlap == (512 if level in (7, 8) else as_usual.overlap)
        losses.append(start.loss(num_tokens, plan.num_rows))
        assert losses[-1] <= meaning.max_start_loss
        if plan.num_rows < as_usual.num_rows:
            assert start.loss(num_tokens, plan.num_rows + 1) > meaning.max_start_loss
        # Rows that were asked for are what is made.
        asked = levels.level_plan(level, num_tokens, engine, CompressSettings(level, rows=7), start=start).rows
        assert asked.num_rows == max(7, -(-num_tokens // 65_536))
    assert losses == sorted(losses, reverse=True)


def test_higher_levels_allow_less() -> None:
    allowed = [meaning.max_start_loss for meaning in LEVELS.values()]
    assert allowed == sorted(allowed, reverse=True)
    assert (LEVELS[1].max_start_loss, LEVELS[6].max_start_loss, LEVELS[9].max_start_loss) == (0.15, 0.03, 0.005)
