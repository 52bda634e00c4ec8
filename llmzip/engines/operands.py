"""Operands that every forward pass derives from a model: rotary tables and the norm weights of heads.

Must not know how a forward pass computes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..models.config import ExactConfig
from ..models.model import ExactModel, LayerWeights
from ..numerics import tables

_MIN_POSITIONS = 1024
"""Positions of the first rotary table: computing fewer would not be noticeably faster."""


class RopeTable:
    """A rotary table that grows by doubling as far as it is needed, because computing it takes time."""

    def __init__(self, steps: tuple[int, ...], context: int, device: torch.device) -> None:
        self._steps, self._context, self._device = steps, context, device
        self._table = torch.empty(2, 0, 1, len(steps), dtype=torch.float32, device=device)

    def extend(self, positions: int) -> None:
        """Makes the table hold at least this many positions. Callers must not extend it at the same time."""
        current = self._table.shape[1]
        if positions <= current:
            return
        size = min(self._context, max(positions, 2 * current, _MIN_POSITIONS))
        cos_sin = np.stack(tables.rope_tables(self._steps, size))
        self._table = torch.from_numpy(cos_sin).to(self._device, torch.float32).mul_(2.0**-14)[:, :, None]
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # other threads read it in streams of their own

    def at(self, begin: int, new: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns cosines and sines of `new` positions from `begin` on: (new, 1, pairs) float32 each."""
        cos, sin = self._table[:, begin : begin + new]
        return cos, sin


@dataclass(frozen=True)
class Operands:
    """What the forward passes of one model share.

    Attributes:
        qk_norms: for each layer, the norm weights of query and key heads, (H + G, D) float32, or None.
        ropes: the rotary table of layers without a window first, that of layers with one last; they may be the same.
    """

    qk_norms: tuple[torch.Tensor | None, ...]
    ropes: tuple[RopeTable, ...]

    @classmethod
    def of(cls, model: ExactModel) -> Operands:
        """Derives the operands of a model, on the model's device; the rotary tables are empty at first."""
        config, device = model.config, model.embedding_q.device
        steps = config.rope_steps or tuple(tables.rope_steps(config.rope_theta, config.head_dim))
        ropes = [RopeTable(steps, config.context, device)]
        if config.local_rope_steps:
            ropes.append(RopeTable(config.local_rope_steps, config.context, device))
        return cls(tuple(_qk_norm(layer, config) for layer in model.layers), tuple(ropes))

    def extend(self, positions: int) -> None:
        """Makes the rotary tables hold at least this many positions. Callers must not do so at the same time."""
        for rope in self.ropes:
            rope.extend(positions)


def _qk_norm(layer: LayerWeights, config: ExactConfig) -> torch.Tensor | None:
    """Returns the norm weights of query and key heads together, (H + G, D), or None if the layer has none."""
    if layer.q_norm is None or layer.k_norm is None:
        return None
    return torch.cat([layer.q_norm.expand(config.num_heads, -1), layer.k_norm.expand(config.num_kv_heads, -1)])
