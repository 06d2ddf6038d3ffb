import json
import re

import keras
import numpy as np
import pytest
from keras import layers
from keras.initializers import Constant

import hwa_keras
from hwa_keras import layers as hwa
from hwa_keras import noise

pytestmark = pytest.mark.slow  # Counts, the same on any backend.


def counted(model):
    return hwa_keras.summary(model, verbose=0)


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def in_sram(units, p, **kwargs):
    noises = {"kernel_noise": noise.BitFlip(p)}
    return hwa.HWADense(units, kernel_quantizer="ste_sign", **noises, **kwargs)


def test_error_rates_and_shares_of_the_energy():
    lstm = hwa.HWALSTM(
        2, kernel_quantizer="ste_sign", kernel_noise=noise.BitFlip(0.02), name="lstm"
    )
    model = sequential(
        (7, 5), lstm, layers.ReLU(), in_sram(4, 0.01), layers.Dense(3, name="plain")
    )
    found = counted(model)
    rates = [pytest.approx(r) for r in ((0.02, 0.02), (), (0.01,), ())]
    assert [row.error_rates for row in found.layers] == rates
    energy = hwa_keras.memory_energy(model)
    first, second, third, last = (kernel.share for kernel in energy.kernels)
    shares = [row.energy_share for row in found.layers]
    assert shares == [first + second, None, third, last]
    assert sum(filter(None, shares)) == pytest.approx(1.0)
    # 40 + 16 and 8 weights of a bit; 12 floats, of 16 bits as in the thesis.
    eta = [-np.log(p) / 12.8 for p in (0.02, 0.01)]
    expected = 56 * eta[0] + 8 * eta[1] + 12 * 16
    assert found.relative_energy == energy.relative
    assert found.relative_energy == pytest.approx(expected / (64 + 12 * 16))
    assert last == pytest.approx(12 * 16 / expected)


def test_error_rates_are_shown():
    model = sequential((50,), in_sram(40, 0.01), layers.ReLU(), in_sram(8, 0.01))
    shown = str(counted(model))
    assert "bit error rate" in shown and "energy share" in shown
    line = next(line for line in shown.splitlines() if "hwa_dense" in line)
    assert "0.01" in line
    assert f"{100 * 2000 / 2320:.1f} %" in line
    assert re.search(r"memory .* 36\.0 % of reliable .* memory_energy.*Horowitz", shown)


def spiking(*stack):
    lif = hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3, name="lif")
    readout = hwa_keras.spiking.SpikeCount(name="count")
    first = layers.Dense(4, kernel_initializer=Constant(0.15), name="first")
    return sequential((6, 5), first, lif, *stack, readout)


def test_neurons_and_readouts_have_no_products():
    found = counted(spiking(layers.Dense(3)))
    assert found.uncounted == []
    assert [row.macs for row in found.layers] == [{32: 120}, {}, {32: 72}, {}]


def test_memory_arrays_and_spikes_stand_in_one_table():
    memristor = hwa_keras.devices.Memristor(g_max=10.0)
    crossbar = hwa_keras.crossbar.Crossbar(memristor, v_read=0.2, t_read=1e-7)
    model = spiking(
        hwa.HWADense(3, hardware=crossbar, name="on_array"),
        in_sram(2, 0.01, name="in_sram"),
    )
    x = np.random.default_rng(0).uniform(0.5, 2.0, (4, 6, 5)).astype("float32")
    found = hwa_keras.summary(model, verbose=0, data=x, spiking_device="seneca")
    energy = hwa_keras.spiking_energy(model, x, "seneca")
    assert found.spiking.joules == energy.joules > 0
    own = {row.path: row.joules for row in energy.layers}
    for row in found.layers:
        assert row.spiking_energy == own.get(row.name)
    arrays = [row.name for row in found.layers if row.array_energy is not None]
    assert arrays == ["on_array"]
    [memory, array, spikes] = found.energies
    assert "memory_energy" in memory[2] and "% of reliable" in memory[1]
    assert "array_energy; " in array[2] and "ADCs" in array[2]
    assert "spiking_energy; seneca: 0 pJ a spike, 2.8 pJ" in spikes[2]
    shown = str(found)
    for text in ("spiking energy", "array energy", "Tang et al.", "Horowitz"):
        assert text in shown
    told = found.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert [each["part"] for each in told["energies"]] == [
        "memory",
        "array energy",
        "spikes",
    ]


def test_spikes_alone_need_no_crossbar():
    x = np.ones((2, 6, 5), "float32")
    found = hwa_keras.summary(spiking(), verbose=0, data=x)
    assert (found.arrays, found.spiking.device.name) == (None, "loihi")
    with pytest.raises(ValueError, match="data=x, spiking_device=spiking_device"):
        hwa_keras.summary(spiking(), verbose=0, spiking_device="loihi")
    with pytest.raises(ValueError, match="no spiking layers"):
        plain = sequential((5,), layers.Dense(3))
        hwa_keras.summary(plain, verbose=0, data=x[:, 0], spiking_device="loihi")


def test_the_memory_is_the_smallest_that_holds_the_kernels():
    for units, name in ((1024, "sram_8_kib"), (1025, "sram_32_kib")):
        model = sequential((4,), layers.Dense(units))  # In 16 bits.
        assert hwa_keras.memory_energy(model).memory == name


def test_without_bit_errors_there_is_no_energy():
    model = sequential((5,), hwa.HWADense(3, kernel_noise="programming_noise"))
    found = counted(model)
    assert (found.layers[0].error_rates, found.layers[0].energy_share) == ((), None)
    assert found.relative_energy is None
    assert "energy" not in str(found) and "error rate" not in str(found)


def test_error_rates_of_a_model_from_to_hwa():
    plain = sequential((5,), layers.Dense(4), in_sram(3, 0.1))
    model = hwa_keras.to_hwa(plain, "ste_sign", noise.BitFlip(0.02), verbose=0)
    rates = [row.error_rates for row in counted(model).layers]
    assert rates == [pytest.approx((0.02,)), pytest.approx((0.1,))]
    sharp = hwa_keras.training.SharpnessAwareModel.wrap(model)
    assert [row.error_rates for row in counted(sharp).layers] == rates


def test_the_energy_of_a_shared_layer_has_one_share():
    shared = in_sram(4, 0.01)
    a, b = (keras.Sequential([keras.Input((4,)), shared]) for _ in range(2))
    inputs = keras.Input((4,))
    found = counted(keras.Model(inputs, b(a(shared(shared(inputs))))))
    rows = [row for row in found.layers if row.name.endswith(shared.name)]
    assert [row.energy_share for row in rows] == [1.0, None, None]
    assert {row.error_rates for row in rows} == {rows[0].error_rates}
    assert found.relative_energy == pytest.approx(-np.log(0.01) / 12.8)


def test_energy_in_the_dictionary_is_plain_json():
    found = counted(sequential((5,), in_sram(3, 0.25))).to_dict()
    assert json.loads(json.dumps(found)) == found
    row = found["layers"][0]
    assert (row["error_rates"], row["energy_share"]) == ([0.25], 1.0)
    assert found["relative_energy"] == pytest.approx(-np.log(0.25) / 12.8)
    found = counted(sequential((5,), layers.Dense(3))).to_dict()
    row = found["layers"][0]
    assert (row["error_rates"], row["energy_share"]) == ([], None)
    assert found["relative_energy"] is None
