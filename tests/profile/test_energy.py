import dataclasses
import io
import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import layers as hwa
from hwa_keras import memory_energy, quantizers
from hwa_keras.noise import BitFlip, Compose, DropConnect, ProgrammingNoise
from hwa_keras.profile import PJ_PER_BIT, WIDE_RESNET_28_10_WEIGHTS
from hwa_keras.profile.stored_kernels import stored_kernels

pytestmark = pytest.mark.slow  # Counts, the same on any backend.

A = 12.8


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def eta(p, a=A):
    """Equation 3.27, and no cell that costs more than a reliable one."""
    return 1.0 if p < np.exp(-a) else -np.log(p) / a


def binary(units, p=None, **kwargs):
    """A layer of one bit, in unreliable memory where p is given."""
    noise = None if p is None else BitFlip(p)
    return hwa.HWADense(
        units, kernel_quantizer="ste_sign", kernel_noise=noise, **kwargs
    )


def uniform(p):
    """A binarized network, all of it in one memory."""
    conv = hwa.HWAConv2D(
        4, 3, kernel_quantizer="binary_connect", kernel_noise=BitFlip(p)
    )
    stack = (conv, layers.BatchNormalization(), layers.Flatten(), binary(5, p))
    return sequential((6, 6, 2), *stack)


def mixed_bits():
    """A float, 4 bits at p = 0.02, 1 bit at p = 0.1, and 2 bits without errors."""
    four = quantizers.Uniform(levels=8)
    return sequential(
        (20,),
        layers.Dense(16, name="plain"),
        hwa.HWADense(8, kernel_quantizer=four, kernel_noise=BitFlip(0.02), name="four"),
        layers.LayerNormalization(),
        binary(4, 0.1, name="one"),
        hwa.HWADense(3, kernel_quantizer="ste_tern", name="two"),
    )


def test_mixed_bits_against_numpy():
    found = memory_energy(mixed_bits())
    bits = np.array([16, 4, 1, 2])
    rates = np.array([0, 0.02, 0.1, 0])
    weights = np.array([320, 128, 32, 12])
    etas = np.array([eta(p) for p in rates])
    energies = bits * etas * weights
    names = ["plain", "four", "one", "two"]
    assert [k.path for k in found.kernels] == [f"{name}/kernel" for name in names]
    for name, expected in {
        "bits": bits,
        "error_rate": rates,
        "weights": weights,
        "relative": etas,
        "energy": energies,
        "share": energies / energies.sum(),
    }.items():
        values = [getattr(kernel, name) for kernel in found.kernels]
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    np.testing.assert_allclose(found.energy, energies.sum(), rtol=1e-6)
    assert found.reference_energy == (bits * weights).sum()
    assert found.relative == found.energy / found.reference_energy
    assert found.weights == 492
    assert type(found.energy) is type(found.relative) is float


@pytest.mark.parametrize("p, percent", [(0.01, 36.0), (1e-4, 72.0), (0.0, 100.0)])
def test_figures_of_the_thesis(p, percent):
    found = memory_energy(uniform(p))
    assert round(100 * found.relative, 1) == percent
    assert [kernel.bits for kernel in found.kernels] == [1, 1]


def test_a_bit_costs_no_more_than_a_reliable_one():
    assert memory_energy(uniform(1e-9)).relative == 1.0
    lost = memory_energy(uniform(0.5)).relative
    assert lost == pytest.approx(np.log(2) / A)


def test_the_constant_of_the_technology():
    found = memory_energy(uniform(0.01), a=10.0)
    assert found.relative == pytest.approx(eta(0.01, 10.0))
    assert found.a == 10.0


def test_a_plain_model_is_reliable_and_counts_kernels_only():
    model = sequential(
        (7,),
        layers.Embedding(10, 6),
        layers.Conv1D(4, 3),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling1D(),
        layers.Dense(5),
    )
    found = memory_energy(model)
    assert [k.weights for k in found.kernels] == [72, 20]  # no biases, no embeddings
    assert {k.error_rate for k in found.kernels} == {0.0}
    assert found.energy == 16 * 92
    assert found.relative == 1.0


def test_float_bits():
    assert memory_energy(mixed_bits(), float_bits=32).kernels[0].bits == 32
    own = hwa.HWADense(3, kernel_quantizer=ops.tanh)  # of unknown precision
    model = sequential((5,), own)
    assert memory_energy(model, float_bits=8).energy == 8 * 15


def test_references():
    model, weights = mixed_bits(), 492
    energy = memory_energy(model).energy
    other = uniform(0.01)
    bits = {
        "reliable": 320 * 16 + 128 * 4 + 32 + 12 * 2,
        "16_bit": 16 * weights,
        "wide_resnet_28_10": 16 * WIDE_RESNET_28_10_WEIGHTS,
        other: memory_energy(other).energy,
        1000: 1000,
        np.float32(2.5): 2.5,
    }
    for reference, expected in bits.items():
        found = memory_energy(model, reference)
        assert found.energy == energy
        assert found.reference_energy == expected
        assert found.relative == energy / expected
        assert found.reference in str(found)
    assert memory_energy(model, model).relative == 1.0


def test_another_model_is_taken_with_the_same_constants():
    model, other = uniform(0.01), sequential((5,), layers.Dense(3))
    found = memory_energy(model, other, a=10.0, float_bits=32)
    assert found.reference_energy == 32 * 15
    found = memory_energy(other, model, a=10.0)
    assert found.reference_energy == memory_energy(model, a=10.0).energy


def wide_resnet_weights(depth, width, classes=10):
    """Weights of the kernels, and how many kernels there are."""
    sizes, channels = [9 * 3 * 16], 16
    for group, filters in enumerate((16 * width, 32 * width, 64 * width)):
        for block in range((depth - 4) // 6):
            if channels != filters or (group > 0 and block == 0):
                sizes.append(channels * filters)
            sizes += [9 * channels * filters, 9 * filters * filters]
            channels = filters
    sizes.append(channels * classes)
    return sum(sizes), len(sizes)


def test_kernels_of_wide_resnet_28_10():
    for depth, width in ((10, 1), (16, 2)):
        kernels = stored_kernels(hwa_keras.models.wide_resnet(depth, width))
        counted = sum(kernel.weights for kernel in kernels), len(kernels)
        assert counted == wide_resnet_weights(depth, width)
    # The thesis: 29 tensors, and 36 million parameters.
    assert wide_resnet_weights(28, 10) == (WIDE_RESNET_28_10_WEIGHTS, 29)


def test_joules():
    found = memory_energy(sequential((8,), binary(4)))
    assert found.joules(1.0) == pytest.approx(32e-12)
    assert found.joules(PJ_PER_BIT["dram"]) == pytest.approx(32 * 1.3e-9 / 64)
    # Table 2.1 of the thesis, in pJ for 64 bits.
    table = [64 * picojoules for picojoules in PJ_PER_BIT.values()]
    assert table == [10, 20, 100, 1300, 2600]
    for wrong in (0, -1.0, np.inf, "dram", None):
        with pytest.raises(ValueError, match="`pj_per_bit` of joules.*positive"):
            found.joules(wrong)


def test_rates_are_read_when_asked_with_their_scale():
    noise = Compose([ProgrammingNoise("pcm"), BitFlip(0.01, scale=3.0)])
    layer = hwa.HWADense(4, kernel_quantizer="ste_sign", kernel_noise=noise)
    model = sequential((8,), layer)
    flips = layer.kernel_noise.noises[1]
    assert stored_kernels(model)[0].noise is flips
    assert memory_energy(model).relative == pytest.approx(eta(0.03))
    flips.p.assign(0.04)
    assert memory_energy(model).relative == pytest.approx(eta(0.12))
    flips.scale.assign(100.0)  # No rate exceeds ½.
    assert memory_energy(model).kernels[0].error_rate == 0.5
    flips.scale.assign(0.0)
    assert memory_energy(model).relative == 1.0


def test_other_noises_leave_the_memory_reliable():
    layer = hwa.HWADense(
        4, kernel_quantizer="ste_sign", kernel_noise=DropConnect(0.5), name="dropped"
    )
    own = hwa.HWADense(4, kernel_noise=lambda w, seed: w)
    found = memory_energy(sequential((8,), layer, own))
    assert found.relative == 1.0
    assert [kernel.noise for kernel in stored_kernels(sequential((8,), layer))] == [
        None
    ]


def test_bits_of_different_reliability_cost_their_mean():
    noise = BitFlip(0.2, bit_factors=[0.0, 0.1, 1.0, 10.0])
    four = quantizers.Uniform(levels=8)
    layer = hwa.HWADense(4, kernel_quantizer=four, kernel_noise=noise)
    found = memory_energy(sequential((8,), layer))
    expected = np.mean([1.0, eta(0.02), eta(0.2), eta(0.5)])
    assert found.relative == pytest.approx(expected)
    assert found.kernels[0].error_rate == pytest.approx(0.2)


def test_a_bit_flip_with_a_quantizer_of_its_own_tells_the_bits():
    noise = BitFlip(0.01, quantizer="ste_sign")
    model = sequential((8,), hwa.HWADense(4, kernel_noise=noise))
    assert memory_energy(model).energy == pytest.approx(32 * eta(0.01))


def test_model_from_to_hwa():
    conv, inside = layers.Conv2D(4, 3, name="conv"), binary(5, 0.1, name="inside")
    plain = sequential((6, 6, 2), conv, layers.Flatten(), inside)
    model = hwa_keras.to_hwa(
        plain, kernel_quantizer="ste_sign", kernel_noise=BitFlip(0.01), verbose=0
    )
    found = memory_energy(model)
    assert [k.path for k in found.kernels] == ["conv/kernel", "inside/kernel"]
    rates = [kernel.error_rate for kernel in found.kernels]
    assert rates == pytest.approx([0.01, 0.1])  # The layer keeps its own.
    sharp = hwa_keras.training.SharpnessAwareModel.wrap(model)
    assert memory_energy(sharp).kernels == found.kernels
    outer = sequential((6, 6, 2), model, binary(3, 0.2))
    assert [k.error_rate for k in memory_energy(outer).kernels] == pytest.approx(
        [0.01, 0.1, 0.2]
    )


def test_lstm_has_two_kernels():
    lstm = hwa.HWALSTM(3, kernel_quantizer="ste_sign", kernel_noise=BitFlip(0.01))
    model = sequential((7, 5), lstm)
    recurrent = stored_kernels(model)[1]
    recurrent.noise.p.assign(0.1)
    found = memory_energy(model)
    assert [kernel.weights for kernel in found.kernels] == [5 * 12, 3 * 12]
    assert found.energy == pytest.approx(60 * eta(0.01) + 36 * eta(0.1))


def test_a_layer_that_is_called_twice_is_stored_once():
    shared = binary(4, 0.01)
    inner = [keras.Sequential([keras.Input((4,)), shared]) for _ in range(2)]
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner[1](inner[0](shared(shared(inputs)))))
    found = memory_energy(model)
    assert len(found.kernels) == 1
    assert found.energy == pytest.approx(16 * eta(0.01))


def test_stored_kernels():
    model = mixed_bits()
    stored = stored_kernels(model)
    assert [k.variable for k in stored] == [
        layer.kernel for layer in model.layers if hasattr(layer, "kernel")
    ]
    assert [k.bits for k in stored] == [16, 4, 1, 2]
    assert [k.noise is None for k in stored] == [True, False, False, True]
    assert [k.error_rate for k in stored] == pytest.approx([0, 0.02, 0.1, 0])
    assert [k.relative_energy(a=20.0) for k in stored] == pytest.approx(
        [1.0, eta(0.02, 20.0), eta(0.1, 20.0), 1.0]
    )
    assert stored_kernels(model, float_bits=32)[0].bits == 32
    with pytest.raises(dataclasses.FrozenInstanceError):
        stored[0].bits = 2


def test_printed_and_written():
    found = memory_energy(mixed_bits(), "16_bit")
    shown = str(found)
    for text in (
        "four/kernel",
        "0.02",
        f"{eta(0.02):.3f}",
        f"{100 * found.kernels[0].share:.1f} %",
        "the same kernels in 16 bits, reliable: 7,872.0",
        f"{100 * found.relative:.1f} %",
    ):
        assert text in shown
    stream = io.StringIO()
    found.print(stream)
    assert stream.getvalue().rstrip("\n") == shown
    named = sequential((5,), layers.Dense(3, name="[bold]kernel"))
    named.name = "[red]model"
    assert "[bold]kernel" in str(memory_energy(named))
    assert "[red]model" in str(memory_energy(named))


def test_dictionary_is_plain_json():
    found = memory_energy(mixed_bits())
    written = found.to_dict()
    assert json.loads(json.dumps(written)) == written
    assert written["relative"] == found.relative
    assert written["kernels"][1]["energy"] == found.kernels[1].energy
    assert sum(kernel["share"] for kernel in written["kernels"]) == pytest.approx(1.0)


def test_what_is_no_model():
    with pytest.raises(TypeError, match="`memory_energy` takes a Keras model"):
        memory_energy(layers.Dense(3))
    with pytest.raises(ValueError, match="not built.*keras.Input"):
        memory_energy(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="has no kernels"):
        memory_energy(sequential((5,), layers.ReLU()))
    chip = hwa_keras.program(uniform(0.01), "sram", seed=0)
    with pytest.raises(TypeError, match="the model that was programmed"):
        memory_energy(chip)


def test_wrong_references():
    model = uniform(0.01)
    for wrong in (0, -1, np.inf, np.nan):
        with pytest.raises(ValueError, match="`reference` of memory_energy.*positive"):
            memory_energy(model, wrong)
    with pytest.raises(ValueError, match="one of 'reliable', '16_bit'.*'float'"):
        memory_energy(model, "float")
    for wrong in (None, True, [16], layers.Dense(3)):
        with pytest.raises(TypeError, match="a number of reliable bits. Received"):
            memory_energy(model, wrong)
    with pytest.raises(ValueError, match="not built"):
        memory_energy(model, keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="has no kernels"):
        memory_energy(model, sequential((5,), layers.ReLU()))
    with pytest.raises(TypeError, match="`reference`.*the model that was programmed"):
        memory_energy(model, hwa_keras.program(model, "sram", seed=0))


def test_wrong_constants():
    model = uniform(0.01)
    for wrong in (0, -1.0, np.inf, "12.8"):
        with pytest.raises(ValueError, match="`a` of memory_energy.*positive"):
            memory_energy(model, a=wrong)
    for wrong in (0, 1.5, True, None):
        with pytest.raises(ValueError, match="`float_bits`.*an integer ≥ 1"):
            memory_energy(model, float_bits=wrong)
