"""`Batches`: an order of the seed and the epoch alone, and what `fit` makes of it."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras.datasets import Batches, pad_crop_flip
from tests import fresh

X, Y = np.arange(20, dtype="float32").reshape(10, 2), np.arange(10)


def noisy(x, rng):
    return x + rng.normal(size=x.shape).astype("float32")


def epoch_of(batches, epoch):
    batches.epoch = epoch
    return [tuple(map(np.copy, batch)) for batch in batches]


def same(left, right):
    leaves = zip(keras.tree.flatten(left), keras.tree.flatten(right), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@pytest.mark.slow
def test_every_example_comes_once_per_epoch():
    batches = Batches(X, Y, 4, seed=3)
    assert len(batches) == batches.num_batches == 3
    for epoch in range(5):
        parts = epoch_of(batches, epoch)
        assert [len(y) for _, y in parts] == [4, 4, 2]
        x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        assert sorted(y) == list(range(10)) and np.array_equal(x, X[y])
        assert y.tolist() != sorted(y)


@pytest.mark.slow
def test_order_is_that_of_the_seed_and_the_epoch():
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (7, 300)]:
        y = np.concatenate([y for _, y in epoch_of(Batches(X, Y, 3, seed=seed), epoch)])
        expected = np.random.default_rng((seed, epoch)).permutation(10)
        assert np.array_equal(y, expected)


@pytest.mark.slow
def test_resumed_is_uninterrupted():
    whole, resumed = (Batches(X, Y, 4, seed=3, transform=noisy) for _ in range(2))
    everything = [epoch_of(whole, epoch) for epoch in range(4)]
    assert not same(everything[2], everything[3])
    np.random.seed(5)
    assert same(epoch_of(resumed, 2), everything[2])
    assert same(epoch_of(resumed, 3), everything[3])


@pytest.mark.slow
def test_batches_do_not_depend_on_when_they_are_asked_for():
    batches = Batches(X, Y, 4, seed=3, transform=noisy)
    expected = {epoch: epoch_of(batches, epoch) for epoch in range(3)}
    for epoch, index in [(2, 1), (0, 2), (0, 0), (1, 1), (2, 1), (0, 2), (1, -1)]:
        batches.epoch = epoch
        assert same(batches[index], expected[epoch][index])


@pytest.mark.slow
def test_transform_draws_from_seed_epoch_and_batch():
    batches = Batches(X, Y, 4, seed=3, shuffle=False, transform=noisy)
    for epoch, index in [(0, 0), (0, 1), (5, 1)]:
        x, y = epoch_of(batches, epoch)[index]
        rng = np.random.default_rng((3, epoch, index))
        assert np.array_equal(x, noisy(X[4 * index : 4 * index + 4], rng))
        assert np.array_equal(y, Y[4 * index : 4 * index + 4])


@pytest.mark.slow
def test_without_shuffle_the_order_is_the_given_one():
    batches = Batches(X, Y, 4, shuffle=False)
    for epoch in range(2):
        x, y = (np.concatenate(a) for a in zip(*epoch_of(batches, epoch), strict=True))
        assert np.array_equal(x, X) and np.array_equal(y, Y)


@pytest.mark.slow
def test_remainder_may_be_dropped():
    batches = Batches(X, Y, 4, drop_remainder=True)
    assert [x.shape for x, _ in batches] == [(4, 2), (4, 2)]
    with pytest.raises(IndexError):
        batches[2]


@pytest.mark.slow
def test_structures_keep_their_form():
    words = np.array(["a", "bc", "d"], dtype=object)
    x = {"text": words, "pair": (np.arange(3), np.ones((3, 2, 2)))}
    (batch,) = Batches(x, batch_size=3, seed=2)[0]
    order = np.random.default_rng((2, 0)).permutation(3)
    assert batch["text"].tolist() == words[order].tolist()
    assert np.array_equal(batch["pair"][0], order)
    assert batch["pair"][1].shape == (3, 2, 2)
    x, y = Batches((X, X + 1), {"a": Y, "b": -Y}, 5)[1]
    assert np.array_equal(x[0] + 1, x[1]) and np.array_equal(y["a"], -y["b"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X, "y": Y[:9]}, r"equally many examples.*\(10, 2\), \(9,\)"),
        ({"x": [1.0, 2.0]}, r"shapes: \(\), \(\)"),
        ({"x": {}}, "none"),
        ({"x": X[:0]}, "no batch of 128 examples. Received: 0 examples"),
        ({"x": X, "drop_remainder": True}, "Received: 10 examples, drop_remainder=T"),
        ({"x": X, "batch_size": 0}, "batch_size=0"),
        ({"x": X, "seed": -1}, "seed=-1"),
    ],
)
def test_unfit_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(**arguments)


# --- In `fit`


class Recorder(keras.layers.Layer):
    """Adds up a number that tells the order in which batches came."""

    def __init__(self):
        super().__init__()
        self.trace = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        first = ops.cast(x[0, 0], "float32") / 2
        self.trace.assign(ops.mod(self.trace * 3 + first, 9973))
        return x


def traced(epochs):
    """What `Recorder` holds after epochs of batches."""
    trace = 0.0
    for x, _ in (batch for epoch in epochs for batch in epoch):
        trace = (trace * 3 + x[0, 0] / 2) % 9973
    return trace


class SetEpoch(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch


def recording_model():
    model = keras.Sequential([keras.Input((2,)), Recorder(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


# On JAX, Keras gives batches of its first look to the first epoch again, where there
# are several workers.
@pytest.mark.parametrize(
    "workers", [1, pytest.param(2, marks=pytest.mark.tensorflow_only)]
)
def test_fit_sees_the_epochs_that_a_callback_sets(workers):
    batches = Batches(X, Y, 2, seed=3)
    batches.workers = workers
    model = recording_model()
    fit = functools.partial(
        model.fit, callbacks=[SetEpoch(batches)], shuffle=False, verbose=0
    )
    fit(batches, epochs=3)
    fit(batches, initial_epoch=3, epochs=5, validation_data=batches)
    # Validation comes after each epoch, whose number is one further by then.
    plan = [0, 1, 2, 3, 4, 4, 5]
    trace = traced(epoch_of(Batches(X, Y, 2, seed=3), epoch) for epoch in plan)
    assert float(model.layers[0].trace.value) == trace


def test_epochs_count_themselves_where_nobody_sets_them():
    batches = Batches(X, Y, 2, seed=3)
    model = recording_model()
    model.fit(batches, epochs=3, shuffle=False, verbose=0)
    # The JAX backend begins an epoch to see what a batch looks like.
    first = batches.epoch - 3
    assert first == (0 if keras.backend.backend() == "tensorflow" else 1)
    plan = range(first, first + 3)
    trace = traced(epoch_of(Batches(X, Y, 2, seed=3), epoch) for epoch in plan)
    assert float(model.layers[0].trace.value) == trace


@pytest.mark.tensorflow_only
def test_two_replicas_share_batches():
    fresh.run("""
        import keras, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        from hwa_keras.datasets import Batches

        def trained(strategy):
            x = np.linspace(-1, 1, 40).astype("float32").reshape(20, 2)
            batches = Batches(x, np.sin(3 * x[:, 0]), 8, seed=1, drop_remainder=True)
            epochs = keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch)
            )
            with strategy.scope():
                model = keras.Sequential([keras.layers.Dense(1, "relu")])
                model.layers[0].kernel_initializer = "ones"
                model.compile("sgd", "mse")
            model.fit(batches, epochs=3, callbacks=[epochs], shuffle=False, verbose=0)
            return np.ravel(model.layers[0].kernel.numpy())

        two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
        one = trained(tf.distribute.get_strategy())
        np.testing.assert_allclose(two, one, atol=1e-5)
        assert np.abs(two - 1).max() > 1e-3
    """)


# --- pad_crop_flip


def slow_pad_crop_flip(images, rng, pad):
    n, h, w, c = images.shape
    top, left = rng.integers(0, 2 * pad, size=(2, n), endpoint=True)
    mirrored = rng.random(n) < 0.5
    moved = np.zeros_like(images)
    for i in range(n):
        for row in range(h):
            for column in range(w):
                y, x = row + top[i] - pad, column + left[i] - pad
                if 0 <= y < h and 0 <= x < w:
                    to = w - 1 - column if mirrored[i] else column
                    moved[i, row, to] = images[i, y, x]
    return moved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "pad", "dtype"),
    [
        ((40, 5, 7, 3), 2, "float32"),
        ((9, 3, 2, 1), 4, "uint8"),
        ((5, 4, 4, 2), 0, "f8"),
    ],
)
def test_pad_crop_flip_is_the_slow_loop(shape, pad, dtype):
    images = np.random.default_rng(1).integers(1, 255, shape).astype(dtype)
    before = images.copy()
    moved = pad_crop_flip(images, np.random.default_rng(2), pad)
    expected = slow_pad_crop_flip(images, np.random.default_rng(2), pad)
    assert np.array_equal(moved, expected) and moved.dtype == dtype
    assert np.array_equal(images, before)


@pytest.mark.slow
def test_shifts_and_mirrors_are_fair():
    """Each count within five standard errors of its expectation."""
    n, pad = 20000, 2
    images = np.zeros((n, 9, 9, 1), "uint8")
    images[:, 4, 3:5] = [[1], [2]]  # A pair whose order tells which way it faces.
    moved = pad_crop_flip(images, np.random.default_rng(0), pad)[..., 0]
    sample, row, column = np.nonzero(moved == 1)
    assert len(sample) == n  # The pair never leaves the image.
    facing = moved[sample, row, np.minimum(column + 1, 8)] == 2
    assert abs(facing.mean() - 0.5) < 5 * np.sqrt(0.25 / n)
    for shift in (row - 4, np.where(facing, column - 3, 5 - column)):
        share = np.bincount(shift + pad, minlength=5) / n
        assert len(share) == 5
        assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / n)


@pytest.mark.slow
def test_pad_crop_flip_as_transform():
    images = np.random.default_rng(1).random((6, 8, 8, 3), "float32")
    transform = functools.partial(pad_crop_flip, pad=1)
    batches = Batches(images, Y[:6], 4, shuffle=False, transform=transform)
    x, _ = batches[1]
    expected = pad_crop_flip(images[4:], np.random.default_rng((0, 0, 1)), 1)
    assert np.array_equal(x, expected)
