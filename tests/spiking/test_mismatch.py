"""Neurons that differ: in training, on chips, in files."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import spiking
from hwa_keras.noise import ProcessVariation
from hwa_keras.spiking import ALIF, LIF, SynapticLIF
from tests import fresh
from tests.spiking.networks import LABELS, MISMATCH, TAUS, X, network


def as_numpy(x):
    return ops.convert_to_numpy(x)


def test_mismatch_divides_time_constants_and_multiplies_thresholds():
    layer = LIF(**TAUS, threshold=2.0, tau_noise=0.1, threshold_noise=0.05)
    layer.build((None, None, 4000))
    [nominal], threshold = layer.constants(training=False)
    np.testing.assert_allclose(as_numpy(nominal), np.exp(-0.125), rtol=1e-6)
    assert threshold == 2.0
    [beta], threshold = layer.constants(training=True)
    rates = -np.log(as_numpy(beta)) / 0.125  # 1 + σz, to rounding of β.
    assert abs(rates.mean() - 1) < 4 * 0.1 / np.sqrt(4000)
    assert abs(rates.std() / 0.1 - 1) < 4 / np.sqrt(2 * 4000)
    factors = as_numpy(threshold) / 2
    assert abs(factors.std() / 0.05 - 1) < 4 / np.sqrt(2 * 4000)
    assert abs(np.corrcoef(rates, factors)[0, 1]) < 4 / np.sqrt(4000)
    z = hwa_keras.random.normal((1, 4000), layer.tau_noise.chip.value)
    np.testing.assert_allclose(rates, 1 + 0.1 * as_numpy(z)[0], rtol=1e-5)


@pytest.mark.parametrize("hold", [True, False])
def test_mismatch_is_held_or_drawn_anew_in_training(hold):
    noise = ProcessVariation(0.5, hold=hold)
    layer = SynapticLIF(0.06, 0.02, 8e-3, tau_noise=noise, return_membrane=True)
    quiet = [as_numpy(layer(X)[1]) for _ in range(2)]
    drawn = [as_numpy(layer(X, training=True)[1]) for _ in range(2)]
    np.testing.assert_array_equal(*quiet)
    assert np.array_equal(*drawn) == hold
    assert np.any(drawn[0] != quiet[0])
    decays, _ = layer.constants(training=True)
    assert abs(np.corrcoef(np.log(as_numpy(decays)))[0, 1]) < 0.999  # Drawn apart.


def test_however_wide_the_mismatch_membranes_leak():
    layer = LIF(**TAUS, tau_noise=3.0, threshold_noise=3.0)
    layer.build((None, None, 1000))
    [beta], threshold = layer.constants(training=True)
    assert as_numpy(beta).max() < 1 and as_numpy(threshold).min() > 0
    np.testing.assert_allclose(as_numpy(beta).max(), np.exp(-0.125 / 100), rtol=1e-6)


def test_a_chip_holds_one_draw_of_all_of_its_neurons():
    model = network(**MISMATCH)
    device = ProcessVariation(0.1)
    chips = [hwa_keras.program(model, device, s, verbose=0) for s in (1, 1, 2)]
    first, same, other = (as_numpy(chip(2 * X)) for chip in chips)
    np.testing.assert_array_equal(first, same)
    np.testing.assert_array_equal(first, as_numpy(chips[0](2 * X, training=True)))
    assert np.any(first != other)
    lifs = [a for a in chips[0].layers if isinstance(a, LIF)]
    factors = [as_numpy(lif.threshold_factor).ravel() for lif in lifs]
    assert np.all(factors[0][:2] != factors[1])
    chips[2].write(1)
    np.testing.assert_array_equal(as_numpy(chips[2](2 * X)), first)
    assert not any(a.on_chip for a in model.layers if isinstance(a, LIF))


def test_monte_carlo_draws_the_neurons_that_program_draws():
    model = network(**MISMATCH)
    data = 2 * X, LABELS
    exact = ProcessVariation(0.0)
    found = hwa_keras.monte_carlo(model, exact, data, chips=3, seed=4, verbose=0)
    chip = hwa_keras.program(model, exact, 4, "none", verbose=0)
    expected = []
    for seed in (4, 5, 6):
        chip.write(seed)
        expected.append(chip.evaluate(*data, verbose=0)[0])
    np.testing.assert_allclose(found.values(metric="loss"), expected, rtol=1e-6)
    assert len(set(expected)) == 3


def test_a_stateful_chip_begins_anew_when_it_is_reset():
    chip = hwa_keras.program(
        network(stateful=True, **MISMATCH), ProcessVariation(0.1), 3, verbose=0
    )
    first = as_numpy(chip(X))
    assert np.any(as_numpy(chip(X)) != first)
    chip.reset()
    np.testing.assert_array_equal(as_numpy(chip(X)), first)


def test_models_and_chips_load_in_a_fresh_process(tmp_path):
    inputs = keras.Input((20, 5))
    x = SynapticLIF(0.06, 0.02, 8e-3, learn_tau=True, floor=0.0)(inputs)
    x = ALIF(
        np.linspace(0.02, 0.1, 5),
        0.2,
        8e-3,
        tau_levels=[0.02, 0.05, 0.1],
        tau_noise=ProcessVariation(0.2, hold=False),
        threshold=[0.5, 0.6, 0.7, 0.8, 0.9],
        surrogate=spiking.Atan(3.0),
        reset="subtract",
        reset_gradient=True,
    )(x)
    model = keras.Model(inputs, x)
    model.layers[1].trainable_weights[0].assign(np.linspace(-4, -2, 5))
    trained = network(**MISMATCH)
    chip = hwa_keras.program(trained, ProcessVariation(0.1), 3, verbose=0)
    models = {"neurons": model, "chip": chip, "network": trained}
    fresh.assert_loads_equal(models, dict.fromkeys(models, 2 * X), tmp_path)
    loaded = keras.models.load_model(tmp_path / "neurons.keras")
    assert loaded.layers[2].get_config() == model.layers[2].get_config()
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    np.testing.assert_array_equal(as_numpy(cloned(X)), as_numpy(model(X)))


@pytest.mark.tensorflow_only
def test_a_chip_is_exported_with_its_neurons(tmp_path):
    chip = hwa_keras.program(network(**MISMATCH), ProcessVariation(0.1), 3, verbose=0)
    hwa_keras.export(chip, tmp_path / "chip", verbose=0)
    times = [0.0]
    assert hwa_keras.verify_export(tmp_path / "chip", chip, 2 * X, times) == 0
