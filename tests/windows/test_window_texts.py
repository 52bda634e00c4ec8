"""Tokens come back from windows, however they are batched, and each window decodes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.engines.readout import readout
from llmzip.errors import CorruptError, SettingsError
from llmzip.inference.progress import ByteMeter
from llmzip.windows import texts as window_texts
from llmzip.windows.codes import precision_bits

MakeEngine = Callable[..., Any]
TEXTS = st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=70), min_size=1, max_size=5)


def texts_of(lists: list[list[int]]) -> list[np.ndarray]:
    return [np.array(ids, dtype=np.int64) for ids in lists]


def decode(engine: Any, windows: window_texts.Windows, window_bits: int, which: np.ndarray) -> list[np.ndarray]:
    most = np.full(len(windows.counts), 1 << 20)
    most[-1] = windows.counts[-1]
    decoded = window_texts.WindowDecoder(engine, window_bits, ByteMeter(len, 10_000)).fresh(
        windows.data, which, most[which]
    )
    assert ((decoded.spare_bits >= 0) & (decoded.spare_bits < window_bits)).all()
    return decoded.tokens


@given(lists=TEXTS, window_bits=st.sampled_from([16, 17, 24, 40, 128, 999]), context=st.sampled_from([2, 5, 40]))
def test_fresh_windows(hash_engine: MakeEngine, lists: list[list[int]], window_bits: int, context: int) -> None:
    texts = texts_of(lists)
    engine = hash_engine(context=context)
    encoded = window_texts.encode(engine, texts, window_bits, fresh=True)
    small = hash_engine(context=context, batch_tokens=3)
    alone = [window_texts.encode(small, [text], window_bits, fresh=True)[0] for text in texts]
    for text, windows, one in zip(texts, encoded, alone, strict=True):
        assert windows.data == one.data and windows.counts.tolist() == one.counts.tolist()
        assert windows.counts.sum() == len(text) and windows.counts.min() >= 1 and windows.counts.max() <= context
        assert len(windows.data) == -(-len(windows.counts) * window_bits // 8)
        which = np.random.default_rng(len(text)).permutation(len(windows.counts))
        parts = decode(engine, windows, window_bits, which)
        expected = np.split(text, np.cumsum(windows.counts)[:-1])
        for number, part in zip(which, parts, strict=True):
            assert part.tolist() == expected[number].tolist()


@given(lists=TEXTS, window_bits=st.sampled_from([16, 24, 40, 999]), context=st.sampled_from([2, 5, 40]))
def test_kept_context(hash_engine: MakeEngine, lists: list[list[int]], window_bits: int, context: int) -> None:
    engine = hash_engine(context=context)
    for text in texts_of(lists):
        windows = window_texts.encode(engine, [text], window_bits, fresh=False)[0]
        decoder = window_texts.WindowDecoder(engine, window_bits, ByteMeter(len, len(text)))
        parts = decoder.kept(windows.data, len(windows.counts), len(text)).tokens
        assert [len(part) for part in parts] == windows.counts.tolist()
        assert np.concatenate(parts).tolist() == text.tolist()


def test_a_window_alone_is_one_row_through_the_model(hash_engine: MakeEngine) -> None:
    engine = hash_engine(context=64)
    text = np.arange(3000) * 7919 % 16
    windows = window_texts.encode(engine, [text], 32, fresh=True)[0]
    number = len(windows.counts) // 2
    rows: list[int] = []
    forward = engine.forward
    engine.forward = lambda ids, cache=None: (rows.append(len(ids)), forward(ids, cache))[1]
    (part,) = decode(engine, windows, 32, np.array([number]))
    begin = windows.counts[:number].sum()
    assert part.tolist() == text[begin : begin + windows.counts[number]].tolist()
    assert set(rows) == {1} and len(rows) <= windows.counts[number] + 1


def test_damage_costs_its_own_window(hash_engine: MakeEngine) -> None:
    engine, text = hash_engine(context=64), np.arange(2000) * 7919 % 16
    windows = window_texts.encode(engine, [text], 40, fresh=True)[0]
    damaged = bytearray(windows.data)
    damaged[5 * 7 + 2] ^= 0x10
    count = len(windows.counts)
    parts = decode(engine, window_texts.Windows(bytes(damaged), windows.counts), 40, np.arange(count))
    expected = np.split(text, np.cumsum(windows.counts)[:-1])
    differ = [n for n in range(count) if parts[n].tolist() != expected[n].tolist()]
    assert differ == [7]


@pytest.mark.parametrize("fresh", [True, False])
def test_any_bits_decode_or_are_damaged(hash_engine: MakeEngine, rng: np.random.Generator, fresh: bool) -> None:
    engine = hash_engine(context=50)
    for _ in range(20):
        data, count = rng.bytes(40), 8 * 40 // 32
        decoder = window_texts.WindowDecoder(engine, 32, ByteMeter(len, 60))
        try:
            if fresh:
                decoder.fresh(data, np.arange(count), np.full(count, 9))
            else:
                decoder.kept(data, count, 60)
        except CorruptError as error:
            assert "damaged" in str(error)


def test_what_cannot_be_coded_is_refused(hash_engine: MakeEngine) -> None:
    with pytest.raises(SettingsError, match=r"windows of 16 bits .* 40,000 tokens: at least 17"):
        window_texts.check_engine(hash_engine(vocab_size=40_000), 16)
    window_texts.check_engine(hash_engine(vocab_size=1 << 15), 16)
    engine = hash_engine()
    engine.stepwise = True
    with pytest.raises(SettingsError, match="exact engine"):
        window_texts.check_engine(engine, 128)


@pytest.mark.parametrize("vocab_size", [16, 17, 300, 5000])
@pytest.mark.parametrize("window_bits", [16, 20, 24, 4096])
def test_frequencies_of_a_single_step(vocab_size: int, window_bits: int, rng: np.random.Generator) -> None:
    bits = precision_bits(window_bits)
    total = 1 << bits
    split = readout(vocab_size, "cpu", total_bits=bits).frequencies
    masses = (2**20 * rng.random((6, vocab_size)) ** 9).astype(np.int32)
    masses[:, 3] = 2**20
    masses[0, 4:] = 0
    sums = np.cumsum(masses.astype(object), axis=1)
    left = np.concatenate([np.zeros((6, 1), dtype=object), sums], axis=1) * (total - vocab_size) // sums[:, -1:]
    expected = (left + np.arange(vocab_size + 1)).astype(np.int64)
    assert (expected[:, -1] == total).all() and (np.diff(expected) >= 1).all()
    for token in (0, 3, vocab_size // 2, vocab_size - 1):
        bounds = split.bounds(masses, np.full(6, token))
        assert bounds.tolist() == expected[:, token : token + 2].tolist()
    targets = np.concatenate([expected[:, :-1].T[:40], expected[:, 1:].T[-40:] - 1, rng.integers(0, total, (9, 6))])
    for row in targets:
        tokens, bounds = split.find(masses, row)
        for number, (token, target) in enumerate(zip(tokens.tolist(), row, strict=True)):
            assert expected[number, token] <= target < expected[number, token + 1]
            assert bounds[number].tolist() == expected[number, token : token + 2].tolist()


@pytest.mark.parametrize("fresh", [True, False])
def test_more_text_than_there_should_be_is_damage(hash_engine: MakeEngine, fresh: bool) -> None:
    engine, text = hash_engine(context=64), np.arange(300) * 7919 % 16
    windows = window_texts.encode(engine, [text], 40, fresh=fresh)[0]
    counts: list[int] = []
    decoder = window_texts.WindowDecoder(engine, 40, ByteMeter(len, len(text), counts.append))

    def decode_all() -> window_texts.DecodedTokens:
        if fresh:
            return decoder.fresh(windows.data, np.arange(len(windows.counts)), windows.counts)
        return decoder.kept(windows.data, len(windows.counts), len(text))

    assert np.concatenate(decode_all().tokens).tolist() == text.tolist() and sum(counts) == len(text)
    with pytest.raises(CorruptError, match="stands for more than the 300 bytes"):  # the meter counts on
        decode_all()
