"""Tiling: how a matrix is cut into tiles that a crossbar of limited size can hold."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from hwa_keras.core.checks import check_count
from hwa_keras.core.types import Shape, Tensor

__all__ = ["Tiling"]


@dataclass(frozen=True)
class Tiling:
    """How a matrix of `rows` × `columns` is cut into tiles of limited size.

    Every tile is full except the last of each direction, which is filled up with
    zeros: a matrix of 12 rows cut at 5 has tiles of 5, 5 and 2 rows, all stored as 5.

    The shapes below name K row tiles, M column tiles, r rows and c columns in a tile,
    R rows and C columns in the whole matrix.

    Args:
        rows: Integer ≥ 1, rows of the matrix.
        columns: Integer ≥ 1, columns of the matrix.
        tile_rows: Integer ≥ 1, most rows of a tile. None for all of them in one.
        tile_columns: Integer ≥ 1, most columns of a tile. None for all in one.

    Raises:
        ValueError: If a number is no integer (a bool is none) or smaller than 1.

    Example:
        >>> from hwa_keras.crossbar import Tiling
        >>> tiling = Tiling(12, 8, tile_rows=5, tile_columns=3)
        >>> tiling.grid, tiling.tile_shape
        ((3, 3), (5, 3))
        >>> tiles = tiling.cut(ops.ones((12, 8)))
        >>> tuple(tiles.shape), float(ops.sum(tiles))
        ((3, 3, 5, 3), 96.0)
        >>> tuple(tiling.join(tiles).shape)
        (12, 8)
    """

    rows: int
    columns: int
    tile_rows: int | None = None
    tile_columns: int | None = None

    def __post_init__(self):
        for name in ("rows", "columns", "tile_rows", "tile_columns"):
            value = getattr(self, name)
            if name.startswith("tile_") and value is None:
                continue
            object.__setattr__(self, name, check_count("Tiling", **{name: value}))

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Rows and columns of a tile, filled up: `(r, c)`."""
        return (
            min(self.tile_rows or self.rows, self.rows),
            min(self.tile_columns or self.columns, self.columns),
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of row tiles and of column tiles: `(K, M)`."""
        r, c = self.tile_shape
        return -(-self.rows // r), -(-self.columns // c)

    @property
    def is_single(self) -> bool:
        """Whether one tile holds the whole matrix."""
        return self.grid == (1, 1)

    @property
    def _filled(self):
        (k, m), (r, c) = self.grid, self.tile_shape
        return k * r, m * c

    def cut(self, matrix: Tensor) -> Tensor:
        """The tiles of a matrix.

        Args:
            matrix: Tensor `[R, C]` of any dtype.

        Returns:
            Tensor `[K, M, r, c]`, zero where a tile reaches over the matrix.

        Example:
            >>> from hwa_keras.crossbar import Tiling
            >>> tiles = Tiling(3, 2, tile_rows=2).cut([[1, 2], [3, 4], [5, 6]])
            >>> ops.convert_to_numpy(tiles[1, 0]).tolist()
            [[5, 6], [0, 0]]
        """
        (k, m), (r, c) = self.grid, self.tile_shape
        matrix = ops.convert_to_tensor(matrix)
        if self._filled != (self.rows, self.columns):
            after = (k * r - self.rows, m * c - self.columns)
            matrix = ops.pad(matrix, [(0, after[0]), (0, after[1])])
        return ops.transpose(ops.reshape(matrix, (k, r, m, c)), (0, 2, 1, 3))

    def join(self, tiles: Tensor) -> Tensor:
        """The matrix of its tiles: the inverse of `cut`.

        Args:
            tiles: Tensor `[K, M, r, c]`. What lies outside the matrix is dropped.

        Returns:
            Tensor `[R, C]`.
        """
        matrix = ops.reshape(ops.transpose(tiles, (0, 2, 1, 3)), self._filled)
        return matrix[: self.rows, : self.columns]

    def largest(self, matrix: Tensor) -> Tensor:
        """The largest magnitude in each tile, without the tiles.

        Args:
            matrix: Tensor `[R, C]`.

        Returns:
            Tensor `[K, M]`.

        Example:
            >>> from hwa_keras.crossbar import Tiling
            >>> largest = Tiling(3, 2, tile_rows=2).largest([[1, 2], [3, -4], [5, 6]])
            >>> ops.convert_to_numpy(largest).tolist()
            [[4], [6]]
        """
        found = ops.convert_to_tensor(matrix)
        for axis, size in enumerate(self.tile_shape):
            cuts = list(range(size, found.shape[axis], size))
            parts = ops.split(found, cuts, axis=axis) if cuts else [found]
            found = ops.stack([ops.max(ops.abs(p), axis=axis) for p in parts], axis)
        return found

    def by_column(self, values: Tensor) -> Tensor:
        """One value of each tile, repeated for each of the tile's columns.

        Args:
            values: Tensor `[K, M]`, such as a scale of each tile.

        Returns:
            Tensor `[K, C]`.

        Example:
            >>> from hwa_keras.crossbar import Tiling
            >>> scales = Tiling(4, 3, tile_columns=2).by_column([[7, 9]])
            >>> ops.convert_to_numpy(scales).tolist()
            [[7, 7, 9]]
        """
        return ops.repeat(values, self.tile_shape[1], axis=1)[:, : self.columns]

    def split_inputs(self, x: Tensor) -> Tensor:
        """The inputs on the rows of each row tile.

        Args:
            x: Tensor `[..., G, R]`: inputs on the rows, G vectors side by side.

        Returns:
            Tensor `[..., G, K, r]`, zero on rows that hold no weights.

        Example:
            >>> from hwa_keras.crossbar import Tiling
            >>> x = Tiling(3, 1, tile_rows=2).split_inputs([[1, 2, 3]])
            >>> ops.convert_to_numpy(x).tolist()
            [[[1, 2], [3, 0]]]
        """
        k, r = self.grid[0], self.tile_shape[0]
        x = ops.convert_to_tensor(x)
        if after := k * r - self.rows:
            x = ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, after)])
        return ops.reshape(x, (*ops.shape(x)[:-1], k, r))

    def sums_shape(self, shape: Shape) -> Shape:
        """The shape of the sums of a column in each row tile.

        Args:
            shape: Tuple `[..., C]`, the shape of the sums over all rows.

        Returns:
            Tuple `[..., K, C]`, or the same if one tile holds the whole matrix.
        """
        if self.is_single:
            return tuple(shape)
        return (*shape[:-1], self.grid[0], shape[-1])

    def used(self) -> np.ndarray:
        """Which places of the tiles hold weights.

        Returns:
            NumPy array `[K, M, r, c]` of float32: 1 where there is a weight, 0 where a
            tile is filled up. A mean over the devices in use is
            `sum(tiles * used) / sum(used)`.

        Example:
            >>> from hwa_keras.crossbar import Tiling
            >>> Tiling(3, 2, tile_rows=2).used()[:, 0, :, 0].tolist()
            [[1.0, 1.0], [1.0, 0.0]]
        """
        (k, m), (r, c) = self.grid, self.tile_shape
        mask = np.zeros((k * r, m * c), "float32")
        mask[: self.rows, : self.columns] = 1
        return mask.reshape(k, r, m, c).transpose(0, 2, 1, 3)
