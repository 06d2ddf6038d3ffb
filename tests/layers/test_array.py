"""What hardware layers compute, against NumPy in float64: DAC, tiles, ADC, bias."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

from hwa_keras import Hardware, calibrate
from hwa_keras import layers as hwa
from hwa_keras.circuits import ADC, DAC, OutputNoise
from hwa_keras.quantizers import Uniform
from tests.gradients import gradient
from tests.layers.references import expected

RNG = np.random.default_rng(0)
INPUT_BITS, INPUT_RANGE = 7, 1.9
BITS = 6


def as_numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def quantized(x, bits, bound):
    """b·round(clip(x/b, −1, 1)·Q)/Q with Q = 2^(bits − 1) − 1."""
    largest = 2 ** (bits - 1) - 1
    return bound * np.round(np.clip(x / bound, -1, 1) * largest) / largest


def dac(x):
    return quantized(np.asarray(x, "float64"), INPUT_BITS, INPUT_RANGE)


# --- Each family, as tiles of its kernel


class Case:
    """A layer and which axes of each of its kernels are inputs, in rows.

    Args:
        name: Of the Keras layer.
        shape: Of a batch of inputs.
        stages: List of pairs: a Keras layer that computes a product of the layer, and
            the axes of its kernel along the rows.
        outputs: Number of axes of the outputs that are columns.
        kwargs: Arguments of the layer.
    """

    def __init__(self, name, shape, stages, outputs=1, **kwargs):
        self.name, self.shape, self.stages = name, shape, stages
        self.outputs, self.kwargs = outputs, kwargs


SEPARABLE = {"strides": 2, "padding": "same", "use_bias": False}
CASES = [
    Case("Dense", (8, 12), [(layers.Dense(7), (0,))], units=7),
    Case(
        "EinsumDense",
        (2, 3, 12),
        [(layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (0,))],
        outputs=2,
        equation="abc,cde->abde",
        output_shape=(None, 2, 5),
        bias_axes="de",
    ),
    Case(
        "EinsumDense",
        (2, 3, 4, 5),
        [(layers.EinsumDense("abcd,cde->abe", (None, 7)), (0, 1))],
        equation="abcd,cde->abe",
        output_shape=(None, 7),
        bias_axes="e",
    ),
    Case(
        "Conv1D",
        (2, 9, 4),
        [(layers.Conv1D(5, 3, padding="causal", dilation_rate=2), (0, 1))],
        filters=5,
        kernel_size=3,
        padding="causal",
        dilation_rate=2,
    ),
    Case(
        "Conv2D",
        (2, 7, 6, 4),
        [(layers.Conv2D(6, (3, 2), strides=2, groups=2), (0, 1, 2))],
        filters=6,
        kernel_size=(3, 2),
        strides=2,
        groups=2,
    ),
    Case(
        "Conv3D",
        (1, 4, 5, 4, 2),
        [(layers.Conv3D(4, 2, padding="same"), (0, 1, 2, 3))],
        filters=4,
        kernel_size=2,
        padding="same",
    ),
    Case(
        "DepthwiseConv2D",
        (2, 7, 6, 4),
        [(layers.DepthwiseConv2D(3, depth_multiplier=2), (0, 1))],
        kernel_size=3,
        depth_multiplier=2,
    ),
    Case(
        "SeparableConv2D",
        (2, 7, 6, 4),
        [
            (layers.DepthwiseConv2D(3, depth_multiplier=2, **SEPARABLE), (0, 1)),
            (layers.Conv2D(5, 1, use_bias=False), (0, 1, 2)),
        ],
        filters=5,
        kernel_size=3,
        depth_multiplier=2,
        strides=2,
        padding="same",
    ),
    Case(
        "Conv2DTranspose",
        (2, 4, 5, 4),
        [(layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (0, 1, 3))],
        filters=6,
        kernel_size=3,
        strides=2,
        padding="same",
    ),
]
# On JAX, where each shape compiles by itself, three; the products of all are tested.
_ON_JAX = ("Dense", "Conv2D", "SeparableConv2D")
MARKED = [
    pytest.param(case, marks=[] if case.name in _ON_JAX else pytest.mark.slow)
    for case in CASES
]
FAMILIES = pytest.mark.parametrize(
    "case", MARKED, ids=lambda c: f"{c.name}({c.kwargs.get('equation', '')})"
)
# A single tile is Keras's own operation, which is tested with each backend.
TILES = pytest.mark.parametrize(
    "tile",
    [pytest.param(None, marks=pytest.mark.slow), (5, 3)],
    ids=["single", "tiled"],
)


def on_hardware(case, hardware, **options):
    """A hardware layer with numbers of ours, and a batch of inputs."""
    layer = getattr(hwa, f"HWA{case.name}")(**case.kwargs, **options, hardware=hardware)
    x = RNG.normal(size=case.shape).astype("float32")
    layer.build(x.shape)
    layer.bias.assign(RNG.normal(size=layer.bias.shape))
    return layer, x


def rows_of(w, axes):
    """The row that each weight of a kernel lies on, the row axes in their order."""
    at = np.indices(w.shape)
    sizes = [w.shape[axis] for axis in axes]
    return np.ravel_multi_index([at[axis] for axis in axes], sizes)


def sums_by_tile(plain, axes, x, w, tile_rows):
    """The product of each row tile: that of a kernel of zeros but on its rows.

    Returns:
        Array `[K, ..., C]`.
    """
    w = np.asarray(w)
    row = rows_of(w, axes)
    height = tile_rows or row.max() + 1
    if not plain.built:
        plain.build(x.shape)
    sums = []
    for first in range(0, row.max() + 1, height):
        inside = (row >= first) & (row < first + height)
        plain.trainable_variables[0].assign(np.where(inside, w, 0))
        sums.append(expected(plain, x))
    return np.stack(sums)


def as_columns(y, outputs):
    return y.reshape(*y.shape[: y.ndim - outputs], -1)


def per_column(values, columns, tile):
    """A value of each tile `[K, M]`, for each column `[K, C]`."""
    width = columns if tile is None else min(tile[1], columns)
    return np.repeat(values, width, axis=1)[:, :columns]


def certain(z, bits, bound):
    """Where rounding in float32 cannot differ from rounding in float64."""
    codes = np.clip(z / bound, -1, 1) * (2 ** (bits - 1) - 1)
    return np.abs(codes - np.floor(codes) - 0.5) > 2e-3


def by_numpy(case, layer, x, tile, bounds):
    """What a layer gives before its bias, and where that is certain.

    Args:
        bounds: List of arrays `[K, C]`: the range of each column of each tile, for
            each of its products.
    """
    y, sure = x, True
    for (plain, axes), kernel, bound in zip(
        case.stages, layer.hardware_kernels, bounds, strict=True
    ):
        rows = None if tile is None else tile[0]
        sums = sums_by_tile(plain, axes, dac(y), as_numpy(kernel.variable), rows)
        shape = sums.shape[1:]
        sums = np.stack([as_columns(z, case.outputs) for z in sums])
        bound = bound.reshape(len(sums), *(1,) * (sums.ndim - 2), -1)
        sure = np.all(sure) & certain(sums, BITS, bound).all(axis=0).reshape(shape)
        y = quantized(sums, BITS, bound).sum(axis=0).reshape(shape)
    return y, sure


def bounds_of(layer, tile, make):
    """The ranges of a layer's ADCs `[K, C]`, from a function of the grid of tiles."""
    found = []
    for kernel in layer.hardware_kernels:
        rows, columns = kernel.view.matrix_shape
        height, width = (rows, columns) if tile is None else tile
        grid = (-(-rows // height), -(-columns // width))
        found.append(per_column(make(kernel, grid), columns, tile))
    return found


def assert_computes(case, layer, x, tile, bounds):
    y, sure = by_numpy(case, layer, x, tile, bounds)
    found = as_numpy(layer(x)) - as_numpy(layer.bias)
    assert found.shape == y.shape
    if len(case.stages) > 1:  # What one array gives is rounded by the next.
        assert np.mean(np.abs(found - y) > 1e-4) < 0.02
        return
    assert np.mean(sure) > 0.9
    np.testing.assert_allclose(found[sure], y[sure], rtol=1e-4, atol=1e-4)


@FAMILIES
@TILES
def test_a_product_behind_a_dac_and_an_adc_of_fixed_range(case, tile):
    hardware = Hardware(dac=DAC(INPUT_BITS, INPUT_RANGE), adc=ADC(BITS, 1.0), tile=tile)
    layer, x = on_hardware(case, hardware)
    bounds = bounds_of(layer, tile, lambda kernel, grid: np.ones(grid))
    assert_computes(case, layer, x, tile, bounds)


@FAMILIES
def test_each_tile_is_read_with_a_calibrated_range_of_its_own(case):
    tile = (5, 3)
    hardware = Hardware(
        dac=DAC(INPUT_BITS, INPUT_RANGE), adc=ADC(BITS, "calibrated"), tile=tile
    )
    layer, x = on_hardware(case, hardware)

    def make(kernel, grid):
        values = RNG.uniform(0.3, 1.5, grid)
        kernel.adc.set_range(values)
        return values

    assert_computes(case, layer, x, tile, bounds_of(layer, tile, make))


@pytest.mark.parametrize("per", ["layer", "column"])
@TILES
def test_a_layer_or_a_column_is_read_with_a_calibrated_range_of_its_own(per, tile):
    case = CASES[0]
    adc = ADC(BITS, "calibrated", per=per)
    hardware = Hardware(dac=DAC(INPUT_BITS, INPUT_RANGE), adc=adc, tile=tile)
    layer, x = on_hardware(case, hardware)
    [kernel] = layer.hardware_kernels
    count = 1 if tile is None else 3
    values = RNG.uniform(0.3, 1.5, (count, 7) if per == "column" else ())
    kernel.adc.set_range(values)
    assert_computes(case, layer, x, tile, [np.broadcast_to(values, (count, 7))])


@FAMILIES
@pytest.mark.parametrize("range_", [INPUT_RANGE, "example_max"])
def test_a_range_relative_to_a_full_column(case, range_):
    """b = f·rows·max|W|·largest input, tile by tile."""
    if range_ == "example_max" and len(case.stages) > 1:
        pytest.skip("the second product has inputs that are not known in advance")
    tile, factor = (5, 3), 0.1
    hardware = Hardware(
        dac=DAC(INPUT_BITS, range_),
        adc=ADC(BITS, factor, relative_to="full_column"),
        tile=tile,
    )
    layer, x = on_hardware(case, hardware)
    if range_ == "example_max":  # One example, all of whose range is used.
        x = x[:1] * INPUT_RANGE / np.abs(x[:1]).max()

    def make(kernel, grid):
        matrix = as_numpy(kernel.view.to_matrix(kernel.variable))
        largest = np.zeros(grid)
        for k, m in np.ndindex(*grid):
            block = matrix[5 * k : 5 * k + 5, 3 * m : 3 * m + 3]
            largest[k, m] = np.abs(block).max()
        return factor * min(5, len(matrix)) * largest * INPUT_RANGE

    assert_computes(case, layer, x, tile, bounds_of(layer, tile, make))


def test_examples_of_different_size_have_ranges_of_their_own():
    """Where the outputs have fewer axes than the inputs, too."""
    case = CASES[2]
    hardware = Hardware(
        dac=DAC(INPUT_BITS, "example_max"),
        adc=ADC(BITS, 0.05, relative_to="full_column"),
    )
    layer, x = on_hardware(case, hardware)
    layer.bias.assign(np.zeros(layer.bias.shape))
    x = x * np.array([1.0, 100.0], "float32").reshape(2, 1, 1, 1)
    both = as_numpy(layer(x))
    for i in range(2):
        np.testing.assert_allclose(both[i : i + 1], as_numpy(layer(x[i : i + 1])))


@FAMILIES
@TILES
def test_each_vector_on_the_rows_has_a_range_of_its_own(case, tile):
    """The inputs of each column, row by row, are those of kernels of a single one."""
    if len(case.stages) > 1:
        pytest.skip("the second product has inputs that are not known in advance")
    factor = 0.07
    hardware = Hardware(
        dac=DAC(INPUT_BITS, "vector_max"),
        adc=ADC(BITS, factor, relative_to="full_column"),
        tile=tile,
    )
    layer, x = on_hardware(case, hardware)
    [(plain, axes)], [kernel] = case.stages, layer.hardware_kernels
    ones = np.ones(kernel.variable.shape)
    shape = sums_by_tile(plain, axes, x, ones, None).shape[1:]
    rows = sums_by_tile(plain, axes, x, ones, 1)
    rows = np.stack([as_columns(row, case.outputs) for row in rows])  # [R, ..., C]
    largest = np.abs(rows).max(axis=0)
    rows = quantized(rows, INPUT_BITS, np.where(largest > 0, largest, 1.0))
    matrix = as_numpy(kernel.view.to_matrix(kernel.variable))
    height, width = (len(matrix), matrix.shape[1]) if tile is None else tile
    y, sure = 0.0, True
    for first in range(0, len(matrix), height):
        block = matrix[first : first + height]
        z = np.einsum("r...c,rc->...c", rows[first : first + height], block)
        tiles = range(0, matrix.shape[1], width)
        most = [np.abs(block[:, c : c + width]).max() for c in tiles]
        bound = per_column([most], matrix.shape[1], tile)[0]
        bound = factor * min(height, len(matrix)) * bound * largest
        bound = np.where(bound > 0, bound, 1.0)
        sure = sure & certain(z, BITS, bound)
        y = y + quantized(z, BITS, bound)
    found = as_numpy(layer(x)) - as_numpy(layer.bias)
    y, sure = y.reshape(shape), sure.reshape(shape)
    assert np.mean(sure) > 0.9
    np.testing.assert_allclose(found[sure], y[sure], rtol=1e-4, atol=1e-4)


@TILES
def test_what_is_calibrated_relative_to_a_full_column_follows_each_vector(tile):
    """A token of a hundred times the size of another is converted as well."""
    hardware = Hardware(
        dac=DAC(8, "vector_max"),
        adc=ADC(8, "calibrated", per="column", relative_to="full_column"),
        tile=tile,
    )
    layer = hwa.HWADense(7, use_bias=False, hardware=hardware)
    x = RNG.normal(size=(64, 12)).astype("float32")
    model = keras.Sequential([keras.Input((12,)), layer])
    calibrate(model, x, method="max")
    [kernel] = layer.hardware_kernels
    w, height = as_numpy(layer.kernel), 12 if tile is None else tile[0]
    right = []
    for first in range(0, 12, height):
        block, rows = w[first : first + height], x[:, first : first + height]
        width = 7 if tile is None else tile[1]
        most = [np.abs(block[:, c : c + width]).max() for c in range(0, 7, width)]
        full = min(height, 12) * per_column([most], 7, tile) * np.abs(x).max(1)[:, None]
        right.append(np.abs(rows.astype("float64") @ block / full).max(axis=0))
    np.testing.assert_allclose(kernel.adc.output_range, right, rtol=1e-5)
    scale = 10.0 ** RNG.uniform(-2, 2, (64, 1)).astype("float32")
    np.testing.assert_allclose(
        layer(x * scale), as_numpy(layer(x)) * scale, rtol=1e-3, atol=1e-4
    )
    error = as_numpy(layer(x * scale)) / scale - x.astype("float64") @ w
    assert np.abs(error).max() < 0.15


def test_only_a_range_that_is_known_before_takes_a_relative_calibration():
    hardware = Hardware(
        dac=DAC(8, "calibrated"),
        adc=ADC(8, "calibrated", relative_to="full_column"),
    )
    model = keras.Sequential(
        [keras.Input((4,)), hwa.HWADense(3, hardware=hardware, name="out")]
    )
    with pytest.raises(ValueError, match="out/kernel'.*DAC has a calibrated range"):
        calibrate(model, np.ones((2, 4), "float32"))


@FAMILIES
def test_tiles_alone_change_nothing(case):
    layer, x = on_hardware(case, Hardware(tile=(5, 3)))
    plain = getattr(layers, case.name)(**case.kwargs)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights()[: len(plain.weights)])
    right = as_numpy(plain(x))
    difference = np.abs(as_numpy(layer(x)) - right).max()
    assert difference <= 1e-6 * max(1, np.abs(right).max())


@FAMILIES
def test_sixteen_bits_over_a_wide_range_change_next_to_nothing(case):
    hardware = Hardware(dac=DAC(16, 8.0), adc=ADC(16, 16.0), tile=(5, 3))
    layer, x = on_hardware(case, hardware)
    plain = getattr(layers, case.name)(**case.kwargs)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights()[: len(plain.weights)])
    np.testing.assert_allclose(layer(x), plain(x), atol=0.01)


# --- Bias and activation


def test_bias_and_activation_come_after_the_adc():
    kwargs = {"activation": "relu", "hardware": Hardware(adc=ADC(4, 1.0))}
    layer = hwa.HWADense(5, **kwargs)
    x = RNG.normal(size=(40, 6)).astype("float32")
    layer.build(x.shape)
    layer.bias.assign([3.0, -3.0, 0.3, -0.3, 0.0])
    kernel, bias = as_numpy(layer.kernel), as_numpy(layer.bias)
    z = x.astype("float64") @ kernel
    y = np.maximum(quantized(z, 4, 1.0) + bias, 0)
    sure = certain(z, 4, 1.0)
    np.testing.assert_allclose(as_numpy(layer(x))[sure], y[sure], atol=1e-5)
    assert y[:, 0].min() == pytest.approx(2.0) and y[:, 1].max() == 0


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow's CPU kernels")
def test_channels_may_come_first():
    hardware = Hardware(adc=ADC(16, 16.0), tile=(5, 3))
    kwargs = {"filters": 6, "kernel_size": 3, "data_format": "channels_first"}
    layer, plain = hwa.HWAConv2D(**kwargs, hardware=hardware), layers.Conv2D(**kwargs)
    x = RNG.normal(size=(2, 4, 7, 6)).astype("float32")
    plain.build(x.shape), layer.build(x.shape)
    plain.bias.assign(RNG.normal(size=6))
    layer.set_weights(plain.get_weights())
    np.testing.assert_allclose(layer(x), plain(x), atol=0.01)


# --- Bound management


@TILES
@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_bound_management_halves_the_inputs_until_nothing_clips(tile, factor):
    hardware = Hardware(adc=ADC(8, 1.0), tile=tile, bound_management=True)
    layer = hwa.HWADense(7, use_bias=False, hardware=hardware)
    x = factor * RNG.normal(size=(16, 12)).astype("float32")
    x[0] = 0.0
    layer.build(x.shape)
    w = as_numpy(layer.kernel)
    height = 12 if tile is None else tile[0]
    blocks = [slice(i, i + height) for i in range(0, 12, height)]
    z = np.stack([x[:, rows].astype("float64") @ w[rows] for rows in blocks])
    excess = np.abs(z).max(axis=(0, 2))
    halved = 2.0 ** np.ceil(np.log2(np.maximum(excess, 1)))[:, None]
    y = (quantized(z / halved, 8, 1.0) * halved).sum(axis=0)
    sure = certain(z / halved, 8, 1.0).all(axis=0)
    found = as_numpy(layer(x))
    np.testing.assert_allclose(found[sure], y[sure], rtol=1e-4, atol=1e-4)
    step = halved / 127 * len(blocks)
    assert np.all(np.abs(found - x.astype("float64") @ w) <= 0.51 * step + 1e-4)
    assert excess.max() > 1  # The ADC alone would clip.


@TILES
@pytest.mark.parametrize("range_", ["vector_max", "example_max", "batch_max"])
def test_a_range_that_follows_the_inputs_stays_while_they_are_halved(tile, range_):
    hardware = Hardware(
        dac=DAC(12, range_),
        adc=ADC(12, 0.1, relative_to="full_column"),
        tile=tile,
        bound_management=True,
    )
    layer = hwa.HWADense(7, use_bias=False, hardware=hardware)
    x = RNG.normal(size=(16, 12)).astype("float32") + 1.0
    layer.build(x.shape)
    layer.kernel.assign(np.abs(RNG.normal(size=(12, 7))) + 0.5)
    error = as_numpy(layer(x)) - x.astype("float64") @ as_numpy(layer.kernel)
    assert np.abs(error).max() < 0.1  # Of up to 40: nothing is clipped.


@TILES
def test_binary_inputs_are_halved_behind_their_quantizer(tile):
    hardware = Hardware(
        dac="ste_sign", adc=ADC(12, 1.0), tile=tile, bound_management=True
    )
    layer = hwa.HWADense(7, use_bias=False, hardware=hardware)
    x = RNG.normal(size=(16, 12)).astype("float32")
    layer.build(x.shape)
    layer.kernel.assign(3.0 * RNG.normal(size=(12, 7)))
    error = as_numpy(layer(x)) - np.sign(x) @ as_numpy(layer.kernel)
    assert np.abs(error).max() < 0.1  # Of up to 30: nothing is clipped.


def test_bound_management_shows_a_learned_range_each_batch_once():
    made, x = [], RNG.normal(size=(16, 12)).astype("float32")
    for bound_management in (False, True):
        hardware = Hardware(
            dac=DAC(8, "learned"),
            adc=ADC(8, 0.1),
            bound_management=bound_management,
        )
        layer = hwa.HWADense(7, use_bias=False, hardware=hardware)
        layer(x, training=True)
        made.append(layer)
    plain, managed = (layer.hardware_kernels[0].dac for layer in made)
    np.testing.assert_array_equal(plain.input_range, managed.input_range)
    np.testing.assert_array_equal(plain._batches.value, managed._batches.value)


def test_bound_management_needs_an_adc_with_a_range():
    layer = hwa.HWADense(3, hardware=Hardware(dac=DAC(8, 1.0), bound_management=True))
    with pytest.raises(ValueError, match="Bound management of .*needs an ADC"):
        layer(np.ones((2, 4), "float32"))


# --- Noise of the outputs


@pytest.mark.parametrize(("tile", "count"), [(None, 1), ((5, 3), 3)])
def test_output_noise_is_that_of_each_tile_before_the_adc(tile, count):
    noise = OutputNoise(0.3)
    hardware = Hardware(output_noise=noise, adc=ADC(16, 1000.0), tile=tile)
    layer = hwa.HWADense(7, hardware=hardware, noise_seed=1)
    x = RNG.normal(size=(5000, 12)).astype("float32")
    error = as_numpy(layer(x, training=True)) - as_numpy(layer(x))
    assert np.std(error) == pytest.approx(0.3 * np.sqrt(count), rel=0.02)
    assert abs(np.mean(error)) < 5 * 0.3 * np.sqrt(count / error.size)
    steps = error / (1000.0 / 32767)
    np.testing.assert_allclose(steps, np.round(steps), atol=0.05)
    again = as_numpy(layer(x, training=True)) - as_numpy(layer(x))
    assert abs(np.corrcoef(error.ravel(), again.ravel())[0, 1]) < 0.05


def test_output_noise_that_is_always_there_is_there_at_inference():
    layer = hwa.HWADense(3, output_noise=OutputNoise(0.3, always=True))
    x = np.ones((2, 4), "float32")
    assert np.any(as_numpy(layer(x)) != as_numpy(layer(x)))


# --- Gradients


@TILES
def test_gradients_pass_straight_through_the_converters(tile):
    hardware = Hardware(
        dac=DAC(INPUT_BITS, INPUT_RANGE), adc=ADC(BITS, 30.0), tile=tile
    )
    layer = hwa.HWADense(7, hardware=hardware)
    x = RNG.normal(size=(8, 12)).astype("float32")
    layer.build(x.shape)
    upstream = RNG.normal(size=(8, 7)).astype("float32")
    inside = np.abs(x) <= INPUT_RANGE
    assert 0 < inside.mean() < 1
    w = as_numpy(layer.kernel)
    to_x = gradient(lambda x: layer(x) * upstream, x)
    np.testing.assert_allclose(to_x, inside * (upstream @ w.T), rtol=1e-4, atol=1e-5)
    others = [v.value for v in layer.trainable_variables[1:]]
    fixed = [v.value for v in layer.non_trainable_variables]
    to_w = gradient(
        lambda w: layer.stateless_call([w, *others], fixed, x)[0] * upstream,
        ops.convert_to_numpy(layer.kernel),
    )
    np.testing.assert_allclose(to_w, dac(x).T @ upstream, rtol=1e-4, atol=1e-4)


TRAINED = {
    "layer": (DAC(INPUT_BITS, INPUT_RANGE), ADC(BITS, 2.0)),
    "example": (DAC(INPUT_BITS, "example_max"), ADC(BITS, 0.1, "tile", "full_column")),
    "vector": (DAC(INPUT_BITS, "vector_max"), ADC(BITS, 0.1, "tile", "full_column")),
    "column": (DAC(INPUT_BITS, "vector_max"), ADC(BITS, "calibrated", "column")),
}


@pytest.mark.parametrize(
    ("case", "converters"),
    [pytest.param(*param.values, "vector", marks=param.marks) for param in MARKED]
    + [(CASES[4], name) for name in TRAINED if name != "vector"],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_training_computes_what_inference_does(case, converters):
    """In one pass over the tiles where it can; the other way is tested above."""
    dac, adc = TRAINED[converters]
    layer, x = on_hardware(case, Hardware(dac=dac, adc=adc, tile=(5, 3)))
    for kernel in layer.hardware_kernels:
        if kernel.adc.range == "calibrated":
            shape = kernel.adc.output_range.shape
            kernel.adc.set_range(RNG.uniform(0.5, 2.0, shape))
    inference, training = (
        ops.convert_to_numpy(layer(x, training=training)) for training in (False, True)
    )
    # A code apart where a sum is between two, in few places.
    near = np.isclose(training, inference, rtol=1e-4, atol=1e-4)
    assert near.mean() > 0.98
    weights = RNG.normal(size=inference.shape).astype("float32")
    variables = [layer.trainable_variables, layer.non_trainable_variables]
    values = [[ops.convert_to_numpy(v) for v in group] for group in variables]

    def gradients(training):
        def weighed(x, *kernels):
            own = [*kernels, *values[0][len(kernels) :]]
            y = layer.stateless_call(own, values[1], x, training=training)[0]
            return y * weights

        return gradient(weighed, x, *values[0][: len(layer.hardware_kernels)])

    for found, right in zip(gradients(True), gradients(False), strict=True):
        assert np.isclose(found, right, rtol=1e-3, atol=1e-3).mean() > 0.95


def test_no_gradient_passes_where_the_adc_clips():
    layer = hwa.HWADense(1, use_bias=False, hardware=Hardware(adc=ADC(8, 1.0)))
    layer.build((None, 1))
    layer.kernel.assign([[2.0]])
    x = np.array([[-1.0], [-0.4], [0.4], [1.0]], "float32")
    found = gradient(lambda x: layer(x), x)
    np.testing.assert_allclose(found.ravel(), [0, 2, 2, 0])


# --- What stands for a converter


def test_quantizers_that_stand_for_converters_are_built_for_what_they_convert():
    for case in CASES:
        layer, x = on_hardware(
            case,
            Hardware(
                dac=Uniform(64, "learned"), adc=Uniform(64, "learned"), tile=(5, 3)
            ),
        )
        for kernel in layer.hardware_kernels:
            for part in (kernel.dac, kernel.adc):
                np.testing.assert_array_equal(part.alpha.value, 1.0)
        before = len(layer.weights)
        layer(keras.Input(batch_shape=x.shape))
        assert len(layer.weights) == before
        assert "input_shape" in inspect.signature(layer.build).parameters
