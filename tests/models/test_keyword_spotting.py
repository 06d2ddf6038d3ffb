"""The keyword spotter: its values by hand, its three models, files and chips."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.models import keyword_spotting
from hwa_keras.noise import SynapticMismatch
from tests import fresh

pytestmark = pytest.mark.slow

CHANNELS, WORDS, BINS, HIDDEN = 4, 3, 20, 8
HARDWARE = {"synaptic_std": 0.08, "tau_std": 0.1}


def small(**kwargs):
    keras.utils.set_random_seed(0)
    return keyword_spotting(CHANNELS, WORDS, HIDDEN, gain=100.0, **kwargs)


def features(batch=5):
    values = np.random.default_rng(0).exponential(0.1, (batch, BINS, CHANNELS))
    return values.astype("float32")


def neurons(currents, tau, reset=True, dt=8e-3):
    """Spikes and membranes `[batch, bins, neurons]`, in NumPy float64."""
    v = np.zeros_like(currents[:, 0])
    spikes, membranes = [], []
    for t in range(currents.shape[1]):
        u = np.exp(-dt / tau) * v + currents[:, t]
        z = (u > 1.0).astype("float64")
        v = u * (1 - z) if reset else u
        spikes.append(z)
        membranes.append(u)
    return np.stack(spikes, 1), np.stack(membranes, 1)


def on_levels(w):
    step = 0.9 / 15
    return np.clip(np.round(w / step), -15, 15) * step


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("readout", ["membrane", "count"])
def test_logits_are_those_of_the_network_by_hand(quantized, readout):
    model = small(quantized=quantized, readout=readout)
    front, hidden, word = (
        ops.convert_to_numpy(v).astype("float64") for v in model.trainable_variables
    )
    if quantized:
        front, hidden, word = map(on_levels, (front, hidden, word))
    x = features()
    spikes, _ = neurons(100.0 * x.astype("float64") * front, 20e-3)
    assert 0.05 < spikes.mean() < 0.95
    spikes, _ = neurons(spikes @ hidden, 64e-3)
    assert 0.01 < spikes.mean() < 0.95
    counted = readout == "count"
    spikes, membranes = neurons(spikes @ word, 128e-3, reset=counted)
    expected = spikes.sum(1) if counted else 10 * membranes.mean(1)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, atol=2e-4)


def test_a_gain_for_each_channel():
    gains = [50.0, 100.0, 150.0, 200.0]
    keras.utils.set_random_seed(0)
    own = keyword_spotting(CHANNELS, WORDS, HIDDEN, gain=gains)
    scaled = features() * np.array(gains, "float32") / 100.0
    found, expected = (
        ops.convert_to_numpy(v) for v in (own(features()), small()(scaled))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_three_models_have_the_same_trainable_variables():
    models = [small(quantized=False), small(), small(**HARDWARE)]
    shapes = [[v.shape for v in model.trainable_variables] for model in models]
    assert shapes == [[(CHANNELS,), (CHANNELS, HIDDEN), (HIDDEN, WORDS)]] * 3


@pytest.mark.parametrize("hold", [False, True])
def test_mismatch_is_drawn_in_training_anew_unless_it_is_held(hold):
    model, x = small(hold=hold, **HARDWARE), features()
    first, second = (ops.convert_to_numpy(model(x, training=True)) for _ in range(2))
    assert (np.abs(first - second).max() == 0) == hold
    nominal = ops.convert_to_numpy(model(x))
    assert np.abs(first - nominal).max() > 0
    ideal = small()
    for own, other in zip(
        ideal.trainable_variables, model.trainable_variables, strict=True
    ):
        own.assign(other)
    np.testing.assert_allclose(nominal, ops.convert_to_numpy(ideal(x)), atol=1e-5)


def test_every_layer_learns_and_weights_beyond_the_range_cost():
    model, x = small(**HARDWARE), features()
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, np.arange(5) % WORDS, epochs=2, verbose=0)
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert np.abs(ops.convert_to_numpy(new) - old).max() > 1e-3
    word = model.get_layer("word").kernel
    hidden = model.get_layer("hidden").kernel
    hidden.assign(ops.zeros(hidden.shape))
    word.assign(ops.full(word.shape, -1.9))
    assert float(sum(model.losses)) == pytest.approx(1.0, rel=1e-5)


def test_saves_and_loads_in_another_process(tmp_path):
    model = small(readout="count", hold=True, **HARDWARE)
    model.save(tmp_path / "words.keras")
    printed = fresh.run(
        """
        import keras, numpy as np, hwa_keras
        model = keras.models.load_model(path)
        x = np.array(inputs, "float32")
        print(*np.array(keras.ops.convert_to_numpy(model(x))).ravel())
        """,
        path=str(tmp_path / "words.keras"),
        inputs=features().tolist(),
    )
    expected = ops.convert_to_numpy(model(features())).ravel()
    np.testing.assert_allclose(np.array(printed.split(), float), expected)


def test_chips_differ_and_come_back_with_their_seed():
    model, x = small(**HARDWARE), features()
    without = [("frontend", SynapticMismatch(0.0, 0.9))]

    def chip(seed):
        device = SynapticMismatch(0.12, 0.9)
        made = hwa_keras.program(model, device, seed=seed, rules=without)
        return made, ops.convert_to_numpy(made(x))

    (first, one), (_, again), (_, other) = chip(0), chip(0), chip(1)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0
    exact, *noisy = (
        ops.convert_to_numpy(tile.kernel().variable) for tile in first.tiles
    )
    targets = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    np.testing.assert_allclose(exact, on_levels(targets[0]), atol=1e-6)
    errors = [n - on_levels(w) for n, w in zip(noisy, targets[1:], strict=True)]
    values = np.concatenate([e.ravel() for e in errors])
    # 56 errors: their standard deviation is known to one part in √(2·56).
    assert values.std() == pytest.approx(0.12 * 0.9, rel=3 / np.sqrt(2 * values.size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 0}, "`hidden` of keyword_spotting.*hidden=0"),
        ({"readout": "rate"}, "`readout` of keyword_spotting.*'rate'"),
        ({"synaptic_std": -0.1}, "`synaptic_std` of keyword_spotting.*-0.1"),
        ({"taus": (0.01, 0.02)}, "`taus` of keyword_spotting must be three"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keyword_spotting(**{"channels": 4, "classes": 3, **arguments})
