"""The arrays in which the mixer of a frame keeps what it knows. Computes nothing with them: the compiled library does.

native/state.h has the same structures and sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import network, tables
from .tables import MAX_LOGIT
from .weights import MATCHES, NUM_CONTEXTS, first_weights, plain_weights

RING_BYTES = 8192
"""Bytes of a row's text that are remembered: lines further back than this have nothing above them."""

FIELDS = 64
"""Fields of a line whose beginnings are remembered."""

NESTING = 64
"""Open brackets that are remembered; those inside replace the innermost one."""

# Places in a row's scalars that are set or read here; native/state.h names the others.
ABOVE = 2
ABOVE2 = 4
TOKENS = 20
NUM_SCALARS = 21

MATCH_BITS = 20
"""Bits of the hash by which a match model finds earlier tokens."""

MATCH_LENGTHS = 32
"""Entries of a match model's map, by the length of the match in tokens."""

BLOCK_BYTES = 16
"""Size of a block of statistics: a check byte and 15 states."""

PAIRS = 65536
"""Numbers of pairs: of last token and node, each of which that comes gets a row of a final map, and of two tokens."""

SUM_LEAVES = 16
"""Leaves between two sums of masses that are kept: the others are added up when they are needed."""

GROUP_ROWS = 16
"""Rows whose decisions are predicted together, before any of them is known."""

_BUCKETS = 33
"""Entries of a row of a map that is read by a logit."""

_MATCH_MAP_ROWS = 768
"""Rows of the map of the model's logits by match, side and depth."""

_FIRST_UPDATES = 6
"""Updates that a state's probability counts as having seen at the beginning."""

_CACHE_LINE_BYTES = 64


class Shape(NamedTuple):
    """A vocabulary's tree and a frame's rows, as the walk reads them.

    Attributes:
        child, bounds, treelet, slot, token, leaf: as in `tree.Tree`.
        block_of: (V,) uint16: the block of SUM_LEAVES leaves with each token's.
        log, octave: from `tables`.
        rows, full_steps, long_rows, steps: as in `format.plan.Rows`.
        vocab_size: V.
    """

    child: np.ndarray
    bounds: np.ndarray
    treelet: np.ndarray
    slot: np.ndarray
    token: np.ndarray
    leaf: np.ndarray
    block_of: np.ndarray
    log: np.ndarray
    octave: np.ndarray
    rows: int
    full_steps: int
    long_rows: int
    steps: int
    vocab_size: int


class Texts(NamedTuple):
    """The text so far of each of R rows. Flat arrays, one row after the other.

    Attributes:
        scalar: (R * NUM_SCALARS,) int64.
        ring: (R * RING_BYTES,) uint8: the last bytes.
        field_above, field_here: (R * FIELDS,) int64: where the fields of the line above and of this line begin, or -1.
        bracket: (R * NESTING,) uint8: open brackets; the entry at DEPTH is the innermost one.
        history: (R * steps,) int32: leaves of the tokens so far.
        follower: (2 (V + 1),) int32, for all rows together: the last two tokens that came after each token, plus 1.
        pair_follower: (2 PAIRS,) int32, likewise: those that came after each pair of tokens, by its hash.
        token_start: (V + 1,) int64, token_byte: uint8: the bytes of leaf i from token_start[i] to token_start[i + 1].
    """

    scalar: np.ndarray
    ring: np.ndarray
    field_above: np.ndarray
    field_here: np.ndarray
    bracket: np.ndarray
    history: np.ndarray
    follower: np.ndarray
    pair_follower: np.ndarray
    token_start: np.ndarray
    token_byte: np.ndarray


def new_texts(rows: int, steps: int, token_start: np.ndarray, token_byte: np.ndarray) -> Texts:
    """Returns empty texts of `rows` rows of at most `steps` tokens; the others are arrays of `Texts`."""
    texts = Texts(
        np.zeros(rows * NUM_SCALARS, dtype=np.int64),
        np.zeros(rows * RING_BYTES, dtype=np.uint8),
        np.full(rows * FIELDS, -1, dtype=np.int64),
        np.full(rows * FIELDS, -1, dtype=np.int64),
        np.zeros(rows * NESTING, dtype=np.uint8),
        np.zeros(rows * steps, dtype=np.int32),
        np.zeros(2 * len(token_start), dtype=np.int32),
        np.zeros(2 * PAIRS, dtype=np.int32),
        token_start,
        token_byte,
    )
    texts.scalar[ABOVE::NUM_SCALARS] = texts.scalar[ABOVE2::NUM_SCALARS] = -1
    texts.field_here[::FIELDS] = 0
    return texts


class Learned(NamedTuple):
    """What the mixer has learnt, shared by all rows, and the tables it works with.

    Attributes:
        blocks: (2^k, BLOCK_BYTES) uint8: per context and treelet a check byte and 15 states.
        state_map: (NUM_CONTEXTS, 256) uint32: probability << 10 | number of updates, by context and state.
        match_map: (MATCHES, MATCH_LENGTHS) uint32: likewise, that a match of this length holds.
        weight, updates, final_weight: as in `weights.Weights`.
        output_weight: (UNITS,) int32: of the network's units, 2^27 is 1; zeros without a model.
        node_map: (N, 33) int32, pair_map: (2^16 + 1, 33) int32: final probabilities in units of 2^-20; of the latter,
            row 0 is what every row begins with, and rows that no pair has yet hold anything.
        pair_row: (2^16 + 1,) int32: the row of each pair, 0 for none so far; at the end, the highest row in use.
        model_node_map: (N, 33), model_match_map: (768, 33) int32: likewise, of the model's logits.
        squash, stretch, rate, successor, seen, seen_logit: from `tables`.
    """

    blocks: np.ndarray
    state_map: np.ndarray
    match_map: np.ndarray
    weight: np.ndarray
    updates: np.ndarray
    final_weight: np.ndarray
    output_weight: np.ndarray
    node_map: np.ndarray
    pair_map: np.ndarray
    pair_row: np.ndarray
    model_node_map: np.ndarray
    model_match_map: np.ndarray
    squash: np.ndarray
    stretch: np.ndarray
    rate: np.ndarray
    successor: np.ndarray
    seen: np.ndarray
    seen_logit: np.ndarray


def new_learned(level: np.ndarray, table_bits: int, with_model: bool) -> Learned:
    """Returns what a mixer begins with.

    Args:
        level: (N,) int32: depth of each inner node of the tree.
        table_bits: k for 2^k blocks.
        with_model: whether there is a language model.
    """
    states = tables.states()
    probability = np.zeros(256, dtype=np.uint32)
    probability[: len(states.probability)] = states.probability
    weight, updates, final_weight = first_weights(level) if with_model else plain_weights(len(level))
    squash = tables.squash_table()
    final_map = squash[np.clip((np.arange(_BUCKETS) - 16) * 128, -MAX_LOGIT, MAX_LOGIT) + MAX_LOGIT] * 16
    pair_map = np.empty((PAIRS + 1, _BUCKETS), dtype=np.int32)
    pair_map[0] = final_map
    return Learned(
        _blocks(1 << table_bits),
        np.tile(probability << 10 | _FIRST_UPDATES, (NUM_CONTEXTS, 1)),
        np.full((MATCHES, MATCH_LENGTHS), (3 << 20) << 10, dtype=np.uint32),
        weight,
        updates,
        final_weight,
        network.first_output_weights() if with_model else np.zeros(network.UNITS, dtype=np.int32),
        np.tile(final_map, (len(level), 1)),
        pair_map,
        np.zeros(PAIRS + 1, dtype=np.int32),
        np.tile(final_map, (len(level), 1)),
        np.tile(final_map, (_MATCH_MAP_ROWS, 1)),
        squash,
        tables.stretch_table(),
        tables.rate_table(),
        states.successor,
        states.seen,
        tables.seen_logits(),
    )


def _blocks(count: int) -> np.ndarray:
    """Returns empty blocks that begin with a cache line, so that the two places of a context are in the same one."""
    room = np.zeros(count * BLOCK_BYTES + _CACHE_LINE_BYTES, dtype=np.uint8)
    begin = -room.ctypes.data % _CACHE_LINE_BYTES
    return room[begin : begin + count * BLOCK_BYTES].reshape(count, BLOCK_BYTES)


class Masses(NamedTuple):
    """A model's masses for R rows.

    Attributes:
        mass: (R, V) int32: the masses; of small vocabularies in the order of the leaves, of others by token id.
        block: (R, n + 1) int64: sums of the masses of the leaves before each of n blocks of SUM_LEAVES, and of all.
        guess: (R,) int64: the leaf of the likeliest token, plus 2^24 times how sure the model is, 0 to 7.
    """

    mass: np.ndarray
    block: np.ndarray
    guess: np.ndarray


def new_masses(rows: int, vocab_size: int) -> Masses:
    """Returns room for the masses of `rows` rows."""
    return Masses(
        np.zeros((rows, vocab_size), dtype=np.int32),
        np.zeros((rows, -(-vocab_size // SUM_LEAVES) + 1), dtype=np.int64),
        np.zeros(rows, dtype=np.int64),
    )


class Known(NamedTuple):
    """What only an encoder knows: every row's tokens, and the model's logits on their paths. A decoder has (1,) zeros.

    Attributes:
        leaf: (N,) int32, row after row; start: (R + 1,) int64.
        logit: (total,) int16 in the order of `leaf`, or (1,) if there is no model; logit_start: (N + 1,) int64.
        guess: (N,) int32: as in `Masses`.
    """

    leaf: np.ndarray
    start: np.ndarray
    logit: np.ndarray
    logit_start: np.ndarray
    guess: np.ndarray
