"""Shows that the printed rule is ambiguous, the delay rule is not, and that llmzip's is the smallest."""

from __future__ import annotations

import numpy as np
import pytest
from window_rules import DelayWriter, PrintedWriter, read_delayed, read_printed

from llmzip.windows.codes import WindowReader, WindowWriter, pack


def table_of(rng: np.random.Generator, size: int, skew: float, window_bits: int) -> np.ndarray:
    total = 1 << min(24, window_bits)
    weights = np.exp(-skew * np.sort(rng.random(size)))
    shares = np.floor(weights.cumsum() / weights.sum() * (total - size)).astype(np.int64)
    shares[-1] = total - size
    return np.concatenate([[0], shares + np.arange(1, size + 1)])


def cut(writer: WindowWriter | PrintedWriter, table: np.ndarray, tokens: np.ndarray) -> list[tuple[int, list[int]]]:
    """Code and tokens of each window."""
    windows, at = [], 0
    while at < len(tokens):
        taken = [writer.add(int(table[token]), int(table[token + 1])) for token in tokens[at : at + 1]]
        place = at + 1
        while taken[-1] and place < len(tokens):
            taken.append(writer.add(int(table[tokens[place]]), int(table[tokens[place] + 1])))
            place += 1
        code, count = writer.close(full=not taken[-1])
        assert count >= 1
        windows.append((code, tokens[at : at + count].tolist()))
        at += count
    return windows


@pytest.mark.parametrize(("size", "skew", "window_bits"), [(8, 1, 16), (16, 8, 16), (64, 8, 20), (256, 40, 24)])
def test_the_printed_rule_is_ambiguous_and_the_others_are_not(size: int, skew: float, window_bits: int) -> None:
    rng = np.random.default_rng(size)
    table = table_of(rng, size, skew, window_bits)
    tokens = rng.choice(size, 6000, p=np.diff(table) / table[-1])
    printed = cut(PrintedWriter(window_bits), table, tokens)[:-1]  # the end of a text is ambiguous in any case
    assert all(0 <= code < 1 << window_bits for code, _ in printed)
    wrong = [(code, text) for code, text in printed if read_printed(code, window_bits, table) != text]
    assert len(wrong) > len(printed) / 100
    delayed = cut(DelayWriter(window_bits), table, tokens)[:-1]
    assert all(read_delayed(code, window_bits, table) == text for code, text in delayed)
    split = cut(WindowWriter(window_bits), table, tokens)
    assert len(split) <= len(delayed) + 1 and len(split) <= 1.005 * len(printed) + 1


def test_two_texts_of_one_window() -> None:
    """The pair itself: different texts, both followed by what does not fit, have the same window."""
    rng = np.random.default_rng(8)
    table = table_of(rng, 8, 1, 16)
    tokens = rng.choice(8, 4000, p=np.diff(table) / table[-1])
    for code, text in cut(PrintedWriter(16), table, tokens)[:-1]:
        other = read_printed(code, 16, table)
        if other != text:
            assert other[: len(text)] == text and len(other) > len(text)
            writer = PrintedWriter(16)
            assert all(writer.add(int(table[token]), int(table[token + 1])) for token in other)
            assert writer.close(full=True) == (code, len(other))
            return
    raise AssertionError("no ambiguous window")


def test_no_window_of_a_million_is_ambiguous() -> None:
    """Each number below 2^16 is read as some text, and writing that text gives a window that is read as the same."""
    rng = np.random.default_rng(1)
    numbers = np.arange(1 << 16)
    data = pack(numbers.tolist(), 16)
    for size, skew in [(2, 3), (5, 1), (16, 8), (30, 2), (64, 8), (64, 20), (100, 0), (200, 40), *[(40, 5)] * 8]:
        table = table_of(rng, size, skew, 16)
        reader, open_places = WindowReader(data, 16, numbers), numbers
        steps: list[tuple[np.ndarray, np.ndarray]] = []
        while len(open_places) and len(steps) < 400:
            targets, over = reader.targets(open_places)
            open_places, targets = open_places[~over], targets[~over]
            found = np.searchsorted(table, targets, side="right") - 1
            reader.take(open_places, table[found], table[found + 1])
            steps.append((open_places, found))
        texts: list[list[int]] = [[] for _ in numbers]
        for places, found in steps:
            for place, token in zip(places.tolist(), found.tolist(), strict=True):
                texts[place].append(token)
        ended = set(numbers.tolist()) - set(open_places.tolist())
        assert len({tuple(texts[number]) for number in ended}) == len(ended)
        for number in rng.choice(numbers, 500, replace=False):
            writer = WindowWriter(16)
            taken = [writer.add(int(table[token]), int(table[token + 1])) for token in texts[number]]
            assert all(taken)
            if number in ended:
                assert writer.close(full=True) == (number, len(texts[number]))
