"""A model's masses as logits at the nodes of the tree; must not know rows of text, statistics or the coder.

Compiled (docs/numerics.md section 10.7, input 18).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiled import compiled, compiled_apart
from .tables import LOGIT_MAX
from .vocabulary import Shape

SUM_LEAVES = 16
"""Leaves between two sums of masses that are kept: the others are added up when they are needed."""


@compiled
def _logarithm(value: int, log: np.ndarray, octave: np.ndarray) -> int:
    """256 ln(value), cut to the table's steps; value: 1 to 2^62."""
    octaves = 0
    if value >= 1 << 32:
        octaves += 32
    if value >> octaves >= 1 << 16:
        octaves += 16
    if value >> octaves >= 1 << 8:
        octaves += 8
    if value >> octaves >= 1 << 4:
        octaves += 4
    if value >> octaves >= 1 << 2:
        octaves += 2
    if value >> octaves >= 1 << 1:
        octaves += 1
    mantissa = value >> (octaves - 10) if octaves >= 10 else value << (10 - octaves)
    return np.int64(octave[octaves]) + np.int64(log[mantissa - 1024])


class Masses(NamedTuple):
    """A model's masses for R rows, in the order of the leaves.

    Attributes:
        leaf: (R, V) int32: the masses.
        block: (R, ceil(V / SUM_LEAVES)) int64: sums of (mass + 1) of the leaves before each block of SUM_LEAVES.
        end: (R,) int64: the sums over all leaves.
        guess: (R,) int64: the leaf of the likeliest token.
    """

    leaf: np.ndarray
    block: np.ndarray
    end: np.ndarray
    guess: np.ndarray


def new_masses(rows: int, vocab_size: int) -> Masses:
    """Room for the masses of `rows` rows."""
    return Masses(
        np.zeros((rows, vocab_size), dtype=np.int32),
        np.zeros((rows, -(-vocab_size // SUM_LEAVES)), dtype=np.int64),
        np.zeros(rows, dtype=np.int64),
        np.zeros(rows, dtype=np.int64),
    )


@compiled
def _sum_before(masses: Masses, row: int, leaf: int) -> int:
    """The sum of (mass + 1) of the leaves before this one, 0 <= leaf <= V."""
    if leaf == masses.leaf.shape[1]:
        return masses.end[row]
    block = leaf // SUM_LEAVES
    total = masses.block[row, block] + leaf - block * SUM_LEAVES
    for i in range(block * SUM_LEAVES, leaf):
        total += np.int64(masses.leaf[row, i])
    return total


@compiled
def model_logit(masses: Masses, row: int, shape: Shape, node: int) -> int:
    middle = _sum_before(masses, row, shape.bounds[3 * node + 1])
    one = _sum_before(masses, row, shape.bounds[3 * node + 2]) - middle
    zero = middle - _sum_before(masses, row, shape.bounds[3 * node])
    logit = _logarithm(one, shape.log, shape.octave) - _logarithm(zero, shape.log, shape.octave)
    return min(max(logit, -LOGIT_MAX), LOGIT_MAX)


@compiled
def _take_row(given: np.ndarray, place: int, shape: Shape, masses: Masses, row: int) -> None:
    """Takes one row of masses by token id, (n, V) int32, into the order of the leaves."""
    size = given.shape[1]
    for leaf in range(size):
        masses.leaf[row, leaf] = given[place, shape.token[leaf]]
    total = np.int64(0)
    for block in range(masses.block.shape[1]):
        masses.block[row, block] = total
        begin, end = block * SUM_LEAVES, min((block + 1) * SUM_LEAVES, size)
        part = np.int64(0)
        for leaf in range(begin, end):
            part += np.int64(masses.leaf[row, leaf])
        total += part + end - begin
    masses.end[row] = total
    masses.guess[row] = shape.leaf[likeliest(given, place)]


@compiled
def likeliest(masses: np.ndarray, row: int) -> int:
    """The token with the largest mass in a row, the first of equals; masses: (n, V) int32."""
    most = masses[row, 0]
    for i in range(masses.shape[1]):
        most = max(most, masses[row, i])
    i = 0
    while masses[row, i] != most:
        i += 1
    return i


@compiled_apart
def path_logits(
    given: np.ndarray, leaves: np.ndarray, places: np.ndarray, shape: Shape, masses: Masses,
    logit: np.ndarray, logit_start: np.ndarray, guess: np.ndarray,
) -> None:  # fmt: skip
    """The model's logits on the paths of known tokens, and its guesses.

    Args:
        given: (n, V) int32 masses by token id; leaves: (n,) leaves of the tokens; places: (n,) where they lie in the
            outputs; masses: room for one row.
    """
    for i in range(len(leaves)):
        place = places[i]
        _take_row(given, i, shape, masses, 0)
        guess[place] = masses.guess[0]
        out = logit_start[place]
        for step in range(shape.path_start[leaves[i]], shape.path_start[leaves[i] + 1]):
            logit[out] = model_logit(masses, 0, shape, np.int64(shape.path_step[step]) >> 1)
            out += 1


@compiled_apart
def take_masses(given: np.ndarray, shape: Shape, masses: Masses) -> None:
    """What a decoder needs of a step's masses, (n, V) int32 by token id."""
    for row in range(len(given)):
        _take_row(given, row, shape, masses, row)
