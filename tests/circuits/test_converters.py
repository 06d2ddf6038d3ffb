"""DAC and ADC: every kind of range against NumPy, in training and before it."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras import quantizers
from hwa_keras.circuits import ADC, DAC
from hwa_keras.core.views import MatrixView
from tests.gradients import gradient

RNG = np.random.default_rng(3)
X = RNG.normal(size=(4, 3, 10)).astype("float32")
U = RNG.normal(size=X.shape).astype("float32")
QUANTILE = 3.8906  # of |x| of a standard normal number: 99.99 %


def numpy(x):
    return ops.convert_to_numpy(x)


class Tiling:
    """Tiles of at most 2 columns, in two rows of tiles or one."""

    def __init__(self, columns, rows=1, width=2):
        self.grid = (rows, -(-columns // width))
        self.width = width

    def cut(self, matrix):
        return ops.zeros((*self.grid, 1, self.width))


def kernel(columns=10, rows=1, width=2):
    return SimpleNamespace(
        path="dense/kernel",
        view=MatrixView((6, columns)),
        tiling=Tiling(columns, rows, width),
    )


def bound_to(converter, value=None, **kwargs):
    converter.bind(kernel(**kwargs))
    if value is not None:
        converter.set_range(value)
    return converter


def grid(x, r, bits):
    q = 2 ** (bits - 1) - 1
    r = np.asarray(r, "float32").astype("float64")
    return r * np.round(np.clip(x.astype("float64") / r, -1, 1) * q) / q


PER_TILE = np.array([[0.5, 1.0, 1.5, 2.0, 2.5]])
PER_COLUMN = np.linspace(0.5, 2, 30).reshape(3, 10)
EXAMPLES = np.abs(X).max((1, 2), keepdims=True)
KINDS = {
    "batch_max": (lambda: DAC(5, "batch_max"), np.abs(X).max()),
    "example_max": (lambda: DAC(5, "example_max"), EXAMPLES),
    "vector_max": (lambda: DAC(5, "vector_max"), np.abs(X).max(-1, keepdims=True)),
    "learned": (lambda: DAC(5, "learned", start=1.2), 1.2),
    "lsq": (lambda: DAC(5, "learned", "lsq", start=1.2), 1.2),
    "set": (lambda: bound_to(DAC(5, "learned"), 0.8), 0.8),
    "calibrated": (lambda: bound_to(DAC(5, "calibrated"), 0.8), 0.8),
    "number": (lambda: DAC(5, 1.1), 1.1),
    "adc": (lambda: ADC(5, 1.1), 1.1),
    "adc_layer": (lambda: bound_to(ADC(5, "calibrated", "layer"), 0.7), 0.7),
    "adc_tile": (
        lambda: bound_to(ADC(5, "calibrated"), PER_TILE),
        np.repeat(PER_TILE[0], 2),
    ),
    "adc_columns": (
        lambda: bound_to(ADC(5, "calibrated", "column"), PER_COLUMN, rows=3),
        PER_COLUMN,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_bounds_and_gradients_against_numpy(kind):
    make, bound = KINDS[kind]
    converter = make()
    found = numpy(converter(X))
    np.testing.assert_allclose(found, grid(X, bound, 5), rtol=1e-5, atol=1e-6)
    found = gradient(lambda x: U * converter(x), X)
    np.testing.assert_array_equal(found, np.where(np.abs(X) <= np.float32(bound), U, 0))
    told = converter.convert(X)[1] if isinstance(converter, DAC) else converter.bound()
    np.testing.assert_allclose(numpy(told), bound, rtol=1e-6)
    np.broadcast_shapes(told.shape, X.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_round_trips_and_half_precision_is_kept(kind):
    converter = KINDS[kind][0]()
    config = json.loads(json.dumps(quantizers.serialize(converter)))
    again = quantizers.get(config)
    assert again.get_config() == converter.get_config()
    for dtype in ("float16", "bfloat16"):
        x = ops.cast(X, dtype)
        found = converter(x)
        assert keras.backend.standardize_dtype(found.dtype) == dtype
        exact = ops.cast(converter(ops.cast(x, "float32")), dtype)
        np.testing.assert_array_equal(
            numpy(ops.cast(found, "float32")), numpy(ops.cast(exact, "float32"))
        )


@pytest.mark.parametrize("rows", [1, 2])
def test_ranges_of_tiles_are_those_of_their_columns(rows):
    adc = bound_to(ADC(8, "calibrated"), columns=5, rows=rows)
    assert tuple(adc.output_range.shape) == (rows, 3)
    values = np.arange(1.0, 3 * rows + 1).reshape(rows, 3)
    adc.set_range(values)
    right = np.repeat(values, 2, axis=1)[:, :5]
    np.testing.assert_array_equal(numpy(adc.bound()), right[0] if rows == 1 else right)
    assert adc.convert(ops.ones((7, 5) if rows == 1 else (7, rows, 5))).shape[-1] == 5


def test_relative_to_a_full_column():
    adc = bound_to(ADC(5, 0.25, relative_to="full_column"))
    scale = np.linspace(2, 8, 10).astype("float32")
    np.testing.assert_array_equal(numpy(adc.bound((scale,))), 0.25 * scale)
    found = numpy(adc.convert(X, full_scale=(scale,)))
    np.testing.assert_allclose(found, grid(X, 0.25 * scale, 5), rtol=1e-5, atol=1e-6)
    found = gradient(lambda s: adc.convert(ops.convert_to_tensor(X), (s,)), scale)
    assert not np.any(found)  # None on TensorFlow
    zeros = np.zeros_like(X)
    np.testing.assert_array_equal(adc.convert(zeros, full_scale=(0.0,)), zeros)
    with pytest.raises(
        ValueError, match="nothing says what one gives.*layer of its own"
    ):
        adc(X)


def test_of_a_pair_the_bound_is_its_larger_end_and_an_adc_has_none():
    assert float(numpy(DAC(4, (-3.0, 1.0)).convert(X)[1])) == 3
    assert ADC(4, (-3.0, 1.0)).bound() is None
    assert ADC(4, (0.0, 3.0)).step == 0.2 and ADC(4, "calibrated").step is None


# --- Values that are not there yet


UNSET = {
    "calibrated": (lambda: DAC(8, "calibrated"), "dense/kernel.*not calibrated"),
    "learned": (lambda: DAC(8, "learned"), "dense/kernel.*no training data"),
    "lsq": (lambda: DAC(8, "learned", "lsq"), "dense/kernel.*no training data"),
    "adc": (lambda: ADC(8, "calibrated"), "dense/kernel.*not calibrated"),
}


@pytest.mark.parametrize("kind", UNSET)
def test_ranges_without_a_value_are_errors_and_in_graphs_the_largest_input(kind):
    make, message = UNSET[kind]
    with pytest.raises(ValueError, match="of 'a/b' has"):
        make().check_ready("a/b")
    converter = bound_to(make())
    with pytest.raises(ValueError, match=message):
        converter.check_ready()
    with pytest.raises(ValueError, match=message):
        converter(X)
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(inputs, converter(inputs))
    found = model.predict(X, verbose=0)
    np.testing.assert_allclose(found, grid(X, np.abs(X).max(), 8), rtol=1e-5, atol=1e-6)
    converter.set_range(0.9)
    converter.check_ready()
    np.testing.assert_allclose(numpy(converter(X)), grid(X, 0.9, 8), atol=1e-6)


def test_binding_again_keeps_the_variables():
    for converter in (DAC(8, "learned"), ADC(8, "calibrated")):
        bound_to(converter, 0.9)
        variables = list(converter.variables)
        converter.bind(kernel())
        assert [id(v) for v in converter.variables] == [id(v) for v in variables]
        assert not any(getattr(v, "autocast", False) for v in variables)
        assert all(v.dtype == "float32" for v in variables)
    dac = bound_to(DAC(8, "learned"))
    assert [v.name for v in dac.trainable_variables] == ["input_range"]
    assert not bound_to(DAC(8, "calibrated")).trainable_variables


def test_a_learned_range_starts_from_the_data_of_training(tmp_path):
    dac = DAC(8, "learned", start_batches=2, start_stds=2.5)
    model = keras.Sequential([keras.Input((10,)), dac])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    batches = X.reshape(3, 4, 10) * np.array([1, 2, 9], "float32")[:, None, None]
    x = batches.reshape(-1, 10)
    model.fit(x, x, batch_size=4, shuffle=False, verbose=0)
    stds = [batch.astype("float64").std(ddof=1) for batch in batches[:2]]
    np.testing.assert_allclose(numpy(dac.input_range), 2.5 * np.mean(stds), rtol=1e-6)
    found = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), found)
    np.testing.assert_allclose(numpy(again(x)), found, rtol=1e-6)


def test_what_training_did_to_a_range_stays_when_data_moves_its_start():
    dac = DAC(8, "learned", start_batches=2)
    dac(X, training=True)
    first = 3 * X.astype("float64").std(ddof=1)
    np.testing.assert_allclose(numpy(dac.input_range), first, rtol=1e-6)
    dac.trainable_variables[0].assign(0.5)
    dac(2 * X, training=True)
    right = (first + 0.5 + 2 * first) / 2
    np.testing.assert_allclose(numpy(dac.input_range), right, rtol=1e-6)
    dac(9 * X, training=True)
    np.testing.assert_allclose(numpy(dac.input_range), right, rtol=1e-6)


def test_a_frozen_range_is_not_started_and_zeros_do_not_start_one():
    with pytest.raises(ValueError, match="no training data"):
        DAC(8, "learned", trainable=False)(X, training=True)
    dac = DAC(8, "learned")
    zeros = np.zeros_like(X)
    np.testing.assert_array_equal(numpy(dac(zeros, training=True)), zeros)
    with pytest.raises(ValueError, match="no training data"):
        dac(zeros)


# --- Learning


FINDERS = {
    "clip_sgd": ("clip", lambda: keras.optimizers.SGD(0.3)),
    "clip_adam": ("clip", lambda: keras.optimizers.Adam(0.03)),
    "lsq_adam": ("lsq", lambda: keras.optimizers.Adam(0.03)),
}


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("clip_sgd", 0.1), ("clip_adam", 10), ("lsq_adam", 0.1), ("lsq_adam", 10)],
)
def test_a_range_10_times_off_finds_the_quantile(kind, factor):
    learn, optimizer = FINDERS[kind]
    x = np.random.default_rng(5).normal(size=(16_000, 64)).astype("float32")
    dac = DAC(8, "learned", learn, min_unclipped=0.9999, start=factor * QUANTILE)
    model = keras.Sequential([keras.Input((64,)), dac])
    model.compile(optimizer(), "mse", steps_per_execution=125)
    data = dict(batch_size=128, epochs=16, verbose=0)  # 2,000 steps
    model.fit(x, x, **data)
    assert abs(float(numpy(dac.input_range)) / QUANTILE - 1) < 0.2


# --- Refusals


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("make", [lambda: DAC(8, 1.0), lambda: ADC(8, 1.0),
                                  lambda: DAC(8, "batch_max")])  # fmt: skip
def test_integers_are_refused(make, dtype):
    with pytest.raises(TypeError, match=f"floating-point.*{dtype}.*Cast them first"):
        make()(np.ones((2, 3), dtype))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ADC(0, 1.0), "`bits` must be an integer from 1 to 16.*bits=0"),
        (lambda: ADC(17, 1.0), "`bits` .*bits=17"),
        (lambda: ADC(2.5, 1.0), "`bits` .*bits=2.5"),
        (lambda: ADC(True, (0, 1)), "`bits` .*bits=True"),
        (lambda: ADC(1, 1.0), "One bit on a symmetric range leaves zero alone"),
        (lambda: DAC(1, "learned"), "One bit on a symmetric range leaves zero alone"),
        (lambda: ADC(1, 2.0, relative_to="full_column"), "One bit on a symmetric"),
        (lambda: ADC(4, (3, 1)), "the lower one first.*low=3, high=1"),
        (lambda: ADC(4, (0, np.inf)), "two finite numbers.*high=inf"),
        (lambda: DAC(4, -1.0), "must be a positive, finite number.*range=-1.0"),
        (lambda: DAC(4, np.nan), "must be a positive, finite number.*range=nan"),
        (lambda: DAC(4, True), "must be a positive number.*range=True"),
        (lambda: DAC(4, "max"), "'vector_max', 'example_max'.*'learned'.*range='max'"),
        (lambda: ADC(4, "learned"), "'calibrated'. Received: range='learned'"),
        (lambda: ADC(4, (0, 1), relative_to="full_column"), "positive, finite"),
        (lambda: ADC(4, 1.0, relative_to="max"), "`relative_to` of ADC.*'max'"),
        (lambda: ADC(4, "calibrated", "row"), "`per` of ADC must be.*'row'"),
        (lambda: DAC(4, "learned", "ste"), "`gradient` of DAC must be.*'ste'"),
        (lambda: DAC(4, "learned", decay=-1), "`decay` of DAC.*decay=-1"),
        (lambda: DAC(4, "learned", min_unclipped=99), "share of the inputs.*99"),
        (lambda: DAC(4, "learned", start=0), "`start` must be a positive.*start=0"),
        (lambda: DAC(4, 1.0, start=1.0), "`start` is where a learned range starts"),
        (lambda: DAC(4, "learned", start_batches=0), "`start_batches` of DAC.*=0"),
        (lambda: DAC(4, "learned", start_stds=0), "`start_stds` of DAC.*=0"),
        (lambda: DAC(4, 1.0).set_range(1.0), "no calibration sets"),
        (lambda: DAC(4, "batch_max").set_range(1.0), "no calibration sets"),
        (lambda: DAC(4, "calibrated").set_range(1.0), "not built"),
        (lambda: bound_to(DAC(4, "calibrated"), 0.0), "positive and finite.*0.0"),
        (lambda: bound_to(DAC(4, "learned"), np.nan), "positive and finite.*nan"),
        (lambda: bound_to(DAC(4, "learned"), True), "positive and finite.*True"),
        (lambda: bound_to(DAC(4, "learned"), [1.0, 2.0]), r"one range.*\(2,\)"),
        (lambda: bound_to(ADC(4, "calibrated"), np.ones(5)), r"shape \(1, 5\).*\(5,\)"),
        (lambda: bound_to(ADC(4, "calibrated"), -PER_TILE), "positive and finite"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sums_of_tiles_say_what_is_wrong():
    stacks = [np.ones((2, 1, 3, 4), "float32")]
    with pytest.raises(ValueError, match=r"must have a symmetric range.*\(-3.0, 1.0\)"):
        ADC(4, (-3.0, 1.0)).sum_of_tiles(stacks)
    with pytest.raises(ValueError, match="relative to a full column, and nothing"):
        ADC(8, 0.1, relative_to="full_column").sum_of_tiles(stacks)
    with pytest.raises(TypeError, match="floating-point numbers. Received: int32"):
        ADC(8, 1.0).sum_of_tiles([np.ones((2, 1, 3, 4), "int32")])
    adc = ADC(8, "calibrated", per="layer")
    adc.build((3, 4))
    with pytest.raises(ValueError, match="of 'adc"):
        adc.sum_of_tiles(stacks)
    adc.set_range(2.0)
    np.testing.assert_allclose(numpy(adc.sum_of_tiles(stacks)), 2.0, rtol=1e-2)
