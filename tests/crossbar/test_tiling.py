import numpy as np
import pytest
from keras import ops

from hwa_keras.crossbar import Tiling

CUTS = [
    # tile_rows, tile_columns, grid, tile shape, of a matrix of 12 × 8
    (None, None, (1, 1), (12, 8)),
    (5, 3, (3, 3), (5, 3)),
    (4, 8, (3, 1), (4, 8)),
    (12, 7, (1, 2), (12, 7)),
    (100, 100, (1, 1), (12, 8)),
    (1, 1, (12, 8), (1, 1)),
]
cuts = pytest.mark.parametrize("tile_rows, tile_columns, grid, shape", CUTS)


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@cuts
def test_tiles_are_full_but_the_last(tile_rows, tile_columns, grid, shape):
    tiling = Tiling(12, 8, tile_rows, tile_columns)
    assert tiling.grid == grid
    assert tiling.tile_shape == shape
    assert tiling.is_single == (grid == (1, 1))


@cuts
def test_cut_tiles_are_blocks_of_the_matrix_and_zeros(
    tile_rows, tile_columns, grid, shape
):
    tiling, matrix = Tiling(12, 8, tile_rows, tile_columns), numbers(12, 8)
    tiles = ops.convert_to_numpy(tiling.cut(matrix))
    assert tiles.shape == (*grid, *shape)
    for k in range(grid[0]):
        for m in range(grid[1]):
            r, c = k * shape[0], m * shape[1]
            block = matrix[r : r + shape[0], c : c + shape[1]]
            filled = np.zeros(shape, "float32")
            filled[: block.shape[0], : block.shape[1]] = block
            np.testing.assert_array_equal(tiles[k, m], filled)


@cuts
def test_the_largest_magnitude_of_each_tile(tile_rows, tile_columns, grid, shape):
    tiling, matrix = Tiling(12, 8, tile_rows, tile_columns), numbers(12, 8)
    found = ops.convert_to_numpy(tiling.largest(matrix))
    tiles = np.abs(ops.convert_to_numpy(tiling.cut(matrix)))
    np.testing.assert_array_equal(found, tiles.max((-2, -1)))


@cuts
def test_join_is_the_inverse_of_cut(tile_rows, tile_columns, grid, shape):
    tiling, matrix = Tiling(12, 8, tile_rows, tile_columns), numbers(12, 8)
    joined = ops.convert_to_numpy(tiling.join(tiling.cut(matrix)))
    np.testing.assert_array_equal(joined, matrix)


@cuts
def test_used_marks_what_holds_weights(tile_rows, tile_columns, grid, shape):
    tiling = Tiling(12, 8, tile_rows, tile_columns)
    used = tiling.used()
    assert isinstance(used, np.ndarray) and used.dtype == "float32"
    ones = ops.convert_to_numpy(tiling.cut(np.ones((12, 8), "float32")))
    np.testing.assert_array_equal(used, ones)


@cuts
def test_products_of_the_tiles_add_up_to_the_product(
    tile_rows, tile_columns, grid, shape
):
    tiling = Tiling(12, 8, tile_rows, tile_columns)
    matrix, x = numbers(12, 8), numbers(2, 7, 3, 12)
    inputs = ops.convert_to_numpy(tiling.split_inputs(x))
    assert inputs.shape == (2, 7, 3, grid[0], shape[0])
    tiles = ops.convert_to_numpy(tiling.cut(matrix))
    by_tile = np.einsum("...kr,kmrc->...kmc", inputs, tiles)
    whole = by_tile.sum(-3).reshape(2, 7, 3, -1)[..., :8]
    np.testing.assert_allclose(whole, x @ matrix, rtol=1e-5, atol=1e-5)


@cuts
def test_values_by_column_are_those_of_each_columns_tile(
    tile_rows, tile_columns, grid, shape
):
    tiling, values = Tiling(12, 8, tile_rows, tile_columns), numbers(*grid)
    got = ops.convert_to_numpy(tiling.by_column(values))
    expected = [[row[c // shape[1]] for c in range(8)] for row in values]
    np.testing.assert_array_equal(got, np.asarray(expected))


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "8", np.inf])
@pytest.mark.parametrize("name", ["rows", "columns", "tile_rows", "tile_columns"])
def test_sizes_are_integers_from_one(name, value):
    with pytest.raises(ValueError, match=f"`{name}` of Tiling must be an integer ≥ 1"):
        Tiling(**{"rows": 3, "columns": 4, name: value})


@pytest.mark.parametrize("name", ["rows", "columns"])
def test_a_matrix_has_a_size(name):
    with pytest.raises(ValueError, match=f"`{name}` of Tiling"):
        Tiling(**{"rows": 3, "columns": 4, name: None})


def test_equal_tilings_compare_equal():
    assert Tiling(12, 8, 5) == Tiling(np.int64(12), 8, 5)
    assert len({Tiling(12, 8, 5), Tiling(12, 8, 5), Tiling(12, 8)}) == 2
