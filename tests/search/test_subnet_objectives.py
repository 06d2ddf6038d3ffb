"""The package's measures as objectives of a search, each against its own function."""

import time

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras import search
from hwa_keras.search import Candidate, Objectives

pytestmark = pytest.mark.slow

BATCH = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
LABELS = np.arange(24) % 3


class Widths:
    """Dense networks of two widths, with or without a second layer."""

    layers = ("first", "second", "last")
    choices = (
        search.Choice("width", (4, 8)),
        search.Choice("depth", (1, 2)),
    )

    def encode(self, config):
        return np.array([c.options.index(config[c.name]) for c in self.choices], int)

    def decode(self, indices):
        pairs = zip(self.choices, indices, strict=True)
        return {c.name: c.options[int(i)] for c, i in pairs}

    def sample(self, rng):
        return self.decode(rng.integers(2, size=2))

    def active(self, config):
        return np.array([True, config["depth"] == 2, True])


class Maker:
    """What an objective needs of a supernet."""

    space = Widths()

    def extract(self, config):
        x = inputs = keras.Input((6,))
        for i, name in enumerate(("first", "second")[: config["depth"]]):
            start = keras.initializers.GlorotUniform(seed=i)
            width = config["width"]
            dense = keras.layers.Dense(width, name=name, kernel_initializer=start)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(dense(x)))
        start = keras.initializers.GlorotUniform(seed=5)
        last = keras.layers.Dense(3, name="last", kernel_initializer=start)
        return keras.Model(inputs, last(x))


SMALL = Candidate({"width": 4, "depth": 1}, (0.5, 0.0, 1.5))
LARGE = Candidate({"width": 8, "depth": 2}, (1.0, 1.0, 1.0))


def test_memory_energy_counts_the_bits():
    objective = search.MemoryObjective(Maker(), float_bits=8)
    assert objective(SMALL) == {"memory_energy": 8 * (6 * 4 + 4 * 3)}
    quantized = search.MemoryObjective(
        Maker(),
        convert=lambda model: hwa_keras.to_hwa(
            model,
            kernel_quantizer=hwa_keras.quantizers.Uniform(levels=16),
            kernel_noise=hwa_keras.noise.BitFlip(1e-3),
            verbose=0,
        ),
    )
    weights = 6 * 8 + 8 * 8 + 8 * 3
    expected = 5 * weights * -np.log(1e-3) / 12.8  # 31 levels take 5 bits.
    assert quantized(LARGE)["memory_energy"] == pytest.approx(expected)


def test_output_error_takes_the_ranges_of_the_layers_there():
    device = hwa_keras.devices.Memristor(sigma=0.1, g_max=25.0, g_u=10.0)
    objective = search.ErrorObjective(Maker(), device, BATCH[:4])
    found = objective(SMALL)["output_mse"]
    model = Maker().extract(SMALL.config)
    ranges = device.with_range((5.0, 15.0))
    expected = hwa_keras.analysis.output_error(model, ranges, BATCH[:4], "delta")
    assert found == pytest.approx(expected.mse)
    crossbar = hwa_keras.crossbar.Crossbar(device)
    on_crossbar = search.ErrorObjective(Maker(), crossbar, BATCH[:4])
    assert on_crossbar(SMALL)["output_mse"] == pytest.approx(found)


def test_calibration_estimates_the_statistics_of_the_candidate():
    seen = []

    class Mean(search.SubnetObjective):
        directions = {"mean": "min"}

        def measure(self, model, candidate):
            [layer] = [m for m in model.layers if "batch_normal" in m.name]
            seen.append(keras.ops.convert_to_numpy(layer.moving_mean))
            return {"mean": seen[-1].mean()}

    Mean(Maker(), calibration=BATCH)(SMALL)
    first = Maker().extract(SMALL.config).get_layer("first")
    np.testing.assert_allclose(
        seen[0], keras.ops.convert_to_numpy(first(BATCH)).mean(0), atol=1e-5
    )


@pytest.mark.slow
def test_drift_accuracy_is_that_of_a_sweep():
    objective = search.DriftObjective(Maker(), (BATCH, LABELS), chips=2, seed=3)
    found = objective(SMALL)["drift_accuracy"]
    model = Maker().extract(SMALL.config)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    sweep = hwa_keras.drift_sweep(
        model,
        "pcm",
        (BATCH, LABELS),
        times={"later": 31_536_000.0},
        chips=2,
        compensation="measured",
        seed=3,
        verbose=0,
    )
    assert found == pytest.approx(sweep.estimate("measured", "later").mean)


def test_spiking_energy_is_that_of_the_profile():
    def spiking(model):
        inputs = keras.Input((5, 6))
        dense = keras.layers.TimeDistributed(keras.layers.Dense(4))
        lif = hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3, threshold=0.1)
        hidden = lif(dense(inputs))
        return keras.Model(inputs, keras.layers.Dense(3)(hidden))

    data = (np.random.default_rng(0).random((8, 5, 6)) < 0.5).astype("float32")
    objective = search.SpikingObjective(Maker(), data, convert=spiking)
    assert objective(SMALL)["spiking_joules"] > 0


@pytest.mark.tensorflow_only
def test_latency_is_that_of_a_run():
    pytest.importorskip("ai_edge_litert")
    start = time.perf_counter()
    found = search.LatencyObjective(Maker(), repeats=3)(SMALL)["latency"]
    assert 0 < found < time.perf_counter() - start


def test_several_go_into_one_search():
    pytest.importorskip("pymoo")
    device = hwa_keras.devices.Memristor(sigma=0.1, g_max=25.0, g_u=10.0)
    objectives = Objectives(
        search.MemoryObjective(Maker()),
        search.ErrorObjective(Maker(), device, BATCH[:2]),
    )
    found = search.search(
        Maker(), objectives, mode="M1", population=3, generations=1, verbose=0
    )
    assert found.directions == {"memory_energy": "min", "output_mse": "min"}


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="needs `space` and `extract"):
        search.MemoryObjective(keras.Sequential())
    with pytest.raises(TypeError, match="with one range g_u"):
        search.ErrorObjective(Maker(), hwa_keras.devices.PCM(), BATCH)
    with pytest.raises(ValueError, match="`method` of ErrorObjective"):
        search.ErrorObjective(
            Maker(), hwa_keras.devices.Memristor(), BATCH, method="guess"
        )
    with pytest.raises(ValueError, match="`seconds` of DriftObjective"):
        search.DriftObjective(Maker(), (BATCH, LABELS), seconds=-1.0)
    with pytest.raises(NotImplementedError):
        search.SubnetObjective(Maker())(SMALL)
