"""Checks the way from masses to frequencies: sums, bounds, both coding steps, against plain integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmzip.engines.cpu import kernels
from llmzip.engines.frequencies import TOTAL, Frequencies, group_size

VOCABULARIES = [16, 17, 100, 256, 4096, 5000, 50257]
PEAK = 1 << 20


def mass_rows(vocab_size: int, rng: np.random.Generator) -> torch.Tensor:
    """Random masses of several shapes, and the extremes: all equal, all but one 0, one heavy among light ones."""
    rows = np.zeros((9, vocab_size), dtype=np.int64)
    rows[0] = PEAK
    rows[1, 0] = rows[2, vocab_size - 1] = rows[3, vocab_size // 2] = PEAK
    rows[4] = 1
    rows[4, vocab_size // 3] = PEAK
    rows[5] = rng.integers(0, PEAK + 1, vocab_size)
    rows[6] = (PEAK * rng.random(vocab_size) ** 30).astype(np.int64)
    rows[7] = (PEAK * 0.5 ** (np.arange(vocab_size) % 25)).astype(np.int64)
    rows[8, : vocab_size // 2] = PEAK
    rows[rows.max(1) == 0, 0] = PEAK
    return torch.from_numpy(rows.astype(np.int32))


def cumulative(masses: list[int]) -> list[int]:
    """C_i = floor((m_0 + ... + m_(i-1)) (2^24 - V) / M) + i for i = 0 .. V."""
    total, vocab_size, running, out = sum(masses), len(masses), 0, [0]
    for i, mass in enumerate(masses):
        running += mass
        out.append(running * (TOTAL - vocab_size) // total + i + 1)
    return out


def group_tables(masses: list[int]) -> tuple[list[int], list[list[int]]]:
    """The table of the groups and that of each group's places, as docs/numerics.md section 8 has them."""
    size, vocab_size = group_size(len(masses)), len(masses)
    c = cumulative(masses)
    groups = [c[min(i, vocab_size)] for i in range(0, vocab_size + size, size)]
    groups = groups[: -(-vocab_size // size) + 1]
    places = []
    for first in range(0, vocab_size, size):
        inner = [
            c[i] - c[first] if i <= vocab_size else c[-1] - c[first] + i - vocab_size
            for i in range(first, first + size + 1)
        ]
        places.append([value * TOTAL // inner[-1] for value in inner])
    return groups, places


def test_group_size_is_the_least_power_of_two_whose_square_covers() -> None:
    size = 4
    for vocab_size in range(16, (1 << 18) + 1):
        while size * size < vocab_size:
            size *= 2
        assert group_size(vocab_size) == size


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_frequencies_of_all_tokens_are_positive_and_sum_to_2_to_the_24(
    vocab_size: int, rng: np.random.Generator
) -> None:
    masses = mass_rows(vocab_size, rng)
    split = Frequencies(vocab_size)
    sums, bounds = split.group_bounds(masses)
    assert bounds.dtype == torch.int64 and bounds.shape == (len(masses), split.num_groups + 1)
    assert (bounds[:, 0] == 0).all() and (bounds[:, -1] == TOTAL).all()
    assert (bounds.diff() >= 1).all()
    for group in range(split.num_groups):
        chosen = torch.full((len(masses),), group)
        inner = split.symbol_bounds(masses, sums, bounds, chosen)
        assert inner.shape == (len(masses), split.group_size + 1)
        assert (inner[:, 0] == 0).all() and (inner[:, -1] == TOTAL).all()
        assert (inner.diff() >= 1).all()


@pytest.mark.parametrize("vocab_size", [16, 17, 100, 256, 4096, 5000])
def test_tables_are_those_of_the_formula(vocab_size: int, rng: np.random.Generator) -> None:
    masses = mass_rows(vocab_size, rng)
    split = Frequencies(vocab_size)
    sums, bounds = split.group_bounds(masses)
    every_group = range(split.num_groups)
    inner = torch.stack(
        [split.symbol_bounds(masses, sums, bounds, torch.full((len(masses),), group)) for group in every_group], 1
    )
    for row, values in enumerate(masses.tolist()):
        groups, places = group_tables(values)
        assert bounds[row].tolist() == groups
        assert inner[row].tolist() == places


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_intervals_are_those_of_the_tables(
    vocab_size: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    masses = mass_rows(vocab_size, rng)
    split = Frequencies(vocab_size)
    sums, bounds = split.group_bounds(masses)
    edges = [0, 1, split.group_size - 1, split.group_size, vocab_size - 2, vocab_size - 1]
    for token in [*edges, *rng.integers(0, vocab_size, 10).tolist()]:
        tokens = torch.full((len(masses),), token)
        group, place = divmod(token, split.group_size)
        inner = split.symbol_bounds(masses, sums, bounds, tokens // split.group_size)
        expected = torch.stack(
            [
                bounds[:, group],
                bounds[:, group + 1] - bounds[:, group],
                inner[:, place],
                inner[:, place + 1] - inner[:, place],
            ],
            1,
        )
        monkeypatch.delenv("LLMZIP_KERNELS", raising=False)
        assert torch.equal(split.intervals(masses, tokens), expected)
        monkeypatch.setenv("LLMZIP_KERNELS", "none")
        plain = split.sums(masses, tokens, ranks=True)
        assert torch.equal(split.intervals(masses, tokens), expected)
        own = masses.gather(1, tokens[:, None])
        assert torch.equal(plain[:, 4], masses.sum(-1, dtype=torch.int64))
        assert torch.equal(plain[:, 2] - plain[:, 1], own[:, 0].to(torch.int64))
        order = masses.sort(dim=1, descending=True, stable=True).indices
        assert torch.equal(plain[:, 5], (order == tokens[:, None]).to(torch.int64).argmax(1))
        for level in kernels.LEVELS[1:]:
            if kernels.library(level) is not None:
                monkeypatch.setenv("LLMZIP_KERNELS", level)
                assert torch.equal(split.sums(masses, tokens), plain), level


def test_intervals_of_a_row_do_not_depend_on_the_other_rows(rng: np.random.Generator) -> None:
    masses = mass_rows(300, rng)
    tokens = torch.from_numpy(rng.integers(0, 300, len(masses)))
    split = Frequencies(300)
    together = split.intervals(masses, tokens)
    for row in range(len(masses)):
        assert torch.equal(split.intervals(masses[row : row + 1], tokens[row : row + 1])[0], together[row])


def test_the_largest_vocabulary_does_not_overflow() -> None:
    vocab_size = 1 << 18
    masses = torch.full((2, vocab_size), PEAK, dtype=torch.int32)
    masses[1, : vocab_size - 1] = 0
    split = Frequencies(vocab_size)
    sums, bounds = split.group_bounds(masses)
    assert sums[0, -1] == PEAK * vocab_size
    assert bounds[0].tolist() == [group * TOTAL // split.num_groups for group in range(split.num_groups + 1)]
    assert bounds[1].diff().tolist()[:-1] == [split.group_size] * (split.num_groups - 1)
    last = split.symbol_bounds(masses, sums, bounds, torch.full((2,), split.num_groups - 1))
    assert (last.diff() >= 1).all() and (last[:, -1] == TOTAL).all()


def test_the_two_steps_cost_what_the_frequency_says(rng: np.random.Generator) -> None:
    masses = mass_rows(100, rng)[5:6]
    split = Frequencies(100)
    c = cumulative(masses[0].tolist())
    for token in range(100):
        _, group, _, place = split.intervals(masses, torch.tensor([token]))[0].tolist()
        # Two divisions are rounded down, each by less than one unit of 2^24.
        assert group * place / TOTAL == pytest.approx(c[token + 1] - c[token], rel=2e-5, abs=1.0)
