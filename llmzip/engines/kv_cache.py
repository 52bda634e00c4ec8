"""Base classes of the key/value caches; must not know what a layer keeps."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch


class CachedLayer:
    """The cache of one layer; the first dimension of all its tensors counts the rows.

    Attributes:
        begin: the position in slot 0.
    """

    begin: int

    def rows(self: LayerT, rows: slice) -> LayerT:
        """Returns the cache of some of the rows, which shares its storage."""
        part = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(part, name, value[rows])
        return part


LayerT = TypeVar("LayerT", bound="CachedLayer")
CacheT = TypeVar("CacheT", bound="LayerCaches[Any]")


class LayerCaches(Generic[LayerT]):
    """Integer keys and values with their scales, for every layer and row.

    A layer with a window keeps only the positions that a later token may see, and has some slots more, so that its keys
    move to the front now and then and not at each step.

    Attributes:
        layers: the cache of each layer.
        length: number of positions read so far.
    """

    def __init__(self, layers: list[LayerT], length: int = 0) -> None:
        self.layers = layers
        self.length = length

    def reset(self) -> None:
        """Forgets everything."""
        self.length = 0
        for layer in self.layers:
            layer.begin = 0

    def rows(self: CacheT, rows: slice) -> CacheT:
        """Returns a cache of some of the rows, which shares their storage."""
        return type(self)([layer.rows(rows) for layer in self.layers], self.length)

    def adopt(self: CacheT, part: CacheT) -> None:
        """Takes over the positions of a cache of some of the rows, once the other rows have read as many."""
        self.length = part.length
        for layer, other in zip(self.layers, part.layers, strict=True):
            layer.begin = other.begin
