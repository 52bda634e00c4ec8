"""Learns what usually comes after the embedded models' tokens: `python tools/make_followers.py FOLDER`.

Reads the beginning of every .txt and .txt.xz file in FOLDER and writes llmzip/mixing/followers.bin, with which decoders
guess. Archives do not depend on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from llmzip.mixing import followers
from llmzip.mixing.followers import Followers
from llmzip.models.tokenizer import Tokenizer
from llmzip.training.texts import chunks

EMBEDDED = Path(followers.__file__).parents[1] / "embedded" / "base"
VOCAB_SIZE = 4096
_PIECE_BYTES = 500_000
_LEVELS = 16
_CHANCE_WORTH = 0.3
"""What it is worth to know a pair's chance better, in right guesses per case and difference of chances."""


def tokens_of(folder: Path, max_bytes: int, tokenizer: Tokenizer) -> list[np.ndarray]:
    """Returns the tokens of each text's first bytes, as int64."""
    texts = []
    for file in sorted([*folder.glob("*.txt"), *folder.glob("*.txt.xz")]):
        data = b""
        for chunk in chunks(file):
            data = (data + chunk)[:max_bytes]
            if len(data) == max_bytes:
                break
        pieces = [data[begin : begin + _PIECE_BYTES] for begin in range(0, len(data), _PIECE_BYTES)]
        texts += [tokenizer.encode(piece) for piece in pieces]
    return texts


def learn(texts: list[np.ndarray], vocab_size: int, num_pairs: int) -> Followers:
    """Returns the likeliest follower of each token, and of the pairs for which that pays most.

    Args:
        texts: (n,) int64 token ids of each text.
        vocab_size: V, at most 4,096.
        num_pairs: P, or fewer if the texts do not have as many.
    """
    ones = np.concatenate([text[1:-1] for text in texts])
    twos = np.concatenate([text[:-2] for text in texts])
    afters = np.concatenate([text[2:] for text in texts])
    key, best, times, total, _ = _likeliest(ones, afters, vocab_size)
    best_after, chance_after = np.zeros((2, vocab_size))
    best_after[key], chance_after[key] = best, times / (total + 2)
    best_after = best_after.astype(np.int64)
    # Sorted by the last token, then by the one before it.
    key, best, times, total, counted = _likeliest(ones * vocab_size + twos, afters, vocab_size)
    last, chance = key // vocab_size, times / (total + 2)
    gained = times - _times(counted, key * vocab_size + best_after[last])
    worth = gained + _CHANCE_WORTH * total * np.abs(chance - chance_after[last])
    kept = np.sort(np.argsort(-worth, kind="stable")[:num_pairs])
    first = np.searchsorted(last[kept], np.arange(vocab_size + 1)).astype(np.int32)
    after_one, after_two = _entries(best_after, chance_after), _entries(best[kept], chance[kept])
    return Followers(after_one, first, (key[kept] % vocab_size).astype(np.uint16), after_two)


def _likeliest(
    keys: np.ndarray, afters: np.ndarray, vocab_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Counts what follows.

    Returns:
        The keys in rising order; what comes most often after each; how often it does; how often the key comes; and each
        key times V plus what follows, in rising order, with its number.
    """
    both, number = np.unique(keys * vocab_size + afters, return_counts=True)
    key, after = both // vocab_size, both % vocab_size
    begin = np.flatnonzero(np.diff(key, prepend=-1))
    order = np.lexsort((after, -number, key))[begin]
    return key[begin], after[order], number[order], np.add.reduceat(number, begin), (both, number)


def _times(counted: tuple[np.ndarray, np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """Returns how often each of the wanted combinations was counted."""
    both, number = counted
    place = np.minimum(np.searchsorted(both, wanted), len(both) - 1)
    times: np.ndarray = np.where(both[place] == wanted, number[place], 0)
    return times


def _entries(ids: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Returns ids with chances, as `Followers` has them."""
    level = np.minimum((chance * _LEVELS).astype(np.int64), _LEVELS - 1)
    entries: np.ndarray = (ids | level << followers.ID_BITS).astype(np.uint16)
    return entries


def main() -> None:
    """Learns from what the command line names, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bytes", type=int, default=4_000_000, help="of each file (default: 4 MB)")
    parser.add_argument("--pairs", type=int, default=60_000, help="4 bytes each (default: 60,000)")
    options = parser.parse_args()
    tokenizer = Tokenizer(EMBEDDED, VOCAB_SIZE)
    texts = tokens_of(options.folder, options.bytes, tokenizer)
    learnt = learn(texts, tokenizer.table.vocab_size, options.pairs)
    followers.FILE.write_bytes(tokenizer.table.digest() + followers.packed(learnt))
    print(f"{sum(map(len, texts)):,} tokens, {len(learnt.before):,} pairs, {followers.FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
