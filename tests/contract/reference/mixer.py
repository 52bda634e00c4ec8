"""The mixer of numerics.md sections 9 and 10, written from the document alone, in plain integers and slow on purpose.

In comments, N n is section n of numerics.md. Names are the document's where it has some.
"""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

CONTEXTS, INPUTS, LOGITS, GROUP = 36, 46, 8, 16
VALUES, ROWS, UNITS = 93, 88, 32  # rows of W1 and of R, and columns, of the network (N 10.7)
LEAST_MATCH = (12, 6, 3)  # L of the match models (N 10.6)
OPENING, CLOSING, SEPARATORS = b"(<[{", b")>]}", b'\t",:;=|'
MOST_WEIGHT = 2**29
FILES = Path(__file__).parents[3] / "llmzip" / "mixing"
START_FILE, NETWORK_FILE = FILES / "start.bin", FILES / "network.bin"
START_SHA256 = "8440577e18a19fa57b509fc334eb649ed2932b72655b734f65617bb4de6c7d8d"  # N 10.11
NETWORK_SHA256 = "b4ff0ca31dab61f323190c0a39a67ad0957f3fb1342e50fb4232f1eff4a28214"  # N 10.11


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
FIRST_MAP = [16 * SQUASH[clamp(128 * (j - 16), -2815, 2815) - SQUASH_FROM] for j in range(33)]


def squash(z: int) -> int:
    return SQUASH[z - SQUASH_FROM]


def ln(v: int) -> int:
    """N 10.7: Ln."""
    o = v.bit_length() - 1
    return OCTAVE[o] + LOG[(v >> (o - 10) if o >= 10 else v << (10 - o)) - 1024]


# ---- The weights at the beginning (N 10.4) ----

# Numbers of sets by the groups 0 to 7 (N 10.7); there is one set of group 0 for each node.
GROUP_SETS = (0, 384, 1024, 80, 4096, 2048, 512, 1024)
FINAL_SETS = 6784
ALL_OF_GROUP_2, AFTER_GROUP_2 = 400, 401  # sets of the file


@dataclass
class WeightSet:
    w: np.ndarray  # int64
    u: int


class Beginning:
    """The weights of a mixer that has learnt nothing yet."""

    def weights(self, number: int, depths: list[int]) -> WeightSet:
        """A set by its number; `depths` has the depth of each node."""
        return WeightSet(np.array([4026531] * 36 + [81920000] + 3 * [26624000, 0] + [0, 0, 0], dtype=np.int64), 0)

    def final_weights(self) -> np.ndarray:
        return np.full((FINAL_SETS, LOGITS), 2**24, dtype=np.int64)


class LearntBeginning(Beginning):
    """The weights that texts have taught: the file's."""

    def __init__(self, data: bytes) -> None:
        self.first, end = read_sets(data, 0, AFTER_GROUP_2 + sum(GROUP_SETS[3:]), INPUTS)
        final, end = read_sets(data, end, FINAL_SETS, LOGITS)
        self.final = np.array([weights or [2**24] * LOGITS for weights in final], dtype=np.int64)
        if end != len(data):
            raise AssertionError(f"the file of weights has {len(data)} bytes, its tables take {end}")

    def weights(self, number: int, depths: list[int]) -> WeightSet:
        in_group = number - len(depths)
        if in_group < 0:
            place = min(depths[number], 15)
        elif in_group < GROUP_SETS[1]:
            place = 16 + in_group
        elif in_group < GROUP_SETS[1] + GROUP_SETS[2]:
            place = ALL_OF_GROUP_2
        else:
            place = AFTER_GROUP_2 + in_group - GROUP_SETS[1] - GROUP_SETS[2]
        return WeightSet(np.array(self.first[place] or self.first[ALL_OF_GROUP_2], dtype=np.int64), 32)

    def final_weights(self) -> np.ndarray:
        return self.final.copy()


def read_sets(data: bytes, start: int, count: int, size: int) -> tuple[list[list[int]], int]:
    """The sets of a table that begins at a place, empty where they are not stored, and where the table ends."""
    end = start + -(-count // 8)
    sets: list[list[int]] = []
    for number in range(count):
        stored = data[start + number // 8] >> number % 8 & 1
        numbers = [data[end + 2 * i : end + 2 * i + 2] for i in range(size * stored)]
        sets.append([2**15 * int.from_bytes(v, "little", signed=True) for v in numbers])
        end += 2 * size * stored
    return sets, end


def checked_file(path: Path, digest: str) -> bytes:
    """What a file holds, if it has the document's digest."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise AssertionError(f"{path} has the digest {found}, the document says {digest}")
    return data


@cache
def learnt_beginning() -> LearntBeginning:
    return LearntBeginning(checked_file(START_FILE, START_SHA256))


# ---- The network (N 10.7, 10.11) ----


class Network:
    """The file's weights, which stay as they are; what begins as u and learns are the mixer's output weights."""

    def __init__(self, data: bytes) -> None:
        counts = (VALUES, ROWS, UNITS, 1)
        numbers = np.frombuffer(data, dtype="<i2").astype(np.int64).reshape(-1, UNITS)
        if len(numbers) != sum(counts) + 1:
            raise AssertionError(f"the file of the network has {len(numbers)} rows, not {sum(counts) + 1}")
        self.w1, self.r, self.w2, self.c, self.u = np.split(numbers, list(accumulate(counts)))
        for weights, most in ((self.w1, 2**13), (self.r, 2**13), (self.w2, 2**12), (self.c, 2**12), (self.u, 2**14)):
            if np.abs(weights).max() > most:
                raise AssertionError(f"a weight of the network is beyond {most}")

    def units(self, values: list[int], rows: list[int]) -> np.ndarray:
        """g_0 .. g_31 of v_0 .. v_92 and the chosen rows of R."""
        h = (np.array(values, dtype=np.int64) @ self.w1 + 2**8 * self.r[rows].sum(axis=0)) >> 13
        g = (np.clip(h, 0, 8191) @ self.w2 + 2**8 * self.c[0]) >> 12
        return np.clip(g, 0, 4095)

    def output_weights(self) -> np.ndarray:
        return 2**15 * self.u[0]


@cache
def learnt_network() -> Network:
    return Network(checked_file(NETWORK_FILE, NETWORK_SHA256))


# ---- The tree (N 10.2) ----


@dataclass
class Node:
    """An inner node over the leaves a .. b - 1; a child is a node or the number of a leaf."""

    number: int
    a: int
    m: int
    b: int
    depth: int
    treelet: int
    place: int
    children: "list[Node | int]" = field(default_factory=lambda: [0, 0])


class Tree:
    def __init__(self, words: list[bytes]) -> None:
        self.token_of = sorted(range(len(words)), key=lambda token: (words[token], token))
        self.leaf_of = [0] * len(words)
        for leaf, token in enumerate(self.token_of):
            self.leaf_of[token] = leaf
        weights = [2**32 // (max(token, 256) - 156) for token in self.token_of]
        self.sums = list(accumulate(weights, initial=0))
        ordered = [words[token] for token in self.token_of]
        self.shares = [0] + [agreement(*pair) for pair in pairwise(ordered)]
        self.nodes: list[Node] = []
        self.grow(len(words))
        self.root = self.nodes[0]

    def path(self, token: int) -> Iterator[int]:
        """The decisions that lead to a token."""
        leaf, node = self.leaf_of[token], self.root
        while isinstance(node, Node):
            y = int(leaf >= node.m)
            yield y
            node = node.children[y]

    def grow(self, leaves: int) -> None:
        """Makes the nodes in preorder; without recursion, because paths may be long."""
        treelets = 0
        todo: list[tuple[int, int, Node | None, int]] = [(0, leaves, None, 0)]  # a, b, parent, bit
        while todo:
            a, b, parent, y = todo.pop()
            child: Node | int = a
            if b - a >= 2:
                m, place = self.split(a, b), 16 if parent is None else 2 * parent.place + y
                treelet = -1 if parent is None else parent.treelet
                if place >= 16:
                    treelet, place, treelets = treelets, 1, treelets + 1
                depth = 0 if parent is None else parent.depth + 1
                child = Node(len(self.nodes), a, m, b, depth, treelet, place)
                self.nodes.append(child)
                todo += [(m, b, child, 1), (a, m, child, 0)]
            if parent is not None:
                parent.children[y] = child

    def split(self, a: int, b: int) -> int:
        share = min(self.shares[a + 1 : b])
        middle = self.sums[a] + self.sums[b]
        return min((abs(2 * self.sums[m] - middle), m) for m in range(a + 1, b) if self.shares[m] == share)[1]


def agreement(one: bytes, other: bytes) -> int:
    """The number of bytes at the front in which two words agree."""
    agree = 0
    while agree < min(len(one), len(other)) and one[agree] == other[agree]:
        agree += 1
    return agree


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


def class_of(c: int) -> int:
    """N 10.7: class."""
    if kind_of(c) <= 4:
        return kind_of(c)
    for number, members in enumerate((b" ", b"\n", b"\t", b'"', b",", OPENING, CLOSING, b".", b"=:", b"/-_"), 5):
        if c in members:
            return number
    return 15


class Row:
    """The text of a row, its matches, and the way of its next token down the tree."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.leaves: list[int] = []
        self.data = bytearray()
        self.line = self.field = self.field_start = self.separator = 0
        self.above, self.above_end, self.above2, self.above2_end = -1, 0, -1, 0
        self.here, self.over = [0] + [-1] * 63, [-1] * 64
        self.content = self.content_before = 0
        self.word = self.word1 = self.word2 = self.first = self.key = 0
        self.shape = self.beginning = self.marks = 0
        self.stack, self.top = [0] * 64, 0
        self.pointers: list[int | None] = [None] * len(LEAST_MATCH)
        self.lengths = [0] * len(LEAST_MATCH)
        self.expected: list[int | None] = [None] * len(LEAST_MATCH)
        self.guess = self.confidence = 0
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
        else:
            self.marks = (256 * self.marks + c) % 2**24
            if self.word:
                self.word2, self.word1, self.word = self.word1, self.word, 0
                if self.first == 0:
                    self.first = self.word1
        if c in b":=":
            self.key = self.word1
        if c == 10:
            self.above2, self.above2_end = self.above, self.above_end
            self.above, self.above_end, self.line = self.line, n - 1, n
            self.field, self.field_start = 0, n
            self.content_before, self.content = self.content, 0
            self.beginning = self.first = 0
            self.over, self.here = self.here, [n] + [-1] * 63
            return
        if n - self.line <= 3:
            self.beginning = hash_of(self.beginning, c)
        self.content = hash_of(self.content, c)
        if c in OPENING or c in CLOSING or c in SEPARATORS:
            self.field += 1
            self.field_start, self.separator = n, c
            self.content_before, self.content = self.content, 0
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

    def last3(self, back: int) -> int:
        """Three bytes, the last of which is at position n - back."""
        return self.last(back) + (self.last(back + 1) << 8) + (self.last(back + 2) << 16)

    @property
    def column(self) -> int:
        return len(self.data) - self.line

    @property
    def place(self) -> int:
        return len(self.data) - self.field_start

    def follow(self, masses: list[int], tree: Tree) -> None:
        """Takes the model's masses for the next token."""
        self.guess = tree.leaf_of[masses.index(max(masses))]
        self.masses = list(accumulate((masses[token] + 1 for token in tree.token_of), initial=0))
        c = ln(self.masses[-1]) - ln(max(masses) + 1)
        self.confidence = sum(number >= c for number in (7, 27, 74, 177, 308, 486, 767))

    def make_hashes(self, none: int, followers: "Followers", pair_followers: "Followers") -> None:
        """`none` is V, the leaf that stands for no token."""
        t = [self.leaves[-back] if back <= len(self.leaves) else none for back in range(1, 7)]
        t1, t2, t3 = t[:3]
        last3, last6, column, place = self.last3(1), self.last3(4), self.column, self.place
        up = self.three(self.above + column, self.above_end) if self.above >= 0 else 0
        up2 = self.three(self.above2 + column, self.above2_end) if self.above2 >= 0 else 0
        same = 0
        if self.field < 64 and self.over[self.field] >= 0:
            same = self.three(self.over[self.field] + place, self.above_end)
        expected, extent = none + 1, 0
        for m, leaf in reversed(list(enumerate(self.expected))):
            if leaf is not None:
                expected, extent = leaf, 4 * m + 1 + min(self.lengths[m] >> 2, 3)
        hashed: list[tuple[int, ...]] = [
            (0,),
            (self.word,),
            (self.shape,),
            (t1, t2),
            (self.guess,),
            (self.word, self.word1),
            followers[t1],
            (up, column),
            (last3, last6),
            (self.beginning, self.field),
            (last3 % 2**16,),
            (same, self.field, min(place, 40)),
            (t2, t3),
            (last3 % 2**8,),
            (expected, extent),
            (expected, self.guess),
            (self.field, self.content, self.beginning),
            (self.content_before, self.content),
            (last3,),
            (self.word, self.word1, self.word2),
            (self.word, self.word2),
            (up % 2**16, last3 % 2**8),
            (up, up2),
            (self.first, self.word),
            (self.key, self.word),
            tuple(t),
            (self.marks, self.word),
            (last3, last6 % 2**8),
            (last3, last6 % 2**16),
            (*pair_followers[pair_number(t1, t2)], t1),
            (last3 >> 16, last6 >> 8),
            (same % 2**16, self.content),
            (self.field, self.word),
            (self.field, place, last3 % 2**16),
            (self.content_before, self.word, self.field),
            (self.shape, self.field),
        ]
        self.hashes = [hash_of(context, *values) for context, values in enumerate(hashed)]


Followers = defaultdict[int, tuple[int, int]]  # (F, G) of leaves, or of pairs


def pair_number(t1: int, t2: int) -> int:
    return hash_of(t1, t2) % 2**16


# ---- Prediction and learning (N 10.4, 10.6 to 10.8) ----


@dataclass
class Pair:
    """A probability in units of 2^-22, and how often it has learnt."""

    p: int
    n: int

    def learn(self, y: int, most: int) -> None:
        self.p = clamp(self.p + ((2**22 * y - self.p) * RATE[self.n] >> 16), 2**10, 2**22 - 2**10)
        self.n = min(self.n + 1, most)


Place = tuple[int, int]
"""j and f of a logit."""


def place_of(z: int) -> Place:
    return divmod(clamp(z + 2048, 0, 4095), 128)


def between(entries: array, place: Place) -> int:
    """N 10.7: Between."""
    j, f = place
    return (entries[j] * (128 - f) + entries[j + 1] * f) >> 11


def move_between(entries: array, place: Place, y: int) -> None:
    """N 10.8, step 4."""
    (j, f), r = place, y * (2**20 - 1)
    entries[j] += ((r - entries[j]) * (128 - f)) >> 12
    entries[j + 1] += ((r - entries[j + 1]) * f) >> 12


def products(weights: np.ndarray, inputs: np.ndarray) -> list[int]:
    """What networks make of the same inputs, (n, inputs) int64, in units of a logit."""
    return [clamp(output, -2815, 2815) for output in (((weights >> 15) @ inputs + 2**11) >> 12).tolist()]


def train(weights: np.ndarray, inputs: np.ndarray, error: int, rate: int) -> None:
    """N 10.8: Train."""
    step = (error * rate + 2**12) >> 13
    weights[:] = np.minimum(np.maximum(weights + step * inputs, -MOST_WEIGHT), MOST_WEIGHT)


def chosen_rows(row: Row, depth: int, longest: int, toward: int) -> list[int]:
    """N 10.7: the rows of R; `depth` is at most 15."""
    length = min(len(row.leaves).bit_length(), 15)
    return [depth, 16 + longest, 32 + 3 * row.confidence + toward, 56 + class_of(row.last(1)), 72 + length]


@dataclass
class Decision:
    """What a prediction has computed, for learning."""

    states: list[int]
    matches: list[tuple[int, Pair]]  # the bit that each match model that speaks awaits
    inputs: np.ndarray
    sets: list[WeightSet]
    logits: list[int]
    final_sets: list[np.ndarray]
    final_logits: list[int]
    maps: list[tuple[array, Place]]  # in the order in which they learn
    units: np.ndarray  # g of the network; none without a model
    k: int


class Mixer:
    """What is learnt of `count` tokens; decodes the tokens of a frame, step by step."""

    def __init__(self, words: list[bytes], count: int, with_model: bool) -> None:
        self.words = words
        self.tree = Tree(words)
        self.depths = [node.depth for node in self.tree.nodes]
        self.block_bits = clamp((64 * count - 1).bit_length(), 12, 22)
        self.blocks: defaultdict[int, bytearray] = defaultdict(lambda: bytearray(16))  # check, then places 1 .. 15
        self.state_map = [[Pair(start, 6) for start in START] for _ in range(CONTEXTS)]
        self.match_map = [[Pair(3 * 2**20, 0) for _ in range(32)] for _ in LEAST_MATCH]
        self.beginning = learnt_beginning() if with_model else Beginning()
        self.weights: dict[int, WeightSet] = {}  # those that are no longer as at the beginning
        self.final_weights = self.beginning.final_weights()
        self.network = learnt_network() if with_model else None
        self.output_weights = self.network.output_weights() if self.network else np.zeros(0, dtype=np.int64)
        self.node_map, self.pair_map, self.model_node_map, self.model_match_map = (
            defaultdict[int, array](lambda: array("l", FIRST_MAP)) for _ in range(4)
        )
        self.followers, self.pair_followers = (Followers(lambda: (0, 0)) for _ in range(2))

    def weight_set(self, number: int) -> WeightSet:
        """A set by its number, as it was at the beginning if it has not learnt yet."""
        if number not in self.weights:
            self.weights[number] = self.beginning.weights(number, self.depths)
        return self.weights[number]

    def begin(self, rows: int, steps: int, bit: Callable[[int], int]) -> None:
        """A frame, or a prompt: rows without text and matches; `bit` decodes a decision, given k (N 9)."""
        self.rows, self.steps, self.bit = [Row(number) for number in range(rows)], steps, bit
        self.found: tuple[dict[int, int], ...] = tuple({} for _ in LEAST_MATCH)

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
            if masses is not None:
                row.follow(masses[row.number], self.tree)
            row.expected = [self.leaf_at(pointer) for pointer in row.pointers]
            row.make_hashes(len(self.words), self.followers, self.pair_followers)
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
            self.append(row, row.node)
            for m in range(len(LEAST_MATCH)):
                self.move_on(row, m)
        return [self.tree.token_of[row.node] for row in rows]

    def append(self, row: Row, leaf: int) -> None:
        """N 10.5: a token is appended."""
        if row.leaves:
            t1, t2 = row.leaves[-1], row.leaves[-2] if len(row.leaves) > 1 else len(self.words)
            self.followers[t1] = (leaf + 1, self.followers[t1][0])
            pair = pair_number(t1, t2)
            self.pair_followers[pair] = (leaf + 1, self.pair_followers[pair][0])
        row.leaves.append(leaf)
        for c in self.words[self.tree.token_of[leaf]]:
            row.append_byte(c)

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
            while agree < min(60, j + 1, len(row.leaves)) and earlier[j - agree] == row.leaves[-1 - agree]:
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
        depth = min(depth, 15)
        states = [block[node.place] for block in row.blocks]
        inputs = [STRETCH[self.state_map[c][s].p >> 10] if s else 0 for c, s in enumerate(states)]
        logit = 0
        if row.masses:
            before_a, before_m, before_b = (row.masses[leaf] for leaf in (node.a, node.m, node.b))
            logit = clamp(ln(before_b - before_m) - ln(before_m - before_a), -2815, 2815)
        inputs.append(logit)

        matches, longest, side = [], 0, 0
        for m, leaf in enumerate(row.expected):
            if leaf is None or not node.a <= leaf < node.b:
                inputs += [0, 0]
                continue
            y, length = int(leaf >= node.m), row.lengths[m]
            pair, sign = self.match_map[m][min(length, 16) + min(max(length - 16, 0) >> 2, 15)], (1 if y else -1)
            inputs += [sign * STRETCH[pair.p >> 10], sign * (((pair.p >> 6) - 32768) >> 6)]
            if not matches:
                longest, side = (11, 6, 1)[m] + min(length >> (3, 2, 1)[m], 4), 1 + y
            matches.append((y, pair))
        inputs.append(256)
        model_maps = [self.model_node_map[node.number], self.model_match_map[16 * (3 * longest + side) + depth]]
        place = place_of(logit)
        inputs += [STRETCH[between(entries, place) >> 4] for entries in model_maps]

        toward = 1 + int(row.guess >= node.m) if node.a <= row.guess < node.b else 0
        sure = 16 * (3 * row.confidence + toward) + depth
        sets = [self.weight_set(number) for number in self.set_numbers(row, node, depth, sure, longest)]
        x = np.array(inputs, dtype=np.int64)
        logits = products(np.stack([weights.w for weights in sets]), x)
        final = (16 * depth + longest, 256 + sure, 640 + 16 * row.last(1) + depth, 4736 + row.shape % 2**11)
        final_sets = [self.final_weights[number] for number in final]
        final_logits = products(np.stack(final_sets), np.array(logits, dtype=np.int64))
        z = (sum(final_logits) + 2) >> 2

        t1 = row.leaves[-1] if row.leaves else len(self.words)
        maps = [self.node_map[node.number], self.pair_map[(4099 * t1 + 31 * node.number) % 2**16]]
        placed = [(entries, place_of(z)) for entries in maps]
        read = [between(*pair) for pair in placed]
        k, units = clamp((2 * squash(z) + sum(read) + 2) >> 2, 1, 65535), np.zeros(0, dtype=np.int64)
        placed += [(entries, place) for entries in model_maps]
        if self.network:
            mixed = clamp(ln(k) - ln(2**16 - k), -2815, 2815)
            seen = [ln(1 + SEEN[s]) for s in states]
            values = inputs + seen + logits + [mixed] + [STRETCH[q >> 4] for q in read]
            units = self.network.units(values, chosen_rows(row, depth, longest, toward))
            (correction,) = products(self.output_weights[np.newaxis], units)
            k = squash(clamp(mixed + correction, -2815, 2815))
        return Decision(states, matches, x, sets, logits, final_sets, final_logits, placed, units, k)

    def set_numbers(self, row: Row, node: Node, depth: int, sure: int, longest: int) -> list[int]:
        """The set of each group, numbered through all groups."""
        t1 = row.leaves[-1] if row.leaves else len(self.words)
        kind, field_at = class_of(row.last(1)), min(row.field, 15)
        bracket = OPENING.find(row.stack[row.top]) + 1
        ended = b'()<>[]{}\t",:;=|'.find(row.separator) + 1  # 0 if there is none yet
        within = (
            node.number,
            sure,
            hash_of(1, t1) % 2**10,
            16 * bracket + kind,
            256 * kind + (row.shape >> 8) % 2**8,
            128 * field_at + 2 * min(row.place, 63) + (depth >= 4),
            32 * ended + min(row.field, 31),
            16 * min(row.column, 63) + longest,
        )
        starts = accumulate((len(self.tree.nodes), *GROUP_SETS[1:-1]), initial=0)
        return [start + number for start, number in zip(starts, within, strict=True)]

    def learn(self, row: Row, node: Node, seen: Decision, y: int) -> None:
        for weights, z in zip(seen.sets, seen.logits, strict=True):
            rate = 48 + 1248000 // (1000 + weights.u)
            weights.u = min(weights.u + 1, 65535)
            train(weights.w, seen.inputs, 2**16 * y - squash(z), rate)
        outputs = np.array(seen.logits, dtype=np.int64)
        for final, z in zip(seen.final_sets, seen.final_logits, strict=True):
            train(final, outputs, 2**16 * y - squash(z), 128)
        if self.network:
            train(self.output_weights, seen.units, 2**16 * y - seen.k, 128)
        for entries, place in seen.maps:
            move_between(entries, place, y)
        for awaited, pair in seen.matches:
            pair.learn(int(awaited == y), 60)
        for c, s in enumerate(seen.states):
            if s:
                self.state_map[c][s].learn(y, 255)
            block = row.blocks[c]
            block[node.place] = NEXT[2 * block[node.place] + y]
