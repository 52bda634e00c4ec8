"""The binary tree over a vocabulary, in which a token becomes a path of bits. Must not know probabilities.

Its leaves are the tokens in the order of their bytes, and its nodes are prefixes or sets of next bytes after one, so
tokens that begin alike share statistics. Among these its shape follows the ids: a BPE numbers its tokens in the order
of its merges, and early ones are frequent.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .library import LEVELS, load

_MAX_TOKENS = 1 << 20
"""Tokens of a vocabulary, so that blocks of 16 leaves are counted in 16 bits."""

_WEIGHT_UNIT = 1 << 32
"""Weight of a token of rank 1."""

_FIRST_MERGE = 256
"""Id of a BPE's first merge; all ids below have its rank."""

_RANK_OFFSET = 100
"""Rank of the first merge: the first ones differ little in frequency."""


class Tree(NamedTuple):
    """Flat arrays over the N = V - 1 inner nodes; node 0 is the root.

    Attributes:
        token: (V,) int64: the token id of each leaf.
        leaf: (V,) int64: the leaf of each token id.
        child: (2 N,) int32: entry 2 n + y is where bit y leads from node n: a node, or leaf i as -1 - i.
        bounds: (3 N,) int32: first leaf, first leaf of the one side, and end of each node's leaves.
        treelet: (N,) int32: number of the node's treelet, from 0.
        slot: (N,) int32: place in the treelet, 1 to 15, as in a heap.
        level: (N,) int32: depth of each node, 0 for the root.
        depth: (V,) int32: number of decisions of each leaf.
        leaf_start: (V + 1,) int64, leaf_bytes: uint8: the bytes of leaf i from leaf_start[i] to leaf_start[i + 1].
    """

    token: np.ndarray
    leaf: np.ndarray
    child: np.ndarray
    bounds: np.ndarray
    treelet: np.ndarray
    slot: np.ndarray
    level: np.ndarray
    depth: np.ndarray
    leaf_start: np.ndarray
    leaf_bytes: np.ndarray


def build_tree(table: Sequence[bytes]) -> Tree:
    """Builds the tree of a vocabulary.

    Args:
        table: bytes of each token, 2 to 2^20 tokens; equal and empty ones are allowed.

    Raises:
        EngineError: the mixer's library cannot be loaded here.
        ValueError: there are fewer or more tokens.

    Source: docs/numerics.md section 10.2.
    """
    size, (sort, share, build) = len(table), _functions()
    if not 2 <= size <= _MAX_TOKENS:
        raise ValueError(f"a tree of {size} tokens")
    start = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, table), dtype=np.int64, count=size), out=start[1:])
    data = np.frombuffer(b"".join(table) + b"\0", dtype=np.uint8)
    token, leaf = np.empty((2, size), dtype=np.int64)
    leaf_start, leaf_bytes = np.empty_like(start), np.zeros_like(data)
    room = np.empty(2 * size, dtype=np.int64)
    sort(size, *(array.ctypes.data for array in (start, data, room, token, leaf_start, leaf_bytes)))
    leaf[token] = np.arange(size)
    sums = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(_WEIGHT_UNIT // (np.maximum(token, _FIRST_MERGE) - (_FIRST_MERGE - _RANK_OFFSET)), out=sums[1:])
    shared = np.empty(size, dtype=np.int32)
    share(size, *(array.ctypes.data for array in (leaf_start, leaf_bytes, shared)))
    child, bounds = (np.zeros(count * (size - 1), dtype=np.int32) for count in (2, 3))
    treelet, slot, level = np.zeros((3, size - 1), dtype=np.int32)
    depth = np.zeros(size, dtype=np.int32)
    build(size, *(array.ctypes.data for array in (sums, shared, child, bounds, treelet, slot, level, depth)))
    return Tree(token, leaf, child, bounds, treelet, slot, level, depth, leaf_start, leaf_bytes)


@functools.cache
def _functions() -> tuple[Any, ...]:
    """Returns the functions of native/tree.cpp, which are the same at every level of instructions."""
    handle_and_level = load(LEVELS[0])
    assert handle_and_level is not None  # every processor has the portable level
    functions = []
    for name, pointers in (("sort", 6), ("share", 3), ("build", 8)):
        function = getattr(handle_and_level[0], f"llmzip_tree_{name}")
        function.argtypes, function.restype = (ctypes.c_int64, *(ctypes.c_void_p,) * pointers), None
        functions.append(function)
    return tuple(functions)
