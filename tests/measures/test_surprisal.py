"""Scores of tokens become units, lines, spans and profiles, for any bytes and any tokens."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llmzip.measures import surprisal
from llmzip.measures.surprisal import Units

TEXTS = [
    b"plain\n",
    "Größe, 東京 и 👩‍👩‍👧\n\nend".encode(),
    b"\xff\xfe a\xe6\x9d b\xed\xa0\x80\r\n\x00",
    "\U0010ffff\ue000\u202e".encode() * 3,
    bytes(range(256)),
]


def cut(data: bytes, seed: int) -> np.ndarray:
    """Draws random sizes of tokens."""
    chance = random.Random(seed)
    sizes: list[int] = []
    while sum(sizes) < len(data):
        sizes.append(min(chance.randint(1, 5), len(data) - sum(sizes)))
    return np.array(sizes, dtype=np.int64)


def make(data: bytes, seed: int = 0) -> Units:
    sizes = cut(data, seed)
    bits = np.random.default_rng(seed).exponential(4, len(sizes))
    return surprisal.units_of(data, sizes, bits)


@pytest.mark.parametrize("data", TEXTS, ids=lambda data: repr(data[:8]))
@pytest.mark.parametrize("seed", range(5))
def test_units_are_whole_characters_and_as_small_as_can_be(data: bytes, seed: int) -> None:
    sizes = cut(data, seed)
    bits = np.arange(1.0, len(sizes) + 1)
    units = surprisal.units_of(data, sizes, bits)
    assert units.bits.sum() == bits.sum() and units.ends[-1] == len(data) and units.token_ends[-1] == len(sizes)
    ends = set(units.ends.tolist())
    # By the document: nothing is cut within a character that is valid UTF-8.
    whole = data.decode("utf-8", "surrogateescape")
    allowed, place = {0}, 0
    for character in whole:
        place += len(character.encode("utf-8", "surrogateescape"))
        allowed.add(place)
    assert ends == allowed & set(np.cumsum(sizes).tolist())
    token_ends = np.cumsum(sizes)[units.token_ends - 1]
    assert token_ends.tolist() == units.ends.tolist()
    first = 0
    for end, found in zip(units.token_ends.tolist(), units.bits.tolist(), strict=True):
        assert found == bits[first:end].sum()
        first = end


def test_a_character_of_several_tokens_is_one_unit() -> None:
    units = surprisal.units_of("a東b".encode(), np.array([2, 1, 1, 1]), np.array([1.0, 2.0, 4.0, 8.0]))
    assert units.bits.tolist() == [7.0, 8.0]
    assert units.ends.tolist() == [4, 5] and units.begins.tolist() == [0, 4] and units.token_ends.tolist() == [3, 4]


def test_sizes_are_those_of_the_table() -> None:
    sizes = surprisal.token_sizes(np.array([0, 1, 2, 1]), (b"the", b" cat", b"s"))
    assert sizes.dtype == np.int64 and sizes.tolist() == [3, 4, 1, 4]


@pytest.mark.parametrize(("data", "sizes"), [(b"", []), (b"abc", [1, 1]), (b"a", [2])])
def test_tokens_of_another_text_are_refused(data: bytes, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="not those of the text"):
        surprisal.units_of(data, np.array(sizes, dtype=np.int64), np.ones(len(sizes)))


def test_lines_share_all_bits() -> None:
    # Tokens: "a\n\nb" is in three lines, and counts in the first.
    units = surprisal.units_of(b"xa\n\nb\ncd", np.array([1, 4, 1, 2]), np.array([1.0, 2.0, 4.0, 8.0]))
    lines = surprisal.lines_of(units)
    assert lines.ends.tolist() == [3, 4, 6, 8] and lines.begins.tolist() == [0, 3, 4, 6]
    assert lines.bits.tolist() == [3.0, 0.0, 4.0, 8.0]
    for data in TEXTS:
        units = make(data)
        lines = surprisal.lines_of(units)
        parts = [data[a:b] for a, b in zip(lines.begins.tolist(), lines.ends.tolist(), strict=True)]
        assert b"".join(parts) == data and all(b"\n" not in part[:-1] and part for part in parts)
        assert lines.bits.sum() == pytest.approx(units.bits.sum())


def test_rules_of_spans() -> None:
    bits = np.array([5.0, 3.0, 3.0, 1.0, 2.0, 0.5, 9.0, 8.0, 8.5])
    low = bits < np.percentile(bits, 30)
    falls = [False, True, False, True, False, True, False, True, False]
    assert surprisal.joined(bits, "monotonic").tolist() == falls
    assert surprisal.joined(bits, "global", 30).tolist() == low.tolist() and low.sum() == 3
    assert surprisal.joined(bits, "combined", 30).tolist() == [a or b for a, b in zip(falls, low.tolist(), strict=True)]
    assert surprisal.joined(bits).tolist() == surprisal.joined(bits, "combined", 30).tolist()
    # Nothing is below the least; all but the greatest are below the greatest.
    assert not surprisal.joined(bits, "global", 0).any()
    assert surprisal.joined(bits, "global", 100).tolist() == [False, *[True] * 5, False, True, True]
    assert surprisal.joined(np.array([0.1]), "global", 100).tolist() == [False]


@pytest.mark.parametrize("rule", surprisal.RULES)
@pytest.mark.parametrize("data", TEXTS, ids=lambda data: repr(data[:8]))
def test_spans_are_the_text(rule: str, data: bytes) -> None:
    units = make(data)
    spans = list(surprisal.spans_of(units, rule))
    assert b"".join(span.text for span in spans) == data
    assert sum(span.tokens for span in spans) == len(cut(data, 0))
    assert sum(span.bits for span in spans) == pytest.approx(units.bits.sum())
    assert [span.begin for span in spans] == np.cumsum([0, *(len(span.text) for span in spans)])[:-1].tolist()
    assert len(spans) == int((~surprisal.joined(units.bits, rule)).sum())


def test_a_profile_has_all_bits() -> None:
    units = surprisal.units_of(b"abcdef", np.array([2, 4]), np.array([4.0, 2.0]))
    assert surprisal.profile(units, 3).tolist() == pytest.approx([2.0, 0.5, 0.5])
    assert surprisal.profile(units, 2).tolist() == pytest.approx([4.5 / 3, 1.5 / 3])
    assert surprisal.profile(units, 100).tolist() == pytest.approx([2, 2, 0.5, 0.5, 0.5, 0.5])
    for data in TEXTS:
        units = make(data)
        curve = surprisal.profile(units, 7)
        assert curve.mean() * len(data) == pytest.approx(units.bits.sum())
