"""The one walk over a frame's decisions, for encoding and decoding alike; must not know engines, files or the coder.

Compiled. Steps, then groups of rows, then depths of the tree, then rows (docs/numerics.md section 10.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .compiled import compiled, compiled_apart
from .contexts import append_token, hash_contexts, last_byte, mixed_hash
from .masses import model_logit
from .predictor import Decision, find_blocks, learn, predict, set_match
from .state import (
    GROUP_ROWS,
    MATCH_BITS,
    MATCHES,
    NUM_CONTEXTS,
    NUM_SCALARS,
    SHAPE,
    TOKENS,
    Known,
    Learned,
    Masses,
    Texts,
)
from .vocabulary import Shape

_MATCH_TOKENS = (7, 3)
_MATCH_MOST = 40


class Scratch(NamedTuple):
    """Room for a group of G rows, and each row's matches.

    Attributes:
        hashes: (G, NUM_CONTEXTS) int64.
        node, treelet, leaf, byte, before: (G,) int64.
        expected: (G, MATCHES) int64: the leaf that a match model expects, or -1.
        pointer, length: (R, MATCHES) int64: where in the history the match goes on, or -1; tokens that agree.
        found: (MATCHES, 2^MATCH_BITS) int32: place behind the last occurrence of a hash, plus 1; 0 for none.
    """

    hashes: np.ndarray
    node: np.ndarray
    treelet: np.ndarray
    leaf: np.ndarray
    byte: np.ndarray
    before: np.ndarray
    expected: np.ndarray
    pointer: np.ndarray
    length: np.ndarray
    found: np.ndarray


def new_scratch(rows: int) -> Scratch:
    """For a frame of `rows` rows."""
    group = [np.zeros(GROUP_ROWS, dtype=np.int64) for _ in range(5)]
    return Scratch(
        np.zeros((GROUP_ROWS, NUM_CONTEXTS), dtype=np.int64),
        group[0],
        group[1],
        group[2],
        group[3],
        group[4],
        np.full((GROUP_ROWS, MATCHES), -1, dtype=np.int64),
        np.full((rows, MATCHES), -1, dtype=np.int64),
        np.zeros((rows, MATCHES), dtype=np.int64),
        np.zeros((MATCHES, 1 << MATCH_BITS), dtype=np.int32),
    )


@compiled
def _begin_token(texts: Texts, scratch: Scratch, shape: Shape, at: int, row: int, guess: int) -> None:
    """Contexts and matches of a row's next token, for place `at` of the group."""
    hash_contexts(texts, row, shape.steps, shape.vocab_size, guess, scratch.hashes, at)
    scratch.node[at] = 0
    scratch.treelet[at] = -1
    scratch.byte[at] = last_byte(texts, row)
    tokens = texts.scalar[row * NUM_SCALARS + TOKENS]
    scratch.before[at] = np.int64(texts.history[row * shape.steps + tokens - 1]) if tokens > 0 else shape.vocab_size
    for match in range(MATCHES):
        pointer = scratch.pointer[row, match]
        expected = np.int64(-1)
        if pointer >= 0 and _is_known(texts, pointer, shape.steps):
            expected = np.int64(texts.history[pointer])
        scratch.expected[at, match] = expected


@compiled
def _is_known(texts: Texts, pointer: int, steps: int) -> bool:
    row = pointer // steps
    return row * NUM_SCALARS < len(texts.scalar) and pointer - row * steps < texts.scalar[row * NUM_SCALARS + TOKENS]


@compiled
def _predict_row(
    learned: Learned, texts: Texts, scratch: Scratch, decision: Decision, shape: Shape,
    at: int, row: int, depth: int, model: int,
) -> None:  # fmt: skip
    node = scratch.node[at]
    treelet = np.int64(shape.treelet[node])
    if treelet != scratch.treelet[at]:
        scratch.treelet[at] = treelet
        find_blocks(learned, decision, at, scratch.hashes, treelet)
    longest = 0
    for match in range(MATCHES):
        expected, length = scratch.expected[at, match], np.int64(0)
        bit = np.int64(0)
        if expected >= 0:
            step = np.int64(shape.path_step[shape.path_start[expected] + depth])
            if step >> 1 == node:
                bit = step & 1
                length = scratch.length[row, match]
                if match == 0:
                    longest = 1 + min(length >> 1, 7)
                elif longest == 0:
                    longest = 9 + min(length >> 1, 5)
            else:
                scratch.expected[at, match] = -1
        set_match(learned, decision, at, match, length, bit)
    predict(
        learned, decision, at, node, np.int64(shape.slot[node]), model, depth, longest,
        texts.scalar[row * NUM_SCALARS + SHAPE], scratch.byte[at], scratch.before[at],
    )  # fmt: skip


@compiled
def _end_token(texts: Texts, scratch: Scratch, shape: Shape, row: int, leaf: int) -> None:
    """Appends a token to its row and moves the matches on."""
    steps, begin = shape.steps, row * shape.steps
    append_token(texts, row, steps, leaf)
    tokens = texts.scalar[row * NUM_SCALARS + TOKENS]
    end = begin + tokens
    for match in range(MATCHES):
        least = _MATCH_TOKENS[match]
        pointer = scratch.pointer[row, match]
        # The own row is one token further by now, but the token that was expected lies before it.
        if pointer >= 0 and _is_known(texts, pointer, steps) and texts.history[pointer] == leaf:
            scratch.pointer[row, match] = pointer + 1
            scratch.length[row, match] += 1
        else:
            scratch.pointer[row, match] = -1
            scratch.length[row, match] = 0
        if tokens < least:
            continue
        key = np.int64(0)
        for back in range(1, least + 1):
            key = mixed_hash(key, np.int64(texts.history[end - back]))
        key &= (1 << MATCH_BITS) - 1
        found = np.int64(scratch.found[match, key])
        if scratch.pointer[row, match] < 0 and found > 0:
            first, agree = (found - 1) // steps * steps, 0
            while (
                agree < _MATCH_MOST
                and agree < tokens
                and found - 1 - agree >= first
                and texts.history[found - 1 - agree] == texts.history[end - 1 - agree]
            ):
                agree += 1
            if agree >= least:
                scratch.pointer[row, match] = found
                scratch.length[row, match] = agree
        scratch.found[match, key] = end


@compiled_apart
def _begin_step(
    texts: Texts, scratch: Scratch, shape: Shape, known: Known, masses: Masses, encoding: bool, with_model: bool,
    step: int, first: int, group: int,
) -> None:  # fmt: skip
    for at in range(group):
        row, guessed = first + at, np.int64(0)
        if with_model:
            guessed = np.int64(known.guess[known.start[row] + step] if encoding else masses.guess[row])
        _begin_token(texts, scratch, shape, at, row, guessed)


@compiled_apart
def _predict_group(
    learned: Learned, texts: Texts, scratch: Scratch, decision: Decision, shape: Shape, known: Known, masses: Masses,
    encoding: bool, with_model: bool, step: int, first: int, group: int, depth: int,
    probability: np.ndarray, bits: np.ndarray, done: int,
) -> int:  # fmt: skip
    """Predicts the next decision of all rows that have one; returns how many."""
    asked = 0
    for at in range(group):
        if scratch.node[at] < 0:
            continue
        row, model = first + at, np.int64(0)
        if with_model and encoding:
            model = np.int64(known.logit[known.logit_start[known.start[row] + step] + depth])
        elif with_model:
            model = model_logit(masses, row, shape, scratch.node[at])
        _predict_row(learned, texts, scratch, decision, shape, at, row, depth, model)
        probability[done + asked] = np.float32(decision.probability[at]) * np.float32(2.0**-16)
        if encoding:
            leaf = known.leaf[known.start[row] + step]
            bits[done + asked] = shape.path_step[shape.path_start[leaf] + depth] & 1
        asked += 1
    return asked


@compiled_apart
def _learn_group(
    learned: Learned, scratch: Scratch, decision: Decision, shape: Shape, group: int, bits: np.ndarray, done: int
) -> None:
    """All rows learn their bit, one after the other, and go on to the next node."""
    asked = 0
    for at in range(group):
        node = scratch.node[at]
        if node < 0:
            continue
        bit = np.int64(bits[done + asked])
        asked += 1
        learn(learned, decision, at, bit)
        child = np.int64(shape.child[2 * node + bit])
        scratch.node[at] = child
        if child < 0:
            scratch.leaf[at] = -1 - child


@compiled_apart
def _end_step(texts: Texts, scratch: Scratch, shape: Shape, first: int, group: int) -> None:
    for at in range(group):
        _end_token(texts, scratch, shape, first + at, scratch.leaf[at])


@compiled
def walk(
    learned: Learned, texts: Texts, scratch: Scratch, decision: Decision, shape: Shape, known: Known, masses: Masses,
    encoding: bool, with_model: bool, probability: np.ndarray, bits: np.ndarray,
) -> Iterator[int]:  # fmt: skip
    """Walks over all decisions of a frame.

    Yields 0 before each group: a decoder's masses must be there then. Yields n > 0 when a decoder must decode n bits
    with `probability[:n]` into `bits`. An encoder gets all probabilities and bits of the frame there, one after the
    other.
    """
    done = 0
    for step in range(shape.steps):
        active = shape.rows if step < shape.full_steps else shape.long_rows
        for first in range(0, active, GROUP_ROWS):
            yield 0
            group = min(GROUP_ROWS, active - first)
            _begin_step(texts, scratch, shape, known, masses, encoding, with_model, step, first, group)
            depth = 0
            while True:
                asked = _predict_group(
                    learned, texts, scratch, decision, shape, known, masses, encoding, with_model,
                    step, first, group, depth, probability, bits, done,
                )  # fmt: skip
                if asked == 0:
                    break
                if not encoding:
                    yield asked
                _learn_group(learned, scratch, decision, shape, group, bits, done)
                if encoding:
                    done += asked
                depth += 1
            _end_step(texts, scratch, shape, first, group)
