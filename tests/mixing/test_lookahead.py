"""Checks guesses of next tokens: what was learnt comes back, chances are honest, and reading guesses loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import llmzip
from llmzip.mixing import followers
from llmzip.mixing.followers import Followers, followers_of, packed, unpacked
from llmzip.mixing.lookahead import MAX_GUESSES, Lookahead, worth_reading
from llmzip.models.tokenizer import Tokenizer

VOCAB = 300
COST = np.array([1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], dtype=np.float32)
EMBEDDED = Path(llmzip.__file__).parent / "embedded"


def known_of(generator: np.random.Generator, num_pairs: int = 500) -> Followers:
    """Followers at random, for distinct pairs."""
    pairs = np.sort(generator.choice(VOCAB * VOCAB, size=num_pairs, replace=False))
    first = np.searchsorted(pairs // VOCAB, np.arange(VOCAB + 1)).astype(np.int32)

    def entries(count: int) -> np.ndarray:
        ids, level = generator.integers(VOCAB, size=count), generator.integers(16, size=count)
        return (ids | level << followers.ID_BITS).astype(np.uint16)

    return Followers(entries(VOCAB), first, (pairs % VOCAB).astype(np.uint16), entries(num_pairs))


def test_a_text_that_comes_again_is_guessed() -> None:
    text = np.random.default_rng(1).integers(VOCAB, size=200)
    lookahead = Lookahead(VOCAB, 2000, 1)
    for _ in range(4):
        lookahead.learn(0, text)
    lookahead.learn(0, text[:20])
    ids, chance = lookahead.guess(0, MAX_GUESSES)
    assert ids.tolist() == text[20 : 20 + MAX_GUESSES].tolist()
    assert chance.min() > 0.7


def test_rows_share_what_follows_but_not_their_last_tokens() -> None:
    text = np.random.default_rng(2).integers(VOCAB, size=50)
    lookahead = Lookahead(VOCAB, 200, 3)
    lookahead.learn(0, text)
    assert len(lookahead.guess(2, 5)[0]) == 0  # nothing was read there
    lookahead.learn(2, text[10:13])
    assert lookahead.guess(2, 5)[0].tolist() == text[13:18].tolist()
    assert lookahead.guess(2, 1)[0].tolist() == text[13:14].tolist()


def test_guessing_changes_nothing() -> None:
    generator = np.random.default_rng(3)
    text = generator.integers(4, size=500)
    one, other = (Lookahead(VOCAB, 500, 1, known_of(np.random.default_rng(4))) for _ in range(2))
    for token in text:
        one.learn(0, [token])
        other.learn(0, [token])
        other.guess(0, 7)
        for mine, theirs in zip(one.guess(0, 16), other.guess(0, 16), strict=True):
            assert np.array_equal(mine, theirs)


def test_followers_are_guessed_where_the_text_says_nothing() -> None:
    generator = np.random.default_rng(5)
    known = known_of(generator)
    certain = known._replace(after_two=known.after_two | 0xF << followers.ID_BITS, after_one=known.after_one & 0xFFF)
    for pair in range(0, 500, 7):
        last = int(np.searchsorted(known.first, pair, side="right")) - 1
        lookahead = Lookahead(VOCAB, 100, 1, certain)
        lookahead.learn(0, [int(known.before[pair]), last])
        ids, chance = lookahead.guess(0, 3)
        assert ids[0] == known.after_two[pair] & 0xFFF
        assert chance[0] > 0.75
    absent = next(token for token in range(VOCAB) if token not in known.before[known.first[7] : known.first[8]])
    lookahead = Lookahead(VOCAB, 100, 1, known._replace(after_one=known.after_one | 0xF << followers.ID_BITS))
    lookahead.learn(0, [absent, 7])
    assert lookahead.guess(0, 3)[0][0] == known.after_one[7] & 0xFFF


def test_chances_are_honest() -> None:
    """Tokens that follow their predecessor's rule in two of three cases are expected to in about as many."""
    generator = np.random.default_rng(6)
    rule = generator.permutation(VOCAB)
    text = [0]
    for kept in generator.random(20_000) < 2 / 3:
        text.append(int(rule[text[-1]] if kept else generator.integers(VOCAB)))
    lookahead = Lookahead(VOCAB, len(text), 1)
    expected, right = [], []
    for token in text:
        ids, chance = lookahead.guess(0, 1)
        if len(ids):
            expected.append(float(chance[0]))
            right.append(int(ids[0]) == token)
        lookahead.learn(0, [token])
    half = len(right) // 2
    assert 0.6 < np.mean(right[half:]) < 0.7
    assert abs(np.mean(expected[half:]) - np.mean(right[half:])) < 0.03


def test_reading_guesses_of_noise_costs_nearly_nothing() -> None:
    text = np.random.default_rng(7).integers(VOCAB, size=5000)
    lookahead, cost, place = Lookahead(VOCAB, len(text), 1, known_of(np.random.default_rng(8))), 0.0, 0
    while place < len(text):
        ids, chance = lookahead.guess(0, 7)
        read = worth_reading(chance, COST, 1.0)
        right = 0
        while right < read and place + right < len(text) and ids[right] == text[place + right]:
            right += 1
        done = min(right + 1, len(text) - place)
        lookahead.learn(0, text[place : place + done])
        place += done
        cost += float(COST[read])
    assert cost < 1.03 * len(text)


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0, 3.5])
def test_what_is_worth_reading_is_the_best_number(rate: float) -> None:
    generator = np.random.default_rng(9)
    for _ in range(300):
        chance = generator.random(int(generator.integers(8))).astype(np.float32)
        tokens = 1 + np.concatenate([[0.0], np.cumsum(np.cumprod(chance.astype(np.float64)))])
        gains = tokens - rate * COST[: len(tokens)].astype(np.float64)
        read = worth_reading(chance, COST, rate)
        assert gains[read] == pytest.approx(gains.max(), abs=1e-5)
    assert worth_reading(np.zeros(7), COST, rate) == 0
    with pytest.raises(ValueError, match="costs of up to"):
        worth_reading(np.ones(8), COST, rate)


def test_what_the_library_would_not_notice_is_refused() -> None:
    lookahead = Lookahead(VOCAB, 10, 2)
    for row, ids in ((2, [1]), (-1, [1]), (0, [VOCAB]), (0, [3, -1])):
        with pytest.raises(IndexError):
            lookahead.learn(row, ids)
    for row in (-1, 2):
        with pytest.raises(IndexError):
            lookahead.guess(row, 1)
    lookahead.learn(1, [5] * 100)
    assert len(lookahead.guess(1, 1000)[0]) <= MAX_GUESSES
    assert len(lookahead.guess(1, 0)[0]) == len(lookahead.guess(1, -3)[0]) == 0


def test_followers_come_back_from_their_bytes() -> None:
    known = known_of(np.random.default_rng(10))
    found = unpacked(packed(known), VOCAB)
    assert found is not None
    for name, one, other in zip(Followers._fields, known, found, strict=True):
        assert np.array_equal(one, other), name
        assert one.dtype == other.dtype


def test_bytes_that_are_no_followers_are_refused() -> None:
    data = packed(known_of(np.random.default_rng(11)))
    generator = np.random.default_rng(12)
    assert unpacked(b"", VOCAB) is None
    for end in generator.integers(len(data), size=50):
        assert unpacked(data[: int(end) // 2 * 2], VOCAB) is None
    for place in generator.integers(len(data), size=300):
        found = unpacked(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :], VOCAB)
        if found is not None:  # ids and offsets stay within bounds
            assert found.first[-1] == len(found.before) == len(found.after_two)
            assert max(found.before.max(), (found.after_two & 0xFFF).max(), (found.after_one & 0xFFF).max()) < VOCAB
    assert unpacked(data, VOCAB - 1) is None


@pytest.mark.parametrize("name", ["base", "small"])
def test_embedded_models_have_followers(name: str) -> None:
    table = Tokenizer(EMBEDDED / name, 4096).table
    known = followers_of(table.digest(), table.vocab_size)
    assert known is not None
    # The likeliest token after the first one of a common pair of words.
    lookahead = Lookahead(table.vocab_size, 100, 1, known)
    lookahead.learn(0, [table.entries.index(b" one"), table.entries.index(b" of")])
    assert table.entries[int(lookahead.guess(0, 1)[0][0])] == b" the"


def test_other_vocabularies_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = followers.FILE.read_bytes()[: followers.DIGEST_BYTES]
    followers_of.cache_clear()
    assert followers_of(digest[::-1], 4096) is None
    assert followers_of(digest, 4097) is None
    monkeypatch.setattr(followers, "FILE", tmp_path / "missing")
    assert followers_of(digest, 4096) is None
    followers_of.cache_clear()
