"""Converted ReLU networks: rates against activations, in NumPy, and accuracy."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.spiking import (
    LIF,
    ConstantEncoder,
    MaxRatePooling,
    PerStep,
    RateEncoder,
    RateReadout,
    accuracy_over_time,
    to_spiking,
)

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

X = np.random.default_rng(0).uniform(-1, 1, (40, 6)).astype("float32")
IMAGES = np.random.default_rng(1).uniform(0, 1, (20, 8, 8, 2)).astype("float32")


def numbers(x):
    return ops.convert_to_numpy(x).astype("float64")


def chain(*stack, shape=(6,), seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(shape), *stack])
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(keras.random.normal(layer.bias.shape, stddev=0.2))
    return model


def fired(currents, steps):
    """Spikes `[steps, ...]` of neurons that do not leak and begin at a half."""
    v, spikes = np.full(currents.shape[1:], 0.5), []
    for t in range(steps):
        u = v + currents[t]
        spikes.append((u > 1).astype("float64"))
        v = u - spikes[-1]
    return np.stack(spikes)


def test_spikes_are_those_of_the_network_by_hand():
    """Thresholds of the quantiles, scaled weights, and the reset, in float64."""
    model = chain(layers.Dense(9, activation="relu"), layers.Dense(4))
    spiking = to_spiking(model, X, steps=30, quantile=0.9)
    w, b, w2, b2 = (numbers(v) for v in model.weights)
    activations = np.maximum(X @ w + b, 0)
    ceiling = np.quantile(activations, 0.9)
    spikes = fired(np.tile((X @ w + b) / ceiling, (30, 1, 1)), 30)
    expected = ceiling * spikes.mean(0) @ w2 + b2
    # A membrane within rounding of its threshold may spike a step later.
    off = np.abs(numbers(spiking(X)) - expected)
    assert np.median(off) < 1e-5
    assert off.max() < 2 * np.abs(w2).sum(0).max() * ceiling / 30
    assert [type(x).__name__ for x in spiking.layers] == [
        "InputLayer", "ConstantEncoder", "Dense", "LIF", "Dense", "RateReadout",
    ]  # fmt: skip


@pytest.mark.parametrize("bound", [None, 0.5])
def test_rates_of_a_layer_are_its_activations_to_half_a_spike(bound):
    model = chain(layers.Dense(9), layers.ReLU(max_value=bound))
    exact = numbers(model(X))
    for steps in (10, 100):
        spiking = to_spiking(model, X, steps=steps, quantile=1.0)
        error = np.abs(numbers(spiking(X)) - exact).max()
        assert error <= (0.5 / steps + 1e-4) * exact.max()


def test_deep_rates_approach_the_activations_with_time():
    model = chain(*(layers.Dense(12, activation="relu") for _ in range(3)))
    exact = numbers(model(X))
    errors = [
        np.sqrt(np.mean((numbers(to_spiking(model, X, t, 1.0)(X)) - exact) ** 2))
        for t in (25, 100, 400)
    ]
    scale = exact.max()
    assert errors[2] < errors[1] < errors[0] < 0.2 * scale
    assert errors[2] < 0.02 * scale


CONVOLUTIONS = {
    "maxima": lambda: [
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(5),
        layers.Softmax(),
    ],
    "means": lambda: [
        layers.Rescaling(0.5, 0.1),
        layers.ZeroPadding2D(1),
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.AveragePooling2D(2),
        layers.Dropout(0.5),
        layers.ReLU(),
        layers.DepthwiseConv2D(2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, activation="softmax"),
    ],
    "reshaped": lambda: [
        layers.Conv2D(3, 3, padding="same", activation="relu"),
        layers.Reshape((64, 3)),
        layers.Conv1D(4, 3, activation="relu"),
        layers.GlobalMaxPooling1D(),
    ],
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_pooling_and_folded_normalizations(name):
    model = chain(*CONVOLUTIONS[name](), shape=(8, 8, 2))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-0.2, 0.2, 4))
            layer.moving_variance.assign(np.linspace(0.2, 0.5, 4))
    before = [numbers(w) for w in model.weights]
    exact = numbers(model(IMAGES))
    spiking = to_spiking(model, IMAGES, steps=300, quantile=1.0)
    found = numbers(spiking(IMAGES))
    assert np.abs(found - exact).max() < 0.03 * np.abs(exact).max()
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, numbers(new))


def test_maxima_pass_the_spikes_of_the_neuron_with_the_most():
    spikes = (np.random.default_rng(2).random((3, 40, 6, 2)) < 0.4).astype("float32")
    found = numbers(MaxRatePooling(layers.MaxPooling1D(3))(spikes))
    counts = np.cumsum(spikes, axis=1).reshape(3, 40, 2, 3, 2).max(axis=3)
    np.testing.assert_array_equal(np.cumsum(found, axis=1), counts)
    assert set(np.unique(found)) == {0.0, 1.0}


def test_one_call_for_all_steps_is_one_call_for_each():
    conv = layers.Conv2D(3, 3)
    x = np.random.default_rng(2).random((2, 5, 6, 6, 2)).astype("float32")
    found = numbers(PerStep(conv)(x))
    each = np.stack([numbers(conv(x[:, t])) for t in range(5)], axis=1)
    np.testing.assert_allclose(found, each, atol=1e-5)
    symbolic = PerStep(layers.Conv2D(3, 3))(keras.Input((None, 6, 6, 2)))
    assert symbolic.shape == (None, None, 4, 4, 3)


def test_spiking_inputs_come_from_an_encoder():
    model = chain(layers.Dense(5, activation="relu"))
    x = np.abs(X)
    spiking = to_spiking(model, x, encoder=RateEncoder(2000, seed=1), quantile=1.0)
    w, _ = (numbers(v) for v in model.weights)
    # Of Bernoulli sums, plus a spike.
    error = np.sqrt((0.25 * w**2).sum(0) / 2000) + numbers(model(x)).max() / 2000
    assert (np.abs(numbers(spiking(x)) - numbers(model(x))) < 5 * error).all()
    assert hwa_keras.spiking_energy(spiking, x[:4]).layers[0].synops > 0


def test_digits_lose_no_accuracy_and_few_steps_cost_some():
    """On 360 test images, against the network that was converted."""
    data = hwa_keras.datasets.load("digits")
    model = chain(
        layers.Conv2D(8, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dense(10),
        shape=(8, 8, 1),
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(*data.train, batch_size=64, epochs=8, verbose=0)
    accuracy = model.evaluate(*data.test, verbose=0)[1]
    assert accuracy > 0.93
    spiking = to_spiking(model, data.train[0][:500], steps=64)
    over_time = accuracy_over_time(spiking, *data.test)
    assert over_time.shape == (64,)
    assert abs(over_time[-1] - accuracy) <= 0.02
    assert over_time[1] < over_time[-1]
    measured = spiking.evaluate(*data.test, batch_size=360, verbose=0)[1]
    assert measured == pytest.approx(over_time[-1], abs=1.5 / 360)
    short = to_spiking(model, data.train[0][:500], steps=8)
    fewer = short.evaluate(*data.test, batch_size=360, verbose=0)[1]
    assert fewer == pytest.approx(over_time[7], abs=1.5 / 360)


def test_it_is_an_ordinary_model(tmp_path):
    model = chain(
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(5, activation="softmax", name="dense"),
        shape=(8, 8, 2),
    )
    spiking = to_spiking(model, IMAGES, steps=10)
    spiking.save(tmp_path / "spiking.keras")
    again = keras.models.load_model(tmp_path / "spiking.keras")
    np.testing.assert_array_equal(numbers(again(IMAGES)), numbers(spiking(IMAGES)))
    energy = hwa_keras.spiking_energy(spiking, IMAGES, "seneca")
    rows = {row.path.rpartition("/")[2]: row for row in energy.layers}
    assert rows["conv_neurons"].spikes > 0 and rows["conv"].analog_macs > 0
    assert rows["dense"].synops > 0
    assert energy.seconds == pytest.approx(10e-3)
    hardware = hwa_keras.to_hwa(spiking, kernel_noise="programming_noise", verbose=0)
    assert len(hwa_keras.program(hardware, seed=0, verbose=0).tiles) == 2
    labels = np.arange(20) % 5
    hardware.compile("adam", "sparse_categorical_crossentropy")
    before = numbers(hardware.get_layer("dense").kernel)
    hardware.fit(IMAGES, labels, verbose=0)
    assert np.abs(numbers(hardware.get_layer("dense").kernel) - before).max() > 0


def test_new_layers_come_back_from_their_configs():
    for layer in (
        ConstantEncoder(7),
        RateReadout(2.5),
        PerStep(layers.Conv2D(3, 2)),
        MaxRatePooling(layers.MaxPooling2D(2)),
        LIF(np.inf, 1e-3, reset="subtract", initial_membrane=0.5),
    ):
        config = keras.layers.serialize(layer)
        again = keras.layers.deserialize(json.loads(json.dumps(config)))
        assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([layers.Dense(3, "relu"), layers.LayerNormalization(name="norm")], "'norm'"),
        ([layers.Dense(3), layers.LeakyReLU(name="leaky")], "'leaky' .LeakyReLU"),
        ([layers.Dense(3), layers.Dense(3, "relu", name="second")], "'second' .Dense"),
        ([layers.Dense(3, "tanh"), layers.Dense(3, "relu", name="b")], "'b' .Dense"),
        (
            [layers.Dense(3), layers.ReLU(), layers.Rescaling(2.0, name="r")],
            "'r' .Resc",
        ),
        ([layers.ReLU(name="first")], "'first' .ReLU"),
        ([layers.Dense(3, name="alone")], "has no ReLU"),
        (
            [layers.BatchNormalization(name="bn"), layers.Dense(3, "relu")],
            "'bn' follows",
        ),
        (
            [hwa_keras.layers.HWADense(3, activation="relu", name="hw")],
            "'hw' .HWADense. is on hardware",
        ),
    ],
)
def test_layers_that_cannot_be_converted_are_named(stack, message):
    with pytest.raises(ValueError, match=message):
        to_spiking(chain(*stack), X)


def test_bad_arguments_and_data_are_clear():
    model = chain(layers.Dense(3, activation="relu", name="dense"))
    inputs = keras.Input((6,))
    dense = layers.Dense(6, activation="relu")(inputs)
    forked = keras.Model(inputs, layers.Add(name="sum")([inputs, dense]))
    for error, message, call in (
        (TypeError, "takes a built Keras model", lambda: to_spiking(3, X)),
        (ValueError, "one chain of layers", lambda: to_spiking(forked, X)),
        (ValueError, "quantile=0", lambda: to_spiking(model, X, quantile=0)),
        (ValueError, "steps", lambda: to_spiking(model, X, steps=0)),
        (ValueError, "goes without `encoder`",
         lambda: to_spiking(model, X, 10, encoder=RateEncoder(10))),
        (ValueError, "is empty", lambda: to_spiking(model, X[:0])),
        (ValueError, "'dense' are not finite", lambda: to_spiking(model, X * np.nan)),
        (ValueError, "no RateReadout", lambda: accuracy_over_time(model, X, X)),
        (ValueError, "initial_membrane=1.0",
         lambda: LIF(1.0, 1e-3, initial_membrane=1.0)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()
    model.get_layer("dense").bias.assign(np.full(3, -100.0))
    with pytest.raises(ValueError, match="quantile of the activations of 'dense' is 0"):
        to_spiking(model, X)
