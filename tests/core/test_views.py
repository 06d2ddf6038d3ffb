"""MatrixView: rows are the inputs of a kernel, columns its outputs."""

import numpy as np
import pytest
from keras import ops

from hwa_keras.core.views import MatrixView

CASES = [
    # shape, columns, shape of the matrix
    ((5, 3), (-1,), (5, 3)),
    ((5, 3), (0,), (3, 5)),
    ((3, 3, 8, 16), (-1,), (72, 16)),
    ((3, 3, 8, 2), (2, 3), (9, 16)),
    ((3, 3, 16, 8), (2,), (72, 16)),
    ((576, 9, 64), (1, 2), (576, 576)),
    ((9, 64, 576), (2,), (576, 576)),
    ((7,), (0,), (1, 7)),
    ((7,), (), (7, 1)),
    ((2, 3, 4), (0, 2), (3, 8)),
]


@pytest.mark.parametrize(("shape", "columns", "matrix_shape"), CASES)
def test_the_matrix_has_inputs_as_rows_and_outputs_as_columns(
    shape, columns, matrix_shape
):
    view = MatrixView(shape, columns)
    assert view.matrix_shape == matrix_shape
    kernel = np.random.default_rng(0).normal(size=shape)
    matrix = ops.convert_to_numpy(view.to_matrix(kernel))
    assert matrix.shape == matrix_shape
    axes = [axis % len(shape) for axis in columns]
    for index in np.ndindex(*shape):
        row = column = 0
        for axis, (i, n) in enumerate(zip(index, shape, strict=True)):
            if axis in axes:
                column = column * n + i
            else:
                row = row * n + i
        assert matrix[row, column] == np.asarray(kernel[index], matrix.dtype)


@pytest.mark.parametrize(("shape", "columns", "matrix_shape"), CASES)
def test_the_kernel_comes_back(shape, columns, matrix_shape):
    view = MatrixView(shape, columns)
    kernel = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    again = view.from_matrix(view.to_matrix(kernel))
    np.testing.assert_array_equal(again, kernel)
    assert tuple(again.shape) == shape


def test_axes_may_be_counted_from_the_end_and_come_in_any_order():
    view = MatrixView((2, 3, 4, 5), (-1, 1))
    assert view.columns == (1, 3) and view.rows == (0, 2)
    assert view == MatrixView([2, 3, 4, 5], (3, -3))


def test_a_view_of_a_matrix_is_the_matrix_itself():
    kernel = ops.ones((5, 3))
    assert MatrixView((5, 3)).to_matrix(kernel).shape == (5, 3)
    assert MatrixView((5, 3)).matrix_shape == (5, 3)
