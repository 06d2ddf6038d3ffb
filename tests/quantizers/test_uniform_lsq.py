"""Uniform with a learned scale: it moves as learned step size quantization does."""

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras.quantizers import Uniform
from tests.bound import bound_to
from tests.gradients import gradient


def lsq_step(w, upstream, alpha, levels, rate):
    """By what LSQ changes the step Δ, as a part of it: equation 3 of 1902.08153."""
    q = levels - 1
    delta, w = alpha / q, w.astype("float64")
    v = w / delta
    slope = np.where(np.abs(v) <= q, np.round(v) - v, np.sign(v) * q)
    return -rate / np.sqrt(w.size * q) * (upstream * slope).sum() / delta


@pytest.mark.parametrize("levels", [2, 8, 128])
@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_one_step_of_sgd_moves_the_step_as_lsq_does(levels, factor):
    w = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    quantizer = bound_to(Uniform(levels, "learned"), w)
    alpha = factor * float(np.abs(w).max())
    quantizer.alpha.assign(alpha)
    quantized = ops.convert_to_numpy(quantizer(w)).astype("float64")
    upstream = 2 * quantized / w.size
    found = gradient(
        lambda a: ops.mean(ops.square(_with_alpha(quantizer, a, w))), np.float32(alpha)
    )
    before = float(quantizer.alpha.numpy())
    keras.optimizers.SGD(0.1).apply([ops.convert_to_tensor(found)], [quantizer.alpha])
    got = (float(quantizer.alpha.numpy()) - before) / before
    right = lsq_step(w, upstream, alpha, levels, 0.1)
    np.testing.assert_allclose(got, right, rtol=1e-2, atol=2e-7)


def _with_alpha(quantizer, alpha, w):
    with keras.StatelessScope(state_mapping=[(quantizer.alpha, alpha)]):
        return quantizer(ops.convert_to_tensor(w))


class Weights(keras.layers.Layer):
    """Gives its quantized weights, whatever it is called with."""

    def __init__(self, w, quantizer):
        super().__init__()
        # Not trained: it would swing between the levels around it.
        self.kernel = self.add_weight(
            w.shape, lambda s, dtype: w, trainable=False, name="kernel"
        )
        self.quantizer = bound_to(quantizer, w)

    def call(self, inputs):
        return self.quantizer(self.kernel) + 0 * inputs


def sgd():
    return keras.optimizers.SGD(0.01, momentum=0.9)


def adam():
    return keras.optimizers.Adam(0.003)


@pytest.mark.parametrize(
    ("optimizer", "levels", "start"),
    [(sgd, 4, 0.1), (sgd, 128, 3.0), (adam, 4, 3.0), (adam, 128, 0.1)],
)
def test_training_at_one_learning_rate_stays_stable(optimizer, levels, start):
    w = np.random.default_rng(1).normal(size=(32, 32)).astype("float32")
    layer = Weights(w, Uniform(levels, "learned"))
    layer.quantizer.alpha.assign(start * float(np.abs(w).max()))
    model = keras.Sequential([keras.Input((32,), batch_size=32), layer])
    model.compile(optimizer(), "mse", steps_per_execution=30)
    x = np.zeros((960, 32), "float32")
    losses = model.fit(
        x, np.tile(w, (30, 1)), batch_size=32, shuffle=False, epochs=10, verbose=0
    ).history["loss"]
    alpha = float(layer.quantizer.alpha.numpy())
    assert np.isfinite(losses).all() and losses[-1] < 1.01 * losses[0]
    assert 0.2 * np.abs(w).max() < alpha < 3 * np.abs(w).max()


@pytest.mark.parametrize(
    ("shape", "columns", "axis", "right"),
    [
        ((3, 3, 4, 6), (2,), -1, (1, 1, 4, 1)),  # transposed convolution
        ((3, 3, 6, 2), (2, 3), -1, (1, 1, 6, 2)),  # depthwise convolution
        ((576, 9, 64), (1, 2), -1, (1, 9, 64)),  # queries of attention
        ((3, 3, 4, 6), (2,), 3, (1, 1, 1, 6)),
        ((3, 3, 4, 6), (2,), (0, -1), (3, 1, 1, 6)),
        ((3, 3, 4, 6), (2,), None, ()),
    ],
)
def test_the_last_axis_of_a_kernel_is_all_of_its_outputs(shape, columns, axis, right):
    w = np.random.default_rng(2).normal(size=shape).astype("float32")
    learned = bound_to(Uniform(16, "learned", axis=axis), w, columns)
    assert tuple(learned.alpha.shape) == right and learned.alpha.name == "alpha"
    reduced = tuple(i for i in range(len(shape)) if not right or right[i] == 1)
    largest = np.abs(w).max(reduced, keepdims=bool(right))
    np.testing.assert_array_equal(learned.alpha.numpy(), largest)
    by_max = bound_to(Uniform(16, "max", axis=axis), w, columns)
    np.testing.assert_array_equal(by_max(w), learned(w))
    steps = by_max.code().steps(by_max(w))
    np.testing.assert_allclose(ops.convert_to_numpy(steps), largest / 15, rtol=1e-6)
    assert by_max.get_config()["axis"] == axis


def test_crossbar_aware_scale_counts_the_rows_of_the_matrix():
    w = np.zeros((3, 3, 6, 2), "float32")
    quantizer = bound_to(Uniform(16, "caws"), w, (2, 3))
    np.testing.assert_allclose(quantizer.alpha.numpy(), np.sqrt(3 / 9), rtol=1e-6)
    assert not quantizer.trainable_variables
