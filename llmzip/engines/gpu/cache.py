"""Keys and values of the Triton kernels, and the recorded step of all rows; must not know models or kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..kv_cache import CachedLayer, LayerCaches


class GpuLayer(CachedLayer):
    """The cache of one layer: a ring, with position p in slot p modulo S.

    Keys are (B, G, S, D) int8, values (B, G, D, S) int8: what a product sums over is contiguous. `begin` stays 0.
    """

    def room(self, begin: int, new: int) -> int:
        """Returns how many of `new` positions from `begin` on fit before they overwrite a position still seen."""
        slots: int = self.key_scale.shape[2]
        if self.window and begin + new > slots:
            return min(new, max(slots - begin, slots - self.window + 1))
        return new


@dataclass
class Step:
    """One token of every row, recorded as a CUDA graph.

    Attributes:
        ids: (B, 1) int64; begin: (1,) int32; hidden: (B, 1, hidden) float32: where the graph reads and writes.
        graph: None until it is recorded at the second step; the first one compiles the kernels.
        tables: addresses of the rotary tables that the graph reads.
    """

    ids: torch.Tensor
    begin: torch.Tensor
    hidden: torch.Tensor | None = None
    graph: torch.cuda.CUDAGraph | None = None
    tables: tuple[int, ...] = ()


class GpuCache(LayerCaches[GpuLayer]):
    """The cache of the kernels.

    Attributes:
        step: the recorded step of all rows; a cache of some of the rows has none.
    """

    step: Step | None = None

    def room(self, begin: int, new: int) -> int:
        """Returns how many of `new` positions from `begin` on every layer can take at once."""
        for layer in self.layers:
            new = layer.room(begin, new)
        return new
