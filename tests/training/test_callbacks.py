import math

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.constraints import AggressiveClip, HistogramClip
from hwa_keras.core.kernels import find_kernels
from hwa_keras.noise import AdditiveGaussian, Compose, DropConnect
from hwa_keras.training import ConstrainKernels, NoiseRamp
from hwa_keras.training.callbacks import noises_of
from tests import fresh, zoo

pytestmark = pytest.mark.usefixtures("built_optimizers")


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


def test_a_ramp_of_no_epochs_is_at_its_end_at_once():
    ramp = NoiseRamp(stop=2.0, epochs=0)
    assert [ramp.value(epoch) for epoch in range(2)] == [2.0, 2.0]


def test_the_noise_follows_the_ramp_without_retracing():
    """At scale 0 a training call is the inference call; above it is not."""
    model = noisy_mlp()
    x = zoo.inputs_for(model)
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
        ({"epochs": -1}, "`epochs` must be an integer"),
        ({"schedule": "steps"}, "'linear', 'cosine'"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NoiseRamp(**kwargs)


def test_a_model_without_noise_is_refused():
    with pytest.raises(ValueError, match="found no noise in the model"):
        fit(hwa_keras.to_hwa(zoo.mlp(), verbose=0), [NoiseRamp()], epochs=1)


# --- ConstrainKernels


def kernels_of(model):
    return [kernel.variable for kernel in find_kernels(model)[0]]


def largest(model):
    """The largest magnitude among the values of each kernel."""
    return [np.abs(ops.convert_to_numpy(k)).max() for k in kernels_of(model)]


def hardware_mlp():
    layer = hwa_keras.layers.HWADense
    layers = [layer(n, kernel_noise="programming_noise") for n in (8, 3)]
    return keras.Sequential([keras.Input((12,)), *layers])


def step(model, callbacks=(), compiled=False):
    """A few updates that are large enough to drive every kernel out of ±0.2."""
    x, y = zoo.inputs_for(model, 16), np.arange(16) % 3
    if not compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1.0), loss)
    model.fit(x, y, callbacks=list(callbacks), batch_size=8, verbose=0)


@pytest.mark.parametrize(
    "build",
    [
        zoo.nested,
        zoo.subclassed,
        noisy_mlp,
        hardware_mlp,
        pytest.param(zoo.residual_cnn, marks=pytest.mark.slow),
        pytest.param(zoo.recurrent, marks=pytest.mark.slow),
        pytest.param(zoo.attention, marks=pytest.mark.slow),
    ],
)
def test_constrains_every_kernel_and_nothing_else(build):
    model = build()
    step(model, [ConstrainKernels(AggressiveClip(0.01))])
    np.testing.assert_allclose(largest(model), 0.01, rtol=1e-6)
    assert all(kernel.constraint is None for kernel in kernels_of(model))
    kernels = {id(kernel) for kernel in kernels_of(model)}
    others = [w for w in model.trainable_weights if id(w) not in kernels]
    assert max(np.abs(ops.convert_to_numpy(w)).max() for w in others) > 0.01


def test_compiled_steps_know_of_the_constraint_and_forget_it():
    model = zoo.mlp()
    step(model)
    assert min(largest(model)) > 0.2
    step(model, [ConstrainKernels(AggressiveClip())], compiled=True)
    assert max(largest(model)) <= np.float32(0.2)
    step(model, compiled=True)
    assert min(largest(model)) > 0.2


def test_histogram_clip_takes_the_deviation_of_each_kernel_at_each_update():
    """SGD by hand, on a linear model with a known gradient."""
    layers = [keras.layers.Dense(n, use_bias=False) for n in (3, 2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    a, b = (ops.convert_to_numpy(layer.kernel).astype("float64") for layer in layers)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    callback = ConstrainKernels(HistogramClip(1.2))
    model.fit(x, y, epochs=3, batch_size=6, verbose=0, callbacks=[callback])
    for _ in range(3):
        error = (x @ a @ b - y) / 6  # 2/(6·2) times the difference
        a, b = a - 0.1 * x.T @ error @ b.T, b - 0.1 * (x @ a).T @ error
        a, b = (np.clip(w, -1.2 * w.std(), 1.2 * w.std()) for w in (a, b))
    for layer, expected in zip(layers, (a, b), strict=True):
        found = ops.convert_to_numpy(layer.kernel)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_constraint_of_the_layer_is_applied_first_and_kept():
    own = keras.constraints.NonNeg()
    layer = keras.layers.Dense(3, kernel_constraint=own)
    model = keras.Sequential([keras.Input((12,)), layer])
    seen = []

    def minus(w):
        seen.append(w)
        return -w

    step(model, [ConstrainKernels(AggressiveClip()), ConstrainKernels(minus)])
    kernel = ops.convert_to_numpy(layer.kernel)
    assert seen and kernel.max() == 0 and kernel.min() == -np.float32(0.2)
    assert layer.kernel.constraint is own


def test_what_a_fit_that_was_cut_short_left_goes_with_the_next():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = zoo.mlp()
    callback = ConstrainKernels(AggressiveClip())
    with pytest.raises(KeyboardInterrupt):
        step(model, [callback, Stop()])
    step(model, [callback])
    assert max(largest(model)) <= np.float32(0.2)
    assert all(kernel.constraint is None for kernel in kernels_of(model))


@pytest.mark.tensorflow_only
def test_constrains_on_two_replicas():
    fresh.run(
        """
        import keras, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        import hwa_keras
        from tests import zoo
        from tests.training import test_callbacks

        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = zoo.mlp()
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(1.0), loss)
        clip = hwa_keras.constraints.AggressiveClip(0.01)
        callback = hwa_keras.training.ConstrainKernels(clip)
        test_callbacks.step(model, [callback], compiled=True)
        np.testing.assert_allclose(test_callbacks.largest(model), 0.01, rtol=1e-6)
        """
    )


@pytest.mark.parametrize("constraint", [None, 0.2, "max_norm", AggressiveClip])
def test_what_is_no_constraint_is_refused(constraint):
    with pytest.raises(TypeError, match="`constraint` must be a Keras constraint"):
        ConstrainKernels(constraint)


def test_a_model_without_kernels_is_refused():
    model = keras.Sequential([keras.Input((12,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="found no kernels in the model"):
        step(model, [ConstrainKernels(AggressiveClip())])
