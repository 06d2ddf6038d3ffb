import math

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.noise import AdditiveGaussian, Compose, DropConnect
from hwa_keras.training import NoiseRamp
from hwa_keras.training.callbacks import noises_of
from tests import zoo


def fit(model, callbacks, epochs=4, **kwargs):
    x, y = zoo.digits_like(16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model.fit(
        x, y, epochs=epochs, callbacks=callbacks, verbose=0, **kwargs
    ).history


def scales(model):
    return [float(ops.convert_to_numpy(n.scale)) for n in noises_of(model)]


def noisy_mlp(noise=None):
    noise = AdditiveGaussian(0.05) if noise is None else noise
    return hwa_keras.to_hwa(zoo.mlp(), kernel_noise=noise, verbose=0)


def test_ramps_every_noise_and_logs_its_value():
    model = noisy_mlp()
    history = fit(model, [NoiseRamp(stop=3.0, epochs=3)], epochs=5)
    np.testing.assert_allclose(history["noise_scale"], [0, 1, 2, 3, 3])
    assert scales(model) == [3.0, 3.0, 3.0]


def test_the_published_recipe_is_the_default():
    ramp = NoiseRamp()
    assert [ramp.value(e) for e in (0, 5, 10, 50)] == [0.0, 1.5, 3.0, 3.0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", lambda x: x),
        ("cosine", lambda x: (1 - math.cos(math.pi * x)) / 2),
        (lambda x: x**2, lambda x: x**2),
    ],
)
def test_schedules(schedule, expected):
    ramp = NoiseRamp(start=1.0, stop=2.0, epochs=8, schedule=schedule)
    for epoch in range(10):
        x = min(epoch / 8, 1.0)
        assert ramp.value(epoch) == pytest.approx(1.0 + expected(x))


def test_the_noise_follows_the_ramp_without_retracing():
    """At scale 0 a training call is the inference call; above it is not."""
    model = noisy_mlp()
    x = zoo.inputs_for(model.model)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            clean = ops.convert_to_numpy(self.model(x))
            noisy = ops.convert_to_numpy(self.model(x, training=True))
            seen.append(np.abs(clean - noisy).mean())

    fit(model, [NoiseRamp(stop=4.0, epochs=2), Watch()], epochs=3)
    assert seen[0] == 0 and 0 < seen[1] < seen[2]


def test_only_ramps_what_it_is_told():
    model = noisy_mlp(Compose([AdditiveGaussian(0.05), DropConnect(0.01)]))
    fit(model, [NoiseRamp(stop=2.0, epochs=1, only=AdditiveGaussian)], epochs=2)
    assert scales(model) == [2.0, 1.0] * 3


def test_a_resumed_fit_goes_on_where_it_was():
    model = noisy_mlp()
    history = fit(model, [NoiseRamp(stop=4.0, epochs=4)], epochs=4, initial_epoch=2)
    np.testing.assert_allclose(history["noise_scale"], [2.0, 3.0])


def test_finds_the_noises_of_hardware_layers():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            hwa_keras.layers.HWADense(
                8, kernel_noise="programming_noise", output_noise=AdditiveGaussian(0.1)
            ),
            hwa_keras.layers.HWADense(3, kernel_noise="programming_noise"),
        ]
    )
    assert len(noises_of(model)) == 3
    fit(model, [NoiseRamp(stop=2.0, epochs=1)], epochs=2)
    assert scales(model) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"start": -1.0}, "`start` must be finite and not negative"),
        ({"stop": math.inf}, "`stop` must be finite"),
        ({"epochs": 0}, "`epochs` must be an integer"),
        ({"schedule": "steps"}, "'linear', 'cosine'"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NoiseRamp(**kwargs)


def test_a_model_without_noise_is_refused():
    with pytest.raises(ValueError, match="found no noise in the model"):
        fit(hwa_keras.to_hwa(zoo.mlp(), verbose=0), [NoiseRamp()], epochs=1)
