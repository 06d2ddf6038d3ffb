"""Spikes and synaptic operations, counted again in NumPy loops."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import hwa_keras
from hwa_keras.core.modes import hardware_mode
from hwa_keras.profile import SPIKING_DEVICES, EnergyModel, spiking_energy
from hwa_keras.spiking import ALIF, LIF, Frontend, LIFCell, SpikeCount, SynapticLIF

DT, TAU = 8e-3, 64e-3
BETA = np.exp(-DT / TAU)
SPIKES_IN = (np.random.default_rng(3).random((6, 15, 5)) < 0.4).astype("float32")
CURRENTS = np.random.default_rng(4).normal(0.4, 0.6, (6, 15, 5)).astype("float32")


def lif(currents, threshold=1.0):
    """Leaky neurons in a loop: [batch, time, neurons] to spikes."""
    v = np.zeros((currents.shape[0], currents.shape[2]))
    spikes = np.zeros(currents.shape)
    for t in range(currents.shape[1]):
        u = BETA * v + currents[:, t]
        spikes[:, t] = u > threshold
        v = u * (1 - spikes[:, t])
    return spikes


def operations(spikes, columns):
    count = 0
    for spike in spikes.ravel():
        count += columns if spike else 0
    return count / len(spikes)


def dense(units, **arguments):
    return hwa_keras.layers.HWADense(
        units, kernel_initializer=keras.initializers.RandomNormal(0.3, 0.5, seed=units),
        **arguments,
    )  # fmt: skip


def test_counts_of_spikes_and_operations_are_those_of_loops():
    model = keras.Sequential(
        [
            keras.Input((15, 5)),
            dense(7, name="first"),
            LIF(tau=TAU, dt=DT, name="hidden"),
            layers.Dense(3, name="second", kernel_initializer="ones"),
            LIF(tau=TAU, dt=DT, threshold=1.5, name="out"),
            SpikeCount(),
        ]
    )
    model.get_layer("first").bias.assign(np.linspace(-0.2, 0.2, 7))
    found = spiking_energy(model, SPIKES_IN, "loihi", batch_size=4)
    w, b = (
        np.asarray(x, "float64") for x in model.get_layer("first").get_weights()[:2]
    )
    hidden = lif(SPIKES_IN @ w + b)
    out = lif(hidden @ np.ones((7, 3)), 1.5)
    rows = {row.path: row for row in found.layers}
    assert list(rows) == ["first", "hidden", "second", "out"]
    assert rows["hidden"].spikes == pytest.approx(hidden.sum() / 6)
    assert rows["out"].spikes == pytest.approx(out.sum() / 6)
    assert rows["hidden"].rate == pytest.approx(hidden.mean())
    assert rows["first"].synops == pytest.approx(operations(SPIKES_IN, 7))
    assert rows["second"].synops == pytest.approx(operations(hidden, 3))
    assert rows["second"].spikes is None and rows["out"].synops == 0
    assert found.macs == 15 * (5 * 7 + 7 * 3)
    total = operations(SPIKES_IN, 7) + operations(hidden, 3)
    assert found.synops == pytest.approx(total)
    assert found.joules == pytest.approx(23.6e-12 * total)
    assert found.seconds == pytest.approx(15 * DT)
    assert found.watts == pytest.approx(23.6e-12 * total / (15 * DT))
    assert found.frame_joules == pytest.approx(4.6e-12 * found.macs)
    assert found.accumulate_joules == pytest.approx(0.9e-12 * total)


def test_functional_model_with_all_neurons_and_analog_inputs():
    inputs = keras.Input((15, 5))
    x = Frontend(kernel_initializer=keras.initializers.Constant(1.5), name="diagonal")(
        inputs
    )
    x = a = LIF(tau=TAU, dt=DT, name="a", return_membrane=True)(x)[0]
    x = dense(6, name="wide")(x)
    x = SynapticLIF(tau=TAU, tau_synapse=2 * DT, dt=DT, name="b")(x)
    x = ALIF(tau=TAU, tau_adaptation=0.2, dt=DT, name="c")(dense(4, name="deep")(x))
    model = keras.Model(inputs, [x, a])
    found = spiking_energy(model, CURRENTS, EnergyModel(2.0, 3.0, 1e-6), seconds=0.5)
    rows = {row.path: row for row in found.layers}
    a = lif(1.5 * CURRENTS.astype("float64"))
    b = keras.ops.convert_to_numpy(
        keras.Model(inputs, model.get_layer("b").output)(CURRENTS)
    )
    c = keras.ops.convert_to_numpy(model(CURRENTS)[0])
    assert rows["a"].spikes == pytest.approx(a.sum() / 6)
    assert rows["diagonal"].synops == 0  # Its inputs are no spikes.
    assert rows["diagonal"].analog_macs == rows["diagonal"].macs == 15 * 5
    assert rows["wide"].synops == pytest.approx(operations(a, 6))
    assert rows["deep"].synops == pytest.approx(operations(b, 4))
    spikes = (a.sum() + b.sum() + c.sum()) / 6
    assert found.spikes == pytest.approx(spikes)
    expected = 2e-12 * spikes + 3e-12 * found.synops + 1e-6 * 0.5
    assert found.joules == pytest.approx(expected)
    assert found.watts == pytest.approx(expected / 0.5)
    assert "inputs are no spikes" in str(found) and "diagonal" in str(found)


def test_products_that_are_not_counted_are_told():
    model = keras.Sequential(
        [
            keras.Input((15, 5)),
            LIF(tau=TAU, dt=DT, threshold=0.5),
            layers.SimpleRNN(3, name="rnn"),
        ]
    )
    found = spiking_energy(model, CURRENTS)
    assert found.synops == 0
    assert "not counted: rnn/simple_rnn_cell" in str(found)


def test_diagonal_synapses_pass_each_spike_on_once():
    model = keras.Sequential(
        [keras.Input((15, 5)), Frontend(), LIF(tau=TAU, dt=DT, threshold=0.05)]
    )
    found = spiking_energy(model, SPIKES_IN)
    assert found.synops == pytest.approx(SPIKES_IN.sum() / 6)


def test_recurrent_cells_pass_on_inputs_and_their_own_spikes():
    cell = LIFCell(4, tau=TAU, dt=DT, kernel_initializer="ones", name="cell")
    model = keras.Sequential([keras.Input((15, 5)), layers.RNN(cell, name="rnn")])
    w = np.asarray(cell.kernel, "float64")
    u_rec = np.asarray(cell.recurrent_kernel, "float64")
    z, v, spikes, count = np.zeros((6, 4)), np.zeros((6, 4)), 0.0, 0.0
    for t in range(15):
        count += 4 * (SPIKES_IN[:, t].sum() + z.sum())
        u = BETA * v + SPIKES_IN[:, t] @ w + z @ u_rec
        z = (u > 1.0).astype("float64")
        v = u * (1 - z)
        spikes += z.sum()
    found = spiking_energy(model, SPIKES_IN, "seneca")
    [row] = found.layers
    assert row.path == "rnn/cell"
    assert row.spikes == pytest.approx(spikes / 6)
    assert row.synops == pytest.approx(count / 6)
    assert row.macs == 15 * (5 + 4) * 4
    assert found.seconds == pytest.approx(15 * DT)
    converted = hwa_keras.to_hwa(model)
    assert spiking_energy(converted, SPIKES_IN, "seneca").synops == found.synops


def test_convolutions_between_spikes_count_what_is_reached():
    model = keras.Sequential(
        [
            keras.Input((4, 6, 6, 1)),
            layers.TimeDistributed(layers.Conv2D(3, 3, name="conv"), name="each"),
            LIF(tau=TAU, dt=DT, name="out"),
        ]
    )
    x = (np.random.default_rng(1).random((2, 4, 6, 6, 1)) < 0.5).astype("float32")
    count = 0
    for i in range(4):
        for j in range(4):
            count += 3 * x[:, :, i : i + 3, j : j + 3].sum()
    model.get_layer("each").layer.bias.assign(np.full(3, 0.6, "float32"))
    found = spiking_energy(model, x)
    assert found.synops == pytest.approx(count / 2)


def test_silent_and_saturated_layers_are_warned_of_and_the_model_is_unchanged():
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(6, 15, 5)),
            LIF(tau=TAU, dt=DT, threshold=0.01, name="full", stateful=True),
            layers.Dense(2, kernel_initializer="zeros"),
            LIF(tau=TAU, dt=DT, name="mute"),
        ]
    )
    before = [np.asarray(w) for w in model.weights]
    ones = np.ones_like(CURRENTS)
    with (
        pytest.warns(UserWarning, match="silent: no neuron fires: mute"),
        pytest.warns(UserWarning, match="saturated.*: full"),
    ):
        found = spiking_energy(model, ones)
    assert [row.rate for row in found.layers if row.rate is not None] == [1.0, 0.0]
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))
    assert model(ones).shape == (6, 15, 2)  # Not tapped.


def test_devices_name_their_sources_and_results_are_json():
    model = keras.Sequential([keras.Input((15, 5)), LIF(tau=TAU, dt=DT, threshold=0.5)])
    for name, pj in {
        "loihi": 23.6, "truenorth": 2.5, "seneca": 2.8, "reckon": 5.3
    }.items():  # fmt: skip
        assert SPIKING_DEVICES[name].pj_per_synop == pj
        assert "20" in SPIKING_DEVICES[name].source
    found = spiking_energy(model, CURRENTS, "nwave_bound")
    assert 3301 * 4.05e-12 == pytest.approx(13.37e-9, rel=1e-3)
    assert found.joules == pytest.approx(4.05e-12 * found.spikes)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["joules"] == found.joules and "bound" in told["device"]["source"]
    assert "nwave_bound" in str(found) and "Horowitz" in str(found)


def test_chips_are_counted_with_their_own_neurons():
    model = keras.Sequential(
        [
            keras.Input((15, 5)),
            dense(7),
            LIF(tau=TAU, dt=DT, threshold_noise=0.5, name="neurons"),
        ]
    )
    chip = hwa_keras.program(model, seed=3)
    found = spiking_energy(chip, SPIKES_IN).spikes
    with hardware_mode(read_noise="off", time=keras.ops.cast(chip.t, "float32")):
        spikes = keras.ops.convert_to_numpy(chip(SPIKES_IN)).sum() / 6
    assert found == pytest.approx(spikes)
    assert found != spiking_energy(model, SPIKES_IN).spikes


def test_bad_input_is_clear():
    model = keras.Sequential([keras.Input((15, 5)), LIF(tau=TAU, dt=DT)])
    plain = keras.Sequential([keras.Input((15, 5)), layers.Dense(2)])
    with pytest.raises(ValueError, match="no spiking layers"):
        spiking_energy(plain, CURRENTS)
    with pytest.raises(TypeError, match="takes a built Keras model"):
        spiking_energy(3, CURRENTS)
    with pytest.raises(ValueError, match="not built"):
        spiking_energy(keras.Sequential([LIF(tau=TAU, dt=DT)]), CURRENTS)
    with pytest.raises(ValueError, match="'loihi'.*Received: device='xylo'"):
        spiking_energy(model, CURRENTS, "xylo")
    with pytest.raises(TypeError, match="EnergyModel"):
        spiking_energy(model, CURRENTS, 23.6)
    with pytest.raises(ValueError, match="seconds=0"):
        spiking_energy(model, CURRENTS, seconds=0)
    with pytest.raises(ValueError, match="not finite"):
        spiking_energy(model, np.full_like(CURRENTS, np.nan))
    with pytest.raises(ValueError, match="at least one number"):
        EnergyModel()
    with pytest.raises(ValueError, match="pj_per_spike=-1"):
        EnergyModel(pj_per_spike=-1)
