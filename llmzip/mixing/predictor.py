"""Experts, mixing and learning for one binary decision of one row; must not know tokens' order, frames or the coder.

Compiled. Every number is an integer with a bound; shifts of negative numbers round down (docs/numerics.md section 10).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiled import compiled
from .state import (
    BLOCK_BYTES,
    CONSTANT,
    MATCH,
    MATCH_LENGTHS,
    MATCHES,
    MODEL,
    NUM_CONTEXTS,
    NUM_INPUTS,
    NUM_SETS,
    PAIRS,
    SHAPES,
    WEIGHT_MOST,
    Learned,
)
from .tables import LOGIT_MAX

_RATE_LEAST, _RATE_SPAN, _RATE_FALL = 12, 78, 100
_RATE_FINAL = 6
_UPDATES_MOST = 65535
_STATE_UPDATES = 255
_MATCH_UPDATES = 60
_MAP_RATE = 6


class Decision(NamedTuple):
    """What a prediction leaves for its update, per place in a group of G rows.

    Attributes:
        inputs: (G, NUM_INPUTS) int32.
        block: (G, NUM_CONTEXTS) int64: each context's block; slot: (G,) int64: the slot of the decision.
        state: (G, NUM_CONTEXTS) int64: the state that was found there.
        match_length: (G, MATCHES) int64: entry of the match map, or 0; match_bit: (G, MATCHES) int64: the bit expected.
        chosen: (G, NUM_SETS) int64: the weight sets; final_set: (G,) int64.
        logit: (G, NUM_SETS) int64: of each set.
        mixed: (G,) int64: mixed probability, before the final maps.
        node, pair, bucket, part: (G,) int64: places in the final maps: rows, lower entry, and how far to the next one.
        probability: (G,) int64: of a one, 1 to 65535.
    """

    inputs: np.ndarray
    block: np.ndarray
    slot: np.ndarray
    state: np.ndarray
    match_length: np.ndarray
    match_bit: np.ndarray
    chosen: np.ndarray
    final_set: np.ndarray
    logit: np.ndarray
    mixed: np.ndarray
    node: np.ndarray
    pair: np.ndarray
    bucket: np.ndarray
    part: np.ndarray
    probability: np.ndarray


def new_decision(group: int) -> Decision:
    """Room for the decisions of `group` rows."""
    widths = (NUM_CONTEXTS, 0, NUM_CONTEXTS, MATCHES, MATCHES, NUM_SETS, 0, NUM_SETS, 0, 0, 0, 0, 0, 0)
    arrays = [np.zeros((group, width) if width else group, dtype=np.int64) for width in widths]
    return Decision(np.zeros((group, NUM_INPUTS), dtype=np.int32), *arrays)


@compiled
def find_blocks(learned: Learned, decision: Decision, at: int, hashes: np.ndarray, treelet: int) -> None:
    """Finds the block of each context in a treelet, or makes room for it; hashes: (G, NUM_CONTEXTS) int64."""
    blocks, last = learned.blocks, len(learned.blocks) - 1
    salt = (treelet * 0x9E3779B1) & 0xFFFFFFFF
    for context in range(NUM_CONTEXTS):
        key = (hashes[at, context] ^ salt) * 0x5851F42D  # below 2^63
        block = (key >> 28) & last
        check = max(1, (key >> 20) & 0xFF)
        if blocks[block, 0] != check:
            other = block ^ 1
            if blocks[other, 0] == check:
                block = other
            else:
                # The one whose first node was seen less often makes room.
                if learned.seen[blocks[other, 1]] < learned.seen[blocks[block, 1]]:
                    block = other
                blocks[block, 0] = check
                for i in range(1, BLOCK_BYTES):
                    blocks[block, i] = 0
        decision.block[at, context] = block


@compiled
def _dot(weight: np.ndarray, chosen: int, inputs: np.ndarray, at: int) -> int:
    total = np.int64(0)
    for i in range(weight.shape[1]):  # a constant would be unrolled instead of vectorised
        total += np.int64(weight[chosen, i]) * np.int64(inputs[at, i])
    return total


@compiled
def _train(weight: np.ndarray, chosen: int, inputs: np.ndarray, at: int, step: int) -> None:
    for i in range(weight.shape[1]):
        value = np.int64(weight[chosen, i]) + ((step * np.int64(inputs[at, i]) + (1 << 19)) >> 20)
        weight[chosen, i] = min(max(value, -WEIGHT_MOST), WEIGHT_MOST)


@compiled
def set_match(learned: Learned, decision: Decision, at: int, match: int, length: int, bit: int) -> None:
    """Tells what a match model expects; length: tokens that agree, 1 or more, or 0 if it expects nothing; bit: 0, 1."""
    i = MATCH + 2 * match
    entry = min(length, MATCH_LENGTHS - 1)
    decision.match_length[at, match] = entry
    decision.match_bit[at, match] = bit
    if length == 0:
        decision.inputs[at, i] = 0
        decision.inputs[at, i + 1] = 0
        return
    probability = np.int64(learned.match_map[match, entry]) >> 10
    sign = 2 * bit - 1
    decision.inputs[at, i] = sign * np.int64(learned.stretch[probability >> 10])
    decision.inputs[at, i + 1] = sign * (((probability >> 6) - 32768) >> 6)


@compiled
def predict(
    learned: Learned, decision: Decision, at: int, node: int, slot: int, model: int,
    depth: int, longest: int, shape: int, byte: int, before: int,
) -> None:  # fmt: skip
    """The probability of a one at a node of the tree, for place `at` of a group.

    Args:
        node, slot: of the tree. Blocks and matches must have been set.
        model: the language model's logit, or 0.
        depth: decisions of this token before this one.
        longest: 0 to 15, by the length of the longest match.
        shape, byte, before: hash of the text's shape, last byte, and last token (V at the beginning).
    """
    inputs = decision.inputs
    for context in range(NUM_CONTEXTS):
        state = np.int64(learned.blocks[decision.block[at, context], slot])
        decision.state[at, context] = state
        logit = np.int64(learned.stretch[np.int64(learned.state_map[context, state]) >> 20])
        inputs[at, context] = logit if state != 0 else 0
    decision.slot[at] = slot
    inputs[at, MODEL] = model
    inputs[at, CONSTANT] = 256
    nodes = len(learned.node_map)
    decision.chosen[at, 0] = node
    decision.chosen[at, 1] = nodes + (shape & (SHAPES - 1))
    decision.chosen[at, 2] = nodes + SHAPES + 2 * byte + (1 if depth >= 4 else 0)
    final = min(depth, 15) * 16 + longest
    decision.final_set[at] = final
    total = np.int64(0)
    for i in range(NUM_SETS):
        dot = _dot(learned.weight, decision.chosen[at, i], inputs, at)
        logit = min(max((dot + 32768) >> 16, -LOGIT_MAX), LOGIT_MAX)
        decision.logit[at, i] = logit
        total += np.int64(learned.final_weight[final, i]) * logit
    logit = min(max((total + 32768) >> 16, -LOGIT_MAX), LOGIT_MAX)
    mixed = np.int64(learned.squash[logit + LOGIT_MAX])
    place = min(max(logit + 2048, 0), 4095)
    bucket, part = place >> 7, place & 127
    pair = (before * 4099 + node * 31) & (PAIRS - 1)
    decision.mixed[at] = mixed
    decision.node[at], decision.pair[at], decision.bucket[at], decision.part[at] = node, pair, bucket, part
    by_node = _between(learned.node_map, node, bucket, part)
    by_pair = _between(learned.pair_map, pair, bucket, part)
    decision.probability[at] = min(max((2 * mixed + by_node + by_pair + 2) >> 2, 1), 65535)


@compiled
def _between(table: np.ndarray, row: int, bucket: int, part: int) -> int:
    return (np.int64(table[row, bucket]) * (128 - part) + np.int64(table[row, bucket + 1]) * part) >> 11


@compiled
def _learn_map(table: np.ndarray, row: int, entry: int, bit: int, most: int, rate: np.ndarray) -> None:
    value = np.int64(table[row, entry])
    probability, count = value >> 10, value & 1023
    probability += (((bit << 22) - probability) * np.int64(rate[count])) >> 16
    probability = min(max(probability, 1024), (1 << 22) - 1024)
    table[row, entry] = (probability << 10) | min(count + 1, most)


@compiled
def _learn_final(table: np.ndarray, row: int, bucket: int, bit: int, part: int) -> None:
    target = bit * ((1 << 20) - 1)
    low, high = np.int64(table[row, bucket]), np.int64(table[row, bucket + 1])
    table[row, bucket] = low + (((target - low) * (128 - part)) >> (7 + _MAP_RATE))
    table[row, bucket + 1] = high + (((target - high) * part) >> (7 + _MAP_RATE))


@compiled
def learn(learned: Learned, decision: Decision, at: int, bit: int) -> None:
    """Everything that place `at` predicted with learns the bit."""
    target = bit << 16
    final = decision.final_set[at]
    error = target - decision.mixed[at]
    for i in range(NUM_SETS):
        logit, chosen = decision.logit[at, i], decision.chosen[at, i]
        updates = np.int64(learned.updates[chosen])
        rate = _RATE_LEAST + _RATE_SPAN * _RATE_FALL // (_RATE_FALL + updates)
        learned.updates[chosen] = min(updates + 1, _UPDATES_MOST)
        step = (target - np.int64(learned.squash[logit + LOGIT_MAX])) * rate
        _train(learned.weight, chosen, decision.inputs, at, step)
        value = np.int64(learned.final_weight[final, i]) + ((error * _RATE_FINAL * logit + (1 << 19)) >> 20)
        learned.final_weight[final, i] = min(max(value, -WEIGHT_MOST), WEIGHT_MOST)
    _learn_final(learned.node_map, decision.node[at], decision.bucket[at], bit, decision.part[at])
    _learn_final(learned.pair_map, decision.pair[at], decision.bucket[at], bit, decision.part[at])
    for match in range(MATCHES):
        length = decision.match_length[at, match]
        if length > 0:
            hit = 1 if decision.match_bit[at, match] == bit else 0
            _learn_map(learned.match_map, match, length, hit, _MATCH_UPDATES, learned.rate)
    slot = decision.slot[at]
    for context in range(NUM_CONTEXTS):
        state = decision.state[at, context]
        if state != 0:
            _learn_map(learned.state_map, context, state, bit, _STATE_UPDATES, learned.rate)
        block = decision.block[at, context]
        learned.blocks[block, slot] = learned.successor[2 * np.int64(learned.blocks[block, slot]) + bit]
