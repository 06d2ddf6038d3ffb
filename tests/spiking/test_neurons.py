"""Layers of neurons: values against NumPy and snnTorch, state, training, errors."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.spiking import ALIF, LIF, SynapticLIF
from tests.gradients import gradient
from tests.spiking.networks import LABELS, MISMATCH, TAUS, X, network

RNG = np.random.default_rng(5)


def as_numpy(x):
    return ops.convert_to_numpy(x)


def reference(currents, beta, threshold, reset, floor=None, alpha=0.0, b=0.0, rho=0.0):
    """One layer of neurons in float64: spikes, and membranes before the reset."""
    v, i, a = (np.zeros(currents.shape[::2]) for _ in range(3))
    spikes, membranes = [], []
    for current in np.moveaxis(currents, 1, 0):
        i = alpha * i + current
        level = threshold + b * a
        u = beta * v + i
        z = (u > level).astype(float)
        v = {"zero": u * (1 - z), "subtract": u - level * z, "none": u}[reset]
        v = v if floor is None else np.maximum(v, floor)
        a = rho * a + z
        spikes.append(z)
        membranes.append(u)
    return np.stack(spikes, 1), np.stack(membranes, 1)


KINDS = [
    (LIF, {"reset": "zero"}, {"reset": "zero"}),
    (LIF, {"reset": "zero", "floor": 0.0}, {"reset": "zero", "floor": 0.0}),
    (LIF, {"reset": "subtract"}, {"reset": "subtract"}),
    (LIF, {"reset": "none"}, {"reset": "none"}),
    (
        SynapticLIF,
        {"tau_synapse": 16e-3, "reset": "subtract", "floor": -0.5},
        {"alpha": np.exp(-0.5), "reset": "subtract", "floor": -0.5},
    ),
    (
        ALIF,
        {"tau_adaptation": 0.1, "adaptation": 0.4, "reset": "subtract"},
        {"b": 0.4, "rho": np.exp(-0.08), "reset": "subtract"},
    ),
]


def two_layers(kind, **arguments):
    neurons = [kind(**TAUS, return_membrane=True, **arguments) for _ in range(2)]
    synapses = [layers.Dense(6, use_bias=False), layers.Dense(3, use_bias=False)]
    inputs = keras.Input((None, 5))
    spikes, first = neurons[0](synapses[0](inputs))
    spikes, second = neurons[1](synapses[1](spikes))
    model = keras.Model(inputs, [spikes, first, second])
    for synapse in synapses:
        synapse.kernel.assign(RNG.normal(scale=1.5, size=synapse.kernel.shape))
    return model, [as_numpy(s.kernel).astype("float64") for s in synapses]


@pytest.mark.parametrize(("kind", "arguments", "expected"), KINDS)
def test_two_layers_compute_what_numpy_computes(kind, arguments, expected):
    model, (w1, w2) = two_layers(kind, **arguments)
    beta = np.exp(-8e-3 / 64e-3)
    hidden, u1 = reference(X.astype("float64") @ w1, beta, 1.0, **expected)
    spikes, u2 = reference(hidden @ w2, beta, 1.0, **expected)
    found = [as_numpy(y) for y in model(X)]
    np.testing.assert_array_equal(found[0], spikes)
    np.testing.assert_allclose(found[1], u1, atol=1e-4)
    np.testing.assert_allclose(found[2], u2, atol=1e-4)
    assert 0.02 < spikes.mean() < 0.9
    np.testing.assert_array_equal(model.predict(X, verbose=0)[0], spikes)


RECORDED = json.loads(Path(__file__).with_name("snntorch_1_0_0.json").read_text())


@pytest.mark.parametrize("setting", RECORDED["settings"])
def test_spikes_and_gradients_are_those_of_snntorch(setting):
    """Recorded with snntorch 1.0.0 on torch 2.14.1, in float32 on a CPU.

    Two layers of `snn.Leaky(beta, spike_grad=surrogate.fast_sigmoid(25))`, β = 0.9 and
    0.8, in a loop over time, and the gradients of Σ g·spikes. Its reset at the next
    step is ours where z is a constant in the backward pass ("zero"); with
    `reset_delay=False`, gradients pass through z ("through").
    """
    rng = np.random.RandomState(0)
    x = rng.uniform(0, 1.5, size=(30, 3, 4))
    w1 = rng.uniform(-0.05, 0.18, size=(4, 6))
    w2 = rng.uniform(-0.05, 0.35, size=(6, 3))
    g = rng.normal(size=(30, 3, 3)).astype("float32")
    x, w1, w2 = (a.astype("float32") for a in (np.swapaxes(x, 0, 1), w1, w2))
    reset, _, through = setting.partition(", ")
    first, second = (
        LIF(-8e-3 / np.log(b), 8e-3, reset=reset, reset_gradient=through == "through")
        for b in (0.9, 0.8)
    )

    def run(w1, w2):
        hidden = first(ops.matmul(x, w1))
        return hidden, second(ops.matmul(hidden, w2))

    recorded = RECORDED["settings"][setting]
    for spikes, name in zip(run(w1, w2), ("hidden", "spikes"), strict=True):
        bits = np.swapaxes(as_numpy(spikes), 0, 1).astype(bool)
        assert np.packbits(bits.ravel()).tobytes().hex() == recorded[name]
    found = gradient(lambda *w: run(*w)[1] * np.swapaxes(g, 0, 1), w1, w2)
    for a, name in zip(found, ("w1", "w2"), strict=True):
        np.testing.assert_allclose(a, recorded[name], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("kind", "arguments", "_"), KINDS[2:])
def test_state_is_local_to_a_call_unless_it_is_asked_for(kind, arguments, _):
    x = 2.0 * X
    layer = kind(**TAUS, **arguments)
    whole = as_numpy(layer(x))
    np.testing.assert_array_equal(as_numpy(layer(x)), whole)
    stateful = kind(**TAUS, **arguments, stateful=True)
    parts = [as_numpy(stateful(part)) for part in (x[:, :7], x[:, 7:])]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    stateful.reset_state()
    np.testing.assert_array_equal(as_numpy(stateful(x)), whole)
    with pytest.raises(ValueError, match="keeps the states of a batch of 4"):
        stateful(x[:3])
    returning = kind(**TAUS, **arguments, return_state=True)
    first, *state = returning(x[:, :7])
    second = returning(x[:, 7:], initial_state=state)[0]
    found = np.concatenate([as_numpy(first), as_numpy(second)], axis=1)
    np.testing.assert_array_equal(found, whole)


def test_a_stateful_model_trains_and_predicts_in_parts():
    inputs = keras.Input(batch_shape=(4, 10, 5))
    spikes = LIF(**TAUS, stateful=True)(layers.Dense(3)(inputs))
    model = keras.Model(inputs, spikes)
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(X[:, :10], np.zeros((4, 10, 3)), batch_size=4, verbose=0)
    layer = model.layers[-1]
    assert np.any(as_numpy(layer.states[0]) != 0)
    layer.reset_state()
    parts = [model.predict(x, verbose=0, batch_size=4) for x in (X[:, :10], X[:, 10:])]
    whole = LIF(**TAUS)(model.layers[1](X))
    np.testing.assert_array_equal(np.concatenate(parts, 1), as_numpy(whole))


def test_images_over_time_and_a_mask():
    images = RNG.normal(size=(2, 6, 3, 3, 4)).astype("float32")
    flat = images.reshape(2, 6, 36)
    layer = LIF(**TAUS)
    found = as_numpy(layer(images)).reshape(2, 6, 36)
    np.testing.assert_array_equal(found, as_numpy(LIF(**TAUS)(flat)))
    masked = layers.Masking()(X)
    assert as_numpy(LIF(**TAUS)(masked)._keras_mask).shape == (4, 20)
    specs = ALIF(0.06, 0.2, 8e-3, return_membrane=True, return_state=True)(
        keras.Input((None, 5))
    )
    shapes = [spec.shape for spec in specs]
    assert shapes == [(None, None, 5)] * 2 + [(None, 5)] * 2


def test_time_constants_of_neurons_and_levels():
    tau = np.array([10e-3, 30e-3, 80e-3, 200e-3, np.inf])
    layer = LIF(tau, 8e-3)
    layer.build((None, None, 5))
    [beta], threshold = layer.constants()
    np.testing.assert_allclose(as_numpy(beta), np.exp(-8e-3 / tau), rtol=1e-6)
    assert threshold == 1.0
    levels = [8e-3, 32e-3, 128e-3]
    layer = LIF(tau[:4], 8e-3, tau_levels=levels)
    layer.build((None, None, 4))
    expected = np.exp(-8e-3 / np.array([8e-3, 32e-3, 32e-3, 128e-3]))
    np.testing.assert_allclose(as_numpy(layer.constants()[0][0]), expected, rtol=1e-6)
    learned = LIF(tau[:4], 8e-3, tau_levels=levels, learn_tau=True)
    learned.build((None, None, 4))
    np.testing.assert_allclose(as_numpy(learned.constants()[0][0]), expected, rtol=1e-6)


def test_learned_time_constants_train_and_stay_positive():
    layer = LIF(**TAUS, learn_tau=True, reset="none", return_membrane=True)
    inputs = keras.Input((20, 5))
    model = keras.Model(inputs, layer(inputs)[1])
    target = LIF(16e-3, 8e-3, reset="none", return_membrane=True)(X)[1]
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=True)
    assert len(model.trainable_weights) == 1
    many = [np.tile(a, (40, 1, 1)) for a in (X, as_numpy(target))]
    model.fit(*many, batch_size=4, epochs=5, verbose=0)
    found = -8e-3 / np.log(as_numpy(layer.constants()[0][0]))
    np.testing.assert_allclose(found, 16e-3, rtol=0.02)
    layer.trainable_weights[0].assign(np.full(5, -40.0))
    assert np.isfinite(as_numpy(model(X))).all()


def test_training_reduces_the_loss():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network(16, **MISMATCH)
    finally:
        keras.config.set_dtype_policy("float32")
    x = np.tile(2 * X, (4, 1, 1))
    before = [as_numpy(w) for w in model.trainable_weights]
    history = model.fit(x, np.tile(LABELS, 4), epochs=25, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert np.mean(history[-3:]) < 0.9 * history[0]
    after = [as_numpy(w) for w in model.trainable_weights]
    assert all(np.isfinite(w).all() for w in after)
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))


@pytest.mark.tensorflow_only
def test_double_precision():
    layer = LIF(**TAUS, dtype="float64", return_membrane=True, reset="none")
    x = X.astype("float64")
    expected = reference(x, np.exp(-0.125), 1.0, "none")[1]
    np.testing.assert_allclose(as_numpy(layer(x)[1]), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 1e-3}, r"less than 5·tau.*keeps exp\(−dt/τ\) = 0.00034.*Make dt"),
        ({"tau": 0.0}, "`tau` of LIF must be positive.*tau=0.0"),
        ({"tau": [0.1, -0.1]}, "`tau` of LIF must be positive"),
        ({"tau": "fast"}, "`tau` of LIF must be a number, or an array"),
        ({"dt": 0.0}, "`dt` of LIF must be a positive"),
        ({"threshold": 0.0}, "`threshold` of LIF must be positive and finite"),
        ({"threshold": np.inf}, "`threshold` of LIF must be positive and finite"),
        ({"tau_levels": [0.02, 1e-3]}, "less than 5·tau_levels"),
        ({"tau_levels": [0.02], "tau": np.inf}, "`tau` of LIF must be finite"),
        ({"learn_tau": True, "tau": np.inf}, "`tau` of LIF must be finite"),
        ({"reset": "hard"}, "`reset`.*one of 'zero', 'subtract', 'none'"),
        ({"surrogate": "steep"}, "Unknown surrogate 'steep'"),
        ({"floor": 1.0}, "`floor` of LIF must be below the threshold"),
        ({"tau_noise": -0.1}, "`tau_noise` of LIF must be a finite number and not"),
        ({"tau_noise": "blur"}, "Unknown noise 'blur'"),
        ({"stateful": 1}, "`stateful` of LIF must be one of False, True"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LIF(**{**TAUS, **arguments})


def test_bad_inputs_are_named():
    with pytest.raises(ValueError, match="inputs of int32: cast them"):
        LIF(**TAUS)(np.ones((2, 3, 4), "int32"))
    with pytest.raises(ValueError, match="inputs of int32: cast them"):
        LIF(**TAUS)(keras.Input((3, 4), dtype="int32"))
    with pytest.raises(ValueError, match=r"takes inputs \[batch, time, ..., channels"):
        LIF(**TAUS)(np.ones((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"`tau`.*broadcasts with the neurons.*\(4,\)"):
        LIF([0.1, 0.2], 8e-3)(np.ones((2, 3, 4), "float32"))
    with pytest.raises(ValueError, match="`stateful`.*batch_shape"):
        LIF(**TAUS, stateful=True)(keras.Input((3, 4)))
    with pytest.raises(ValueError, match="`initial_state`.*membrane, current"):
        SynapticLIF(0.1, 0.1, 8e-3)(X, initial_state=[np.zeros((4, 5))])
    with pytest.raises(ValueError, match="is not built"):
        LIF(**TAUS, tau_noise=0.1).draw_chip(hwa_keras.random.seed_from(1))
    with pytest.raises(TypeError, match="`tau_noise` of LIF must be a standard"):
        LIF(**TAUS, tau_noise=lambda w, seed: w)


def test_inputs_of_other_ranks_come_and_go():
    """One layer on sequences of vectors, of images and of vectors again."""
    layer = LIF(20e-3, 1e-3)
    x = np.random.default_rng(0).uniform(0, 2, (2, 9, 3)).astype("float32")
    expected = as_numpy(layer(x))
    for shape in ((2, 9, 3, 1), (2, 9, 1, 3, 1), (2, 9, 3)):
        found = as_numpy(layer(x.reshape(shape)))
        np.testing.assert_array_equal(found.reshape(x.shape), expected)
