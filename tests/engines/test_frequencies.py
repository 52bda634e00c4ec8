"""Checks the way from masses to frequencies: sums, bounds, both coding steps, against plain integers."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from llmzip.engines import planes, selftest
from llmzip.engines.cpu import kernels
from llmzip.engines.cpu.frequencies import CpuFrequencies
from llmzip.engines.exact import ExactEngine
from llmzip.engines.frequencies import TOTAL, TOTAL_BITS, Frequencies, group_size
from llmzip.engines.torch_frequencies import TorchFrequencies

VOCABULARIES = [16, 17, 100, 256, 4096, 5000, 50257]
PEAK = 1 << 20


WAYS = ["torch", *(level for level in kernels.LEVELS[1:] if kernels.library(level) is not None)]
"""Every way to compute on this machine."""


def frequencies(way: str, vocab_size: int, total_bits: int = TOTAL_BITS, floor_bits: int = 0) -> Frequencies:
    library = None if way == "torch" else kernels.library(way)
    if library is None:
        return TorchFrequencies(vocab_size, total_bits, floor_bits)
    return CpuFrequencies(library, vocab_size, total_bits, floor_bits)


def tables(split: Frequencies, masses: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums and bounds of the groups, and bounds within one group of each row."""
    sums, bounds = split.group_bounds(masses)
    return split.host(sums), split.host(bounds), split.host(split.symbol_bounds(masses, sums, bounds, groups))


def mass_rows(vocab_size: int, rng: np.random.Generator, floor_bits: int = 0) -> np.ndarray:
    """Random masses of several shapes, and the extremes: all equal, all but one 0, one heavy among light ones."""
    rows, peak = np.zeros((9, vocab_size), dtype=np.int64), PEAK << floor_bits
    rows[0] = peak
    rows[1, 0] = rows[2, vocab_size - 1] = rows[3, vocab_size // 2] = peak
    rows[4] = 1
    rows[4, vocab_size // 3] = peak
    rows[5] = rng.integers(0, peak + 1, vocab_size)
    rows[6] = (peak * rng.random(vocab_size) ** 30).astype(np.int64)
    rows[7] = (peak * 0.5 ** (np.arange(vocab_size) % 25)).astype(np.int64)
    rows[8, : vocab_size // 2] = peak
    rows[rows.max(1) == 0, 0] = peak
    return rows.astype(np.int32)


def cumulative(masses: list[int], total_bits: int = 24) -> list[int]:
    """C_i = floor((m_0 + ... + m_(i-1)) (2^24 - V) / M) + i for i = 0 .. V, sums cut to 39 bits."""
    total, vocab_size, running, out = sum(masses), len(masses), 0, [0]
    shift = max(0, total.bit_length() - 39)
    for i, mass in enumerate(masses):
        running += mass
        out.append((running >> shift) * (2**total_bits - vocab_size) // (total >> shift) + i + 1)
    return out


def weighted(weights: list[int]) -> list[int]:
    """T_j of docs/numerics.md section 8.2 for j = 0 .. n."""
    sums = [0, *itertools.accumulate(weights)]
    places, shift = len(weights), max(0, sums[-1].bit_length() - 39)
    return [(w >> shift) * (TOTAL - places) // (sums[-1] >> shift) + j for j, w in enumerate(sums)]


def weighted_tables(masses: list[int]) -> tuple[list[int], list[list[int]]]:
    """The table of the groups and that of each group's places, as docs/numerics.md section 8.2 has them."""
    size = group_size(len(masses))
    weights = [mass + 1 for mass in masses] + [1] * (-len(masses) % size)
    groups = [weights[first : first + size] for first in range(0, len(weights), size)]
    return weighted([sum(group) for group in groups]), [weighted(group) for group in groups]


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


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("floor_bits", [0, 5, 8])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_frequencies_of_all_tokens_are_positive_and_sum_to_2_to_the_24(
    vocab_size: int, floor_bits: int, way: str, rng: np.random.Generator
) -> None:
    masses = mass_rows(vocab_size, rng, floor_bits)
    split = frequencies(way, vocab_size, floor_bits=floor_bits)
    for group in range(split.num_groups):
        _, bounds, inner = tables(split, masses, np.full(len(masses), group))
        assert bounds.dtype == np.int64 and bounds.shape == (len(masses), split.num_groups + 1)
        assert inner.dtype == np.int64 and inner.shape == (len(masses), split.group_size + 1)
        for table in (bounds, inner):
            assert (table[:, 0] == 0).all() and (table[:, -1] == TOTAL).all()
            assert (np.diff(table) >= 1).all()


@pytest.mark.parametrize("floor_bits", [0, 3, 8])
@pytest.mark.parametrize("vocab_size", [16, 17, 100, 256, 4096, 5000])
def test_tables_are_those_of_the_formula(vocab_size: int, floor_bits: int, way: str, rng: np.random.Generator) -> None:
    masses = mass_rows(vocab_size, rng, floor_bits)
    split = frequencies(way, vocab_size, floor_bits=floor_bits)
    of_groups = [tables(split, masses, np.full(len(masses), group)) for group in range(split.num_groups)]
    bounds, inner = of_groups[0][1], np.stack([places for _, _, places in of_groups], 1)
    for row, values in enumerate(masses.tolist()):
        groups, places = (weighted_tables if floor_bits else group_tables)(values)
        assert bounds[row].tolist() == groups
        assert inner[row].tolist() == places


@pytest.mark.parametrize("floor_bits", [0, 6])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_intervals_are_those_of_the_tables(
    vocab_size: int, floor_bits: int, way: str, rng: np.random.Generator
) -> None:
    masses = mass_rows(vocab_size, rng, floor_bits)
    split = frequencies(way, vocab_size, floor_bits=floor_bits)
    order = np.argsort(-masses.astype(np.int64), axis=1, kind="stable")
    edges = [0, 1, split.group_size - 1, split.group_size, vocab_size - 2, vocab_size - 1]
    for token in [*edges, *rng.integers(0, vocab_size, 10).tolist()]:
        tokens = np.full(len(masses), token)
        group, place = divmod(token, split.group_size)
        _, bounds, inner = tables(split, masses, tokens // split.group_size)
        expected = np.stack(
            [
                bounds[:, group],
                bounds[:, group + 1] - bounds[:, group],
                inner[:, place],
                inner[:, place + 1] - inner[:, place],
            ],
            1,
        )
        assert np.array_equal(split.intervals(masses, tokens), expected)
        sums = split.sums(masses, tokens, ranks=True)
        mass, total = split.mass_and_total(masses, tokens)
        assert sums.shape == (len(masses), 6) and np.array_equal(sums[:, 4], total)
        assert np.array_equal(total, masses.sum(1, dtype=np.int64)) and np.array_equal(mass, masses[:, token])
        first = group * split.group_size
        ends = (first, token, token + 1, first + split.group_size)
        assert np.array_equal(sums[:, :4].T, [masses[:, :end].sum(1, dtype=np.int64) for end in ends])
        assert np.array_equal(sums[:, 5], (order == token).argmax(1))
    for count in (1, 5, 16):
        ids, largest = split.likeliest(masses, count)
        assert np.array_equal(ids, order[:, :count])
        assert np.array_equal(largest, np.take_along_axis(masses, order[:, :count], 1))


def test_tokens_that_do_not_exist_are_refused(way: str) -> None:
    split, masses = frequencies(way, 100), np.full((1, 100), PEAK, dtype=np.int32)
    for token in (-1, 100):
        with pytest.raises(IndexError, match="outside a vocabulary of 100"):
            split.intervals(masses, np.array([token]))


def test_intervals_of_a_row_do_not_depend_on_the_other_rows(way: str, rng: np.random.Generator) -> None:
    masses = mass_rows(300, rng)
    tokens = rng.integers(0, 300, len(masses))
    split = frequencies(way, 300)
    together = split.intervals(masses, tokens)
    for row in range(len(masses)):
        assert np.array_equal(split.intervals(masses[row : row + 1], tokens[row : row + 1])[0], together[row])


def test_the_largest_vocabulary_does_not_overflow(way: str) -> None:
    vocab_size = 1 << 18
    masses = np.full((2, vocab_size), PEAK, dtype=np.int32)
    masses[1, : vocab_size - 1] = 0
    split = frequencies(way, vocab_size)
    sums, bounds, last = tables(split, masses, np.full(2, split.num_groups - 1))
    assert sums[0, -1] == PEAK * vocab_size
    assert bounds[0].tolist() == [group * TOTAL // split.num_groups for group in range(split.num_groups + 1)]
    assert np.diff(bounds[1]).tolist()[:-1] == [split.group_size] * (split.num_groups - 1)
    assert (np.diff(last) >= 1).all() and (last[:, -1] == TOTAL).all()


def test_the_largest_vocabulary_with_the_largest_masses_does_not_overflow(way: str) -> None:
    vocab_size, peak = 300_000, PEAK << 8
    masses = np.full((3, vocab_size), peak, dtype=np.int32)
    masses[1, :-1], masses[2, 1:] = 0, 0
    split = frequencies(way, vocab_size, floor_bits=8)
    tokens = np.array([vocab_size // 2, vocab_size - 1, vocab_size - 2])
    groups = tokens // split.group_size
    sums, bounds, inner = tables(split, masses, groups)
    assert sums[0, -1] == peak * vocab_size and split.num_groups * split.group_size > vocab_size
    for row, values in enumerate(masses.tolist()):
        outer, places = weighted_tables(values)
        assert bounds[row].tolist() == outer and inner[row].tolist() == places[int(groups[row])]
        place = int(tokens[row] - groups[row] * split.group_size)
        part = places[int(groups[row])]
        left, frequency, inner_left, inner_frequency = split.intervals(masses, tokens)[row].tolist()
        assert [left, left + frequency] == outer[int(groups[row]) :][:2]
        assert [inner_left, inner_left + inner_frequency] == part[place : place + 2]


@pytest.mark.parametrize("total_bits", [20, 24])
@pytest.mark.parametrize("floor_bits", [0, 8])
def test_a_single_step_has_the_frequencies_of_the_formula(
    floor_bits: int, total_bits: int, way: str, rng: np.random.Generator
) -> None:
    masses = mass_rows(5000, rng, floor_bits)
    split = frequencies(way, 5000, total_bits, floor_bits)
    tables_of_rows = [cumulative(values, total_bits) for values in masses.tolist()]
    tokens = rng.integers(0, 5000, len(masses))
    expected = [[table[token], table[token + 1]] for table, token in zip(tables_of_rows, tokens.tolist(), strict=True)]
    assert split.bounds(masses, tokens).tolist() == expected
    for targets in ([left for left, _ in expected], [right - 1 for _, right in expected]):
        ids, bounds = split.find(masses, np.array(targets))
        assert ids.tolist() == tokens.tolist() and bounds.tolist() == expected


def test_a_smaller_floor_leaves_more_to_likely_tokens(rng: np.random.Generator) -> None:
    vocab_size = 1 << 18
    masses = (PEAK * rng.random((1, vocab_size)) ** 200).astype(np.int32)
    masses[0, 77] = PEAK
    share = []
    for floor_bits in (0, 8):
        split = frequencies(WAYS[-1], vocab_size, floor_bits=floor_bits)
        _, group, _, place = split.intervals(masses << floor_bits, np.array([77]))[0].tolist()
        share.append(group * place / TOTAL**2 * masses.sum() / PEAK)
    assert share[0] == pytest.approx(1 - vocab_size / TOTAL, abs=1e-4)
    assert share[1] == pytest.approx(1, abs=1e-4)


def test_the_two_steps_cost_what_the_frequency_says(way: str, rng: np.random.Generator) -> None:
    masses = mass_rows(100, rng)[5:6]
    split = frequencies(way, 100)
    c = cumulative(masses[0].tolist())
    for token in range(100):
        _, group, _, place = split.intervals(masses, np.array([token]))[0].tolist()
        # Two divisions are rounded down, each by less than one unit of 2^24.
        assert group * place / TOTAL == pytest.approx(c[token + 1] - c[token], rel=2e-5, abs=1.0)


@pytest.mark.parametrize("floor_bits", [0, 8])
def test_estimated_bits_are_those_of_the_frequencies(floor_bits: int) -> None:
    model = selftest.tiny_model(2)
    engine = ExactEngine(dataclasses.replace(model, config=dataclasses.replace(model.config, floor_bits=floor_bits)))
    inputs = np.arange(0, 61) * 7 % 50
    masses = engine.masses(engine.forward(inputs[None, :-1])[0])
    assert int(masses.max()) == PEAK << floor_bits
    intervals = engine.readout().frequencies.intervals(masses, inputs[1:]).astype(float)
    bits = float((48 - np.log2(intervals[:, 1]) - np.log2(intervals[:, 3])).sum())
    # The two divisions round frequencies down, and the second step's places past the end take a little.
    assert planes.code_bits(engine, inputs) == pytest.approx(bits, rel=2e-3)
