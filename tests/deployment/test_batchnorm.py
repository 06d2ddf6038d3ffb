import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import adapt_batchnorm
from hwa_keras.devices import PCM
from tests import zoo

pytestmark = pytest.mark.usefixtures("built_optimizers")

YEAR = 31_536_000.0
EPSILON = 1e-3  # Keras's default.


class CountTraces(layers.Layer):
    """The identity; counts how often Python runs through it."""

    count = 0

    def call(self, inputs):
        CountTraces.count += 1
        return inputs


def small(hidden=layers.Dense, **kwargs):
    """Dense, batch norm, dropout, twice, with statistics that are no longer 0 and 1."""
    model = keras.Sequential(
        [
            keras.Input((12,)),
            hidden(8, **kwargs),
            CountTraces(),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            hidden(3, **kwargs),
            layers.BatchNormalization(momentum=0.5),
        ]
    )
    rng = np.random.default_rng(1)
    for layer in norms(model):
        layer.set_weights([rng.uniform(0.5, 2.0, w.shape) for w in layer.weights])
    return model


def norms(model):
    found = model._flatten_layers()
    return [layer for layer in found if isinstance(layer, layers.BatchNormalization)]


def values(variables):
    return [ops.convert_to_numpy(v).astype("float64") for v in variables]


def statistics(model):
    """The moving means and variances."""
    return values(w for w in model.weights if w.name.startswith("moving"))


def by_hand(model, batches, momentum, kernels=None):
    """What the statistics of `small` are after some batches, in NumPy's float64."""
    first, _, norm, _, second, last = model.layers
    kernels = values([first.kernel, second.kernel]) if kernels is None else kernels
    biases = values([first.bias, second.bias])
    moving = statistics(model)
    momenta = np.broadcast_to(momentum, len(batches))
    for x, momentum in zip(batches, momenta, strict=True):
        h = np.asarray(x, "float64")
        for i, layer in enumerate((norm, last)):
            gamma, beta = values([layer.gamma, layer.beta])
            h = h @ kernels[i] + biases[i]
            mean, variance = h.mean(0), h.var(0)
            for j, statistic in ((2 * i, mean), (2 * i + 1, variance)):
                moving[j] = momentum * moving[j] + (1 - momentum) * statistic
            h = gamma * (h - mean) / np.sqrt(variance + EPSILON) + beta
    return moving


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def inputs(count=60, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1.0, (count, 12)).astype("float32")


def chip_of(model, t=YEAR, **kwargs):
    arguments = {"seed": 1, "compensation": "none", "read_noise": "off", **kwargs}
    chip = hwa_keras.program(model, "pcm", **arguments)
    chip.t = t
    return chip


# --- Any Keras model


@pytest.mark.parametrize("momentum", [None, 0.0, 0.6])
def test_statistics_after_some_batches(momentum):
    model, x = small(), inputs(60)
    expected = by_hand(
        model, np.split(x, 3), 0.015 ** (1 / 3) if momentum is None else momentum
    )
    assert adapt_batchnorm(model, x, momentum=momentum, batch_size=20) is model
    assert_close(statistics(model), expected)


def test_nothing_else_changes():
    model = small()
    states = [v for v in model.variables if not v.name.startswith("moving")]
    norms(model)[1].trainable = False  # A frozen layer counts, and stays frozen.
    before, moved = values(states), statistics(model)
    names = [set(vars(layer)) for layer in model._flatten_layers()]
    adapt_batchnorm(model, inputs())
    for a, b in zip(values(states), before, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(statistics(model), moved, strict=True):
        assert np.all(a != b)
    for layer, known in zip(model._flatten_layers(), names, strict=True):
        assert set(vars(layer)) <= known | {"_calibration"}
    assert [layer.momentum for layer in norms(model)] == [0.99, 0.5]
    assert [layer.trainable for layer in norms(model)] == [True, False]


@pytest.mark.parametrize(
    ("count", "batches", "batch_size", "sizes"),
    [
        (60, 2, 20, [20, 20]),  # No more than asked for.
        (31, 13, 10, [7, 7, 7, 7]),  # Equal sizes, of what there is.
        (5, 13, 200, [5]),
    ],
)
def test_arrays_make_batches_of_one_size(count, batches, batch_size, sizes):
    model, x = small(), inputs(count)
    parts = np.split(x, np.cumsum(sizes))[: len(sizes)]
    expected = by_hand(model, parts, 0.015 ** (1 / len(sizes)))
    adapt_batchnorm(model, x, batches=batches, batch_size=batch_size)
    assert_close(statistics(model), expected)


def test_takes_an_iterable_of_batches_with_or_without_targets():
    x = inputs(50)
    parts = np.split(x, [20, 40])  # The last one is smaller.
    momenta = 0.015 ** np.array([0.4, 0.4, 0.2])  # By the shares of the examples.
    expected = by_hand(small_as_seeded(), parts, momenta)
    for batches in (iter(parts), ((part, np.zeros(len(part))) for part in parts)):
        model = small_as_seeded()
        adapt_batchnorm(model, batches)
        assert_close(statistics(model), expected)


def small_as_seeded():
    keras.utils.set_random_seed(5)
    return small()


@pytest.mark.tensorflow_only
def test_takes_a_tf_dataset():
    import tensorflow as tf

    model, x = small(), inputs(60)
    expected = by_hand(model, np.split(x, 3)[:2], 0.015**0.5)
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(60))).batch(20)
    adapt_batchnorm(model, dataset.repeat(), batches=2)
    assert_close(statistics(model), expected)


def test_a_model_with_several_inputs_convolutions_and_double_precision_data():
    a, b = keras.Input((4, 4, 2), name="a"), keras.Input((4, 4, 2), name="b")
    norm = layers.BatchNormalization()
    model = keras.Model({"a": a, "b": b}, norm(layers.Add()([a, b])))
    rng = np.random.default_rng(0)
    x = {name: rng.normal(1.0, 2.0, (30, 4, 4, 2)) for name in ("a", "b")}
    adapt_batchnorm(model, x, momentum=0.0)
    total = x["a"] + x["b"]
    assert_close(statistics(model), [total.mean((0, 1, 2)), total.var((0, 1, 2))])


def test_mixed_precision_and_renormalization():
    norm = layers.BatchNormalization(renorm=True, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((12,)), norm])
    x = ops.convert_to_numpy(ops.cast(ops.cast(inputs(), "bfloat16"), "float32"))
    adapt_batchnorm(model, x, momentum=0.25)
    expected = [0.75 * x.mean(0), 0.25 + 0.75 * x.var(0)]
    assert_close(statistics(model)[:2], expected)
    assert norm.renorm


# --- A chip


def test_a_chip_adapts_to_its_weights_at_its_time():
    model, x = small(), inputs(60)
    before = statistics(model)
    chip = chip_of(model)
    kernels = values(tile.kernel().variable for tile in chip.tiles)
    expected = by_hand(model, np.split(x, 3), 0.015 ** (1 / 3), kernels)
    adapt_batchnorm(chip, x, batch_size=20)
    assert_close(statistics(chip), expected)
    shift = [np.abs(a - b).max() for a, b in zip(expected, before, strict=True)]
    assert min(shift) > 0.1
    for a, b in zip(statistics(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_chip_is_compiled_once():
    model, x = small(), inputs(40)
    model.compile("sgd", "mse", metrics=["mae"])
    chip = chip_of(model)
    adapt_batchnorm(chip, x, batch_size=20)
    chip.evaluate(x, np.zeros((40, 3)), verbose=0)  # Which makes new variables.
    traces = CountTraces.count
    for seed in (2, 3):
        chip.write(seed)
        assert_close(statistics(chip), statistics(model))
        for compensation in ("none", "measured"):
            chip.compensation = compensation
            chip.t = 3600.0 * seed
            found = values(tile.kernel().variable for tile in chip.tiles)
            moving = by_hand(model, np.split(x, 2), 0.0, found)
            adapt_batchnorm(chip, x, momentum=0.0, batch_size=20)
            assert_close(statistics(chip), moving)
    assert CountTraces.count == traces


def test_read_noise_is_that_of_the_chip():
    """Frozen noise is the same for each calibration, fresh noise is not."""
    model, x = small(), inputs(40)
    frozen = chip_of(model, read_noise="frozen")
    found = [statistics(adapt_batchnorm(frozen, x, momentum=0.0)) for _ in range(2)]
    assert_close(*found)
    chip = chip_of(model, read_noise="per_call")
    first, second = (
        statistics(adapt_batchnorm(chip, x, momentum=0.0)) for _ in range(2)
    )
    assert all(np.all(a != b) for a, b in zip(first, second, strict=True))
    chip.read_noise = "off"  # What was compiled draws noise.
    found = [statistics(adapt_batchnorm(chip, x, momentum=0.0)) for _ in range(2)]
    assert_close(*found)


@pytest.mark.slow
def test_an_adapted_chip_is_saved_with_its_statistics(tmp_path):
    model = keras.Sequential([*zoo.mlp().layers, layers.BatchNormalization()])
    model.build((None, 12))
    x = inputs(40)
    chip = adapt_batchnorm(chip_of(model), x)
    chip.save(tmp_path / "chip.keras")
    again = keras.models.load_model(tmp_path / "chip.keras")
    for a, b in zip(statistics(again), statistics(chip), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(c(x)) for c in (again, chip)))
    assert not np.allclose(statistics(chip)[0], statistics(model)[0])


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    x, y = zoo.digits_like(300)
    model = keras.Sequential([keras.Input((12,))])
    for _ in range(2):
        model.add(layers.Dense(16))
        model.add(layers.BatchNormalization(momentum=0.8))
        model.add(layers.ReLU())
        model.add(layers.Dropout(0.1))
    model.add(layers.Dense(3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=6, verbose=0)
    return model, (x, y)


@pytest.mark.slow
def test_a_chip_recovers_from_heavy_drift(trained):
    model, (x, y) = trained
    options = {"seed": 0, "compensation": "none", "read_noise": "frozen"}
    chip = hwa_keras.program(model, PCM(drift_scale=3.0), **options)
    chip.t = YEAR
    _, drifted = chip.evaluate(x, y, verbose=0)
    adapt_batchnorm(chip, x)
    _, adapted = chip.evaluate(x, y, verbose=0)
    assert drifted < 0.8 and adapted > 0.95


@pytest.mark.slow
def test_sweeps_adapt_every_chip_at_every_time(trained):
    model, (x, y) = trained
    times = {"1 s": 1.0, "1 year": YEAR}
    result = hwa_keras.drift_sweep(
        model,
        PCM(drift_scale=3.0),
        (x, y),
        times=times,
        chips=2,
        compensation="none",
        calibration=x[:200],
        verbose=0,
    )
    losses = result.values("none", "1 year", metric="loss")
    for i, loss in enumerate(losses):
        chip = hwa_keras.program(model, PCM(drift_scale=3.0), i, "none", "frozen")
        chip.t = YEAR
        adapt_batchnorm(chip, x[:200])
        found = chip.evaluate(x, y, verbose=0, return_dict=True)
        assert loss == pytest.approx(found["loss"], 1e-3)
    assert result.estimate("none", "1 year").mean > 0.95


@pytest.mark.slow
def test_monte_carlo_adapts_every_chip(trained):
    model, (x, y) = trained
    noise = hwa_keras.noise.ProcessVariation(0.3)
    found = hwa_keras.monte_carlo(
        model, noise, (x, y), chips=2, calibration=x[:200], verbose=0
    )
    for i in range(2):
        chip = hwa_keras.program(model, noise, i, "none", "off")
        adapt_batchnorm(chip, x[:200])
        loss = chip.evaluate(x, y, verbose=0, return_dict=True)["loss"]
        assert found.values(metric="loss")[i] == pytest.approx(loss, rel=1e-3)


# --- Errors


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\)"),
        ({"momentum": -0.1}, r"`momentum` must be in \[0, 1\)"),
        ({"momentum": float("nan")}, r"`momentum` must be in \[0, 1\)"),
        ({"batches": 0}, "`batches` must be an integer"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer"),
        ({"calibration": np.zeros((0, 12))}, "`calibration` is empty"),
        ({"calibration": iter([])}, "`calibration` is empty"),
        ({"calibration": []}, "`calibration` is empty"),
        ({"calibration": [np.zeros((2, 12)), np.zeros(3)]}, "same number of examples"),
        ({"model": zoo.mlp}, "has no BatchNormalization layers"),
        ({"model": lambda: keras.Sequential([layers.Dense(2)])}, "is not built"),
    ],
)
def test_bad_values(kwargs, message):
    model = kwargs.pop("model", small)()
    with pytest.raises(ValueError, match=message):
        adapt_batchnorm(model, **{"calibration": inputs(), **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": 3}, "`model` must be a Keras model"),
        ({"calibration": None}, "`calibration` must be an array"),
        ({"calibration": [1.0, 2.0]}, "must hold arrays with a dimension of examples"),
    ],
)
def test_bad_types(kwargs, message):
    with pytest.raises(TypeError, match=message):
        adapt_batchnorm(**{"model": small(), "calibration": inputs(), **kwargs})


def test_a_failure_leaves_the_model_as_it_was():
    model = small()
    before = statistics(model)
    with pytest.raises(ValueError):
        adapt_batchnorm(model, np.zeros((4, 7), "float32"))
    assert_close(statistics(model), before)
    assert all("call" not in vars(layer) for layer in norms(model))
    assert [layer.momentum for layer in norms(model)] == [0.99, 0.5]
