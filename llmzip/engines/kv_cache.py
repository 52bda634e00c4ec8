"""Base classes of the key/value caches; must not know how a layer lays out its keys and values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .arrays import Array


@dataclass
class CachedLayer:
    """The cache of one layer, with room for S positions; each forward pass has its own layout of keys and values.

    Attributes:
        keys, values: of B rows, G heads, S slots and head size D, quantised.
        key_scale, value_scale: (B, G, S) float32.
        value_peak: (B, G), (B, G, 1) or for each slot (B, G, S) float32, the largest value scale since the context
            began.
        window: positions that a token sees, itself included; 0 for all.
        begin: the position in slot 0.
    """

    keys: Array
    values: Array
    key_scale: Array
    value_scale: Array
    value_peak: Array
    window: int
    begin: int = 0

    def rows(self: LayerT, rows: slice) -> LayerT:
        """Returns the cache of some of the rows, which shares its storage."""
        stores = ("keys", "values", "key_scale", "value_scale", "value_peak")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in stores})


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
