"""The binary tree over a vocabulary, in which a token becomes a path of bits. Must not know probabilities.

Its leaves are the tokens in the order of their bytes, so a node is nearly a prefix, and tokens that begin alike share
statistics. Its shape follows the ids: a BPE numbers its tokens in the order of its merges, and early ones are frequent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TREELET_LEVELS = 4
"""Levels of the tree whose statistics are together in memory: 15 nodes in a block of 16 bytes."""

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
    """

    token: np.ndarray
    leaf: np.ndarray
    child: np.ndarray
    bounds: np.ndarray
    treelet: np.ndarray
    slot: np.ndarray


def build_tree(table: list[bytes]) -> Tree:
    """Builds the tree of a vocabulary.

    Args:
        table: bytes of each token, at least 2 tokens; equal and empty ones are allowed.

    Source: docs/numerics.md section 10.2.
    """
    size = len(table)
    token = sorted(range(size), key=lambda i: (table[i], i))
    total = [0]
    for i in token:
        total.append(total[-1] + _WEIGHT_UNIT // (max(i, _FIRST_MERGE) - _FIRST_MERGE + _RANK_OFFSET))
    sums = np.array(total, dtype=np.int64)
    child, bounds = np.zeros(2 * (size - 1), dtype=np.int32), np.zeros(3 * (size - 1), dtype=np.int32)
    treelet, slot = np.zeros(size - 1, dtype=np.int32), np.zeros(size - 1, dtype=np.int32)
    nodes = treelets = 0
    stack = [(0, size, -1, -1, 0)]  # first leaf, end, entry of `child` to fill, treelet, slot
    while stack:
        first, end, entry, block, place = stack.pop()
        if end - first == 1:
            child[entry] = -1 - first
            continue
        node, nodes = nodes, nodes + 1
        if entry >= 0:
            child[entry] = node
        if block < 0 or place >= 1 << TREELET_LEVELS:
            block, place, treelets = treelets, 1, treelets + 1
        middle = _split(sums, first, end)
        bounds[3 * node : 3 * node + 3] = first, middle, end
        treelet[node], slot[node] = block, place
        stack.append((middle, end, 2 * node + 1, block, 2 * place + 1))
        stack.append((first, middle, 2 * node, block, 2 * place))
    leaf = np.empty(size, dtype=np.int64)
    leaf[token] = np.arange(size)
    return Tree(np.array(token, dtype=np.int64), leaf, child, bounds, treelet, slot)


def _split(sums: np.ndarray, first: int, end: int) -> int:
    """Returns the border that halves the weight best; the lower one of two."""
    twice = int(sums[first] + sums[end])
    middle = int(np.searchsorted(sums[first + 1 : end], (twice + 1) // 2)) + first + 1
    middle = min(middle, end - 1)
    if middle - 1 > first and abs(2 * int(sums[middle - 1]) - twice) <= abs(2 * int(sums[middle]) - twice):
        middle -= 1
    return middle


def paths(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Finds the path to every leaf.

    Returns:
        starts: (V + 1,) int64; steps: (starts[V] + 1,) int32: those of leaf i are 2 node + bit, at starts[i] to
        starts[i + 1]; the last entry is -1.
    """
    size = len(tree.token)
    leaf_paths: list[list[int]] = [[] for _ in range(size)]
    stack: list[tuple[int, list[int]]] = [(0, [])]
    while stack:
        node, path = stack.pop()
        for bit in (0, 1):
            longer = [*path, 2 * node + bit]
            child = int(tree.child[2 * node + bit])
            if child < 0:
                leaf_paths[-1 - child] = longer
            else:
                stack.append((child, longer))
    starts = np.concatenate([[0], np.cumsum([len(path) for path in leaf_paths])]).astype(np.int64)
    # A path that is followed one step too far ends at -1, which no node has.
    return starts, np.array([step for path in leaf_paths for step in path] + [-1], dtype=np.int32)
