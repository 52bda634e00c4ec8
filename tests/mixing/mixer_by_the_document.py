"""The mixer written from docs/numerics.md sections 9 and 10 alone, in plain integers, one decision after the other.

It shares nothing with the package but the tables, whose SHA-256 other tests compare with the document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmzip.mixing import tables

SQUASH = tables.squash_table().tolist()
STRETCH = tables.stretch_table().tolist()
LOG = tables.log_table().tolist()
OCTAVE = tables.octave_table().tolist()
RATE = tables.rate_table().tolist()
NEXT = tables.states().successor.tolist()
START = tables.states().probability.tolist()
SEEN = tables.states().seen.tolist()
CONTEXTS = 18

Decision = tuple[int, int]
"""k, the probability of a one in units of 2^-16, and the bit."""


def clamp(x: int, a: int, b: int) -> int:
    return min(max(x, a), b)


def squash(z: int) -> int:
    return SQUASH[z + 2815]


def hash_of(*values: int) -> int:
    """Hash of a, b, c, ...; section 10.5."""
    state = values[0]
    for value in values[1:]:
        x = ((state ^ (value + 1)) * 0x2F0B4C47) % 2**32
        state = x ^ (x >> 15)
    return state


def interval(k: int, bit: int) -> tuple[int, int]:
    """Left end and size of a decision's interval of 2^24; section 9."""
    q = 2**16 - k
    z = 2**8 * q if q <= 2**15 else 2**8 * q - 1
    return (z, 2**24 - z) if bit else (0, z)


# -- 10.2 --------------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    """A node over the leaves a .. b - 1, split at m."""

    number: int
    a: int
    m: int
    b: int
    treelet: int
    place: int
    children: list[Node | int] = field(default_factory=list)


class Tree:
    """The tree over a vocabulary, by trying every split."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self.token = sorted(range(len(table)), key=lambda i: (table[i], i))
        self.leaf = {token: leaf for leaf, token in enumerate(self.token)}
        self.sums = [0]
        for token in self.token:
            self.sums.append(self.sums[-1] + 2**32 // (max(token, 256) - 156))
        self.nodes: list[Node] = []
        self.treelets = 0
        root = self._node(0, len(table), 0, 16)
        assert isinstance(root, Node)
        self.root = root

    def _node(self, a: int, b: int, treelet: int, place: int) -> Node | int:
        if b - a == 1:
            return a
        if place >= 16:
            treelet, place, self.treelets = self.treelets, 1, self.treelets + 1
        s = self.sums
        m = min(range(a + 1, b), key=lambda m: (abs(2 * s[m] - s[a] - s[b]), m))
        node = Node(len(self.nodes), a, m, b, treelet, place)
        self.nodes.append(node)
        node.children.append(self._node(a, m, treelet, 2 * place))
        node.children.append(self._node(m, b, treelet, 2 * place + 1))
        return node

    def path(self, leaf: int) -> list[Decision]:
        """Numbers of nodes and bits on the way to a leaf."""
        way: list[Decision] = []
        node: Node | int = self.root
        while isinstance(node, Node):
            bit = int(leaf >= node.m)
            way.append((node.number, bit))
            node = node.children[bit]
        assert node == leaf
        return way


# -- 10.5 and 10.6 -----------------------------------------------------------------------------------------------------


def kind(c: int) -> int:
    if c in b"0123456789":
        return 1
    if c in b"abcdefghijklmnopqrstuvwxyz":
        return 2
    if c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        return 3
    return 4 if c >= 128 else c


class Row:
    """A row's text; what section 10.5 keeps of it."""

    def __init__(self) -> None:
        self.leaves: list[int] = []
        self.bytes = bytearray()
        self.line, self.above, self.above_end = 0, -1, 0
        self.field = self.field_start = 0
        self.here, self.over = [0] + 63 * [-1], 64 * [-1]
        self.word = self.word_before = self.shape = self.beginning = self.beginning_before = 0
        self.stack, self.depth = 64 * [0], 0
        self.pointer: list[int | None] = [None, None]
        self.length = [0, 0]

    def back(self, count: int) -> int:
        return self.bytes[-count] if count <= len(self.bytes) else 0

    def last_leaf(self, back: int, vocab: int) -> int:
        return self.leaves[-back] if back <= len(self.leaves) else vocab

    def three(self, i: int, e: int) -> int:
        if i >= e or i + 8192 < len(self.bytes) + 8:
            return 0
        return self.bytes[i] + 2**8 * self.bytes[min(i + 1, e)] + 2**16 * self.bytes[min(i + 2, e)]

    def append(self, c: int) -> None:
        self.bytes.append(c)
        n, k = len(self.bytes), kind(c)
        if not (k in (1, 2, 3) and k == self.shape % 2**8 == (self.shape >> 8) % 2**8):
            self.shape = (2**8 * self.shape + k) % 2**32
        if 1 <= k <= 4:
            self.word = hash_of(self.word, c + 32 if k == 3 else c)
        elif self.word != 0:
            self.word_before, self.word = self.word, 0
        if c == 10:
            self.above, self.above_end, self.line = self.line, n - 1, n
            self.field, self.field_start = 0, n
            self.beginning_before, self.beginning = self.beginning, 0
            self.over, self.here = self.here, [n] + 63 * [-1]
            return
        if n - self.line <= 3:
            self.beginning = hash_of(self.beginning, c)
        if c in b'(<[{)>]}\t",:;=|':
            self.field += 1
            self.field_start = n
            if self.field < 64:
                self.here[self.field] = n
        if c in b"(<[{":
            self.depth = min(self.depth + 1, 63)
            self.stack[self.depth] = c
        elif c in b")>]}" and self.depth > 0:
            self.depth -= 1

    def hashes(self, vocab: int, pair: tuple[int, int], guess: int) -> list[int]:
        t1, t2, t3, t4 = (self.last_leaf(back, vocab) for back in (1, 2, 3, 4))
        last3 = self.back(1) + 2**8 * self.back(2) + 2**16 * self.back(3)
        last6 = self.back(4) + 2**8 * self.back(5) + 2**16 * self.back(6)
        n = len(self.bytes)
        column, place = n - self.line, n - self.field_start
        up = self.three(self.above + column, self.above_end) if self.above >= 0 else 0
        known = self.field < 64 and self.over[self.field] >= 0
        same = self.three(self.over[self.field] + place, self.above_end) if known else 0
        return [
            hash_of(0, 0),
            hash_of(1, self.word),
            hash_of(2, self.shape),
            hash_of(3, t1, t2),
            hash_of(4, guess),
            hash_of(5, last3),
            hash_of(6, self.word, self.word_before),
            hash_of(7, t1, t2, t3, t4),
            hash_of(8, *pair),
            hash_of(9, up, column),
            hash_of(10, last3, last6),
            hash_of(11, self.beginning, self.field),
            hash_of(12, last3 % 2**16, last3 % 2**8),
            hash_of(13, same, self.field, min(place, 15)),
            hash_of(14, self.stack[self.depth], t1),
            hash_of(15, self.beginning_before, min(column, 40), t1 if column > 0 else 0),
            hash_of(16, t2, t3),
            hash_of(17, last3 % 2**8),
        ]


# -- 10.1, 10.4, 10.7 and 10.8 -----------------------------------------------------------------------------------------


@dataclass
class Token:
    """A row's token while it is being coded, and what its last prediction has computed."""

    row: int
    path: list[Decision]
    hashes: list[int]
    expected: list[int | None]
    masses: list[int] | None
    treelet: int = -1
    blocks: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    expected_bits: list[int | None] = field(default_factory=list)
    x: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)
    z_of_sets: list[int] = field(default_factory=list)
    final_set: int = 0
    mixed: int = 0
    j: int = 0
    f: int = 0
    maps: list[list[int]] = field(default_factory=list)


class Mixer:
    """Encodes one frame: `decisions` returns what the range coder codes."""

    def __init__(self, table: Sequence[bytes], num_tokens: int, num_rows: int) -> None:
        self.table, self.tree = table, Tree(table)
        self.paths = [self.tree.path(leaf) for leaf in range(len(table))]
        self.vocab, nodes = len(table), len(self.tree.nodes)
        self.k = clamp((32 * num_tokens - 1).bit_length(), 12, 22)
        self.num_tokens, self.num_rows = num_tokens, num_rows
        self.steps = -(-num_tokens // num_rows)
        start = [16 * squash(clamp(128 * (j - 16), -2815, 2815)) for j in range(33)]
        weights = 18 * [4000] + [40000, 13000, 0, 13000, 0, 0]
        self.blocks: defaultdict[int, list[int]] = defaultdict(lambda: 16 * [0])
        self.state_map = [[[p, 6] for p in START] for _ in range(CONTEXTS)]
        self.match_map = [[[3 * 2**20, 0] for _ in range(32)] for _ in range(2)]
        self.weights: defaultdict[int, list[int]] = defaultdict(lambda: list(weights))
        self.updates: defaultdict[int, int] = defaultdict(int)
        self.final_weights = [3 * [21845] for _ in range(256)]
        self.node_map = [list(start) for _ in range(nodes)]
        self.pair_map: defaultdict[int, list[int]] = defaultdict(lambda: list(start))
        self.pairs: defaultdict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
        self.found: list[dict[int, int]] = [{}, {}]
        self.rows = [Row() for _ in range(num_rows)]

    def decisions(self, tokens: Sequence[int], masses: Sequence[Sequence[int]] | None) -> list[Decision]:
        """Args: tokens in the order of the text, and the masses of each place."""
        short, long = divmod(self.num_tokens, self.num_rows)
        starts = [row * short + min(row, long) for row in range(self.num_rows)]
        out: list[Decision] = []
        for step in range(self.steps):
            active = self.num_rows if step < short else long
            for first in range(0, active, 32):
                group = [
                    self._begin(row, tokens[starts[row] + step], None if masses is None else masses[starts[row] + step])
                    for row in range(first, min(first + 32, active))
                ]
                depth = 0
                while asked := [token for token in group if depth < len(token.path)]:
                    out += [(self._predict(token, depth), token.path[depth][1]) for token in asked]
                    for token in asked:
                        self._learn(token, depth)
                    depth += 1
                for token in group:
                    self._end(token)
        return out

    def _known(self, place: int) -> int | None:
        row, j = divmod(place, self.steps)
        return self.rows[row].leaves[j] if row < self.num_rows and j < len(self.rows[row].leaves) else None

    def _begin(self, number: int, token: int, masses: Sequence[int] | None) -> Token:
        row, guess, in_order = self.rows[number], 0, None
        if masses is not None:
            guess = self.tree.leaf[min(i for i in range(self.vocab) if masses[i] == max(masses))]
            in_order = [masses[i] + 1 for i in self.tree.token]
        hashes = row.hashes(self.vocab, self.pairs[row.last_leaf(1, self.vocab)], guess)
        expected = [None if pointer is None else self._known(pointer) for pointer in row.pointer]
        return Token(number, self.paths[self.tree.leaf[token]], hashes, expected, in_order)

    def _find_blocks(self, token: Token, treelet: int) -> None:
        token.treelet, token.blocks = treelet, []
        for h in token.hashes:
            key = (h ^ ((treelet * 0x9E3779B1) % 2**32)) * 0x5851F42D
            b, check = (key >> 28) % 2**self.k, max(1, (key >> 20) % 2**8)
            if self.blocks[b][0] != check:
                other = b ^ 1
                if self.blocks[other][0] == check:
                    b = other
                else:
                    if SEEN[self.blocks[other][1]] < SEEN[self.blocks[b][1]]:
                        b = other
                    self.blocks[b] = [check] + 15 * [0]
            token.blocks.append(b)

    def _model_logit(self, token: Token, node: Node) -> int:
        if token.masses is None:
            return 0

        def ln(v: int) -> int:
            o = v.bit_length() - 1
            return OCTAVE[o] + LOG[(v >> (o - 10) if o >= 10 else v << (10 - o)) - 1024]

        return clamp(ln(sum(token.masses[node.m : node.b])) - ln(sum(token.masses[node.a : node.m])), -2815, 2815)

    def _predict(self, token: Token, depth: int) -> int:
        row = self.rows[token.row]
        node = self.tree.nodes[token.path[depth][0]]
        if node.treelet != token.treelet:
            self._find_blocks(token, node.treelet)
        token.states = [self.blocks[b][node.place] for b in token.blocks]
        x = [STRETCH[self.state_map[c][s][0] >> 10] if s else 0 for c, s in enumerate(token.states)]
        x.append(self._model_logit(token, node))
        token.expected_bits, token.lengths = [], []
        for m, expected in enumerate(token.expected):
            way = [] if expected is None else self.paths[expected]
            bit = way[depth][1] if depth < len(way) and way[depth][0] == node.number else None
            token.expected_bits.append(bit)
            token.lengths.append(row.length[m])
            if bit is None:
                x += [0, 0]
            else:
                p, sign = self.match_map[m][min(row.length[m], 31)][0], 1 if bit else -1
                x += [sign * STRETCH[p >> 10], sign * (((p >> 6) - 32768) >> 6)]
        x.append(256)
        token.x, nodes = x, len(self.tree.nodes)
        token.sets = [
            node.number,
            nodes + row.shape % 2**11,
            nodes + 2048 + 2 * row.back(1) + (1 if depth >= 4 else 0),
        ]
        token.z_of_sets = [
            clamp((sum(w * v for w, v in zip(self.weights[s], x, strict=True)) + 2**15) >> 16, -2815, 2815)
            for s in token.sets
        ]
        longest = 0
        if token.expected_bits[0] is not None:
            longest = 1 + min(token.lengths[0] >> 1, 7)
        elif token.expected_bits[1] is not None:
            longest = 9 + min(token.lengths[1] >> 1, 5)
        token.final_set = 16 * min(depth, 15) + longest
        final = self.final_weights[token.final_set]
        z = clamp((sum(v * z for v, z in zip(final, token.z_of_sets, strict=True)) + 2**15) >> 16, -2815, 2815)
        token.mixed = squash(z)
        g = clamp(z + 2048, 0, 4095)
        token.j, token.f = g >> 7, g % 2**7
        pair = (4099 * row.last_leaf(1, self.vocab) + 31 * node.number) % 2**16
        token.maps = [self.node_map[node.number], self.pair_map[pair]]
        q_node, q_pair = (
            (values[token.j] * (128 - token.f) + values[token.j + 1] * token.f) >> 11 for values in token.maps
        )
        return clamp((2 * token.mixed + q_node + q_pair + 2) >> 2, 1, 65535)

    def _learn(self, token: Token, depth: int) -> None:
        number, y = token.path[depth]
        place = self.tree.nodes[number].place
        final = self.final_weights[token.final_set]
        for i in range(3):
            s, z = token.sets[i], token.z_of_sets[i]
            rate = 12 + 7800 // (100 + self.updates[s])
            self.updates[s] = min(self.updates[s] + 1, 65535)
            error = 2**16 * y - squash(z)
            self.weights[s] = [
                clamp(w + ((error * rate * x + 2**19) >> 20), -(2**24), 2**24)
                for w, x in zip(self.weights[s], token.x, strict=True)
            ]
            final[i] = clamp(final[i] + (((2**16 * y - token.mixed) * 6 * z + 2**19) >> 20), -(2**24), 2**24)
        r = y * (2**20 - 1)
        for values in token.maps:
            values[token.j] += ((r - values[token.j]) * (128 - token.f)) >> 13
            values[token.j + 1] += ((r - values[token.j + 1]) * token.f) >> 13
        for m in range(2):
            if token.expected_bits[m] is not None:
                learn(self.match_map[m][min(token.lengths[m], 31)], int(token.expected_bits[m] == y), 60)
        for c in range(CONTEXTS):
            if token.states[c] != 0:
                learn(self.state_map[c][token.states[c]], y, 255)
            block = self.blocks[token.blocks[c]]
            block[place] = NEXT[2 * block[place] + y]

    def _end(self, token: Token) -> None:
        row = self.rows[token.row]
        number, bit = token.path[-1]
        leaf = self.tree.nodes[number].children[bit]
        assert isinstance(leaf, int)
        if row.leaves:
            self.pairs[row.leaves[-1]] = (leaf + 1, self.pairs[row.leaves[-1]][0])
        row.leaves.append(leaf)
        for c in self.table[self.tree.token[leaf]]:
            row.append(c)
        for m, least in enumerate((7, 3)):
            pointer = row.pointer[m]
            if pointer is not None and self._known(pointer) == leaf:
                row.pointer[m], row.length[m] = pointer + 1, row.length[m] + 1
            else:
                row.pointer[m], row.length[m] = None, 0
            if len(row.leaves) < least:
                continue
            key = hash_of(0, *row.leaves[: -least - 1 : -1]) % 2**20
            e = token.row * self.steps + len(row.leaves)
            f = self.found[m].get(key)
            if row.pointer[m] is None and f is not None:
                other, end = divmod(f - 1, self.steps)
                agree = 0
                while (
                    agree < min(40, len(row.leaves), end + 1)
                    and self.rows[other].leaves[end - agree] == row.leaves[-1 - agree]
                ):
                    agree += 1
                if agree >= least:
                    row.pointer[m], row.length[m] = f, agree
            self.found[m][key] = e


def learn(entry: list[int], y: int, most: int) -> None:
    p, n = entry
    entry[:] = clamp(p + (((2**22 * y - p) * RATE[n]) >> 16), 2**10, 2**22 - 2**10), min(n + 1, most)


def decisions_of(
    table: Sequence[bytes], tokens: Sequence[int], num_rows: int, masses: np.ndarray | None
) -> list[Decision]:
    """All decisions of a frame; masses: (N, V)."""
    mixer = Mixer(table, len(tokens), num_rows)
    return mixer.decisions(list(tokens), None if masses is None else masses.tolist())
