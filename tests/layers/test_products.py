import functools
import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

from hwa_keras.crossbar import Tiling
from hwa_keras.layers.product_families import product_of
from tests.layers.references import expected

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def compiled(function):
    """One graph: on JAX, each operation outside of one is compiled by itself."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def built(layer, x):
    layer.build((None, *x.shape[1:]))
    for i, variable in enumerate(layer.weights):
        variable.assign(numbers(variable.shape, seed=i + 1))
    return layer


def zeros_first(cls, kwargs):
    """Have kernels start from zeros: on JAX, each random shape is compiled."""
    names = ("kernel", "depthwise", "pointwise")
    known = inspect.signature(cls.__init__).parameters
    names = [f"{n}_initializer" for n in names if f"{n}_initializer" in known]
    return {**dict.fromkeys(names, "zeros"), **kwargs}


def kernel_of(layer, product):
    return ops.convert_to_tensor(getattr(layer, product.attribute))


def as_matrix(product, layer, kernel):
    """The kernel as `[rows, groups, columns of a group]`."""
    view, groups = product.view(layer), product.groups(layer)
    rows, columns = view.matrix_shape
    return ops.reshape(view.to_matrix(kernel), (rows, groups, columns // groups))


def by_crossbar(product, layer, x, kernel):
    rows = product.unfold(layer, x)
    matrix = ops.transpose(as_matrix(product, layer, kernel), (1, 0, 2))
    z = ops.matmul(rows[..., None, :], matrix)  # TensorFlow 2.18's einsum is wrong.
    z = ops.reshape(z, (*ops.shape(z)[:-3], product.view(layer).matrix_shape[1]))
    return product.from_columns(layer, z, x)


def case(cls, shape, *args, **kwargs):
    shown = [*map(str, args), *(f"{k}={v}" for k, v in kwargs.items())]
    name = f"{cls.__name__}({', '.join(shown)})"
    return pytest.param(cls, shape, args, kwargs, id=name)


LINE, IMAGE, VOLUME = (2, 9, 4), (2, 7, 6, 4), (2, 4, 5, 4, 2)
FIRST = {"data_format": "channels_first"}
EINSUMS = [
    # equation, shape of the inputs, output_shape, groups
    ("abc,cd->abd", (2, 3, 4), (None, 5), 1),
    ("...x,xy->...y", (2, 3, 2, 4), (5,), 1),
    ("ab...,bc->ac...", (2, 3, 4), (5,), 1),
    ("abc,cde->abde", (2, 3, 4), (None, 2, 5), 1),
    ("abcd,cde->abe", (2, 3, 2, 4), (None, 5), 1),
    ("btd,dnh->btnh", (2, 3, 4), (None, 2, 5), 1),
    ("btnh,nhd->btd", (2, 3, 2, 4), (None, 5), 1),
    ("btd,ndh->bnth", (2, 3, 4), (2, 3, 5), 1),
    ("btgd,gde->btge", (2, 3, 4, 5), (None, 4, 6), 4),
    ("btgd,gde->bgte", (2, 3, 4, 5), (4, 3, 6), 4),
    ("btgd,dge->btge", (2, 3, 4, 5), (None, 4, 6), 4),
    ("...gd,gde->...ge", (2, 3, 4, 5), (4, 6), 4),
    ("abcd,cbde->abce", (2, 3, 4, 5), (3, 4, 6), 12),
    ("abc,c->abc", (2, 3, 4), (None, 4), 4),
    ("abc,cd->ad", (2, 3, 4), (5,), 1),
]
EINSUM_CASES = [
    case(layers.EinsumDense, shape, equation, output_shape=output_shape)
    for equation, shape, output_shape, _ in EINSUMS
]
CASES = [
    case(layers.Dense, (2, 4), 5),
    case(layers.Dense, (2, 3, 4), 5),
    *EINSUM_CASES,
    case(layers.Conv1D, LINE, 6, 3, padding="causal", dilation_rate=2),
    case(layers.Conv1D, LINE, 6, 3, padding="causal", strides=2, groups=2),
    case(layers.Conv1D, LINE, 6, 2, padding="same", strides=3),
    case(layers.Conv1D, (2, 4, 9), 6, 3, padding="causal", **FIRST),
    case(layers.Conv2D, IMAGE, 6, (3, 2), strides=(2, 1), groups=2),
    case(layers.Conv2D, IMAGE, 6, (3, 2), strides=(1, 2), padding="same"),
    case(layers.Conv2D, IMAGE, 6, 2, padding="same", dilation_rate=(2, 3)),
    case(layers.Conv2D, IMAGE, 8, 1, strides=3, padding="same", groups=4),
    case(layers.Conv2D, IMAGE, 6, 3, dilation_rate=2),
    case(layers.Conv2D, (2, 4, 7, 6), 6, (3, 2), padding="same", groups=2, **FIRST),
    case(layers.Conv3D, VOLUME, 3, (2, 3, 2), strides=(1, 2, 1), padding="same"),
    case(layers.Conv3D, VOLUME, 4, (2, 3, 1), groups=2),
    case(layers.Conv3D, (2, 2, 4, 5, 4), 3, 2, **FIRST),
    case(layers.DepthwiseConv1D, LINE, 3, depth_multiplier=2, strides=2),
    case(layers.DepthwiseConv1D, LINE, 3, padding="same", dilation_rate=2),
    case(layers.DepthwiseConv2D, IMAGE, (3, 2), depth_multiplier=2),
    case(layers.DepthwiseConv2D, IMAGE, 3, padding="same", strides=2),
    case(
        layers.DepthwiseConv2D,
        IMAGE,
        2,
        padding="same",
        strides=2,
        dilation_rate=2,
        depth_multiplier=2,
    ),
    case(layers.DepthwiseConv2D, (2, 4, 7, 6), 3, depth_multiplier=2, **FIRST),
    case(layers.Conv1DTranspose, (2, 5, 4), 6, 3, strides=2, padding="same"),
    case(layers.Conv1DTranspose, (2, 4, 5), 6, 3, strides=2, **FIRST),
    case(layers.Conv2DTranspose, (2, 4, 3, 4), 6, (3, 2), strides=(2, 3)),
    case(
        layers.Conv2DTranspose,
        (2, 4, 3, 4),
        6,
        3,
        strides=2,
        padding="same",
        output_padding=1,
    ),
    case(layers.Conv2DTranspose, (2, 4, 4, 3), 6, 2, padding="same", **FIRST),
    case(layers.Conv3DTranspose, (2, 3, 2, 3, 2), 3, 2, strides=2, padding="same"),
    case(layers.SeparableConv1D, LINE, 5, 3, depth_multiplier=2, strides=2),
    case(layers.SeparableConv1D, LINE, 5, 3, padding="same", dilation_rate=2),
    case(layers.SeparableConv2D, IMAGE, 5, (3, 2), depth_multiplier=2, padding="same"),
    case(layers.SeparableConv2D, IMAGE, 5, 3, strides=2),
    case(layers.SeparableConv2D, (2, 4, 7, 6), 5, 3, depth_multiplier=2, **FIRST),
]
every_family = pytest.mark.parametrize("cls, shape, args, kwargs", CASES)


def make(cls, shape, args, kwargs):
    """A layer of a case, the same for every test, and its inputs."""
    return _make(cls, shape, args, tuple(kwargs.items()))


@functools.cache
def _make(cls, shape, args, kwargs):
    kwargs = zeros_first(cls, dict(kwargs))
    if cls is not layers.EinsumDense:
        kwargs = {"use_bias": False, **kwargs}
    x = numbers(shape)
    try:
        return built(cls(*args, **kwargs), x), x
    except ValueError as error:
        # Strides with dilation in Keras 3.12, no `output_padding` in 3.9.
        if any(name in str(error) for name in ("dilation_rate > 1", "output_padding")):
            pytest.skip(str(error))
        raise


def keras_runs(layer):
    """TensorFlow has convolutions with channels first on GPUs alone."""
    first = getattr(layer, "data_format", None) == "channels_first"
    alone = isinstance(layer, (layers.DepthwiseConv2D, layers.SeparableConv2D))
    return not (ON_TENSORFLOW and first and not alone)


@every_family
def test_apply_is_what_the_keras_layer_computes(cls, shape, args, kwargs):
    layer, x = make(cls, shape, args, kwargs)
    if not keras_runs(layer):
        pytest.skip("TensorFlow runs channels first on GPUs only")
    y = ops.convert_to_tensor(x)
    for product in product_of(layer):
        y = product.apply(layer, y, kernel_of(layer, product))
    np.testing.assert_array_equal(y, layer(x))
    np.testing.assert_allclose(y, expected(layer, x), **CLOSE)


@every_family
def test_unfolded_inputs_times_the_matrix_are_the_outputs(cls, shape, args, kwargs):
    layer, x = make(cls, shape, args, kwargs)

    @compiled
    def run(x):
        seen = []
        for product in product_of(layer):
            rows = product.unfold(layer, x)
            y = by_crossbar(product, layer, x, kernel_of(layer, product))
            z = product.to_columns(layer, y)
            seen.append((rows, y, z, product.from_columns(layer, z, x)))
            x = y
        return seen

    seen = run(ops.convert_to_tensor(x))
    np.testing.assert_allclose(seen[-1][1], expected(layer, x), **CLOSE)
    for product, (rows, y, z, again) in zip(product_of(layer), seen, strict=True):
        row_count, column_count = product.view(layer).matrix_shape
        assert rows.shape[-2:] == (product.groups(layer), row_count)
        assert z.shape == (*rows.shape[:-2], column_count)
        np.testing.assert_array_equal(again, y, "to_columns and back")


@pytest.mark.parametrize("equation, shape, output_shape, groups", EINSUMS)
def test_groups_are_labels_that_all_operands_share(
    equation, shape, output_shape, groups
):
    kwargs = {"output_shape": output_shape}
    layer, _ = make(layers.EinsumDense, shape, (equation,), kwargs)
    [product] = product_of(layer)
    assert product.groups(layer) == groups


# --- What transposed convolutions crop and add


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_transposed_convolutions_of_every_stride_dilation_and_output_padding(
    padding, size
):
    made, shape = [], (1, 4, 2)
    for stride, dilation in ((1, 1), (1, 2), (2, 1), (3, 1)):
        for extra in (None, *range(stride)):
            kwargs = {"strides": stride, "dilation_rate": dilation, "padding": padding}
            kwargs["output_padding"] = extra
            # As many outputs as a convolution of this stride has these inputs for.
            more = ((size - 1) * dilation + 1) % 2 + (extra or 0)
            if padding == "valid" or extra is None or more > 0:
                layer, x = make(layers.Conv1DTranspose, shape, (3, size), kwargs)
                made.append(layer)

    products = [product_of(layer)[0] for layer in made]

    @compiled
    def run(x, kernels):
        each = list(zip(products, made, kernels, strict=True))
        return [(by_crossbar(p, v, x, k), p.apply(v, x, k)) for p, v, k in each]

    kernels = [ops.convert_to_tensor(layer.kernel) for layer in made]
    outputs = run(ops.convert_to_tensor(x), kernels)
    for layer, (y, applied) in zip(made, outputs, strict=True):
        message = str(layer.get_config())
        np.testing.assert_allclose(y, applied, **CLOSE, err_msg=message)
        np.testing.assert_allclose(y, expected(layer, x), **CLOSE, err_msg=message)


# --- Tiles, dtypes, sizes that are not known


@pytest.mark.parametrize(
    "cls, shape, kwargs",
    [
        (layers.Dense, (2, 12), {"units": 8}),
        (layers.Conv1D, LINE, {"filters": 8, "kernel_size": 3}),
        (layers.Conv1D, LINE, {"filters": 16, "kernel_size": 6, "groups": 2}),
    ],
)
def test_sums_over_tiles_are_the_whole_product(cls, shape, kwargs):
    layer, x = make(cls, shape, (), kwargs)
    [product] = product_of(layer)
    groups = product.groups(layer)
    matrices = as_matrix(product, layer, kernel_of(layer, product))
    tiling = Tiling(12, 8, tile_rows=5, tile_columns=3)

    @compiled
    def run(x):
        tiles = ops.stack([tiling.cut(matrices[:, g]) for g in range(groups)])
        inputs = tiling.split_inputs(product.unfold(layer, x))
        z = ops.einsum("...gkr,gkmrc->...gmc", inputs, tiles)
        z = ops.reshape(z, (*z.shape[:-2], -1))[..., : tiling.columns]
        return product.from_columns(layer, ops.reshape(z, (*z.shape[:-2], -1)))

    np.testing.assert_allclose(
        run(ops.convert_to_tensor(x)), expected(layer, x), **CLOSE
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "cls, shape, args",
    [
        (layers.Dense, (2, 4), (5,)),
        (layers.EinsumDense, (2, 3, 4), ("abc,cd->abd", (None, 5))),
        (layers.Conv1D, LINE, (6, 3)),
        (layers.DepthwiseConv2D, IMAGE, (3,)),
        (layers.Conv1DTranspose, (2, 5, 4), (6, 3, 2)),
    ],
)
def test_unfolded_inputs_keep_their_dtype(cls, shape, args, dtype):
    layer, x = make(cls, shape, args, {})
    [product] = product_of(layer)
    unfold = compiled(functools.partial(product.unfold, layer))
    rows = unfold(ops.cast(x, dtype))
    assert keras.backend.standardize_dtype(rows.dtype) == dtype


@pytest.mark.tensorflow_only  # On JAX all sizes are known when a graph is traced.
@pytest.mark.parametrize(
    "cls, shape, args, kwargs",
    [
        case(layers.Dense, (2, 3, 4), 5),
        case(layers.EinsumDense, (2, 3, 4), "abc,cd->abd", output_shape=(None, 5)),
        case(layers.Conv1D, LINE, 6, 3, padding="causal", strides=2),
        case(layers.Conv2D, IMAGE, 6, (3, 2), strides=2, padding="same"),
        case(layers.Conv2D, IMAGE, 6, 1, strides=3, padding="same"),
        case(layers.DepthwiseConv2D, IMAGE, 3, dilation_rate=2),
        case(layers.Conv2DTranspose, IMAGE, 6, 3, strides=(2, 3), padding="same"),
        case(layers.SeparableConv2D, IMAGE, 5, 3, padding="same"),
    ],
)
def test_sizes_may_be_unknown_until_the_graph_runs(cls, shape, args, kwargs):
    import tensorflow as tf

    layer, x = make(cls, shape, args, kwargs)
    unknown = tf.TensorSpec((*(None for _ in shape[1:]), shape[-1]))

    @tf.function(input_signature=[unknown])
    def run(x):
        for product in product_of(layer):
            y = by_crossbar(product, layer, x, kernel_of(layer, product))
            again = product.from_columns(layer, product.to_columns(layer, y))
            x = tf.ensure_shape(again, (*(None for _ in shape[1:]), y.shape[-1]))
        return x

    for part in (x, x[:1, :-1], x[:, 1:]):
        y = run(ops.convert_to_tensor(part))
        np.testing.assert_allclose(y, expected(layer, part), **CLOSE)


# --- What is refused


@pytest.mark.parametrize(
    "equation, shape, output_shape",
    [
        ("btgd,deg->btge", (2, 3, 4, 5), (None, 4, 6)),
        ("abb,bc->ac", (2, 4, 4), (5,)),
    ],
)
def test_equations_that_fit_no_crossbar_are_refused_by_unfold_alone(
    equation, shape, output_shape
):
    x = numbers(shape)
    layer = built(layers.EinsumDense(equation, output_shape), x)
    [product] = product_of(layer)
    with pytest.raises(NotImplementedError, match=f"equation '{equation}'.*Reorder"):
        product.unfold(layer, x)
    y = product.apply(layer, ops.convert_to_tensor(x), kernel_of(layer, product))
    np.testing.assert_allclose(y, expected(layer, x), **CLOSE)
    z = product.to_columns(layer, y)
    np.testing.assert_array_equal(product.from_columns(layer, z), y)


def test_depthwise_columns_are_channel_by_channel():
    layer, x = make(layers.DepthwiseConv2D, IMAGE, (3,), {"depth_multiplier": 2})
    [product] = product_of(layer)
    matrix = as_matrix(product, layer, kernel_of(layer, product))
    for channel, m in np.ndindex(4, 2):
        column = ops.reshape(layer.kernel[:, :, channel, m], (9,))
        np.testing.assert_array_equal(matrix[:, channel, m], column)
