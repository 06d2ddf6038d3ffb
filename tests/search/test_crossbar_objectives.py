"""CrossbarAccuracyPower: against array_energy and chips of the extracted network."""

import functools
import pickle
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.core import random
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import Memristor, OffsetColumn, Pairs
from hwa_keras.profile import array_energy
from hwa_keras.search import (
    ArchitectureSpace,
    Candidate,
    CrossbarAccuracyPower,
    Stage,
    Supernet,
)
from hwa_keras.search.supernets.masked_arrays import NoisyArrays

pytestmark = pytest.mark.slow

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DEVICE = Memristor(sigma=0.3, g_min=0.5, g_max=30.0, g_u=15.0)


def space(resolution=(12,)):
    stages = (
        Stage("residual", (1, 2), (4, 8), (0.5, 1.0), (3, 5), strides=2),
        Stage("mbconv", 1, (16, 24), (1, 2), strides=2),
    )
    return ArchitectureSpace(stages, resolution, stem=4, classes=5)


def images(count=192):
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(5, 12, 12, 3))
    y = rng.integers(0, 5, size=count)
    x = patterns[y] + rng.normal(size=(count, 12, 12, 3))
    return x.astype("float32"), y


@functools.cache
def supernet(resolution=(12,)):
    """Its head knows the classes, its normalizations shift and scale."""
    net, rng = Supernet(space(resolution), seed=0), np.random.default_rng(1)
    for layer in net.normalizations.values():
        for variable in (layer.gamma, layer.beta):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    teach(net)
    return net


def objective(device=DEVICE, resolution=(12,), **settings):
    settings = {"batches_accuracy": 2, "batch_size": 32} | settings
    return CrossbarAccuracyPower(supernet(resolution), device, images(), **settings)


@functools.cache
def measured(batchnorm="folded", per="layer"):
    """An objective that tests share."""
    device = replace(DEVICE, per=per)
    return objective(device, batchnorm=batchnorm, batches_accuracy=6)


def teach(net):
    """Fit the head, by ridge regression, to what a candidate makes of the images."""
    x, y = images()
    measure = CrossbarAccuracyPower(net, DEVICE, (x, y), batch_size=24)
    model = measure.extract(candidate(3, net))
    features = keras.Model(model.inputs, model.layers[-1].input)
    features = features.predict(x, verbose=0)
    targets = 8.0 * np.eye(5)[y]
    centered = features - features.mean(0)
    gram = centered.T @ centered
    gram += 0.1 * np.mean(np.diag(gram)) * np.eye(len(gram))
    fitted = np.linalg.solve(gram, centered.T @ (targets - targets.mean(0)))
    head = net.products["classifier"]
    kernel = np.zeros(head.kernel.shape)
    kernel[: len(fitted)] = fitted
    head.kernel.assign(kernel)
    head.bias.assign(targets.mean(0) - features.mean(0) @ fitted)


def candidate(seed, net):
    rng = np.random.default_rng(seed)
    config = net.sample(rng)
    there = net.space.active(config)
    multipliers = np.where(there, rng.uniform(0.5, 1.5, len(there)), 0.0)
    return Candidate(config, tuple(multipliers))


def power_of(measure, one):
    """The power by `array_energy` of the extracted network."""
    x = measure.batches[0][0]
    found = array_energy(measure.extract(one), x, measure.crossbar(one))
    names = [row.path.split("/")[0] for row in found.kernels]
    assert names == list(np.array(measure.space.layers)[np.array(one.multipliers) > 0])
    return found.parts["array"] + found.parts["tias"]


@pytest.mark.parametrize(
    ("device", "settings"),
    [
        (
            Memristor(g_max=30.0, g_u=9.0, per="column", mapping=Pairs((1.0, 2.0))),
            {"batchnorm": "digital"},
        ),
        (
            Memristor(g_max=2.0, g_u=1.0, per="network", largest_weight=1.0),
            {"resolution": (8, 12)},
        ),
    ],
)
def test_power_is_that_of_the_extracted_network(device, settings):
    measure = objective(device, **settings)
    for seed in range(2):
        one = candidate(seed, measure.supernet)
        expected = power_of(measure, one)
        assert measure(one)["power"] == pytest.approx(expected, rel=1e-4)
        assert measure.compilations == 2


@pytest.mark.parametrize(
    ("batchnorm", "per"), [("folded", "layer"), ("digital", "network")]
)
def test_accuracy_is_that_of_chips_of_the_extracted_network(batchnorm, per):
    """Both are means over chips: they differ by less than 4 standard errors."""
    measure = measured(batchnorm, per)
    one = candidate(3, measure.supernet)
    power = measure(one)["power"]
    assert power == pytest.approx(power_of(measure, one), rel=1e-4)
    x, y = images()
    accuracies = []
    for measure.seed in (3, 2, 1, 0):
        accuracies.append(measure(one)["accuracy"])
    model = measure.extract(one)
    model.compile(loss=LOSS, metrics=["accuracy"])
    model = hwa_keras.to_hwa(model, hardware=measure.crossbar(one), verbose=0)
    found = hwa_keras.monte_carlo(model, None, (x, y), chips=16, verbose=0)
    chips = found.values(metric="accuracy")
    error = chips.std() / 16**0.5 + np.std(accuracies) / 2 + 0.005
    clean = model.evaluate(x, y, verbose=0)[1]
    assert chips.mean() < clean - 0.02  # The noise matters.
    assert abs(chips.mean() - np.mean(accuracies)) < 4 * error


def test_candidates_share_what_is_compiled_and_change_nothing():
    measure = measured()
    before = [ops.convert_to_numpy(v) for v in measure.supernet.variables]
    one = candidate(0, measure.supernet)
    first = measure(one)
    assert first["power"] == pytest.approx(power_of(measure, one), rel=1e-4)
    for seed in range(1, 5):
        measure(candidate(seed, measure.supernet))
    assert measure(one) == first
    assert measure.compilations == 2
    for variable, value in zip(measure.supernet.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    other = pickle.loads(pickle.dumps(measure))
    assert other(one)["accuracy"] == first["accuracy"]
    assert other(one)["power"] == pytest.approx(first["power"], rel=1e-6)


def test_noise_of_weights_is_sigma_over_c():
    """c = (g_u − g_min)/max|W| of the weights that are there."""
    device = Memristor(sigma=0.05, g_min=2.0, g_max=30.0, g_u=15.0)
    measure = objective(device)
    config = {**measure.space.smallest, "stage0.width": 8}
    names, drawn = measure.space.layers, {}
    g_u = np.full(len(names), 15.0, "float32")
    g_u[names.index("stage0_block0_conv0")] = 7.5

    class Seen(NoisyArrays):
        def on_devices(self, kernel, layer, x, weights, mask):
            z = super().on_devices(kernel, layer, x, weights, mask)
            seed = random.fold_in(self.seed, self.places[kernel.name])
            flat = ops.reshape(weights, (-1, weights.shape[-1]))
            noisy = measure.written(flat, seed, self.ranges(kernel))
            drawn[kernel.name] = tuple(
                ops.convert_to_numpy(v)
                for v in (
                    weights,
                    ops.reshape(noisy, weights.shape),
                    mask * ops.ones_like(weights),
                )
            )
            return z

    from hwa_keras.search.supernets.blocks import walk

    genes = ops.convert_to_tensor(measure.space.encode(config), "int32")
    arrays = Seen(measure, genes, ops.convert_to_tensor(g_u), random.seed_from(1))
    walk(measure.space, arrays.masked, ops.convert_to_tensor(images(2)[0]))
    for name, g in (("stage0_block0_conv0", 7.5), ("stage0_block0_conv1", 15.0)):
        weights, noisy, mask = drawn[name]
        there = mask > 0
        c = (g - 2.0) / np.abs(weights[there]).max()
        errors = (noisy - weights)[there] * c / 0.05
        # Two devices a weight: σ·√2.
        deviation = errors.std() / 2**0.5
        assert abs(deviation - 1.0) < 5 / (2 * there.sum()) ** 0.5


def test_a_smaller_range_takes_less_power_and_more_noise_costs_accuracy():
    measure = measured()
    config = candidate(3, measure.supernet).config
    there = len(measure.space.layers)
    half, full, more = (
        measure(Candidate(config, (m,) * there)) for m in (0.25, 1.0, 2.0)
    )
    assert half["power"] < full["power"] < more["power"]
    assert half["accuracy"] < more["accuracy"]


def test_objectives_say_what_is_wrong():
    net, data = supernet(), images()
    with pytest.raises(TypeError, match="`supernet` of CrossbarAccuracyPower must be"):
        CrossbarAccuracyPower(keras.Sequential(), DEVICE, data)
    with pytest.raises(TypeError, match="must be a devices.Memristor with one g_u"):
        CrossbarAccuracyPower(net, hwa_keras.devices.PCM(), data)
    with pytest.raises(ValueError, match="the crossbar has tile="):
        CrossbarAccuracyPower(net, Crossbar(DEVICE, 64, 64), data)
    with pytest.raises(ValueError, match="each weight in devices of its own"):
        CrossbarAccuracyPower(net, Memristor(mapping=OffsetColumn()), data)
    with pytest.raises(ValueError, match="7 batches of 128 need 896 images. Receiv"):
        CrossbarAccuracyPower(net, DEVICE, data)
    with pytest.raises(TypeError, match=r"must be a pair \(images, labels\)"):
        CrossbarAccuracyPower(net, DEVICE, None)
    with pytest.raises(ValueError, match="one integer for each image"):
        CrossbarAccuracyPower(net, DEVICE, (data[0], np.ones((192, 5))))
    measure, count = measured(), len(net.space.layers)
    with pytest.raises(ValueError, match="Received: 3.0 · 15.0 for 'stem'"):
        measure(Candidate(net.space.largest, (3.0,) * count))
