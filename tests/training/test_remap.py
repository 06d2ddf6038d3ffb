import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.core.kernels import find_kernels
from hwa_keras.layers import HWADense
from hwa_keras.noise import AdditiveGaussian
from hwa_keras.quantizers import Uniform
from hwa_keras.training import SharpnessAwareModel, WeightRemap

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

CAWS = Uniform(levels=16, scale="caws")
X = np.random.default_rng(1).normal(size=(32, 12)).astype("float32")
Y = np.arange(32) % 3


def mlp():
    sizes = (16, 3)
    layers = [keras.layers.Dense(n, kernel_initializer="lecun_uniform") for n in sizes]
    return keras.Sequential([keras.Input((12,)), *layers])


def converted(**kwargs):
    return hwa_keras.to_hwa(mlp(), CAWS, verbose=0, seed=1, **kwargs)


def hardware():
    hidden = HWADense(8, kernel_quantizer=CAWS, kernel_noise=AdditiveGaussian(0.01))
    inputs = keras.Input((12,))
    outputs = HWADense(3, kernel_quantizer=CAWS)(hidden(inputs))
    return keras.Model(inputs, outputs)


def sharpness_aware():
    return SharpnessAwareModel.wrap(converted(), rho=0.1)


def distilled():
    distiller = keras.distillation.Distiller(
        teacher=converted(),
        student=converted(),
        distillation_losses=keras.distillation.LogitsDistillation(),
    )
    distiller(X)
    return distiller


def scaled(model):
    """Pairs (kernel, α) of the kernels with crossbar-aware weight scaling."""
    return [
        (k.variable, k.quantizer.alpha)
        for k in find_kernels(model)[0]
        if k.quantizer is not None
    ]


def quantized(model):
    return [kernel.quantized() for kernel in hwa_keras.hardware_kernels(model)]


def values(model):
    return [
        (ops.convert_to_numpy(w), float(ops.convert_to_numpy(alpha)))
        for w, alpha in scaled(model)
    ]


class Watch(keras.callbacks.Callback):
    """Notes after which batches kernels were remapped."""

    def __init__(self):
        super().__init__()
        self.remapped = []
        self.alphas = None

    def on_epoch_begin(self, epoch, logs=None):
        self.alphas = [alpha for _, alpha in values(self.model)]

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        pairs = values(self.model)
        alphas = [alpha for _, alpha in pairs]
        self.remapped.append(alphas != self.alphas)
        if self.remapped[-1]:
            assert alphas == [np.abs(w).max() for w, _ in pairs]
        self.alphas = alphas


def fit(model, *callbacks, rate=0.05, epochs=1, compiled=False, **kwargs):
    if not compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss)
    model.fit(
        X,
        Y,
        batch_size=4,
        shuffle=False,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
        **kwargs,
    )
    return model


@pytest.mark.parametrize("build", [converted, hardware, sharpness_aware])
def test_alpha_becomes_the_largest_weight_every_so_many_batches(build):
    model, watch = build(), Watch()
    fit(model, WeightRemap(interval=3), watch)
    assert len(scaled(model)) == 2
    assert watch.remapped == [False, False, True, False, False, True, False, False]


def test_remaps_the_student_and_leaves_what_is_not_trained():
    model = distilled()
    before = values(model.teacher)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    fit(model, WeightRemap(interval=8), compiled=True)
    for w, alpha in values(model.student):
        assert alpha == np.abs(w).max()
    for old, new in zip(before, values(model.teacher), strict=True):
        assert old[1] == new[1] != np.abs(new[0]).max()


def test_changes_the_rounding_and_no_weight():
    """Learning rate 0, so that nothing else changes anything."""
    model = converted()
    kept = [np.array(k.variable) for k in find_kernels(model)[0]]
    before = values(model)
    outputs = ops.convert_to_numpy(model(X))
    fit(model, WeightRemap(interval=8), rate=0.0)
    for old, (new, _) in zip(kept, values(model), strict=True):
        np.testing.assert_array_equal(new, old)
    bounds = []
    for (w, old), (_, new), q in zip(
        before, values(model), quantized(model), strict=True
    ):
        q = ops.convert_to_numpy(q)
        assert new == np.abs(w).max() and 0.5 * old < new < old
        np.testing.assert_allclose(np.abs(q).max(), new, rtol=1e-6)
        levels = q / np.float64(new) * 15
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
        # Both roundings are within half a level of w.
        expected = np.round(w.astype("float64") / old * 15) * old / 15
        assert np.abs(q - expected).max() <= old / 15
        bounds.append(old / 15)
    # One level more or less in each weight, through two linear layers.
    first, second = (np.abs(w) for w, _ in before)
    x = np.abs(X)
    hidden = x @ (first + bounds[0])
    bound = x.sum(1, keepdims=True) * bounds[0] * second.sum(0)
    bound = bound + hidden.sum(1, keepdims=True) * bounds[1]
    changed = np.abs(ops.convert_to_numpy(model(X)) - outputs)
    assert changed.max() > 0 and np.all(changed <= bound)


def test_is_off_by_default():
    with_callback, without = converted(), converted()
    without.set_weights(with_callback.get_weights())
    fit(with_callback, WeightRemap())
    fit(without)
    for a, b in zip(with_callback.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    remap = WeightRemap()
    remap.set_model(mlp())
    remap.on_train_begin()  # Nothing to remap, and nothing said.


def test_weights_beyond_alpha_are_reached_again():
    model = converted()
    kernel, alpha = scaled(model)[0]
    kernel.assign(3 * kernel.value)
    largest = float(ops.max(ops.abs(kernel.value)))
    fit(model, WeightRemap(8), rate=0.0)
    q, _ = quantized(model)
    assert float(alpha.value) == float(ops.max(ops.abs(q))) == largest


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_kernel_that_tells_no_range_keeps_its_alpha(value):
    model = converted()
    (first, _), (second, _) = scaled(model)
    first.assign(np.zeros(first.shape))
    first.assign(ops.where(np.arange(12)[:, None] == 3, value, first.value))
    before = values(model)
    remap = WeightRemap(1)
    remap.set_model(model)
    remap.on_train_begin()
    remap._remap()
    after = values(model)
    assert after[0][1] == before[0][1]
    assert after[1][1] == np.abs(ops.convert_to_numpy(second)).max()


def test_a_resumed_fit_goes_on_where_it_was(tmp_path):
    interval = 11  # An epoch has 8 batches.
    model, path, watch = converted(), tmp_path / "model.keras", Watch()
    fit(model, WeightRemap(interval), watch)
    assert not any(watch.remapped)
    model.save(path)
    resumed, watch = keras.models.load_model(path), Watch()
    fit(resumed, WeightRemap(interval), watch, compiled=True, epochs=3, initial_epoch=1)
    assert np.flatnonzero(watch.remapped).tolist() == [2, 13]  # Of 11 and of 22.
    assert len(scaled(resumed)) == 2


def test_resumes_from_a_backup(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    model, watch = converted(), Watch()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(model, WeightRemap(5), backup, Stop(), epochs=2)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    fit(converted(), WeightRemap(5), backup, watch, epochs=2)
    assert watch.remapped == [(i + 1) % 5 == 0 for i in range(8, 16)]


def test_several_steps_per_execution():
    model, watch = converted(), Watch()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, steps_per_execution=2)
    fit(model, WeightRemap(3), watch, compiled=True)
    assert watch.remapped == [False, True, True, False]  # After 2, 4, 6 and 8 batches.


@pytest.mark.parametrize(
    "jit_compile", [True, pytest.param(False, marks=pytest.mark.tensorflow_only)]
)
def test_remaps_without_retracing(jit_compile):
    traces = []

    def linear(x):
        traces.append(1)
        return x

    layer = HWADense(3, activation=linear, kernel_quantizer=CAWS)
    model = keras.Sequential([keras.Input((12,)), layer])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, jit_compile=jit_compile)
    fit(model, WeightRemap(100), compiled=True)
    before, watch = len(traces), Watch()
    fit(model, WeightRemap(1), watch, compiled=True, epochs=2)
    assert len(traces) == before
    assert all(watch.remapped)


@pytest.mark.parametrize("interval", [-1, 2.0, "10", True, None])
def test_bad_intervals_are_named(interval):
    with pytest.raises(ValueError, match="`interval` must be an integer ≥ 0.*interval"):
        WeightRemap(interval)


@pytest.mark.parametrize(
    "build",
    [mlp, lambda: hwa_keras.to_hwa(mlp(), Uniform(scale="learned"), verbose=0)],
)
def test_a_model_without_such_kernels_is_refused(build):
    message = r'to_hwa\(model, kernel_quantizer=Uniform\(scale="caws"\)\)'
    with pytest.raises(ValueError, match=message):
        fit(build(), WeightRemap(1))
