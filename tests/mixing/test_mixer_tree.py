"""Checks the tree over a vocabulary against its document, for random vocabularies and the embedded one."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import documented
import mixer_samples as samples
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmzip.inference import load
from llmzip.mixing.tree import Tree, build_tree
from llmzip.mixing.vocabulary import Vocabulary
from llmzip.models.choice import choose_model
from llmzip.settings import EngineSettings

EXAMPLES = settings.default.max_examples if settings.default else 30
WORDS = st.lists(
    st.one_of(st.binary(max_size=3), st.sampled_from([b"", b"a", b"ab", b"\xff"])), min_size=2, max_size=60
)
# Enough tokens in front that some of these have ids above 256, whose weights differ.
LARGE = WORDS.map(lambda words: [b"\x7f%03d" % n for n in range(256)] + words * 3)


def nodes_of(tree: Any) -> list[Any]:
    """The inner nodes of a documented tree, in the order of their numbers."""
    nodes, left = [], [tree.root]
    while left:
        node = left.pop()
        if isinstance(node, documented.reference.Node):
            nodes.append(node)
            left += reversed(node.children)
    assert [node.number for node in nodes] == list(range(len(tree.nodes)))
    return nodes


def path_of(tree: Tree, leaf: int) -> list[int]:
    """Bits from the root to a leaf, by the children alone."""
    bits, node = [], 0
    while node >= 0:
        first, middle, end = tree.bounds[3 * node : 3 * node + 3].tolist()
        assert first <= leaf < end
        bits.append(int(leaf >= middle))
        node = int(tree.child[2 * node + bits[-1]])
    assert node == -1 - leaf
    return bits


def check(table: list[bytes]) -> None:
    """Everything that section 10.2 says, and that depths, children and bounds agree."""
    tree, expected = build_tree(table), documented.reference.Tree(table)
    size = len(table)
    nodes = nodes_of(expected)
    assert tree.token.tolist() == expected.token_of
    assert tree.leaf.tolist() == expected.leaf_of
    assert np.array_equal(tree.leaf[tree.token], np.arange(size))
    assert [[node.a, node.m, node.b] for node in nodes] == tree.bounds.reshape(-1, 3).tolist()
    assert [node.treelet for node in nodes] == tree.treelet.tolist()
    assert [node.place for node in nodes] == tree.slot.tolist()
    data, starts = tree.leaf_bytes.tobytes(), tree.leaf_start.tolist()
    for leaf in range(size):
        assert path_of(tree, leaf) == list(expected.path(tree.token[leaf]))
        assert len(path_of(tree, leaf)) == tree.depth[leaf]
        assert data[starts[leaf] : starts[leaf + 1]] == table[tree.token[leaf]]


def agreement(first: bytes, second: bytes) -> int:
    """Number of bytes at the front in which two tokens agree."""
    shorter = min(len(first), len(second))
    return next((place for place in range(shorter) if first[place] != second[place]), shorter)


def looped(table: list[bytes]) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Tokens, children, bounds, treelets and places, node by node: fast enough for large vocabularies."""
    size = len(table)
    token = sorted(range(size), key=lambda i: (table[i], i))
    sums = np.cumsum([0, *(2**32 // (max(i, 256) - 156) for i in token)])
    shares = np.array([0, *(agreement(table[i], table[j]) for i, j in itertools.pairwise(token))])
    child, bounds, treelet, slot = [0] * (2 * size - 2), [0] * (3 * size - 3), [0] * (size - 1), [0] * (size - 1)
    nodes = treelets = 0
    stack = [(0, size, -1, -1, 0)]  # first leaf, end, entry of `child` to fill, treelet, place
    while stack:
        first, end, entry, block, place = stack.pop()
        if end - first == 1:
            child[entry] = -1 - first
            continue
        node, nodes = nodes, nodes + 1
        if entry >= 0:
            child[entry] = node
        if block < 0 or place >= 16:
            block, place, treelets = treelets, 1, treelets + 1
        between = shares[first + 1 : end]
        places = first + 1 + np.flatnonzero(between == between.min())
        middle = int(places[np.argmin(np.abs(2 * sums[places] - sums[first] - sums[end]))])  # the first of equal ones
        bounds[3 * node : 3 * node + 3] = first, middle, end
        treelet[node], slot[node] = block, place
        stack.append((middle, end, 2 * node + 1, block, 2 * place + 1))
        stack.append((first, middle, 2 * node, block, 2 * place))
    return token, child, bounds, treelet, slot


def large_table(size: int) -> list[bytes]:
    """A vocabulary with twins, beginnings of one another, zero bytes, and many that agree in eight bytes and more."""
    chooser = random.Random(size)
    table = [bytes([n]) for n in range(256)] + [b"", b"", b"\0" * 8, b"\0" * 9, b"longprefix", b"longprefix\0"]
    while len(table) < size:
        start = chooser.choice(table[-500:]) if chooser.random() < 0.7 else chooser.choice(table)
        table.append((start + chooser.randbytes(chooser.randint(0, 3)))[-30:])
    return table


@pytest.mark.parametrize("size", [5000, 49_152, 262_144])
def test_large_vocabularies_are_those_of_the_loop(size: int) -> None:
    table = large_table(size)
    tree = build_tree(table)
    token, child, bounds, treelet, slot = looped(table)
    assert tree.token.tolist() == token
    for found, expected in ((tree.child, child), (tree.bounds, bounds), (tree.treelet, treelet), (tree.slot, slot)):
        assert found.tolist() == expected
    assert tree.leaf[tree.token].tolist() == list(range(size))
    for leaf in random.Random(1).sample(range(size), 200):
        assert len(path_of(tree, leaf)) == tree.depth[leaf]


@given(table=WORDS)
@example(table=[b"", b""])
@example(table=[b"b", b"a"])
@example(table=[b"a"] * 40)
def test_small_vocabularies(table: list[bytes]) -> None:
    check(table)


@settings(max_examples=EXAMPLES // 4)
@given(table=LARGE)
def test_vocabularies_with_merges(table: list[bytes]) -> None:
    check(table)


@pytest.mark.parametrize("size", [2, 3, 16, 17, 256, 700])
def test_vocabularies_of_words(size: int) -> None:
    check(list(samples.word_table(size)))


def test_vocabulary_whose_last_path_ends_where_others_go_on() -> None:
    check(list(samples.hidden_tail_table()))


def test_vocabulary_in_which_each_token_begins_the_next() -> None:
    """The deepest tree there is: at each node one token ends, and all others go on."""
    table = [b"a" * length for length in range(1500)]
    check(table)
    assert build_tree(table).depth.tolist() == [*range(1, 1500), 1499]


def test_two_tokens_need_one_bit() -> None:
    tree = build_tree([b"x", b""])
    assert tree.child.tolist() == [-1, -2] and tree.token.tolist() == [1, 0]
    assert [path_of(tree, leaf) for leaf in (0, 1)] == [[0], [1]]


@pytest.mark.parametrize("table", [[], [b"a"], [b""] * ((1 << 20) + 1)])
def test_vocabularies_that_have_no_tree_are_refused(table: list[bytes]) -> None:
    with pytest.raises(ValueError, match="a tree of"):
        build_tree(table)


def test_bytes_are_their_own_bits() -> None:
    tree = Vocabulary([bytes([byte]) for byte in range(256)]).tree
    for byte in range(256):
        assert path_of(tree, byte) == [byte >> bit & 1 for bit in range(7, -1, -1)]
    assert set(tree.treelet.tolist()) == set(range(17))


def test_prefixes_stay_together() -> None:
    """Of tokens with the same weights: `b` divides them, though the middle is within those that begin with `a`."""
    tree = build_tree([b"ab", b"aa", b"ac", b"ad", b"ae", b"b"])
    assert tree.bounds.reshape(-1, 3)[0].tolist() == [0, 5, 6]
    assert [path_of(tree, leaf) for leaf in range(6)] == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 1],
        [1],
    ]


def test_tokens_with_equal_bytes_lie_in_the_order_of_their_ids() -> None:
    tree = build_tree([b"b", b"a", b"b", b"", b"a", b"ab"])
    assert tree.token.tolist() == [3, 1, 4, 5, 0, 2]


@functools.cache
def embedded_table() -> list[bytes]:
    return list(load.load(choose_model("default"), EngineSettings()).tokenizer.table.entries)


def test_embedded_vocabulary() -> None:
    check(embedded_table())


def test_embedded_vocabulary_is_not_deep() -> None:
    depth = build_tree(embedded_table()).depth
    assert depth.max() <= 27  # balanced without regard to prefixes, they would be 20 at most
    # Kraft: the paths are those of one full binary tree.
    assert sum(2.0**-depth) == 1
