"""Tensors of a GGUF file under the names, and in the order of rows, of the checkpoint that it was made from.

Matrices are dequantised row by row as they are asked for, so that they are never in memory in float32 as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...errors import ModelUnsupportedError
from .architectures import architecture, config
from .reader import Stored, open_gguf

_SETTINGS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
"""Tensors that belong to the configuration."""


class Rows:
    """A matrix whose rows are dequantised when they are asked for; slices of it are tensors.

    Args:
        stored: two-dimensional.
        order: for each row the one in the file; None for the same.

    Attributes:
        shape: (N, K).
    """

    dtype = torch.float32
    device = torch.device("cpu")
    ndim = 2

    def __init__(self, stored: Stored, order: np.ndarray | None) -> None:
        self._stored, self._order = stored, order
        self.shape = torch.Size((stored.shape[0] if order is None else len(order), stored.shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return torch.from_numpy(self._stored.values(rows if self._order is None else self._order[rows]))


class _Source(NamedTuple):
    """Where a tensor of the checkpoint is.

    Attributes:
        stored: in the file.
        order: rows of it, in the checkpoint's order; None for all in the same order.
    """

    stored: Stored
    order: np.ndarray | None = None


class GgufTensors(Mapping[str, torch.Tensor]):
    """The tensors of a GGUF model in float32, by their names in the checkpoint.

    Args:
        path: of the file, or of the first of its parts.

    Raises:
        ModelNotFoundError: a part is missing.
        ModelUnsupportedError: a file that cannot be read, or holds no supported model.
    """

    def __init__(self, path: Path) -> None:
        file = open_gguf(path)
        self._architecture, settings = architecture(file), config(file)
        self._heads: tuple[int, int] = (
            settings.get("num_attention_heads", 1),
            settings.get("num_key_value_heads", 1),
        )
        self._head_dim: int = settings.get("head_dim", 1)
        self._sources: dict[str, _Source] = {}
        for name, stored in file.tensors.items():
            if name not in _SETTINGS:
                self._sources |= self._placed(name, stored)

    def __getitem__(self, name: str) -> torch.Tensor:
        source, family = self._sources[name], self._architecture
        tensor = torch.from_numpy(source.stored.values(source.order))
        if family.norm_offset and name.endswith("norm.weight"):
            return tensor - family.norm_offset
        return tensor.T.contiguous() if self._is_transposed(name) else tensor

    def rows(self, name: str) -> torch.Tensor | Rows:
        """Returns a tensor, or for a matrix what gives its rows one by one.

        Raises:
            KeyError: there is no such tensor.
        """
        source = self._sources[name]
        if len(source.stored.shape) != 2 or self._is_transposed(name):
            return self[name]
        return Rows(*source)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def _is_transposed(self, name: str) -> bool:
        is_matrix = len(self._sources[name].stored.shape) == 2
        return self._architecture.transposed and is_matrix and name.startswith(f"{self._architecture.layers}.")

    def _placed(self, name: str, stored: Stored) -> dict[str, _Source]:
        """Returns the tensors of the checkpoint that one of the file holds; three if it joins queries, keys, values."""
        family = self._architecture
        part, _, suffix = name.rpartition(".")
        kind = part.rpartition(".")[2]
        if kind == "attn_qkv" and kind not in family.layer:
            queries, keys = (heads * self._head_dim for heads in self._heads)
            rows = np.arange(stored.shape[0])
            parts = np.split(rows, [queries, queries + keys])
            names = [f"{part.removesuffix(kind)}{one}.{suffix}" for one in ("attn_q", "attn_k", "attn_v")]
            return {
                family.checkpoint_name(one): _Source(stored, self._unpaired(one, own) if family.permuted else own)
                for one, own in zip(names, parts, strict=True)
            }
        if family.permuted and kind in ("attn_q", "attn_k"):
            return {family.checkpoint_name(name): _Source(stored, self._unpaired(name, np.arange(stored.shape[0])))}
        return {family.checkpoint_name(name): _Source(stored)}

    def _unpaired(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Returns rows of queries or keys in the checkpoint's order.

        llama.cpp rotates pairs of neighbours, a checkpoint the halves of a head: pair n of the one is row n of the
        first half and row n of the second half of the other.
        """
        kind = name.split(".")[-2]
        if kind == "attn_v":
            return rows
        heads = self._heads[kind == "attn_k"]
        if not heads or len(rows) % (2 * heads):
            raise ModelUnsupportedError(f"weights: tensor {name:.100} has {len(rows)} rows for {heads} heads")
        unpaired: np.ndarray = rows.reshape(heads, -1, 2).transpose(0, 2, 1).reshape(-1)
        return unpaired
