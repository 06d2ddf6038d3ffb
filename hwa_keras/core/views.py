"""MatrixView: which axes of a kernel are rows of a crossbar, and which columns."""

import math
from dataclasses import dataclass, field

from keras import ops

__all__ = ["MatrixView"]


@dataclass(frozen=True)
class MatrixView:
    """How a kernel lies in a crossbar: inputs along rows, outputs along columns.

    The matrix has the kernel's input axes, in their order, as rows, and its output
    axes, in theirs, as columns. A dense kernel is its own matrix; a convolution's has
    height · width · input channels rows; a depthwise convolution's columns are its
    channels times the multiplier; the columns of a query kernel (576, 9, 64) are its
    9 · 64 heads and sizes.

    Args:
        shape: Tuple of integers, the shape of the kernel.
        columns: Tuple of the output axes. Negative axes count from the last.

    Attributes:
        rows: Tuple of the input axes.

    Example:
        >>> from hwa_keras.core.views import MatrixView
        >>> view = MatrixView((3, 3, 8, 16), columns=(-1,))
        >>> view.matrix_shape
        (72, 16)
    """

    shape: tuple
    columns: tuple = (-1,)
    rows: tuple = field(init=False, repr=False, compare=False)
    _order: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        rank = len(self.shape)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        columns = tuple(sorted(axis % rank for axis in self.columns))
        rows = tuple(i for i in range(rank) if i not in columns)
        object.__setattr__(self, "columns", columns)
        # Fields, no properties: TensorFlow's autograph would rewrite these.
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "_order", (*rows, *columns))

    @property
    def matrix_shape(self):
        """Numbers of rows and columns."""
        return tuple(
            math.prod(self.shape[i] for i in axes) for axes in (self.rows, self.columns)
        )

    def to_matrix(self, kernel):
        """A kernel (or anything of its shape) as a matrix `[rows, columns]`."""
        if self._order != tuple(range(len(self.shape))):
            kernel = ops.transpose(kernel, self._order)
        return ops.reshape(kernel, self.matrix_shape)

    def from_matrix(self, matrix):
        """The kernel of a matrix `[rows, columns]`."""
        kernel = ops.reshape(matrix, [self.shape[i] for i in self._order])
        if self._order != tuple(range(len(self.shape))):
            inverse = [self._order.index(i) for i in range(len(self.shape))]
            kernel = ops.transpose(kernel, inverse)
        return kernel
