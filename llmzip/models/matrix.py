"""An int8 matrix in either of two layouts: row by row, or in the tiles of compiled kernels. Must not know models."""

from __future__ import annotations

from typing import Any

import numpy as np

TILE_ROWS = 16
"""Rows of a tile: as many outputs as the kernels compute at once."""
TILE_TERMS = 4
"""Columns of a tile: as many products as one instruction adds up."""
COLUMN_MULTIPLE = 64
"""Columns of a matrix that all kernels take without padding, those with AMX too."""


class Int8Matrix:
    """A read-only matrix of int8 weights, held row by row, in tiles, or both.

    The layout that is missing is made when it is asked for, and not kept: a model in a mapped file then takes no memory
    of its own. `numpy.asarray` gives the rows.

    Args:
        rows: (N, K) int8, C-contiguous; None if there are tiles.
        tiles: (N / 16, K / 4, 16, 4) int8, C-contiguous; None if there are rows. Tile [n, k] holds columns 4 k to
            4 k + 3 of rows 16 n to 16 n + 15.

    Attributes:
        shape: N and K.

    Raises:
        ValueError: neither layout was given, or one has another type or shape than it should have.
    """

    dtype = np.dtype(np.int8)
    ndim = 2

    def __init__(self, rows: np.ndarray | None = None, tiles: np.ndarray | None = None) -> None:
        if rows is not None:
            rows = np.ascontiguousarray(rows)
            shapes = {rows.shape}
        else:
            shapes = set()
        if tiles is not None:
            tiles = np.ascontiguousarray(tiles)
            if tiles.ndim != 4 or tiles.shape[2:] != (TILE_ROWS, TILE_TERMS):
                raise ValueError(f"tiles of shape {tiles.shape}")
            shapes.add((tiles.shape[0] * TILE_ROWS, tiles.shape[1] * TILE_TERMS))
        arrays = [array for array in (rows, tiles) if array is not None]
        if len(shapes) != 1 or any(array.dtype != np.int8 for array in arrays):
            raise ValueError(f"not one int8 matrix: {[(array.dtype.name, array.shape) for array in arrays]}")
        shape = shapes.pop()
        if len(shape) != 2:
            raise ValueError(f"a matrix of shape {shape}")
        self.shape: tuple[int, int] = (shape[0], shape[1])
        self._rows, self._tiles = rows, tiles

    def __repr__(self) -> str:
        held = [name for name, array in (("rows", self._rows), ("tiles", self._tiles)) if array is not None]
        return f"Int8Matrix({self.shape[0]} x {self.shape[1]}, {' and '.join(held)})"

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        rows = self.rows
        if dtype is not None and np.dtype(dtype) != rows.dtype:
            if copy is False:
                raise ValueError(f"int8 weights as {np.dtype(dtype)} are a copy")
            return rows.astype(dtype)
        if self._rows is None:
            if copy is False:
                raise ValueError("the rows of a matrix in tiles are a copy")
            return rows  # made just now, for nobody else
        return rows.copy() if copy else rows

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.shape[0] * self.shape[1]

    @property
    def rows(self) -> np.ndarray:
        """The matrix row by row: (N, K) int8, C-contiguous. A copy if only tiles are held."""
        if self._rows is not None:
            return self._rows
        assert self._tiles is not None
        return from_tiles(self._tiles)

    @property
    def tiles(self) -> np.ndarray:
        """The matrix in tiles: (N / 16, K / 4, 16, 4) int8, C-contiguous. A copy if only rows are held.

        Raises:
            ValueError: N is not a multiple of 16, or K not one of 64; such a matrix must be padded first.
        """
        if self._tiles is not None:
            return self._tiles
        assert self._rows is not None
        if not self.can_be_tiled:
            raise ValueError(f"a matrix of {self.shape[0]} x {self.shape[1]} has no whole tiles")
        return to_tiles(self._rows)

    @property
    def can_be_tiled(self) -> bool:
        """Whether the kernels take the matrix without padding."""
        return can_be_tiled(self.shape)

    def values(self) -> np.ndarray:
        """Returns the weights in whatever layout they are held: for what does not depend on their order."""
        held = self._rows if self._rows is not None else self._tiles
        assert held is not None
        return held

    def with_tiles(self) -> Int8Matrix:
        """Returns the matrix with its tiles held as well; the matrix itself if they are, or if it has none."""
        if self._tiles is not None or not self.can_be_tiled:
            return self
        return Int8Matrix(self._rows, self.tiles)


def can_be_tiled(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of a matrix of whole tiles, with a number of columns that no kernel pads."""
    return len(shape) == 2 and shape[0] % TILE_ROWS == 0 and shape[1] % COLUMN_MULTIPLE == 0


def to_tiles(rows: np.ndarray) -> np.ndarray:
    """Rearranges a matrix to tiles.

    Args:
        rows: (N, K) int8, C-contiguous, N a multiple of 16, K one of 4.

    Returns:
        (N / 16, K / 4, 16, 4) int8, C-contiguous.
    """
    count, columns = rows.shape
    # Four bytes move as one integer: five times as fast.
    units = rows.view(np.int32).reshape(count // TILE_ROWS, TILE_ROWS, columns // TILE_TERMS)
    return np.ascontiguousarray(units.transpose(0, 2, 1)).view(np.int8).reshape(*_tiled(rows.shape))


def from_tiles(tiles: np.ndarray) -> np.ndarray:
    """Rearranges tiles to a matrix; the inverse of `to_tiles`."""
    blocks, groups = tiles.shape[:2]
    units = tiles.view(np.int32).reshape(blocks, groups, TILE_ROWS).transpose(0, 2, 1)
    return np.ascontiguousarray(units).view(np.int8).reshape(blocks * TILE_ROWS, groups * TILE_TERMS)


def _tiled(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    return shape[0] // TILE_ROWS, shape[1] // TILE_TERMS, TILE_ROWS, TILE_TERMS
