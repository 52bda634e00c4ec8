"""A model's masses as logits at the nodes of the tree; must not know rows of text, statistics or the coder.

Compiled (docs/numerics.md section 10.7, input 18).
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled, compiled_apart
from .state import SUM_LEAVES, Known, Masses
from .tables import LOGIT_MAX
from .vocabulary import Shape


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
def path_logits(given: np.ndarray, places: np.ndarray, shape: Shape, masses: Masses, known: Known) -> None:
    """The model's logits on the paths of known tokens, and its guesses.

    Args:
        given: (n, V) int32 masses by token id; places: (n,) which tokens; masses: room for one row.
    """
    for i in range(len(places)):
        place = places[i]
        leaf = np.int64(known.leaf[place])
        _take_row(given, i, shape, masses, 0)
        known.guess[place] = masses.guess[0]
        out = known.logit_start[place]
        for step in range(shape.path_start[leaf], shape.path_start[leaf + 1]):
            known.logit[out] = model_logit(masses, 0, shape, np.int64(shape.path_step[step]) >> 1)
            out += 1


@compiled_apart
def take_masses(given: np.ndarray, shape: Shape, masses: Masses, first_row: int) -> None:
    """What a decoder needs of the masses of some rows of a step, (n, V) int32 by token id."""
    for place in range(len(given)):
        _take_row(given, place, shape, masses, first_row + place)
