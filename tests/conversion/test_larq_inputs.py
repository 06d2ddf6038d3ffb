"""The quantizer of a separable convolution's inputs, as `from_larq` makes it."""

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras import Hardware, layers, profile
from hwa_keras.conversion.larq_inputs import InputsAlone
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import Memristor
from tests.layers import references


def separable(hardware):
    keras.utils.set_random_seed(0)
    layer = layers.HWASeparableConv2D(4, 3, use_bias=False, hardware=hardware)
    model = keras.Sequential([keras.Input((7, 7, 3)), layer])
    return model, layer


def images():
    return np.random.default_rng(0).normal(size=(3, 7, 7, 3)).astype("float32")


@pytest.mark.parametrize("tile", (None, (8, 8)))
def test_only_the_inputs_of_the_layer_are_quantized(tile):
    model, layer = separable(Hardware(dac=InputsAlone("ste_sign"), tile=tile))
    expected = references.separable_of(layer, np.sign(images()))
    found = ops.convert_to_numpy(model(images()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_arrays_are_driven_by_what_the_kernels_see():
    model, _ = separable(Hardware(dac=InputsAlone("ste_sign")))
    plain, _ = separable(Hardware())
    device = Crossbar(Memristor(g_min=1.0, g_max=25.0))
    found = profile.array_energy(model, images(), device)
    expected = profile.array_energy(plain, np.sign(images()), device)
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-5)
