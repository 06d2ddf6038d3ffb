"""`Windows`, against PyTorch's word_language_model."""

import keras
import numpy as np
import pytest

from hwa_keras.datasets import Windows


def batchify(data, batch_size):
    """As in word_language_model/main.py, with NumPy's names."""
    columns = data.shape[0] // batch_size
    data = data[: columns * batch_size]
    return data.reshape(batch_size, -1).T


def get_batch(source, i, bptt):
    """As there; the targets are flattened there, and shaped like the data here."""
    seq_len = min(bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "batch_size", "length"),
    [(1000, 20, 35), (1439, 20, 35), (1440, 20, 35), (1441, 20, 35), (99, 1, 7)],
)
def test_windows_are_those_of_pytorch(tokens, batch_size, length):
    data = np.random.default_rng(0).integers(0, 99, tokens)
    source = batchify(data, batch_size)
    theirs = [get_batch(source, i, length) for i in range(0, len(source) - 1, length)]
    full = [batch for batch in theirs if len(batch[0]) == length]
    windows = Windows(data, batch_size, length)
    assert len(windows) == windows.num_batches == len(full) >= len(theirs) - 1
    for _ in range(2):
        for (x, y), (data, target) in zip(windows, full, strict=True):
            assert x.shape == y.shape == (batch_size, length)
            assert x.dtype == y.dtype == np.int32
            assert np.array_equal(x, data.T) and np.array_equal(y, target.T)


@pytest.mark.slow
def test_few_tokens_are_no_targets():
    for tokens in range(16, 80):
        windows = Windows(np.arange(tokens), 4, 3)
        targets = np.concatenate([y.ravel() for _, y in windows])
        assert len(set(targets)) == len(targets)
        assert 4 <= tokens - len(targets) < 4 * (3 + 1)


@pytest.mark.slow
def test_rows_go_on_where_they_ended():
    windows = Windows(np.arange(100), 4, 3)
    for (x, y), (following, _) in zip(windows, list(windows)[1:], strict=False):
        assert np.array_equal(x[:, 1:], y[:, :-1])
        assert np.array_equal(y[:, -1], following[:, 0])
    with pytest.raises(IndexError):
        windows[len(windows)]


@pytest.mark.slow
def test_windows_are_copies():
    windows = Windows(np.arange(100), 4, 3)
    before = windows[0][0].copy()
    windows[0][0][:] = -1
    assert np.array_equal(windows[0][0], before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "arguments", "message"),
    [
        (np.arange(719), {}, "takes 720 tokens. Received: 719."),
        (np.arange(0), {}, "Received: 0."),
        (np.arange(9.0), {}, r"one axis. Received: shape \(9,\) of float64"),
        (np.ones((5, 5), "int32"), {}, r"shape \(5, 5\) of int32"),
        (np.arange(9), {"batch_size": 0}, "batch_size=0, length=35"),
        (np.arange(9), {"length": 0}, "length=0"),
    ],
)
def test_unfit_arguments(tokens, arguments, message):
    with pytest.raises(ValueError, match=message):
        Windows(tokens, **arguments)


def stateful_model():
    model = keras.Sequential(
        [
            keras.Input((3,), batch_size=4, dtype="int32"),
            keras.layers.Embedding(100, 3),
            keras.layers.SimpleRNN(5, return_sequences=True, stateful=True),
            keras.layers.Dense(100),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


@pytest.mark.tensorflow_only  # On JAX, `fit` leaves the states of Keras's layers at 0.
def test_stateful_layers_carry_their_state_through_fit():
    windows = Windows(np.arange(100), 4, 3)
    model = stateful_model()
    model.fit(windows, shuffle=False, verbose=0)
    carried = keras.ops.convert_to_numpy(model.layers[1].states[0])
    model.layers[1].reset_state()
    for x, _ in windows:
        model(x)
    stepped = keras.ops.convert_to_numpy(model.layers[1].states[0])
    np.testing.assert_allclose(carried, stepped, atol=1e-6)
    assert np.abs(carried).max() > 1e-3


def test_shuffling_windows_is_an_error():
    windows = Windows(np.arange(100), 4, 3)
    with pytest.raises(Exception, match="Call `fit` with `shuffle=False`"):
        stateful_model().fit(windows, verbose=0)
