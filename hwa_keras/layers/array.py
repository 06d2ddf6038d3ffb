"""The array: x → DAC → tiles → output noise → ADC → digital sum → correction."""

import math

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
        y = product.apply(layer, x, w)
        if kernel.correction is None:
            return y
        z = kernel.correction.corrected(product.to_columns(layer, y))
        return product.from_columns(layer, z, x)
    z = _Array(kernel, product, layer, w, bias, training).outputs(x)
    return product.from_columns(layer, z, x)


class _Array:
    """The tiles of a kernel with the converters around them, for one call.

    Below, a batch has sums `[..., C]` of C columns, or `[..., K, C]` of K > 1 rows of
    tiles.
    """

    def __init__(self, kernel, product, layer, w, bias, training):
        self.kernel, self.product, self.layer = kernel, product, layer
        self.w, self.bias, self.training = w, bias, training
        self.by_vector = getattr(kernel.dac, "by_vector", False)
        recorder = modes.current().recorder
        self.is_bypassed = recorder is not None and recorder.bypasses_converters

    def outputs(self, x):
        """The outputs by column, `[..., C]`, of inputs in Keras's layout."""
        kernel = self.kernel
        if self.by_vector:
            x = self.product.unfold(self.layer, x)
        recorder = modes.current().recorder
        if recorder is not None:
            recorder.record_inputs(kernel, x)
        if self.is_bypassed:
            z = self._over_tiles(self._recorded(x, recorder))
        elif kernel.hardware.bound_management:
            z = self._over_tiles(self._with_bound_management(x))
        else:
            x, bound = self._converted(x, self.training)
            if self._is_one_pass(bound):
                z = self._in_one_pass(x, bound)
            else:
                z = self._over_tiles(self._read_out(self._sums(x), bound))
        return z if kernel.correction is None else kernel.correction.corrected(z)

    def _over_tiles(self, z):
        """The sum over row tiles."""
        return z if self.kernel.tiling.is_single else ops.sum(z, axis=-2)

    def _is_one_pass(self, bound):
        """Whether nothing but ADCs is between the products of tiles and their sum."""
        kernel = self.kernel
        more = (self.bias, kernel.output_noise, kernel.tile)
        known = bound is None or len(bound.shape) == 0 or self.by_vector
        return (
            self.training
            and known
            and not kernel.tiling.is_single
            and all(part is None for part in more)
            and getattr(kernel.adc, "is_symmetric", False)
        )

    def _in_one_pass(self, x, bound):
        """Products, ADCs and the sum over tiles, as quick as training needs it."""
        if not self.by_vector:
            x = self.product.unfold(self.layer, x)
        elif bound is not None:  # [..., G, 1], beside sums of [K, G, n, c].
            bound = ops.transpose(
                ops.reshape(bound, (-1, bound.shape[-2], 1)), (1, 0, 2)
            )
            bound = ops.expand_dims(bound, 0)
        stacks = self._products(x)
        full_scale = None
        if self.kernel.adc.is_relative:
            full_scale = self._full_columns(), self._known(bound)
        z = self.kernel.adc.sum_of_tiles(stacks, full_scale)
        return ops.reshape(z, (*ops.shape(x)[:-2], self.kernel.tiling.columns))

    def _recorded(self, x, recorder):
        """The sums of inputs that meet no converter, told to the recorder."""
        z = self._sums(x)
        adc, unit = self.kernel.adc, 1.0
        if getattr(adc, "is_relative", False) and adc.range == "calibrated":
            dac = self.kernel.dac
            bound = dac.known_bound(x) if hasattr(dac, "known_bound") else None
            unit = math.prod(self._full_scale(bound, z))
            unit = ops.where(unit > 0, unit, ops.ones_like(unit))
        recorder.record_sums(self.kernel, z / unit)
        return self._read_out(z, None)

    def _with_bound_management(self, x):
        """Halve the inputs of each example until no sum is beyond the ADC's range."""
        inputs, bound = self._converted(x, self.training)
        z = ops.stop_gradient(self._sums(inputs))
        largest = self._adc_bound(bound, z)
        excess = ops.max(ops.abs(z) / largest, axis=tuple(range(1, len(z.shape))))
        shrink = 2.0 ** -ops.ceil(ops.log2(ops.maximum(excess, 1.0)))
        if bound is None:  # What other quantizers make need not halve with its input.
            x = inputs * _like(shrink, inputs)
        else:  # Halved inputs start no range, and the DAC keeps that of the whole ones.
            x, bound = self._converted(x * _like(shrink, x), False, bound)
        z = self._read_out(self._sums(x, shrink), bound)
        return z / _like(shrink, z)

    def _converted(self, x, training, bound=None):
        """The inputs behind the DAC, and the largest that it can give."""
        dac = self.kernel.dac
        if hasattr(dac, "convert"):
            return dac.convert(x, training, bound)
        return (x if dac is None else apply(dac, x)), None

    def _sums(self, x, shrink=None):
        """What comes out of the tiles, where inputs are scaled as `shrink` says."""
        single = self.kernel.tiling.is_single
        if self.by_vector:
            z = self._sums_of_vectors(x)
        elif single:
            z = self.product.to_columns(
                self.layer, self.product.apply(self.layer, x, self.w)
            )
        else:
            z = self._sums_of_vectors(self.product.unfold(self.layer, x))
        if self.bias is None:
            return z
        bias = self.bias if shrink is None else self.bias * _like(shrink, z)
        if single:
            return z + bias
        # The last row of tiles has the row that holds an analog bias.
        count, _ = self.kernel.tiling.grid
        is_last = ops.cast(ops.arange(count) == count - 1, z.dtype)
        return z + ops.expand_dims(is_last, -1) * bias

    def _sums_of_vectors(self, x):
        """The same of inputs on the rows, `[..., groups, rows]`."""
        tiling = self.kernel.tiling
        sums = ops.transpose(ops.concatenate(self._products(x)), (2, 0, 1, 3))
        tiles = () if tiling.is_single else tiling.grid[:1]
        return ops.reshape(sums, (*ops.shape(x)[:-2], *tiles, tiling.columns))

    def _products(self, x):
        """`[k, G, n, c]` of the row tiles that are full, and of one that is not."""
        tiling, groups = self.kernel.tiling, self.product.groups(self.layer)
        x = ops.reshape(x, (-1, groups, tiling.rows))
        w = ops.reshape(self.kernel.view.to_matrix(self.w), (tiling.rows, groups, -1))
        whole = tiling.rows // tiling.tile_shape[0]
        full = whole * tiling.tile_shape[0]
        if full == tiling.rows:
            return [_row_tiles(x, w, whole)]
        xs, ws = ops.split(x, [full], axis=-1), ops.split(w, [full])
        return [_row_tiles(*pair) for pair in zip(xs, ws, (whole, 1), strict=True)]

    def _read_out(self, z, bound):
        """Output noise, ADC and the gain against drift, tile by tile."""
        kernel, mode = self.kernel, modes.current()
        noise = kernel.output_noise
        noisy = mode.is_noisy(self.training) or getattr(noise, "always", False)
        if noise is not None and noisy:
            z = noise(z, kernel.next_seed())
        if kernel.adc is not None and not self.is_bypassed:
            if hasattr(kernel.adc, "convert"):
                full_scale = self._full_scale(bound, z)
                z = kernel.adc.convert(z, full_scale, self.training)
            else:
                z = apply(kernel.adc, z)
        if kernel.tile is not None:
            z = z * ops.cast(self._by_column(kernel.tile.current_gain()), z.dtype)
        return z

    def _full_scale(self, bound, z):
        """What a full column of each tile can give: rows · max|W| · largest input.

        Returns:
            A pair of factors, of columns and of inputs, that broadcast with the sums;
            or None for an ADC that has no use for them.
        """
        if not getattr(self.kernel.adc, "is_relative", False):
            return None
        largest = self._full_columns()
        bound = self._beside_sums(self._known(bound), z)
        return largest, ops.cast(bound, largest.dtype)

    def _known(self, bound):
        """The bound of inputs, or `ValueError` where nothing tells it."""
        if bound is None:
            raise ValueError(
                f"The ADC of '{self.kernel.path}' has a range relative to what a full "
                "column can give, which depends on the range of the inputs. Give the "
                "kernel a circuits.DAC as well, or the ADC a range in units of the "
                "outputs."
            )
        return bound

    def _full_columns(self):
        """rows · max|W| of each tile, beside the sums."""
        tiling = self.kernel.tiling
        w = ops.stop_gradient(self.kernel.view.to_matrix(self.w))
        largest = ops.max(ops.abs(w)) if tiling.is_single else tiling.largest(w)
        return self._by_column(largest * tiling.tile_shape[0])

    def _beside_sums(self, bound, z):
        """The bound of inputs as a tensor that broadcasts with their sums."""
        if len(bound.shape) == 0:
            return bound
        if not self.by_vector:
            return _like(bound, z)
        groups = self.product.groups(self.layer)
        bound = ops.repeat(bound[..., 0], z.shape[-1] // groups, axis=-1)
        single = self.kernel.tiling.is_single
        return bound if single else ops.expand_dims(bound, -2)

    def _by_column(self, values):
        """Values of tiles or of columns, beside the sums.

        Args:
            values: Tensor `[]` or `[columns]`, of the whole kernel; or `[K, M]` or
                `[K, M, columns of a tile]`, of its tiles.
        """
        tiling, rank = self.kernel.tiling, len(values.shape)
        if rank == 2:
            return tiling.by_column(values)
        if rank == 3:
            by_column = ops.reshape(values, (tiling.grid[0], -1))
            return by_column[:, : tiling.columns]
        return values

    def _adc_bound(self, bound, z):
        adc = self.kernel.adc
        if not hasattr(adc, "bound"):
            raise ValueError(
                f"Bound management of '{self.kernel.path}' needs an ADC with a range: "
                f"adc=hwa_keras.circuits.ADC(8, range=4.0). Received: adc={adc!r}."
            )
        largest = adc.bound(self._full_scale(bound, z))
        if largest is None:
            raise ValueError(
                f"Bound management of '{self.kernel.path}' needs an ADC with a "
                f"symmetric range. Received: {adc!r}."
            )
        return ops.cast(largest, z.dtype)


def _row_tiles(x, w, count):
    """Inputs `[n, G, R]` times weights `[R, G, c]`, by row tile: `[count, G, n, c]`.

    One batch of products: as an einsum with dots it takes a hundred times as long on a
    CPU.
    """
    _, groups, rows = x.shape
    x = ops.reshape(x, (-1, groups, count, rows // count))
    w = ops.reshape(w, (count, rows // count, groups, -1))
    return ops.matmul(ops.transpose(x, (2, 1, 0, 3)), ops.transpose(w, (0, 2, 1, 3)))


def _like(per_example, x):
    """A number per example as a tensor that broadcasts with a batch."""
    shape = (-1, *(1 for _ in x.shape[1:]))
    return ops.cast(ops.reshape(per_example, shape), x.dtype)
