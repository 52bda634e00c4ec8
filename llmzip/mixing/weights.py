"""The mixer's inputs and sets of weights, and what the weights are at first; must not know texts, rows or tables.

With a language model they come from a file that was learnt from texts: `tools/make_start.py` writes it,
docs/numerics.md section 10.4 describes it, and it holds for every model and vocabulary.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .stored import stored_file

FILE = Path(__file__).parent / "start.bin"

DIGEST = "8440577e18a19fa57b509fc334eb649ed2932b72655b734f65617bb4de6c7d8d"
"""SHA-256 of the file. All archives depend on it."""

NUM_CONTEXTS = 36

MATCHES = 3
"""Match models, from the longest matches to the shortest."""

# Inputs after those of the contexts.
MODEL = NUM_CONTEXTS
MATCH = MODEL + 1
CONSTANT = MATCH + 2 * MATCHES

NUM_INPUTS = CONSTANT + 3
"""One per context, the model's logit, two per match model, a constant, and two of maps of the model's logits."""

PADDED_INPUTS = 48
"""Inputs in memory, whole registers; those past NUM_INPUTS are 0."""

GROUPS = (384, 1024, 80, 4096, 2048, 512, 1024)
"""Weight sets of each group after that of the nodes, which has one for each (docs/numerics.md section 10.7)."""

NUM_SETS = 1 + len(GROUPS)
"""Weight sets that predict each decision, one of each group."""

FINAL_SETS = 256 + 384 + 4096 + 2048
"""Sets of final weights, of all four groups together."""

ONE = 1 << 27
"""The weight 1."""

FIRST_UPDATES = 32
"""Updates that a set from the file counts as having seen; a plain one has seen none."""

MAX_LEVELS = 16
"""Depths of nodes whose sets begin differently."""

# Numbers of the sets in the file's first table.
_BY_GUESS = MAX_LEVELS
_BY_TOKEN = _BY_GUESS + GROUPS[0]
_OTHERS = _BY_TOKEN + 1
_FILE_SETS = _OTHERS + sum(GROUPS[2:])

_UNIT_BITS = 15
"""Bits of a weight that the file does not say."""

# Plain weights of contexts, the model, and what match models are sure of.
_CONTEXT_WEIGHT = ONE * 3 // 100
_MODEL_WEIGHT = 81_920_000
_MATCH_WEIGHT = 26_624_000


class Weights(NamedTuple):
    """The weights of a mixer.

    Attributes:
        weight: (sets, PADDED_INPUTS) int32, 2^27 is 1.
        updates: (sets,) int32: how often each set was trained.
        final_weight: (FINAL_SETS, NUM_SETS) int32, likewise.
    """

    weight: np.ndarray
    updates: np.ndarray
    final_weight: np.ndarray


def first_weights(level: np.ndarray) -> Weights:
    """Returns the weights that a mixer with a language model begins with.

    Args:
        level: (N,) int32: depth of each node, from 0.

    Raises:
        EngineError: the file is missing or not the one of this version.
    """
    stored, final_weight = _stored()
    nodes = len(level)
    weight = np.empty((nodes + sum(GROUPS), PADDED_INPUTS), dtype=np.int32)
    weight[:nodes] = stored[np.minimum(level, MAX_LEVELS - 1)]
    by_token = nodes + GROUPS[0]
    weight[nodes:by_token] = stored[_BY_GUESS:_BY_TOKEN]
    weight[by_token : by_token + GROUPS[1]] = stored[_BY_TOKEN]
    weight[by_token + GROUPS[1] :] = stored[_OTHERS:]
    return Weights(weight, np.full(len(weight), FIRST_UPDATES, dtype=np.int32), final_weight.copy())


def plain_weights(nodes: int) -> Weights:
    """Returns the weights that a mixer without a language model begins with, for a tree of so many nodes."""
    one_set = np.zeros(PADDED_INPUTS, dtype=np.int32)
    one_set[:MODEL] = _CONTEXT_WEIGHT
    one_set[MODEL] = _MODEL_WEIGHT
    one_set[MATCH:CONSTANT:2] = _MATCH_WEIGHT
    sets = nodes + sum(GROUPS)
    return Weights(np.tile(one_set, (sets, 1)), np.zeros(sets, dtype=np.int32), _even_final_weights())


def packed(stored: np.ndarray, has_own: np.ndarray, final_weight: np.ndarray, has_own_final: np.ndarray) -> bytes:
    """Returns the bytes of the file.

    Args:
        stored: (n, NUM_INPUTS) floats, 1 is 1: the sets in the file's order; has_own: (n,) bool: which ones to store.
        final_weight: (FINAL_SETS, NUM_SETS) floats; has_own_final: (FINAL_SETS,) bool.
    """
    parts = []
    for table, chosen in ((stored, has_own), (final_weight, has_own_final)):
        steps = np.clip(np.rint(table[chosen] * (ONE >> _UNIT_BITS)), -(1 << 14), 1 << 14)
        parts += [np.packbits(chosen, bitorder="little").tobytes(), steps.astype("<i2").tobytes()]
    return b"".join(parts)


def unpacked(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tables of the file, (n, PADDED_INPUTS) and (FINAL_SETS, NUM_SETS) int32.

    Raises:
        ValueError: `packed` did not make this.
    """
    stored = np.zeros((_FILE_SETS, PADDED_INPUTS), dtype=np.int32)
    final_weight = _even_final_weights()
    at = 0
    for table, width in ((stored, NUM_INPUTS), (final_weight, NUM_SETS)):
        end = at + -(-len(table) // 8)
        bits = np.frombuffer(data[at:end].ljust(end - at, b"\0"), dtype=np.uint8)
        chosen = np.unpackbits(bits, bitorder="little")[: len(table)].astype(bool)
        at = end + 2 * width * int(chosen.sum())
        values = np.frombuffer(data[end:at], dtype="<i2").reshape(-1, width)
        table[chosen, :width] = values.astype(np.int32) << _UNIT_BITS
        if table is stored:
            stored[~chosen] = stored[_BY_TOKEN]
    if at != len(data):
        raise ValueError(f"{len(data)} bytes of starting weights, not {at}")
    return stored, final_weight


@functools.cache
def _stored() -> tuple[np.ndarray, np.ndarray]:
    """Returns the file's tables as `unpacked` does; they must not be changed."""
    return unpacked(stored_file(FILE, DIGEST))


def _even_final_weights() -> np.ndarray:
    return np.full((FINAL_SETS, NUM_SETS), ONE // NUM_SETS, dtype=np.int32)
