"""Operands that every forward pass derives from a model: rotary tables and the norm weights of heads.

Must not know how a forward pass computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..models.config import ExactConfig
from ..numerics import tables
from .arrays import Array

if TYPE_CHECKING:
    from ..models.model import ExactModel, LayerWeights

_MIN_POSITIONS = 1024
"""Positions of the first rotary table: computing fewer would not be noticeably faster."""


class RopeTable:
    """A rotary table that grows by doubling as far as it is needed, because computing it takes time.

    Args:
        steps: turns per position of each pair, in units of 2^-64 turn.
        context: positions that it may hold at most.
        place: puts a table, (2, positions, pairs) float32, where the forward pass reads it.
    """

    def __init__(self, steps: tuple[int, ...], context: int, place: Callable[[np.ndarray], Array]) -> None:
        self._steps, self._context, self._place = steps, context, place
        self._positions = 0
        self._table = place(np.empty((2, 0, len(steps)), dtype=np.float32))

    @property
    def pairs(self) -> int:
        """Number of pairs of values that are rotated."""
        return len(self._steps)

    def extend(self, positions: int) -> None:
        """Makes the table hold at least this many positions. Callers must not extend it at the same time."""
        if positions <= self._positions:
            return
        size = min(self._context, max(positions, 2 * self._positions, _MIN_POSITIONS))
        cos_sin = np.stack(tables.rope_tables(self._steps, size)).astype(np.float32)
        self._table = self._place(cos_sin * np.float32(2.0**-14))
        self._positions = size

    def at(self, begin: int, new: int) -> tuple[Array, Array]:
        """Returns cosines and sines of `new` positions from `begin` on, (new, pairs) float32, as they were placed."""
        cos, sin = self._table[:, begin : begin + new]
        return cos, sin


@dataclass(frozen=True)
class Operands:
    """What the forward passes of one model share.

    Attributes:
        qk_norms: for each layer, the norm weights of query and key heads, (H + G, D) float32, or None.
        ropes: the rotary table of layers without a window first, that of layers with one last; they may be the same.
    """

    qk_norms: tuple[Array | None, ...]
    ropes: tuple[RopeTable, ...]

    @classmethod
    def of(cls, model: ExactModel) -> Operands:
        """Derives the operands of a model in memory, as numpy arrays; the rotary tables are empty at first."""
        norms = tuple(_qk_norm(layer, model.config) for layer in model.layers)
        return cls(norms, rope_tables(model.config, lambda table: table))

    def extend(self, positions: int) -> None:
        """Makes the rotary tables hold at least this many positions. Callers must not do so at the same time."""
        for rope in self.ropes:
            rope.extend(positions)


def rope_tables(config: ExactConfig, place: Callable[[np.ndarray], Array]) -> tuple[RopeTable, ...]:
    """Returns a model's rotary tables, empty at first; `place`: as for `RopeTable`."""
    steps = config.rope_steps or tuple(tables.rope_steps(config.rope_theta, config.head_dim))
    ropes = [RopeTable(steps, config.context, place)]
    if config.local_rope_steps:
        ropes.append(RopeTable(config.local_rope_steps, config.context, place))
    return tuple(ropes)


def normal_table() -> np.ndarray:
    """Returns the integral of the normal distribution below 0 as float32, followed by a 0."""
    table: np.ndarray = np.append(tables.normal_table(), 0).astype(np.float32) * np.float32(2.0**-24)
    return table


def _qk_norm(layer: LayerWeights, config: ExactConfig) -> np.ndarray | None:
    """Returns the norm weights of query and key heads together, (H + G, D), or None if the layer has none."""
    if layer.q_norm is None or layer.k_norm is None:
        return None
    heads = [np.asarray(layer.q_norm)[None]] * config.num_heads + [np.asarray(layer.k_norm)[None]] * config.num_kv_heads
    return np.concatenate(heads)
