"""A vocabulary's tree and a frame's rows, in the form that compiled code reads. Must not know probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..format.plan import Rows
from . import tables
from .state import SUM_LEAVES, Shape
from .tree import build_tree


class Vocabulary:
    """A vocabulary as a tree, ready for any number of frames.

    Args:
        table: bytes of each token, 2 to 300,000 tokens.

    Attributes:
        size: V.
        tree: the tokens' tree.

    Raises:
        EngineError: the mixer's library cannot be loaded here.
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self.size = len(table)
        self.tree = build_tree(table)
        self._token = self.tree.token.astype(np.uint32)
        self._block_of = (self.tree.leaf // SUM_LEAVES).astype(np.uint16)

    def shape(self, rows: Rows) -> Shape:
        """Returns what the walk over a frame with these rows reads."""
        tree = self.tree
        return Shape(
            tree.child,
            tree.bounds,
            tree.treelet,
            tree.slot,
            self._token,
            tree.leaf,
            self._block_of,
            tables.log_table(),
            tables.octave_table(),
            rows.num_rows,
            rows.full_steps,
            rows.long_rows,
            rows.steps,
            self.size,
        )
