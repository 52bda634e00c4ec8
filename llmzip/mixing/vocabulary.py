"""A vocabulary's tree and a frame's rows, in the form that compiled code reads. Must not know probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..format.plan import Rows
from . import tables
from .tree import build_tree, paths


class Shape(NamedTuple):
    """A vocabulary's tree and a frame's rows, as the walk reads them.

    Attributes:
        child, bounds, treelet, slot, token, leaf: as in `tree.Tree`.
        path_start, path_step: from `tree.paths`.
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
    path_start: np.ndarray
    path_step: np.ndarray
    log: np.ndarray
    octave: np.ndarray
    rows: int
    full_steps: int
    long_rows: int
    steps: int
    vocab_size: int


class Vocabulary:
    """A vocabulary as a tree, ready for any number of frames.

    Args:
        table: bytes of each token, at least 2 tokens.
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self.tree = build_tree(list(table))
        self.path_start, self.path_step = paths(self.tree)
        self.leaf_bytes = [table[i] for i in self.tree.token]
        self.size = len(table)

    def shape(self, rows: Rows) -> Shape:
        """Returns what the walk over a frame with these rows reads."""
        tree = self.tree
        return Shape(
            tree.child,
            tree.bounds,
            tree.treelet,
            tree.slot,
            tree.token.astype(np.uint32),
            tree.leaf,
            self.path_start,
            self.path_step,
            tables.log_table(),
            tables.octave_table(),
            rows.num_rows,
            rows.full_steps,
            rows.long_rows,
            rows.steps,
            self.size,
        )
