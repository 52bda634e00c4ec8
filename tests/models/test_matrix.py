"""Checks int8 matrices: their two layouts, and what numpy makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.models.matrix import Int8Matrix, can_be_tiled, from_tiles, to_tiles


def random_rows(count: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, (count, columns)).astype(np.int8)


@given(blocks=st.integers(0, 5), groups=st.integers(0, 40), seed=st.integers(0, 1 << 32))
def test_tiles_hold_four_columns_of_sixteen_rows(blocks: int, groups: int, seed: int) -> None:
    rows = random_rows(16 * blocks, 4 * groups, seed)
    tiles = to_tiles(rows)
    assert tiles.shape == (blocks, groups, 16, 4) and tiles.flags.c_contiguous
    for n in range(blocks):
        for k in range(groups):
            assert np.array_equal(tiles[n, k], rows[16 * n : 16 * n + 16, 4 * k : 4 * k + 4])
    back = from_tiles(tiles)
    assert back.shape == rows.shape and back.flags.c_contiguous and np.array_equal(back, rows)


def test_each_layout_is_made_from_the_other_and_not_kept() -> None:
    rows = random_rows(32, 128)
    by_rows, by_tiles = Int8Matrix(rows), Int8Matrix(tiles=to_tiles(rows))
    for matrix in (by_rows, by_tiles):
        assert matrix.shape == (32, 128) and len(matrix) == 32 and matrix.size == 4096 and matrix.ndim == 2
        assert matrix.dtype == np.int8
        assert np.array_equal(matrix.rows, rows) and np.array_equal(matrix.tiles, to_tiles(rows))
        assert np.array_equal(np.sort(matrix.values(), axis=None), np.sort(rows, axis=None))
    assert by_rows.rows is by_rows.rows and by_rows.tiles is not by_rows.tiles
    assert by_tiles.tiles is by_tiles.tiles and by_tiles.rows is not by_tiles.rows
    assert repr(by_tiles) == "Int8Matrix(32 x 128, tiles)"


def test_tiles_are_kept_where_they_are_asked_for() -> None:
    rows = random_rows(32, 128)
    both = Int8Matrix(rows).with_tiles()
    assert both.rows is rows and both.tiles is both.tiles and np.array_equal(both.tiles, to_tiles(rows))
    assert both.with_tiles() is both
    odd = Int8Matrix(random_rows(5, 7))
    assert odd.with_tiles() is odd


def test_numpy_reads_the_rows() -> None:
    rows = random_rows(16, 64)
    by_rows, by_tiles = Int8Matrix(rows), Int8Matrix(tiles=to_tiles(rows))
    assert np.asarray(by_rows) is rows
    for matrix in (by_rows, by_tiles):
        assert np.asarray(matrix).dtype == np.int8 and np.array_equal(matrix, rows)
        assert np.array_equal(np.asarray(matrix, dtype=np.float32), rows.astype(np.float32))
        copied = np.array(matrix)
        copied[0, 0] = copied[0, 0] ^ 1
        assert np.array_equal(matrix, rows)
    assert np.array_equal(np.array(by_rows, copy=False), rows)
    for wrong in (lambda: np.array(by_tiles, copy=False), lambda: np.array(by_rows, dtype=np.int16, copy=False)):
        with pytest.raises(ValueError, match="copy"):
            wrong()


def test_rows_of_other_layouts_become_contiguous() -> None:
    rows = random_rows(64, 128)
    for view in (rows.T, rows[::2], np.asfortranarray(rows)):
        matrix = Int8Matrix(view)
        assert matrix.rows.flags.c_contiguous and np.array_equal(matrix.rows, view)
        assert np.array_equal(from_tiles(matrix.tiles), view)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((16, 64), True), ((4096, 256), True), ((0, 0), True), ((15, 64), False), ((16, 60), False), ((16, 32), False),
     ((64,), False), ((16, 64, 1), False)],
)  # fmt: skip
def test_only_whole_tiles_need_no_padding(shape: tuple[int, ...], expected: bool) -> None:
    assert can_be_tiled(shape) == expected
    if len(shape) == 2:
        matrix = Int8Matrix(np.zeros(shape, dtype=np.int8))
        assert matrix.can_be_tiled == expected
        if not expected:
            with pytest.raises(ValueError, match="has no whole tiles"):
                _ = matrix.tiles


def test_what_is_not_one_matrix_is_refused() -> None:
    rows = random_rows(16, 64)
    tiles = to_tiles(rows)
    for arguments in (
        (),
        (rows.astype(np.int16),),
        (rows[0],),
        (None, tiles.astype(np.int16)),
        (None, tiles[0]),
        (None, tiles.reshape(1, 16, 4, 16)),
        (random_rows(32, 64), tiles),
        (random_rows(16, 128), tiles),
    ):
        with pytest.raises(ValueError, match=r"matrix|tiles"):
            Int8Matrix(*arguments)
