"""Checks the mixer's tables: the document's SHA-256, what their formulas say, and the states of the counters."""

from __future__ import annotations

import decimal
import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmzip.mixing import tables

NUMERICS = Path(__file__).parents[2] / "docs" / "numerics.md"
MOST_SEEN = (40, 20, 12, 8, 6, 5)

TABLES: dict[str, tuple[Callable[[], np.ndarray], int]] = {
    "SQUASH": (tables.squash_table, 5631),
    "STRETCH": (tables.stretch_table, 4096),
    "LOG": (tables.log_table, 1024),
    "OCTAVE": (tables.octave_table, 64),
    "RATE": (tables.rate_table, 1024),
    "NEXT": (lambda: tables.states().successor, 470),
    "START": (lambda: tables.states().probability, 235),
    "SEEN": (lambda: tables.states().seen, 235),
}


def documented_digests() -> dict[str, str]:
    """The table of section 10.3."""
    section = NUMERICS.read_text(encoding="utf-8").partition("### 10.3")[2].partition("###")[0]
    rows = re.findall(r"^\| ([A-Z]+)\[.*\| `([0-9a-f]{64})` \|$", section, re.MULTILINE)
    return dict(rows)


def test_the_file_of_weights_has_the_documents_digest() -> None:
    section = NUMERICS.read_text(encoding="utf-8").partition("### 10.11")[2]
    data = (Path(tables.__file__).parent / "start.bin").read_bytes()
    assert f"`{hashlib.sha256(data).hexdigest()}`" in section


def digest(table: np.ndarray) -> str:
    return hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()


def test_the_document_has_all_tables() -> None:
    assert documented_digests().keys() == TABLES.keys()


@pytest.mark.parametrize("name", TABLES)
def test_table_has_the_documents_digest(name: str) -> None:
    make, size = TABLES[name]
    assert make().shape == (size,)
    assert digest(make()) == documented_digests()[name]


def test_tables_do_not_depend_on_the_callers_decimal_context() -> None:
    context = decimal.Context(prec=5, rounding=decimal.ROUND_UP, Emin=-9, Emax=9, clamp=1, traps=[decimal.Inexact])
    with decimal.localcontext(context):
        for cached in (tables.squash_table, tables.stretch_table, tables.log_table):
            assert np.array_equal(cached.__wrapped__(), cached())
        assert not any(decimal.getcontext().flags.values())
        assert decimal.getcontext().prec == 5


@pytest.mark.parametrize("name", ["SQUASH", "STRETCH", "LOG", "OCTAVE"])
def test_tables_rise(name: str) -> None:
    assert np.all(np.diff(TABLES[name][0]()) >= 0)


def test_tables_are_close_to_their_functions() -> None:
    z = np.arange(-2815, 2816)
    assert np.abs(tables.squash_table() - 65536 / (1 + np.exp(-z / 256))).max() < 0.5 + 1e-9
    i = np.arange(4096)
    logit = 256 * np.log((2 * i + 1) / (8191 - 2 * i))
    assert np.abs(tables.stretch_table() - np.clip(logit, -2047, 2047)).max() < 0.5 + 1e-9
    assert np.abs(tables.log_table() - 256 * np.log1p(np.arange(1024) / 1024)).max() < 0.5 + 1e-9
    assert np.abs(tables.octave_table() - 256 * math.log(2) * np.arange(64)).max() < 0.5 + 1e-9


def test_tables_have_their_ranges() -> None:
    squash, stretch, rate = tables.squash_table(), tables.stretch_table(), tables.rate_table()
    assert (squash[0], squash[2815], squash[-1]) == (1, 32768, 65535)
    assert (stretch[0], stretch[-1]) == (-2047, 2047)
    assert (rate[0], rate[-1]) == (43690, 63)  # below 2^16: a probability never goes past its target
    assert np.all(np.diff(rate) <= 0)
    assert tables.octave_table()[38] + tables.log_table()[-1] < 1 << 15


def test_squash_and_stretch_are_symmetric() -> None:
    squash, stretch = tables.squash_table().astype(int), tables.stretch_table()
    assert np.array_equal(stretch, -stretch[::-1])
    # A half rounds to even, which need not be symmetric; no entry is one.
    assert np.array_equal(squash + squash[::-1], np.full(5631, 65536))


def test_squash_undoes_stretch_within_rounding() -> None:
    stretch = tables.stretch_table()
    back = tables.squash_table()[stretch + tables.MAX_LOGIT]
    q = (2 * np.arange(4096) + 1) * 8  # in units of 2^-16
    # Half a step of 1/256 nat, and the rounding of both tables; the first and the last entry are cut to 2047.
    error = np.abs(back - q)
    assert np.all((error <= 65536 / 256 * 0.5 * (q / 65536) * (1 - q / 65536) + 1)[1:-1])
    assert error[0] == error[-1] == 14


def test_logarithms_are_continuous_across_octaves() -> None:
    octave, log = tables.octave_table().astype(int), tables.log_table()
    steps = octave[1:] - (octave[:-1] + log[-1])
    assert steps.min() >= 0 and steps.max() <= 1


# -- states ------------------------------------------------------------------------------------------------------------


def allowed(zeros: int, ones: int) -> bool:
    less, more = min(zeros, ones), max(zeros, ones)
    return less < 6 and more <= MOST_SEEN[less]


def documented_states() -> list[tuple[int, int, int]]:
    """(n0, n1, last) in the order of their numbers."""
    states = [
        (zeros, ones, last)
        for zeros in range(41)
        for ones in range(41)
        if allowed(zeros, ones)
        for last in (0, 1)
        if (zeros and ones) or last == int(ones > 0)
    ]
    return sorted(states, key=lambda state: (state[0] + state[1], *state))


def after(state: tuple[int, int, int], bit: int) -> tuple[int, int, int]:
    """The document's step, for bit 1 and then mirrored."""
    other, same = (state[0], state[1]) if bit else (state[1], state[0])
    same += 1
    if other > 2:
        other = 2 + (other - 2) // 2
    while not allowed(other, same):
        if same > other:
            same -= 1
        else:
            other -= 1
    zeros, ones = (other, same) if bit else (same, other)
    return zeros, ones, bit if zeros and ones else int(ones > 0)


def test_states_are_the_documents() -> None:
    found, expected = tables.states(), documented_states()
    assert len(expected) == 235 and expected[0] == (0, 0, 0)
    number = {state: index for index, state in enumerate(expected)}
    successors = [number[after(state, bit)] for state in expected for bit in (0, 1)]
    assert found.successor.tolist() == successors
    assert found.seen.tolist() == [zeros + ones for zeros, ones, _ in expected]
    assert found.probability.tolist() == [
        ((5 * ones + 2) * 2**22) // (5 * (zeros + ones) + 4) for zeros, ones, _ in expected
    ]


def test_no_state_goes_back_to_nothing() -> None:
    successor = tables.states().successor
    reached, border = {0}, [0]
    while border:
        state = border.pop()
        for following in successor[2 * state : 2 * state + 2].tolist():
            assert 0 < following < 235
            if following not in reached:
                reached.add(following)
                border.append(following)
    # The other 20, (4, 5) with either last bit for one, have two high counts: by then the older one was halved.
    assert len(reached) == 215


def test_states_are_symmetric_under_exchanging_bits() -> None:
    expected = documented_states()
    number = {state: index for index, state in enumerate(expected)}
    mirror = [number[ones, zeros, 1 - last if zeros and ones else int(zeros > 0)] for zeros, ones, last in expected]
    states = tables.states()
    for state in range(235):
        for bit in (0, 1):
            assert mirror[states.successor[2 * state + bit]] == states.successor[2 * mirror[state] + 1 - bit]
        both = int(states.probability[state]) + int(states.probability[mirror[state]])
        assert both in (1 << 22, (1 << 22) - 1)


def test_states_count_what_they_have_seen() -> None:
    states = tables.states()
    assert states.seen.max() == 40 and states.probability.min() > 0 and states.probability.max() < 1 << 22
    assert states.successor.dtype == np.uint8
    for bit in (0, 1):
        state = 0
        for count in range(60):
            assert states.seen[state] == min(count, 40)
            state = int(states.successor[2 * state + bit])
