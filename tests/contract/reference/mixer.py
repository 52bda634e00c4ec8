"""The mixer of numerics.md sections 9 and 10, written from the document alone, in plain integers and slow on purpose.

In comments, N n is section n of numerics.md. Names are the document's where it has some.
"""

import hashlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from itertools import accumulate

CONTEXTS, INPUTS, GROUP = 18, 24, 32
LEAST_MATCH = (7, 3)  # L of the two match models (N 10.6)
OPENING, CLOSING, SEPARATORS = b"(<[{", b")>]}", b'\t",:;=|'
MOST_WEIGHT = 2**24


def clamp(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)


# ---- Tables (N 10.3) ----


def rne(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_HALF_EVEN))


def checked(table: list[int], digest: str) -> list[int]:
    """The table, if it has the document's digest."""
    found = hashlib.sha256(b"".join(value.to_bytes(4, "little", signed=True) for value in table)).hexdigest()
    if found != digest:
        raise AssertionError(f"a table has the digest {found}, the document says {digest}")
    return table


MOST_IN_STATE = (40, 20, 12, 8, 6, 5)  # of the larger number, by the smaller one


def allowed(n0: int, n1: int) -> bool:
    return min(n0, n1) <= 5 and max(n0, n1) <= MOST_IN_STATE[min(n0, n1)]


def next_state(state: tuple[int, int, int], y: int) -> tuple[int, int, int]:
    n, other = state[y] + 1, state[1 - y]
    if other > 2:
        other = 2 + (other - 2) // 2
    while not allowed(n, other):
        if n > other:
            n -= 1
        else:
            other -= 1
    n0, n1 = (other, n) if y else (n, other)
    return n0, n1, (y if n0 and n1 else int(n1 > 0))


def make_states() -> list[tuple[int, int, int]]:
    """(n0, n1, last) of each state, in the order of their numbers."""
    pairs = [(n0, n1) for n0 in range(41) for n1 in range(41) if allowed(n0, n1)]
    states = [(n0, n1, last) for n0, n1 in pairs for last in ((0, 1) if n0 and n1 else (int(n1 > 0),))]
    return sorted(states, key=lambda state: (state[0] + state[1], *state))


STATES = make_states()
NUMBER_OF = {state: number for number, state in enumerate(STATES)}
with localcontext() as precise:
    precise.prec = 60
    SQUASH_FROM = -2815
    SQUASH = checked(
        [clamp(rne(2**16 / (1 + (Decimal(-z) / 256).exp())), 1, 65535) for z in range(SQUASH_FROM, 2816)],
        "1da117b0d12e5c6758eec684fa35826483ad874dc7757ccfeb93695ee386f7c6",
    )
    STRETCH = checked(
        [clamp(rne(256 * (Decimal(2 * i + 1) / (8191 - 2 * i)).ln()), -2047, 2047) for i in range(4096)],
        "d02a7159abcf00bd1919aa962531d0f80b9bcae6fc5b84756ff24f09d7a465c6",
    )
    LOG = checked(
        [rne(256 * (1 + Decimal(i) / 1024).ln()) for i in range(1024)],
        "fe3af6409cd02b702e22eeb492a8d34e56fd8ab1e402aed4a9fccb57601bff1e",
    )
    OCTAVE = checked(
        [rne(256 * n * Decimal(2).ln()) for n in range(64)],
        "86700d6a7fabbc3e90782bdef50a5ec8513eac77a0c61967905e972c5821afe7",
    )
RATE = checked(
    [2**17 // (2 * n + 3) for n in range(1024)],
    "9907bf9ddc225daf26044c2c66639089ce65fa6c8a9ba9debf00cab634637c87",
)
NEXT = checked(
    [NUMBER_OF[next_state(state, y)] for state in STATES for y in (0, 1)],
    "4de8cd10115c8701348cb02e3c4525ad90b976bdc7c211e26649b17aab7c098e",
)
START = checked(
    [((5 * n1 + 2) * 2**22) // (5 * (n0 + n1) + 4) for n0, n1, _ in STATES],
    "65f8b139d4eaa0c2c18ee323c97494b3b3bb80544f76e71a4e32b7d68674c2a5",
)
SEEN = checked(
    [n0 + n1 for n0, n1, _ in STATES],
    "4fd6626aad79a2d728cf27f4a6b544365f69ed0f0d90f8a4106e7727ba3dde8b",
)
FIRST_WEIGHTS = [4000] * 18 + [40000, 13000, 0, 13000, 0, 0]  # N 10.4
FIRST_MAP = [16 * SQUASH[clamp(128 * (j - 16), -2815, 2815) - SQUASH_FROM] for j in range(33)]


def squash(z: int) -> int:
    return SQUASH[z - SQUASH_FROM]


def ln(v: int) -> int:
    """N 10.7: Ln."""
    o = v.bit_length() - 1
    return OCTAVE[o] + LOG[(v >> (o - 10) if o >= 10 else v << (10 - o)) - 1024]


# ---- The tree (N 10.2) ----


@dataclass
class Node:
    """An inner node over the leaves a .. b - 1; a child is a node or the number of a leaf."""

    number: int
    a: int
    m: int
    b: int
    treelet: int
    place: int
    children: "tuple[Node | int, Node | int]" = (0, 0)


class Tree:
    def __init__(self, words: list[bytes]) -> None:
        self.token_of = sorted(range(len(words)), key=lambda token: (words[token], token))
        self.leaf_of = [0] * len(words)
        for leaf, token in enumerate(self.token_of):
            self.leaf_of[token] = leaf
        weights = [2**32 // (max(token, 256) - 156) for token in self.token_of]
        self.doubled = [2 * total for total in accumulate(weights, initial=0)]
        self.nodes = self.treelets = 0
        self.root = self.grow(0, len(words), 0, 16)
        assert isinstance(self.root, Node)

    def path(self, token: int) -> Iterator[int]:
        """The decisions that lead to a token."""
        leaf, node = self.leaf_of[token], self.root
        while isinstance(node, Node):
            y = int(leaf >= node.m)
            yield y
            node = node.children[y]

    def grow(self, a: int, b: int, treelet: int, place: int) -> Node | int:
        if b - a == 1:
            return a
        if place >= 16:
            treelet, place = self.treelets, 1
            self.treelets += 1
        middle = (self.doubled[a] + self.doubled[b]) // 2  # S_a + S_b, to be compared with 2 S_m
        above = bisect_left(self.doubled, middle, a + 1, b - 1)
        m = min(max(above - 1, a + 1), above, key=lambda place: (abs(self.doubled[place] - middle), place))
        node = Node(self.nodes, a, m, b, treelet, place)
        self.nodes += 1
        node.children = (self.grow(a, m, treelet, 2 * place), self.grow(m, b, treelet, 2 * place + 1))
        return node


# ---- Text and contexts (N 10.5) ----


def hash_of(first: int, *values: int) -> int:
    """The hash of some values: Hash, one after the other."""
    for value in values:
        x = ((first ^ (value + 1)) * 0x2F0B4C47) % 2**32
        first = x ^ (x >> 15)
    return first


def kind_of(c: int) -> int:
    for kind, (least, most) in enumerate(((48, 57), (97, 122), (65, 90), (128, 255)), 1):
        if least <= c <= most:
            return kind
    return c


class Row:
    """The text of a row, its matches, and the way of its next token down the tree."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.leaves: list[int] = []
        self.data = bytearray()
        self.line = self.field = self.field_start = 0
        self.above, self.above_end = -1, 0
        self.here, self.over = [0] + [-1] * 63, [-1] * 64
        self.word = self.word_before = self.shape = self.beginning = self.beginning_before = 0
        self.stack, self.top = [0] * 64, 0  # top: the document's `depth` of the stack
        self.pointers: list[int | None] = [None, None]
        self.lengths = [0, 0]
        self.expected: list[int | None] = [None, None]
        self.hashes: list[int] = []
        self.blocks: list[bytearray] = []
        self.treelet = -1
        self.node: Node | int = 0
        self.masses: list[int] = []  # sums of mass + 1 over the leaves before each

    def append_byte(self, c: int) -> None:
        self.data.append(c)
        n, kind = len(self.data), kind_of(c)
        if not (kind in (1, 2, 3) and kind == self.shape % 256 == (self.shape >> 8) % 256):
            self.shape = (256 * self.shape + kind) % 2**32
        if 1 <= kind <= 4:
            self.word = hash_of(self.word, c + 32 if kind == 3 else c)
        elif self.word:
            self.word_before, self.word = self.word, 0
        if c == 10:
            self.above, self.above_end, self.line = self.line, n - 1, n
            self.field, self.field_start = 0, n
            self.beginning_before, self.beginning = self.beginning, 0
            self.over, self.here = self.here, [n] + [-1] * 63
            return
        if n - self.line <= 3:
            self.beginning = hash_of(self.beginning, c)
        if c in OPENING or c in CLOSING or c in SEPARATORS:
            self.field += 1
            self.field_start = n
            if self.field < 64:
                self.here[self.field] = n
        if c in OPENING:
            self.top = min(self.top + 1, 63)
            self.stack[self.top] = c
        elif c in CLOSING and self.top > 0:
            self.top -= 1

    def last(self, back: int) -> int:
        """The byte at position n - back, 0 before the beginning."""
        return self.data[-back] if back <= len(self.data) else 0

    def three(self, i: int, e: int) -> int:
        if i >= e or i + 8192 < len(self.data) + 8:
            return 0
        return self.data[i] + (self.data[min(i + 1, e)] << 8) + (self.data[min(i + 2, e)] << 16)

    def make_hashes(self, none: int, follower: Callable[[int], tuple[int, int]], guess: int) -> None:
        """`none` is V, the leaf that stands for no token."""
        t1, t2, t3, t4 = (self.leaves[-back] if back <= len(self.leaves) else none for back in (1, 2, 3, 4))
        last3 = self.last(1) + (self.last(2) << 8) + (self.last(3) << 16)
        last6 = self.last(4) + (self.last(5) << 8) + (self.last(6) << 16)
        column, place = len(self.data) - self.line, len(self.data) - self.field_start
        up = self.three(self.above + column, self.above_end) if self.above >= 0 else 0
        same = 0
        if self.field < 64 and self.over[self.field] >= 0:
            same = self.three(self.over[self.field] + place, self.above_end)
        self.hashes = [
            hash_of(0, 0),
            hash_of(1, self.word),
            hash_of(2, self.shape),
            hash_of(3, t1, t2),
            hash_of(4, guess),
            hash_of(5, last3),
            hash_of(6, self.word, self.word_before),
            hash_of(7, t1, t2, t3, t4),
            hash_of(8, *follower(t1)),
            hash_of(9, up, column),
            hash_of(10, last3, last6),
            hash_of(11, self.beginning, self.field),
            hash_of(12, last3 % 2**16, last3 % 2**8),
            hash_of(13, same, self.field, min(place, 15)),
            hash_of(14, self.stack[self.top], t1),
            hash_of(15, self.beginning_before, min(column, 40), t1 if column > 0 else 0),
            hash_of(16, t2, t3),
            hash_of(17, last3 % 2**8),
        ]


# ---- Prediction and learning (N 10.4, 10.6 to 10.8) ----


@dataclass
class Pair:
    """A probability in units of 2^-22, and how often it has learnt."""

    p: int
    n: int

    def learn(self, y: int, most: int) -> None:
        self.p = clamp(self.p + ((2**22 * y - self.p) * RATE[self.n] >> 16), 2**10, 2**22 - 2**10)
        self.n = min(self.n + 1, most)


class WeightSet:
    def __init__(self) -> None:
        self.w, self.u = FIRST_WEIGHTS.copy(), 0


@dataclass
class Decision:
    """What a prediction has computed, for learning."""

    states: list[int]
    matches: list[tuple[int, Pair]]  # the bit that each match model with an expectation here awaits
    inputs: list[int]
    sets: list[WeightSet]
    logits: list[int]
    final: list[int]
    p: int
    maps: list[array]
    j: int
    f: int
    k: int


class Mixer:
    """What is learnt of `count` tokens; decodes the tokens of a frame, step by step."""

    def __init__(self, words: list[bytes], count: int) -> None:
        self.words = words
        self.tree = Tree(words)
        self.block_bits = clamp((32 * count - 1).bit_length(), 12, 22)
        self.blocks: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(16))  # check, then places 1 .. 15
        self.state_map = [[Pair(start, 6) for start in START] for _ in range(CONTEXTS)]
        self.match_map = [[Pair(3 * 2**20, 0) for _ in range(32)] for _ in LEAST_MATCH]
        self.weights: defaultdict[int, WeightSet] = defaultdict(WeightSet)
        self.final_weights = [[21845] * 3 for _ in range(256)]
        self.node_map: defaultdict[int, array] = defaultdict(lambda: array("l", FIRST_MAP))
        self.pair_map: defaultdict[int, array] = defaultdict(lambda: array("l", FIRST_MAP))
        self.followers: dict[int, tuple[int, int]] = {}  # (F, G) of each leaf

    def begin(self, rows: int, steps: int, bit: Callable[[int], int]) -> None:
        """A frame, or a prompt: rows without text and matches; `bit` decodes a decision, given k (N 9)."""
        self.rows, self.steps, self.bit = [Row(number) for number in range(rows)], steps, bit
        self.found: tuple[dict[int, int], ...] = ({}, {})

    def begin_prompt(self, tokens: list[int]) -> None:
        """N 10.9: one row whose decisions are known."""
        bits = (bit for token in tokens for bit in self.tree.path(token))
        self.begin(1, len(tokens), lambda k: next(bits))

    def step(self, masses: Sequence[list[int]] | None, active: int) -> list[int]:
        """N 10.1: the next token of each of the first `active` rows; without a model there are no masses."""
        return [
            token
            for first in range(0, active, GROUP)
            for token in self.group(self.rows[first : min(first + GROUP, active)], masses)
        ]

    def group(self, rows: list[Row], masses: Sequence[list[int]] | None) -> list[int]:
        for row in rows:
            guess = 0
            if masses is not None:
                mass = masses[row.number]
                guess = self.tree.leaf_of[mass.index(max(mass))]
                row.masses = list(accumulate((mass[token] + 1 for token in self.tree.token_of), initial=0))
            row.make_hashes(len(self.words), lambda leaf: self.followers.get(leaf, (0, 0)), guess)
            row.expected = [self.leaf_at(pointer) for pointer in row.pointers]
            row.node, row.treelet = self.tree.root, -1
        depth, walking = 0, rows
        while walking:
            decisions = [self.predict(row, row.node, depth) for row in walking]
            bits = [self.bit(decision.k) for decision in decisions]
            for row, decision, y in zip(walking, decisions, bits, strict=True):
                self.learn(row, row.node, decision, y)
                row.node = row.node.children[y]
            depth, walking = depth + 1, [row for row in walking if isinstance(row.node, Node)]
        for row in rows:
            if row.leaves:
                last = row.leaves[-1]
                self.followers[last] = (row.node + 1, self.followers.get(last, (0, 0))[0])
            row.leaves.append(row.node)
            for c in self.words[self.tree.token_of[row.node]]:
                row.append_byte(c)
            for m in (0, 1):
                self.move_on(row, m)
        return [self.tree.token_of[row.node] for row in rows]

    # -- matches (N 10.6) --

    def leaf_at(self, place: int | None) -> int | None:
        """The leaf at a place; none where it is not known."""
        if place is None:
            return None
        number, j = divmod(place, self.steps)
        if number >= len(self.rows) or j >= len(self.rows[number].leaves):
            return None
        return self.rows[number].leaves[j]

    def move_on(self, row: Row, m: int) -> None:
        pointer, least = row.pointers[m], LEAST_MATCH[m]
        if pointer is not None and self.leaf_at(pointer) == row.leaves[-1]:
            row.pointers[m] = pointer + 1
            row.lengths[m] += 1
        else:
            row.pointers[m], row.lengths[m] = None, 0
        if len(row.leaves) < least:
            return
        key = hash_of(0, *reversed(row.leaves[-least:])) % 2**20
        f = self.found[m].get(key)
        if row.pointers[m] is None and f is not None:
            number, j = divmod(f - 1, self.steps)
            earlier, agree = self.rows[number].leaves, 0
            while agree < min(40, j + 1, len(row.leaves)) and earlier[j - agree] == row.leaves[-1 - agree]:
                agree += 1
            if agree >= least:
                row.pointers[m], row.lengths[m] = f, agree
        self.found[m][key] = row.number * self.steps + len(row.leaves)

    # -- blocks (N 10.5) --

    def find_block(self, context: int, treelet: int) -> bytearray:
        """The block's check and its states at the places 1 .. 15."""
        key = (context ^ (treelet * 0x9E3779B1 % 2**32)) * 0x5851F42D
        b, check = (key >> 28) % 2**self.block_bits, max(1, (key >> 20) % 2**8)
        block, neighbour = self.blocks[b], self.blocks[b ^ 1]
        if block[0] == check:
            return block
        if neighbour[0] == check:
            return neighbour
        taken = neighbour if SEEN[neighbour[1]] < SEEN[block[1]] else block
        taken[:] = bytes([check]) + bytes(15)  # in place: other rows may still use it
        return taken

    # -- decisions (N 10.7, 10.8) --

    def predict(self, row: Row, node: Node, depth: int) -> Decision:
        if row.treelet != node.treelet:
            row.treelet = node.treelet
            row.blocks = [self.find_block(context, node.treelet) for context in row.hashes]
        states = [block[node.place] for block in row.blocks]
        inputs = [STRETCH[self.state_map[c][s].p >> 10] if s else 0 for c, s in enumerate(states)]
        logit = 0
        if row.masses:
            before_a, before_m, before_b = (row.masses[leaf] for leaf in (node.a, node.m, node.b))
            logit = clamp(ln(before_b - before_m) - ln(before_m - before_a), -2815, 2815)
        inputs.append(logit)
        matches, longest = [], 0
        for m, leaf in enumerate(row.expected):
            if leaf is None or not node.a <= leaf < node.b:
                inputs += [0, 0]
                continue
            y, length = int(leaf >= node.m), row.lengths[m]
            pair, sign = self.match_map[m][min(length, 31)], (1 if y else -1)
            inputs += [sign * STRETCH[pair.p >> 10], sign * (((pair.p >> 6) - 32768) >> 6)]
            matches.append((y, pair))
            if not longest:
                longest = (1 + min(length >> 1, 7)) if m == 0 else (9 + min(length >> 1, 5))
        inputs.append(256)

        nodes = self.tree.nodes
        by_byte = nodes + 2048 + 2 * row.last(1) + (depth >= 4)
        sets = [self.weights[number] for number in (node.number, nodes + row.shape % 2048, by_byte)]
        sums = [sum(w * x for w, x in zip(weights.w, inputs, strict=True)) for weights in sets]
        logits = [clamp((total + 2**15) >> 16, -2815, 2815) for total in sums]
        final = self.final_weights[16 * min(depth, 15) + longest]
        z = clamp((sum(v * z for v, z in zip(final, logits, strict=True)) + 2**15) >> 16, -2815, 2815)

        j, f = divmod(clamp(z + 2048, 0, 4095), 128)
        t1 = row.leaves[-1] if row.leaves else len(self.words)
        maps = [self.node_map[node.number], self.pair_map[(4099 * t1 + 31 * node.number) % 2**16]]
        refined = [(entries[j] * (128 - f) + entries[j + 1] * f) >> 11 for entries in maps]
        k = clamp((2 * squash(z) + sum(refined) + 2) >> 2, 1, 65535)
        return Decision(states, matches, inputs, sets, logits, final, squash(z), maps, j, f, k)

    def learn(self, row: Row, node: Node, seen: Decision, y: int) -> None:
        for i, (weights, z) in enumerate(zip(seen.sets, seen.logits, strict=True)):
            step = (2**16 * y - squash(z)) * (12 + 7800 // (100 + weights.u))
            weights.u = min(weights.u + 1, 65535)
            changed = [w + ((step * x + 2**19) >> 20) for w, x in zip(weights.w, seen.inputs, strict=True)]
            weights.w = [clamp(w, -MOST_WEIGHT, MOST_WEIGHT) for w in changed]
            change = ((2**16 * y - seen.p) * 6 * z + 2**19) >> 20
            seen.final[i] = clamp(seen.final[i] + change, -MOST_WEIGHT, MOST_WEIGHT)
        target, j, f = y * (2**20 - 1), seen.j, seen.f
        for entries in seen.maps:
            entries[j] += ((target - entries[j]) * (128 - f)) >> 13
            entries[j + 1] += ((target - entries[j + 1]) * f) >> 13
        for awaited, pair in seen.matches:
            pair.learn(int(awaited == y), 60)
        for c, s in enumerate(seen.states):
            if s:
                self.state_map[c][s].learn(y, 255)
            block = row.blocks[c]
            block[node.place] = NEXT[2 * block[node.place] + y]
