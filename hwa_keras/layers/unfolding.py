"""What each position of a convolution's kernel sees, by slices: on any backend.

A convolution of any rank, stride, dilation and padding is a product of its kernel with
these patches. Each axis of the kernel costs as many slices as it is long.
"""

from keras import ops

__all__ = ["pad", "transposed_windows", "windows"]


def windows(layer, x):
    """The patches of a convolution.

    Args:
        layer: A Keras layer with `kernel_size`, `strides`, `dilation_rate` and
            `padding` ("valid", "same" or "causal").
        x: Tensor `[batch, *sizes, channels]`, channels last whatever the layer's
            data format. Sizes may be unknown until the graph runs.

    Returns:
        Tensor `[batch, *positions, *kernel_size, channels]`.

    Example:
        >>> from hwa_keras.layers import unfolding
        >>> x = ops.reshape(ops.arange(4), (1, 4, 1))
        >>> patches = unfolding.windows(keras.layers.Conv1D(1, 3), x)
        >>> ops.convert_to_numpy(patches)[0, :, :, 0].tolist()
        [[0, 1, 2], [1, 2, 3]]
    """
    for i, (kernel, stride, dilation) in enumerate(
        zip(layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    ):
        x = _windows(x, i + 1, kernel, stride, dilation, layer.padding)
    return x


def transposed_windows(layer, x):
    """The patches of a transposed convolution, in the order of its kernel.

    Args:
        layer: A Keras layer with `kernel_size`, `strides`, `dilation_rate`, `padding`
            ("valid" or "same") and `output_padding` (None or a tuple).
        x: Tensor `[batch, *sizes, channels]`, channels last whatever the layer's
            data format. Sizes may be unknown until the graph runs.

    Returns:
        Tensor `[batch, *positions, *kernel_size, channels]`, zero where no input
        meets the kernel.

    Example:
        >>> from hwa_keras.layers import unfolding
        >>> x = ops.reshape(ops.arange(1, 3), (1, 2, 1))
        >>> layer = keras.layers.Conv1DTranspose(1, 3)
        >>> patches = unfolding.transposed_windows(layer, x)
        >>> ops.convert_to_numpy(patches)[0, :, :, 0].tolist()
        [[1, 0, 0], [2, 1, 0], [0, 2, 1], [0, 0, 2]]
    """
    for i, (kernel, stride, dilation) in enumerate(
        zip(layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    ):
        extra = None if layer.output_padding is None else layer.output_padding[i]
        reach = (kernel - 1) * dilation
        left, right = _transposed_padding(reach, stride, layer.padding, extra)
        count = (ops.shape(x)[i + 1] - 1) * stride + 1 + left + right - reach
        x = pad(_spread(x, i + 1, stride), i + 1, left, max(right - stride + 1, 0))
        starts = [reach - k * dilation for k in range(kernel)]
        x = _stack_slices(x, i + 1, starts, count)
    return x


def pad(x, axis, before, after=0):
    """Zeros before and after an axis of a tensor.

    Example:
        >>> from hwa_keras.layers import unfolding
        >>> ops.convert_to_numpy(unfolding.pad(ops.ones((2,)), 0, 1)).tolist()
        [0.0, 1.0, 1.0]
    """
    if not (before or after):
        return x
    widths = [(0, 0)] * len(x.shape)
    widths[axis] = (before, after)
    return ops.pad(x, widths)


def _stack_slices(x, axis, starts, count, stride=1):
    """Slices of an axis, `count` long, stacked along a new axis before the last."""
    outer, length = (slice(None),) * axis, (count - 1) * stride + 1
    places = [(*outer, slice(s, s + length, stride)) for s in starts]
    slices = [x[place] for place in places]
    return ops.stack(slices, axis=-2)


def _windows(x, axis, kernel, stride, dilation, padding):
    """What each position of a kernel sees along an axis, stacked before the last."""
    reach, size, first = (kernel - 1) * dilation, ops.shape(x)[axis], 0
    if padding == "same":
        count = (size + stride - 1) // stride
        total = (count - 1) * stride + reach + 1 - size
        if isinstance(size, int):
            total = max(total, 0)
            x = pad(x, axis, total // 2, total - total // 2)
        else:  # Known as the graph runs: padded by the most there can be.
            x = pad(x, axis, reach, reach)
            first = reach - ops.maximum(total, 0) // 2
    else:
        before = reach if padding == "causal" else 0
        x = pad(x, axis, before, 0)
        count = (size + before - reach - 1) // stride + 1
    starts = [first + k * dilation for k in range(kernel)]
    return _stack_slices(x, axis, starts, count, stride)


def _spread(x, axis, stride):
    """Insert `stride - 1` zeros after each element of an axis."""
    if stride == 1:
        return x
    shape = ops.shape(x)
    x = pad(ops.expand_dims(x, axis + 1), axis + 1, 0, stride - 1)
    return ops.reshape(x, (*shape[:axis], shape[axis] * stride, *shape[axis + 1 :]))


def _transposed_padding(reach, stride, padding, extra):
    """Zeros that a transposed convolution has before and after its spread inputs."""
    if padding == "valid":
        extra = max(stride - reach - 1, 0) if extra is None else extra
        return reach, reach + extra
    if extra is None:
        total = stride + reach - 1
    else:
        total = reach + (reach + 1) % 2 - 1 + extra
    left = min((total + 1) // 2, reach)
    return left, total - left
