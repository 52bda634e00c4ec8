"""Checks the tool that learns what follows tokens, and the benchmark of the guesses, on small texts."""

from __future__ import annotations

from collections import Counter

import lookahead as benchmark
import make_followers
import numpy as np

from llmzip.mixing.followers import packed, unpacked

VOCAB = 40


def text_of(seed: int, size: int) -> np.ndarray:
    """Tokens in which some follow others more often."""
    generator = np.random.default_rng(seed)
    return (generator.zipf(1.5, size=size) % VOCAB).astype(np.int64)


def test_the_likeliest_followers_are_learnt() -> None:
    texts = [text_of(seed, 3000) for seed in range(3)]
    learnt = make_followers.learn(texts, VOCAB, 10**6)
    ones: dict[int, Counter[int]] = {}
    pairs: dict[tuple[int, int], Counter[int]] = {}
    for text in texts:
        for two, one, after in zip(text.tolist(), text[1:].tolist(), text[2:].tolist(), strict=False):
            ones.setdefault(one, Counter())[after] += 1
            pairs.setdefault((one, two), Counter())[after] += 1
    for one, counter in ones.items():
        best = min(counter, key=lambda after: (-counter[after], after))
        level = min(16 * counter[best] // (sum(counter.values()) + 2), 15)
        assert learnt.after_one[one] == best | level << 12
    found = {}
    for one in range(VOCAB):
        for place in range(learnt.first[one], learnt.first[one + 1]):
            found[one, int(learnt.before[place])] = int(learnt.after_two[place]) & 0xFFF
    assert found == {pair: min(counter, key=lambda after: (-counter[after], after)) for pair, counter in pairs.items()}
    assert unpacked(packed(learnt), VOCAB) is not None


def test_few_pairs_are_those_that_help_most() -> None:
    # After 1, comes 2, but after 5 and 1 it is 3; after 6 and 1 it is 2 as well.
    text = np.array([6, 1, 2, 7] * 300 + [5, 1, 3, 8] * 100)
    learnt = make_followers.learn([text], VOCAB, 1)
    assert len(learnt.before) == 1
    assert (learnt.first[1], learnt.first[2]) == (0, 1)
    assert learnt.before.tolist() == [5]
    assert int(learnt.after_two[0]) & 0xFFF == 3


def test_the_benchmark_counts_every_token() -> None:
    text = text_of(5, 400)
    twice = np.concatenate([text, text])
    costs = np.array(benchmark.COSTS, dtype=np.float32)
    once, again = (benchmark.simulate(ids, VOCAB, None, costs) for ids in (text, twice))
    assert again.tokens == len(twice)
    assert again.passes < again.tokens
    assert again.gain > once.gain > 0.9
    assert (again.right <= again.asked).all()
    assert again.by_chance[:, 0].sum() == again.asked[0]
