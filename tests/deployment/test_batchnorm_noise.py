"""adapt_batchnorm on models that draw the noise of training."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import adapt_batchnorm
from hwa_keras.noise import AdditiveGaussian, OutputNoise
from tests.deployment.test_batchnorm import (
    assert_close,
    by_hand,
    inputs,
    small,
    statistics,
    values,
)


def test_a_hardware_model_draws_its_noise_for_each_batch():
    model = small()
    noise = AdditiveGaussian(1.0, relative_to="absolute")
    hwa = hwa_keras.to_hwa(model, kernel_noise=noise, seed=3, verbose=0)
    x = inputs(4000)
    clean = by_hand(model, [x], 0.0)
    draws = []
    for part in (x, x):
        adapt_batchnorm(hwa, part, momentum=0.0, batches=1, batch_size=4000)
        draws.append(statistics(hwa))
    assert all(np.all(a != b) for a, b in zip(*draws, strict=True))
    # Var = Σ w² over 12 inputs of variance 1; the noise adds 12 on average, over
    # eight columns and two draws with a deviation of √(2·12/16) (and 2·w·noise).
    added = np.mean([draw[1] - clean[1] for draw in draws])
    assert abs(added - 12) < 5 * np.sqrt(2 * 12 / 16) + 1
    # The counters of the seeds: of the dropout's and of the noise's of two kernels.
    states = [v for v in hwa.variables if v.name == "seed_generator_state"]
    assert sorted(int(state[1]) for state in values(states)) == [0, 2, 2]


def test_without_noise_a_hardware_model_is_the_model_with_its_kernels_quantized():
    model, x = small(), inputs(40)
    grid = hwa_keras.quantizers.Uniform(16, "max")
    hwa = hwa_keras.to_hwa(model, grid, verbose=0)
    quantized = [k.quantized() for k in hwa_keras.hardware_kernels(hwa)]
    expected = by_hand(small(), [x], 0.015, values(quantized))
    adapt_batchnorm(hwa, x)
    assert_close(statistics(hwa), expected)


def test_hardware_layers_draw_the_noise_of_their_outputs():
    x = inputs(8000)
    options = {"output_noise": OutputNoise(2.0), "noise_seed": 1}
    model = small(hwa_keras.layers.HWADense, **options)
    clean = by_hand(model, [x], 0.0)
    adapt_batchnorm(model, x, momentum=0.0, batches=1, batch_size=8000)
    noisy = statistics(model)
    # The standard error of a variance s² over n samples is s²·√(2/n).
    error = (clean[1] + 4) * np.sqrt(2 / 8000)
    assert np.all(np.abs(noisy[1] - clean[1] - 4) < 5 * error)


def test_a_chip_has_no_noise_of_outputs_but_what_is_always_there():
    x = inputs(4000)
    for always, added in ((False, 0.0), (True, 4.0)):
        noise = OutputNoise(2.0, always=always)
        model = small(hwa_keras.layers.HWADense, output_noise=noise, noise_seed=1)
        exact = hwa_keras.devices.PCM(programming_scale=0, drift_scale=0, read_scale=0)
        chip = hwa_keras.program(model, exact, seed=1, compensation="none")
        clean = by_hand(model, [x], 0.0)
        adapt_batchnorm(chip, x, momentum=0.0, batches=1, batch_size=4000)
        error = (clean[1] + 4) * np.sqrt(2 / 4000)
        assert np.all(np.abs(statistics(chip)[1] - clean[1] - added) < 5 * error)


def test_hardware_layers_draw_the_noise_of_their_kernels():
    noise = AdditiveGaussian(1.0, relative_to="absolute")
    model, x = small(hwa_keras.layers.HWADense, kernel_noise=noise), inputs(4000)
    clean = by_hand(model, [x], 0.0)
    adapt_batchnorm(model, x, momentum=0.0, batches=1, batch_size=4000)
    added = np.mean(statistics(model)[1] - clean[1])
    assert abs(added - 12) < 5 * np.sqrt(2 * 12 / 8) + 1


def test_a_layer_of_noise_is_on_and_dropout_is_off():
    norm = layers.BatchNormalization()
    noise = OutputNoise(2.0, seed=1)
    model = keras.Sequential([keras.Input((12,)), layers.Dropout(0.9), noise, norm])
    x = inputs(8000)
    adapt_batchnorm(model, x, momentum=0.0, batches=1, batch_size=8000)
    found = statistics(model)[1]
    error = (x.var(0) + 4) * np.sqrt(2 / 8000)
    assert np.all(np.abs(found - x.var(0) - 4) < 5 * error)


@pytest.mark.slow
def test_a_recurrent_layer_drops_nothing():
    """Its kernels are noisy, its dropout is off: at noise 0 nothing is random."""
    noise = AdditiveGaussian(0.5)
    lstm = hwa_keras.layers.HWALSTM(4, dropout=0.5, kernel_noise=noise)
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((5, 3)), lstm, norm])
    x = np.random.default_rng(0).normal(size=(50, 5, 3)).astype("float32")
    first, second = (
        statistics(adapt_batchnorm(model, x, momentum=0.0)) for _ in range(2)
    )
    assert np.all(first[0] != second[0])
    for each in lstm.noises():
        each.scale.assign(0.0)
    found = statistics(adapt_batchnorm(model, x, momentum=0.0))
    y = ops.convert_to_numpy(lstm(x)).astype("float64")
    assert_close(found, [y.mean(0), y.var(0)])
