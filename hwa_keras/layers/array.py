"""The array: x → DAC → tiles → output noise → ADC → digital sum → correction."""

from keras import ops

from hwa_keras.core import modes
from hwa_keras.quantizers.base import apply

__all__ = ["multiply"]


def multiply(kernel, product, layer, x, training, bias=None):
    """The product of inputs and a kernel, computed on hardware.

    Args:
        kernel: A `HardwareKernel`.
        product: The `Product` of the layer that it belongs to.
        layer: The Keras layer.
        x: Tensor, the inputs of the product.
        training: Bool.
        bias: Tensor with a value per column, the row of the array that holds an analog
            bias; or None.

    Returns:
        The product, without a digital bias.
    """
    w = ops.cast(kernel.value(training), product.dtype(layer))
    if bias is not None:
        bias = ops.cast(bias, product.dtype(layer))
    elif not kernel.has_circuits:
        return _corrected(kernel, product, layer, x, product.apply(layer, x, w))
    is_recorded = modes.current().recorder is not None
    if is_recorded or not kernel.hardware.bound_management:
        return _through_array(kernel, product, layer, x, w, bias, training, None)
    return _with_bound_management(kernel, product, layer, x, w, bias, training)


def _through_array(kernel, product, layer, x, w, bias, training, halvings):
    """One pass through converters and tiles; the inputs halved so many times."""
    bound = None
    if halvings is not None:
        x = x * _like(2.0**-halvings, x)
    recorder = modes.current().recorder
    if recorder is not None:
        recorder.record_inputs(kernel, x)
    elif kernel.dac is not None:
        # Halved inputs start no range: the pass before has seen them whole.
        x, bound = _converted_inputs(kernel.dac, x, training and halvings is None)
    z = _with_bias(kernel, _sums(kernel, product, layer, x, w), bias, halvings)
    if recorder is not None:
        recorder.record_sums(kernel, z)
    z = _read_out(kernel, z, w, bound, training)
    if halvings is not None:
        z = z * _like(2.0**halvings, z)
    if not kernel.tiling.is_single:
        z = ops.sum(z, axis=-2)
    if kernel.correction is not None:
        z = kernel.correction.corrected(z)
    return product.from_columns(layer, z, x)


def _corrected(kernel, product, layer, x, y):
    """A product in Keras's layout, with the correction of a chip's outputs."""
    if kernel.correction is None:
        return y
    z = kernel.correction.corrected(product.to_columns(layer, y))
    return product.from_columns(layer, z, x)


def _with_bound_management(kernel, product, layer, x, w, bias, training):
    """Halve the inputs of each example until no sum is beyond the ADC's range."""
    inputs, bound = x, None
    if kernel.dac is not None:
        inputs, bound = _converted_inputs(kernel.dac, x, training)
    z = _with_bias(kernel, _sums(kernel, product, layer, inputs, w), bias)
    z = ops.stop_gradient(z)
    largest = _adc_bound(kernel, w, bound, z)
    excess = ops.max(ops.abs(z) / largest, axis=tuple(range(1, len(z.shape))))
    halvings = ops.ceil(ops.log2(ops.maximum(excess, 1.0)))
    return _through_array(kernel, product, layer, x, w, bias, training, halvings)


def _like(per_example, x):
    """A number per example as a tensor that broadcasts with a batch."""
    shape = (-1, *(1 for _ in x.shape[1:]))
    return ops.cast(ops.reshape(per_example, shape), x.dtype)


def _converted_inputs(dac, x, training):
    """The inputs behind the DAC, and the largest that it can give."""
    if hasattr(dac, "convert"):
        return dac.convert(x, training)
    return apply(dac, x), None


def _sums(kernel, product, layer, x, w):
    """The sums of the columns `[..., C]`, or those of each row tile `[..., K, C]`."""
    if kernel.tiling.is_single:
        return product.to_columns(layer, product.apply(layer, x, w))
    groups = product.groups(layer)
    rows = kernel.tiling.split_inputs(product.unfold(layer, x))
    matrix = kernel.view.to_matrix(w)
    count, _ = kernel.tiling.grid
    height = kernel.tiling.tile_shape[0]
    missing = count * height - matrix.shape[0]
    matrix = ops.pad(matrix, [[0, missing], [0, 0]])
    matrix = ops.reshape(matrix, (count, height, groups, -1))
    # One batch of products, [k, g, n, r]·[k, g, r, c]: as an einsum with dots it takes
    # a hundred times as long on a CPU.
    outer = ops.shape(rows)[:-3]
    rows = ops.transpose(ops.reshape(rows, (-1, groups, count, height)), (2, 1, 0, 3))
    sums = ops.matmul(rows, ops.transpose(matrix, (0, 2, 1, 3)))
    sums = ops.transpose(sums, (2, 0, 1, 3))
    return ops.reshape(sums, (*outer, count, kernel.tiling.columns))


def _with_bias(kernel, z, bias, halvings=None):
    """The sums, in the last row tile with the row that holds an analog bias."""
    if bias is None:
        return z
    if halvings is not None:
        bias = bias * _like(2.0**-halvings, z)
    if kernel.tiling.is_single:
        return z + bias
    count, _ = kernel.tiling.grid
    is_last = ops.cast(ops.arange(count) == count - 1, z.dtype)
    return z + ops.expand_dims(is_last, -1) * bias


def _read_out(kernel, z, w, bound, training):
    """Output noise, ADC and the gain against drift, tile by tile."""
    noise = kernel.output_noise
    noisy = modes.current().is_noisy(training) or getattr(noise, "always", False)
    if noise is not None and noisy:
        z = noise(z, kernel.next_seed())
    if kernel.adc is not None and modes.current().recorder is None:
        if hasattr(kernel.adc, "convert"):
            z = kernel.adc.convert(z, _full_scale(kernel, w, bound, z), training)
        else:
            z = apply(kernel.adc, z)
    if kernel.tile is not None:
        z = z * ops.cast(_by_column(kernel, kernel.tile.current_gain()), z.dtype)
    return z


def _by_column(kernel, values):
    """Values of tiles or of columns, beside the sums.

    Args:
        kernel: A `HardwareKernel`.
        values: Tensor `[]` or `[columns]`, of the whole kernel; or `[K, M]` or
            `[K, M, columns of a tile]`, of its tiles.
    """
    rank = len(values.shape)
    if rank == 2:
        return kernel.tiling.by_column(values)
    if rank == 3:
        by_column = ops.reshape(values, (kernel.tiling.grid[0], -1))
        return by_column[:, : kernel.tiling.columns]
    return values


def _full_scale(kernel, w, bound, z):
    """What a full column of each tile can give: rows · max|W| · largest input.

    Returns:
        A tensor that broadcasts with the sums, or None for an ADC that has no use for
        it.
    """
    if getattr(kernel.adc, "relative_to", None) != "full_column":
        return None
    if bound is None:
        raise ValueError(
            f"The ADC of '{kernel.path}' has a range relative to what a full column "
            "can give, which depends on the range of the inputs. Give the kernel a "
            "circuits.DAC as well, or the ADC a range in units of the outputs."
        )
    tiles = ops.abs(ops.stop_gradient(kernel.to_tiles(w)))
    largest = ops.max(tiles, axis=(-2, -1)) * kernel.tiling.tile_shape[0]
    per_example = len(bound.shape) > 0
    bound = ops.cast(_like(bound, z) if per_example else bound, largest.dtype)
    return _by_column(kernel, largest) * bound


def _adc_bound(kernel, w, bound, z):
    adc = kernel.adc
    if not hasattr(adc, "bound"):
        raise ValueError(
            f"Bound management of '{kernel.path}' needs an ADC with a range: "
            f"adc=hwa_keras.circuits.ADC(8, range=4.0). Received: adc={adc!r}."
        )
    largest = adc.bound(_full_scale(kernel, w, bound, z))
    if largest is None:
        raise ValueError(
            f"Bound management of '{kernel.path}' needs an ADC with a symmetric range. "
            f"Received: {adc!r}."
        )
    return ops.cast(largest, z.dtype)
