"""Encoders against what they say, computed by loops in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras.spiking import DeltaEncoder, LatencyEncoder, RateEncoder
from tests import fresh

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

RNG = np.random.default_rng(3)


def encoded(encoder, x):
    spikes = ops.convert_to_numpy(encoder(x))
    assert set(np.unique(spikes)) <= {0.0, 1.0}
    return spikes


# --- Rates


@pytest.mark.parametrize("max_rate", [1.0, 0.4])
def test_rates_are_intensities(max_rate):
    x = np.linspace(-0.2, 1.2, 15).reshape(3, 5).astype("float32")
    steps = 4000
    spikes = encoded(RateEncoder(steps, max_rate, seed=1), x)
    assert spikes.shape == (3, steps, 5)
    p = np.clip(x * max_rate, 0, 1).astype("float64")
    error = spikes.mean(1) - p
    assert (np.abs(error) <= 4 * np.sqrt(p * (1 - p) / steps)).all()


def test_steps_and_neurons_are_independent():
    spikes = encoded(RateEncoder(2000, seed=2), np.full((2, 8), 0.5, "float32"))
    columns = spikes.transpose(0, 2, 1).reshape(16, -1)
    correlations = np.corrcoef(columns)[~np.eye(16, dtype=bool)]
    later = [np.corrcoef(c[1:], c[:-1])[0, 1] for c in columns]
    assert np.abs([*correlations, *later]).max() < 4.5 / np.sqrt(2000)


def test_each_call_draws_anew_and_a_seed_repeats_it():
    x = np.full((2, 3, 4, 1), 0.5, "float32")
    encoder, same = RateEncoder(20, seed=4), RateEncoder(20, seed=4)
    first, second = encoded(encoder, x), encoded(encoder, x)
    assert first.shape == (2, 20, 3, 4, 1) and (first != second).any()
    np.testing.assert_array_equal(encoded(same, x), first)
    np.testing.assert_array_equal(encoded(same, x), second)


# --- Latencies


def loop_of_latencies(x, steps, threshold, tau):
    """One spike for each intensity above the threshold."""
    spikes = np.zeros((len(x), steps, *x.shape[1:]))
    for index, value in np.ndenumerate(x.astype("float64")):
        value = min(value, 1.0)
        if value <= np.float32(threshold):
            continue
        if tau is None:
            t = (steps - 1) * (1 - value) / (1 - threshold)
        else:
            t = tau * np.log(value / (value - threshold))
        step = int(np.round(min(t, steps - 1)))
        spikes[(index[0], step, *index[1:])] = 1
    return spikes


@pytest.mark.parametrize("tau", [None, 5.0])
def test_latencies_are_those_of_the_loop(tau):
    x = RNG.uniform(-0.1, 1.2, (4, 6, 5)).astype("float32")
    x[0, 0, :3] = [0.2, 1.0, 0.0]
    spikes = encoded(LatencyEncoder(17, threshold=0.2, tau=tau), x)
    np.testing.assert_array_equal(spikes, loop_of_latencies(x, 17, 0.2, tau))
    # The brightest spikes first: at once by the linear law.
    assert spikes[0, :, 0, 1].argmax() == (0 if tau is None else 1)


# --- Changes


def loop_of_changes(x, threshold):
    reference, found = x[:, 0].copy(), []
    for t in range(x.shape[1]):
        on = x[:, t] >= reference + threshold
        off = x[:, t] <= reference - threshold
        reference = reference + threshold * (on.astype(float) - off)
        found.append(np.concatenate([on, off], axis=-1))
    return np.stack(found, 1).astype(float)


def test_changes_are_those_of_the_loop():
    x = RNG.normal(size=(3, 40, 2, 4)).cumsum(1) * 0.1
    spikes = encoded(DeltaEncoder(0.125), x.astype("float32"))
    assert spikes.shape == (3, 40, 2, 8)
    np.testing.assert_array_equal(spikes, loop_of_changes(x, 0.125))
    only_on = encoded(DeltaEncoder(0.125, off=False), x.astype("float32"))
    np.testing.assert_array_equal(only_on, spikes[..., :4])


def test_slow_signals_are_followed():
    t = np.linspace(0, 2 * np.pi, 400)
    x = np.sin(t)[None, :, None].astype("float32")
    threshold = 0.05  # Five times what the signal moves by in a step.
    spikes = encoded(DeltaEncoder(threshold), x)
    followed = threshold * (spikes[..., 0] - spikes[..., 1]).cumsum(1)
    assert np.abs(followed - x[..., 0]).max() < threshold + 1e-5


# --- All of them


ENCODERS = [
    RateEncoder(6, 0.5, seed=1),
    LatencyEncoder(6, 0.1, tau=2.0),
    DeltaEncoder(0.1),
]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_shapes_types_and_configurations(encoder):
    again = type(encoder).from_config(encoder.get_config())
    assert again.get_config() == encoder.get_config()
    x = keras.KerasTensor((None, 4, 3))
    expected = (None, 4, 6) if isinstance(encoder, DeltaEncoder) else (None, 6, 4, 3)
    assert encoder(x).shape == expected
    half = type(encoder).from_config({**encoder.get_config(), "dtype": "float16"})
    y = half(np.ones((2, 4, 3), "float16"))
    assert keras.backend.standardize_dtype(y.dtype) == "float16"


def test_models_with_encoders_train_and_load(tmp_path):
    x = RNG.uniform(size=(8, 4, 3)).astype("float32")
    inputs = keras.Input((4, 3))
    spikes = [
        keras.layers.Flatten()(type(encoder).from_config(encoder.get_config())(inputs))
        for encoder in ENCODERS
    ]
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(spikes))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(x, np.ones((8, 1)), batch_size=5, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    # The random numbers go on where they were.
    np.testing.assert_array_equal(again(x), model(x))
    fixed = keras.Model(inputs, keras.layers.Concatenate()(spikes[1:]))
    fresh.assert_loads_equal({"fixed": fixed}, {"fixed": x}, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RateEncoder(0), "`steps` of RateEncoder must be an integer ≥ 1"),
        (lambda: RateEncoder(5, 1.5), "`max_rate` of RateEncoder is a.*max_rate=1.5"),
        (lambda: LatencyEncoder(5, 1.0), "`threshold` of LatencyEncoder must be below"),
        (lambda: LatencyEncoder(5, tau=-1), "`tau` of LatencyEncoder must be a pos"),
        (lambda: DeltaEncoder(0.0), "`threshold` of DeltaEncoder must be a positive"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
