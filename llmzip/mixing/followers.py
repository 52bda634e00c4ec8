"""What usually comes after a token or a pair of tokens, learnt from a corpus; must not know the mixer or models.

Guesses alone depend on it (lookahead.py), never the bits of an archive. `tools/make_followers.py` writes the file.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).parent / "followers.bin"

ID_BITS = 12
"""Bits of a token id: larger vocabularies have no file."""

DIGEST_BYTES = 32


class Followers(NamedTuple):
    """The tokens that are the likeliest ones after others. An entry is an id, plus 2^12 times 16 times its chance.

    Attributes:
        after_one: (V,) uint16: what comes after each token.
        first: (V + 1,) int32: where the pairs begin whose last token this is.
        before: (P,) uint16: the pairs' first tokens, in rising order among those with the same last one.
        after_two: (P,) uint16: what comes after each pair.
    """

    after_one: np.ndarray
    first: np.ndarray
    before: np.ndarray
    after_two: np.ndarray


@functools.lru_cache(maxsize=1)
def followers_of(digest: bytes, vocab_size: int) -> Followers | None:
    """Returns what is known of a vocabulary, None if nothing is.

    Args:
        digest: of the table of tokens, 32 bytes (format section 6).
        vocab_size: V.
    """
    try:
        data = FILE.read_bytes()
    except OSError:
        return None
    if vocab_size > 1 << ID_BITS or data[:DIGEST_BYTES] != digest:
        return None
    return unpacked(data[DIGEST_BYTES:], vocab_size)


def unpacked(data: bytes, vocab_size: int) -> Followers | None:
    """Returns what `packed` packed; None for anything that it could not have packed."""
    values = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2").astype(np.uint16, copy=False)
    first = np.zeros(vocab_size + 1, dtype=np.int32)
    if len(values) < 2 * vocab_size:
        return None
    after_one, counts, pairs = np.split(values, [vocab_size, 2 * vocab_size])
    np.cumsum(counts, out=first[1:])
    if len(pairs) != 2 * first[-1]:
        return None
    before, after_two = np.split(pairs, 2)
    ids = (1 << ID_BITS) - 1
    if any(len(part) and int(part.max()) >= vocab_size for part in (after_one & ids, before, after_two & ids)):
        return None
    return Followers(after_one, first, before, after_two)


def packed(followers: Followers) -> bytes:
    """Returns the bytes of the file after the digest."""
    parts = (followers.after_one, np.diff(followers.first), followers.before, followers.after_two)
    return b"".join(part.astype("<u2").tobytes() for part in parts)
