"""What the mixer looks at: hashes of the text before a token, kept up to date token by token; knows no probabilities.

Compiled. All arithmetic is on integers below 2^63 (docs/numerics.md section 10.4).
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled
from .state import (
    ABOVE,
    ABOVE_END,
    BEGINNING,
    BEGINNING_BEFORE,
    DEPTH,
    FIELD,
    FIELD_START,
    FIELDS,
    LENGTH,
    LINE,
    NESTING,
    NUM_SCALARS,
    RING_BYTES,
    SHAPE,
    TOKENS,
    WORD,
    WORD_BEFORE,
    Texts,
)

_MULTIPLIER = 0x2F0B4C47
_MASK32 = 0xFFFFFFFF


@compiled
def mixed_hash(state: int, value: int) -> int:
    """A 32-bit hash of a 32-bit state and a value from 0 to 2^32 - 1."""
    product = ((state ^ (value + 1)) * _MULTIPLIER) & _MASK32
    return product ^ (product >> 15)


@compiled
def _ring_bytes(texts: Texts, row: int, position: int, end: int) -> int:
    """Three bytes of the row's text from `position` on, in a line that ends at `end`; 0 where they are forgotten."""
    if position + RING_BYTES < texts.scalar[row * NUM_SCALARS + LENGTH] + 8 or position >= end:
        return 0
    ring, base, last = texts.ring, row * RING_BYTES, end
    value = np.int64(ring[base + (position & (RING_BYTES - 1))])
    value += np.int64(ring[base + (min(position + 1, last) & (RING_BYTES - 1))]) << 8
    return value + (np.int64(ring[base + (min(position + 2, last) & (RING_BYTES - 1))]) << 16)


@compiled
def hash_contexts(texts: Texts, row: int, steps: int, vocab_size: int, guess: int, out: np.ndarray, at: int) -> None:
    """Writes the hashes of a row's contexts to out[at]; guess: the model's likeliest leaf."""
    s, length = row * NUM_SCALARS, texts.scalar[row * NUM_SCALARS + LENGTH]
    scalar = texts.scalar
    tokens, history = scalar[s + TOKENS], row * steps
    t1 = np.int64(texts.history[history + tokens - 1]) if tokens > 0 else vocab_size
    t2 = np.int64(texts.history[history + tokens - 2]) if tokens > 1 else vocab_size
    t3 = np.int64(texts.history[history + tokens - 3]) if tokens > 2 else vocab_size
    t4 = np.int64(texts.history[history + tokens - 4]) if tokens > 3 else vocab_size
    last, before = np.int64(0), np.int64(0)  # bytes 1 to 3 and 4 to 6 back
    ring = row * RING_BYTES
    for back in range(3):
        if length > back:
            last |= np.int64(texts.ring[ring + ((length - 1 - back) & (RING_BYTES - 1))]) << (8 * back)
        if length > back + 3:
            before |= np.int64(texts.ring[ring + ((length - 4 - back) & (RING_BYTES - 1))]) << (8 * back)
    column = length - scalar[s + LINE]
    above = np.int64(0)
    if scalar[s + ABOVE] >= 0:
        above = _ring_bytes(texts, row, scalar[s + ABOVE] + column, scalar[s + ABOVE_END])
    field, place = scalar[s + FIELD], length - scalar[s + FIELD_START]
    same_field = np.int64(0)
    if field < FIELDS and texts.field_above[row * FIELDS + field] >= 0:
        position = texts.field_above[row * FIELDS + field] + place
        same_field = _ring_bytes(texts, row, position, scalar[s + ABOVE_END])
    word = scalar[s + WORD]
    bracket = np.int64(texts.bracket[row * NESTING + scalar[s + DEPTH]])
    out[at, 0] = mixed_hash(0, 0)
    out[at, 1] = mixed_hash(1, word)
    out[at, 2] = mixed_hash(2, scalar[s + SHAPE])
    out[at, 3] = mixed_hash(mixed_hash(3, t1), t2)
    out[at, 4] = mixed_hash(4, guess)
    out[at, 5] = mixed_hash(5, last)
    out[at, 6] = mixed_hash(mixed_hash(6, word), scalar[s + WORD_BEFORE])
    out[at, 7] = mixed_hash(mixed_hash(mixed_hash(mixed_hash(7, t1), t2), t3), t4)
    out[at, 8] = mixed_hash(mixed_hash(8, np.int64(texts.follower[2 * t1])), np.int64(texts.follower[2 * t1 + 1]))
    out[at, 9] = mixed_hash(mixed_hash(9, above), column)
    out[at, 10] = mixed_hash(mixed_hash(10, last), before)
    out[at, 11] = mixed_hash(mixed_hash(11, scalar[s + BEGINNING]), field)
    out[at, 12] = mixed_hash(mixed_hash(12, last & 0xFFFF), last & 0xFF)
    out[at, 13] = mixed_hash(mixed_hash(mixed_hash(13, same_field), field), min(place, 15))
    out[at, 14] = mixed_hash(mixed_hash(14, bracket), t1)
    out[at, 15] = mixed_hash(
        mixed_hash(mixed_hash(15, scalar[s + BEGINNING_BEFORE]), min(column, 40)), t1 if column > 0 else 0
    )
    out[at, 16] = mixed_hash(mixed_hash(16, t2), t3)
    out[at, 17] = mixed_hash(17, last & 0xFF)


@compiled
def _kind(byte: int) -> int:
    """Digits 1, small letters 2, capitals 3, bytes above 127 4, all others themselves."""
    if 48 <= byte <= 57:
        return 1
    if 97 <= byte <= 122:
        return 2
    if 65 <= byte <= 90:
        return 3
    return 4 if byte >= 128 else byte


@compiled
def last_byte(texts: Texts, row: int) -> int:
    """The last byte of a row's text, 0 at its beginning."""
    length = texts.scalar[row * NUM_SCALARS + LENGTH]
    return np.int64(texts.ring[row * RING_BYTES + ((length - 1) & (RING_BYTES - 1))]) if length > 0 else 0


@compiled
def append_token(texts: Texts, row: int, steps: int, leaf: int) -> None:
    """Appends a token to a row's text."""
    scalar, s = texts.scalar, row * NUM_SCALARS
    tokens = scalar[s + TOKENS]
    if tokens > 0:
        t1 = np.int64(texts.history[row * steps + tokens - 1])
        texts.follower[2 * t1 + 1] = texts.follower[2 * t1]
        texts.follower[2 * t1] = leaf + 1
    texts.history[row * steps + tokens] = leaf
    scalar[s + TOKENS] = tokens + 1
    for i in range(texts.token_start[leaf], texts.token_start[leaf + 1]):
        _append_byte(texts, row, np.int64(texts.token_byte[i]))


@compiled
def _append_byte(texts: Texts, row: int, byte: int) -> None:
    scalar, s = texts.scalar, row * NUM_SCALARS
    length = scalar[s + LENGTH]
    texts.ring[row * RING_BYTES + (length & (RING_BYTES - 1))] = byte
    length += 1
    scalar[s + LENGTH] = length
    kind = _kind(byte)
    shape = scalar[s + SHAPE]
    # Runs of digits and letters are cut after two.
    if not (1 <= kind <= 3 and (shape & 0xFF) == kind and ((shape >> 8) & 0xFF) == kind):
        scalar[s + SHAPE] = ((shape << 8) | kind) & _MASK32
    if 1 <= kind <= 4:
        scalar[s + WORD] = mixed_hash(scalar[s + WORD], byte + 32 if kind == 3 else byte)
    elif scalar[s + WORD] != 0:
        scalar[s + WORD_BEFORE] = scalar[s + WORD]
        scalar[s + WORD] = 0
    if byte == 10:
        scalar[s + ABOVE] = scalar[s + LINE]
        scalar[s + ABOVE_END] = length - 1
        scalar[s + LINE] = length
        scalar[s + FIELD] = 0
        scalar[s + FIELD_START] = length
        scalar[s + BEGINNING_BEFORE] = scalar[s + BEGINNING]
        scalar[s + BEGINNING] = 0
        for i in range(row * FIELDS, (row + 1) * FIELDS):
            texts.field_above[i] = texts.field_here[i]
            texts.field_here[i] = -1
        texts.field_here[row * FIELDS] = length
        return
    if length - scalar[s + LINE] <= 3:
        scalar[s + BEGINNING] = mixed_hash(scalar[s + BEGINNING], byte)
    _fields_and_brackets(texts, row, byte, length)


@compiled
def _fields_and_brackets(texts: Texts, row: int, byte: int, length: int) -> None:
    scalar, s = texts.scalar, row * NUM_SCALARS
    opening = byte in (40, 60, 91, 123)  # ( < [ {
    closing = byte in (41, 62, 93, 125)  # ) > ] }
    if opening or closing or byte in (9, 34, 44, 58, 59, 61, 124):  # tab " , : ; = |
        scalar[s + FIELD] += 1
        scalar[s + FIELD_START] = length
        if scalar[s + FIELD] < FIELDS:
            texts.field_here[row * FIELDS + scalar[s + FIELD]] = length
    if opening:
        scalar[s + DEPTH] = min(scalar[s + DEPTH] + 1, NESTING - 1)
        texts.bracket[row * NESTING + scalar[s + DEPTH]] = byte
    elif closing and scalar[s + DEPTH] > 0:
        scalar[s + DEPTH] -= 1
