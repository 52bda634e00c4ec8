"""Measures how often guesses of next tokens are right, and what they save: `python benchmarks/lookahead.py FILE...`.

Takes 1 KB, 20 KB and 200 KB from each text, in one row and without the model: a simulated decoder that reads guesses as
`worth_reading` says, with the cost of passes that is given. Nothing is timed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmzip.mixing import followers
from llmzip.mixing.lookahead import Lookahead, worth_reading
from llmzip.models.tokenizer import Tokenizer

EMBEDDED = Path(followers.__file__).parents[1] / "embedded" / "base"
VOCAB_SIZE = 4096
SIZES = (1_000, 20_000, 200_000)
COSTS = (1.0, 1.15, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)
"""Time of a pass that reads 1, 2 ... tokens, over that of one that reads 1."""

_LEVELS = 8
_RATE_MEMORY = 0.98


@dataclass
class Counts:
    """What came of the guesses in a text.

    Attributes:
        tokens, passes, cost: of the whole text; the cost of a pass that reads one token is 1.
        asked, right: (places,) by the place of a guess, if those before it were right.
        by_chance: (_LEVELS, 2): first guesses by the chance that was expected: how many, and how many were right.
        expected: (_LEVELS,): sum of the chances that were expected.
    """

    tokens: int = 0
    passes: int = 0
    cost: float = 0.0
    asked: np.ndarray = field(default_factory=lambda: np.zeros(len(COSTS), dtype=np.int64))
    right: np.ndarray = field(default_factory=lambda: np.zeros(len(COSTS), dtype=np.int64))
    by_chance: np.ndarray = field(default_factory=lambda: np.zeros((_LEVELS, 2), dtype=np.int64))
    expected: np.ndarray = field(default_factory=lambda: np.zeros(_LEVELS))

    @property
    def gain(self) -> float:
        """How many times as fast passes with guesses are."""
        return self.tokens / self.cost


def simulate(ids: np.ndarray, vocab_size: int, known: followers.Followers | None, costs: np.ndarray) -> Counts:
    """Returns what a decoder of one row would have got from guesses.

    Args:
        ids: (n,) int64: the tokens, n >= 1.
        vocab_size: V.
        known: what is known of the vocabulary, if anything.
        costs: (m,) float32, as COSTS; up to m - 1 guesses are read.
    """
    counts, lookahead = Counts(tokens=len(ids)), Lookahead(vocab_size, len(ids), 1, known)
    recent_tokens = recent_cost = 10.0
    place = 0
    while place < len(ids):
        guessed, chance = lookahead.guess(0, len(costs) - 1)
        guessed, chance = guessed[: len(ids) - place], chance[: len(ids) - place]
        is_right = guessed == ids[place : place + len(guessed)]
        right = int(np.argmin(np.append(is_right, False)))
        counts.asked[: min(right + 1, len(guessed))] += 1
        counts.right[:right] += 1
        if len(guessed):
            level = min(int(chance[0] * _LEVELS), _LEVELS - 1)
            counts.by_chance[level] += (1, int(is_right[0]))
            counts.expected[level] += chance[0]
        read = worth_reading(chance, costs, recent_tokens / recent_cost)
        done = min(right, read) + 1
        done = min(done, len(ids) - place)
        lookahead.learn(0, ids[place : place + done].tolist())
        place += done
        counts.passes += 1
        counts.cost += float(costs[read])
        recent_tokens = recent_tokens * _RATE_MEMORY + done
        recent_cost = recent_cost * _RATE_MEMORY + float(costs[read])
    return counts


def main() -> None:
    """Prints a row for each text and size, and the chances that were expected against those that came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--costs", type=float, nargs="+", default=COSTS, help="of passes that read 1, 2 ... tokens")
    options = parser.parse_args()
    costs = np.array(options.costs, dtype=np.float32)
    tokenizer = Tokenizer(EMBEDDED, VOCAB_SIZE)
    table = tokenizer.table
    known = followers.followers_of(table.digest(), table.vocab_size)
    print("| text | bytes | tokens | right: 1st | 2nd | 3rd | 4th | tokens per pass | gain | without followers |")
    print("|---|" + "---:|" * 9)
    total = np.zeros((_LEVELS, 3))
    for file in options.files:
        data = file.read_bytes()
        for size in SIZES:
            if len(data) < size:
                continue
            begin = (len(data) - size) // 3
            ids = tokenizer.encode(data[begin : begin + size])
            counts = simulate(ids, table.vocab_size, known, costs)
            without = simulate(ids, table.vocab_size, None, costs)
            total += np.column_stack([counts.by_chance, counts.expected])
            rights = " | ".join(f"{100 * n / max(m, 1):.0f} %" for n, m in zip(counts.right, counts.asked, strict=True))
            print(
                f"| {file.stem} | {size:,} | {len(ids):,} | {' | '.join(rights.split(' | ')[:4])} | "
                f"{counts.tokens / counts.passes:.2f} | {counts.gain:.2f} | {without.gain:.2f} |",
                flush=True,
            )
    print("\n| expected chance of the 1st | share of the places | came |\n|---:|---:|---:|")
    for number, right, expected in total:
        if number:
            print(f"| {expected / number:.2f} | {100 * number / total[:, 0].sum():.0f} % | {right / number:.2f} |")


if __name__ == "__main__":
    main()
