"""Surrogate gradients against their formulas, in every type of float."""

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras import spiking
from hwa_keras.spiking import surrogates
from tests.gradients import gradient

FORMULAS = {
    "fast_sigmoid": lambda x: 1 / (25 * np.abs(x) + 1) ** 2,
    "atan": lambda x: 1 / (1 + (np.pi * x) ** 2),
    "sigmoid": lambda x: 25 / (np.exp(12.5 * x) + np.exp(-12.5 * x)) ** 2,
    "triangular": lambda x: np.maximum(0, 1 - np.abs(x)),
}
X = np.concatenate([np.linspace(-3, 3, 61), [-1.0, 0.0, 1.0, 1e-3, -1e-3]])


@pytest.mark.parametrize("name", FORMULAS)
def test_the_backward_pass_is_the_formula(name):
    x = X.astype("float32")
    found = gradient(lambda x: spiking.spike(x, name), x)
    np.testing.assert_allclose(found, FORMULAS[name](X), rtol=2e-5, atol=1e-6)


def test_a_neuron_fires_above_its_threshold_and_not_at_it():
    z = spiking.spike(np.array([-1.0, 0.0, 1e-6, 2.0], "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(z), [0, 0, 1, 1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_distant_membrane_gives_a_finite_gradient(name, dtype):
    x = ops.cast(np.array([-1e4, -60.0, 0.0, 60.0, 1e4]), dtype)
    found = surrogates.slope(surrogates.get(name), x)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    values = ops.convert_to_numpy(ops.cast(found, "float32"))
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values[2], FORMULAS[name](0.0), rtol=1e-2)
    np.testing.assert_allclose(values[[0, -1]], 0.0, atol=1e-4)


def test_any_callable_is_a_surrogate():
    x = np.array([-1.0, 0.2, 3.0], "float32")
    found = gradient(lambda x: spiking.spike(x, lambda x: 2.0 * x), x)
    np.testing.assert_allclose(found, 2 * x, rtol=1e-6)


@pytest.mark.parametrize(
    "surrogate",
    [
        spiking.FastSigmoid(10.0),
        spiking.Atan(3.0),
        spiking.Sigmoid(4.0),
        spiking.Triangular(0.5, 0.3),
    ],
    ids=repr,
)
def test_a_configuration_gives_the_surrogate_back(surrogate):
    config = surrogates.serialize(surrogate)
    assert surrogates.get(config) == surrogate
    assert hash(surrogates.get(config)) == hash(surrogate)


def test_what_is_no_surrogate_is_refused():
    with pytest.raises(ValueError, match="Unknown surrogate 'steep'.*fast_sigmoid"):
        surrogates.get("steep")
    with pytest.raises(ValueError, match="`k` of FastSigmoid must be a positive"):
        spiking.FastSigmoid(k=0.0)
    with pytest.raises(ValueError, match="must keep the shape"):
        surrogates.slope(ops.sum, ops.ones((3,)))
    with pytest.raises(ValueError, match="`surrogate` must not be None"):
        spiking.LIF(0.02, 0.005, surrogate=None)
