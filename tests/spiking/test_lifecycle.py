"""Spiking networks as any Keras model: clones, rules, resumed training, exports."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.core.kernels import kernels_of
from hwa_keras.noise import ProcessVariation, SynapticMismatch
from hwa_keras.spiking import ALIF, LIF, DeltaEncoder, SpikeCount, SynapticLIF

DT = 5e-3
X = np.random.default_rng(0).normal(0.6, 0.8, (6, 5, 3)).astype("float32")


def numbers(x):
    return ops.convert_to_numpy(x)


def all_neurons(steps=5):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((steps, 3))
    x = LIF(20e-3, DT, floor=-1.0)(layers.Dense(6, name="first")(inputs))
    x = SynapticLIF(20e-3, 10e-3, DT, reset="subtract")(layers.Dense(6)(x))
    x = ALIF(20e-3, 50e-3, DT, return_membrane=True)(layers.Dense(4, name="last")(x))
    return keras.Model(inputs, {"spikes": x[0], "membrane": x[1]})


def mismatched():
    keras.utils.set_random_seed(0)
    synapses = hwa_keras.layers.HWADense(
        4, kernel_noise=SynapticMismatch(0.1, 0.9, hold=False)
    )
    leaks = ProcessVariation(0.1, hold=False)
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            synapses,
            LIF(20e-3, DT, tau_noise=leaks, mismatch_seed=3),
            layers.Dense(2),
            SpikeCount(),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model


def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(tmp_path):
    y = np.eye(2)[np.arange(6) % 2]
    options = {"batch_size": 3, "shuffle": False, "verbose": 0}
    whole = mismatched()
    whole.fit(X, y, epochs=1, **options)
    whole.save(tmp_path / "first.keras")
    whole.fit(X, y, epochs=1, **options)
    second = keras.models.load_model(tmp_path / "first.keras")
    second.fit(X, y, epochs=1, **options)
    for own, other in zip(
        whole.trainable_variables, second.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(numbers(own), numbers(other), atol=1e-6)
        assert np.abs(numbers(own)).max() > 0


def test_clones_compute_the_same():
    model = all_neurons()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for name, value in model(X).items():
        np.testing.assert_array_equal(numbers(clone(X)[name]), numbers(value))


def test_rules_choose_synapses():
    model = hwa_keras.to_hwa(
        all_neurons(), "ste_sign", rules=[("last", {"kernel_quantizer": None})]
    )
    values = {k.path: len(np.unique(numbers(k.target()))) for k in kernels_of(model)}
    assert (values["first/kernel"], values["last/kernel"]) == (2, 24)


@pytest.mark.tensorflow_only
def test_exports_to_both_formats_and_to_lite_step_by_step(tmp_path):
    model, x = all_neurons(3), X[:, :3]
    hwa_keras.export(model, tmp_path / "model", verbose=0)
    assert hwa_keras.verify_export(tmp_path / "model", model, x) < 1e-6
    hwa_keras.export_tflite(model, tmp_path / "model.tflite", verbose=0)
    assert hwa_keras.verify_export(tmp_path / "model.tflite", model, x) < 1e-5
    encoder = keras.Sequential([keras.Input((3, 3)), DeltaEncoder(0.3)])
    hwa_keras.export_tflite(encoder, tmp_path / "encoder.tflite", verbose=0)
    assert hwa_keras.verify_export(tmp_path / "encoder.tflite", encoder, x) == 0


@pytest.mark.tensorflow_only
def test_without_a_number_of_steps_lite_says_what_does_not_convert(tmp_path):
    with pytest.raises(ValueError, match="TensorListReserve.*number of steps must be"):
        model = keras.Sequential([keras.Input((None, 3)), LIF(20e-3, DT)])
        hwa_keras.export_tflite(model, tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()
