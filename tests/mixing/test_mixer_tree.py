"""Checks the tree over a vocabulary against its document, for random vocabularies and the embedded one."""

from __future__ import annotations

import functools
from typing import Any

import documented
import mixer_samples as samples
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmzip.inference import load
from llmzip.mixing.tree import build_tree, paths
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
    assert [node.number for node in nodes] == list(range(tree.nodes))
    return nodes


def check(table: list[bytes]) -> None:
    """Everything that section 10.2 says, and that paths, children and bounds agree."""
    tree, expected = build_tree(table), documented.reference.Tree(table)
    size = len(table)
    nodes = nodes_of(expected)
    assert tree.token.tolist() == expected.token_of
    assert tree.leaf.tolist() == expected.leaf_of
    assert np.array_equal(tree.leaf[tree.token], np.arange(size))
    assert [[node.a, node.m, node.b] for node in nodes] == tree.bounds.reshape(-1, 3).tolist()
    assert [node.treelet for node in nodes] == tree.treelet.tolist()
    assert [node.place for node in nodes] == tree.slot.tolist()
    starts, steps = paths(tree)
    assert starts[0] == 0 and starts.shape == (size + 1,) and starts[-1] <= len(steps)
    for leaf in range(size):
        way = steps[starts[leaf] : starts[leaf + 1]].tolist()
        assert [step & 1 for step in way] == list(expected.path(tree.token[leaf]))
        node = 0
        for step in way:
            assert step >> 1 == node
            first, middle, end = tree.bounds[3 * node : 3 * node + 3].tolist()
            assert (first, middle)[step & 1] <= leaf < (middle, end)[step & 1]
            node = int(tree.child[step])
        assert node == -1 - leaf


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


def test_two_tokens_need_one_bit() -> None:
    tree = build_tree([b"x", b""])
    assert tree.child.tolist() == [-1, -2] and tree.token.tolist() == [1, 0]
    assert paths(tree)[1][:2].tolist() == [0, 1]


def test_bytes_are_their_own_bits() -> None:
    vocabulary = Vocabulary([bytes([byte]) for byte in range(256)])
    for byte in range(256):
        way = vocabulary.path_step[vocabulary.path_start[byte] : vocabulary.path_start[byte + 1]]
        assert [step & 1 for step in way.tolist()] == [byte >> bit & 1 for bit in range(7, -1, -1)]
    assert set(vocabulary.tree.treelet.tolist()) == set(range(17))


def test_tokens_with_equal_bytes_lie_in_the_order_of_their_ids() -> None:
    tree = build_tree([b"b", b"a", b"b", b"", b"a", b"ab"])
    assert tree.token.tolist() == [3, 1, 4, 5, 0, 2]


@functools.cache
def embedded_table() -> list[bytes]:
    return list(load.load(choose_model("default"), EngineSettings()).tokenizer.table.entries)


def test_embedded_vocabulary() -> None:
    check(embedded_table())


def test_embedded_vocabulary_is_not_deep() -> None:
    tree = build_tree(embedded_table())
    starts, _ = paths(tree)
    depth = np.diff(starts)
    assert depth.max() <= 20
    # Kraft: the paths are those of one full binary tree.
    assert sum(2.0**-depth) == 1
