"""The language model: what it carries from window to window, digital and on chips."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.datasets import Windows
from hwa_keras.models import lstm_lm
from hwa_keras.training import ResetStates
from tests import fresh

WORDS, STREAMS, LENGTH = 50, 4, 5
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def text(count=STREAMS * (3 * LENGTH + 1)):
    return np.random.default_rng(0).integers(0, WORDS, count)


def small(length=LENGTH, **kwargs):
    sizes = {"embedding": 6, "units": 7, "batch_size": STREAMS, "length": length}
    return lstm_lm(WORDS, **sizes, **kwargs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logits_by_hand(model, streams):
    """The whole network in NumPy float64, over whole streams at once."""
    weights = [
        ops.convert_to_numpy(w).astype("float64") for w in model.trainable_weights
    ]
    embedding, *cells, kernel, bias = weights
    x = embedding[streams]
    for wx, wh, b in (cells[:3], cells[3:]):
        h = c = np.zeros((len(streams), wh.shape[0]))
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = np.split(x[:, t] @ wx + h @ wh + b, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, axis=1)
    return x @ kernel + bias


def test_windows_read_one_after_the_other_are_the_whole_text():
    model, windows = small(), Windows(text(), STREAMS, LENGTH)
    found = [model.predict(windows[i][0], STREAMS, verbose=0) for i in range(3)]
    streams = np.concatenate([windows[i][0] for i in range(3)], axis=1)
    expected = logits_by_hand(model, streams)
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=2e-5)


def test_each_evaluation_begins_anew():
    model, windows = small(), Windows(text(), STREAMS, LENGTH)
    model.compile("sgd", LOSS)
    history = model.fit(
        windows,
        epochs=2,
        validation_data=windows,
        shuffle=False,
        callbacks=[ResetStates()],
        verbose=0,
    ).history
    again = model.evaluate(windows, callbacks=[ResetStates()], verbose=0)
    assert again == pytest.approx(history["val_loss"][-1], rel=1e-6)
    assert model.evaluate(windows, verbose=0) != pytest.approx(again, rel=1e-6)


def test_noise_is_drawn_and_states_are_carried():
    noise = hwa_keras.noise.AdditiveGaussian(0.5)
    model = small(dropout=0.0, kernel_noise=noise)
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    windows = Windows(text(), STREAMS, LENGTH)
    clean = model.evaluate(windows, callbacks=[ResetStates()], verbose=0)
    noisy = model.fit(windows, shuffle=False, verbose=0).history["loss"][0]
    assert noisy != pytest.approx(clean, rel=1e-5)
    states = [w for w in model.weights if "rnn_state" in w.name]
    assert len(states) == 4
    assert all(np.abs(ops.convert_to_numpy(s)).max() > 0 for s in states)


def test_a_chip_reads_on_where_it_stopped_and_begins_anew_in_a_sweep():
    model, windows = small(), Windows(text(), STREAMS, LENGTH)
    model.compile("sgd", LOSS)
    chip = hwa_keras.program(model, "simple_pcm", seed=0, read_noise="frozen")
    losses = [
        chip.evaluate(windows, verbose=0, callbacks=[ResetStates()]) for _ in range(2)
    ]
    assert losses[0] == losses[1]
    assert chip.evaluate(windows, verbose=0) != losses[0]
    # The same as a network that holds the chip's kernels and reads the whole text.
    whole = small(length=3 * LENGTH)
    whole.set_weights(model.get_weights())
    for own, tile in zip(
        [w for w in whole.trainable_weights if w.name.endswith("kernel")],
        chip.tiles,
        strict=True,
    ):
        own.assign(tile.kernel().variable)
    streams = np.concatenate([windows[i][0] for i in range(3)], axis=1)
    targets = np.concatenate([windows[i][1] for i in range(3)], axis=1)
    found = LOSS(targets, logits_by_hand(whole, streams).astype("float32"))
    assert float(found) == pytest.approx(losses[0], rel=1e-5)
    sweeps = [
        hwa_keras.drift_sweep(
            model,
            "simple_pcm",
            windows,
            times=[0.0, 1e6],
            chips=1,
            verbose=0,
            metric="loss",
        )
        for _ in range(2)
    ]
    assert sweeps[0].samples == sweeps[1].samples
    assert sweeps[0].values("none", "0 s")[0] == pytest.approx(losses[0], rel=1e-5)


def test_saves_and_loads(tmp_path):
    model = small(kernel_quantizer="ste_sign", kernel_noise="programming_noise")
    inputs = Windows(text(), STREAMS, LENGTH)[0][0]
    for state in (w for w in model.weights if "rnn_state" in w.name):
        state.assign(ops.ones(state.shape))
    model.save(tmp_path / "lm.keras")
    printed = fresh.run(
        """
        import keras, numpy as np, hwa_keras
        model = keras.models.load_model(path)
        print(float(keras.ops.sum(model(np.array(inputs)))))
        """,
        path=str(tmp_path / "lm.keras"),
        inputs=inputs.tolist(),
    )
    assert float(printed) == float(ops.sum(model(inputs)))


@pytest.mark.tensorflow_only
def test_the_export_begins_at_zero(tmp_path):
    model, windows = small(), Windows(text(), STREAMS, LENGTH)
    chip = hwa_keras.program(model, "pcm", seed=0)
    x = windows[0][0]
    chip(x)  # Leaves states behind.
    hwa_keras.export(chip, tmp_path / "lm")
    assert hwa_keras.verify_export(tmp_path / "lm", chip, x, [1.0, 1e6]) < 1e-5


def on_hardware(model):
    return hwa_keras.to_hwa(model, kernel_quantizer="ste_sign", verbose=0)


def on_a_chip(model):
    return hwa_keras.program(model, "pcm", seed=0, read_noise="off")


@pytest.mark.parametrize("put", [on_hardware, on_a_chip])
def test_keras_own_stateful_layers_carry_on(put):
    layers = [keras.Input(batch_shape=(2, 3, 4)), keras.layers.LSTM(5, stateful=True)]
    model = put(keras.Sequential(layers))
    x = np.ones((2, 3, 4), "float32")
    first, second = (np.array(model.predict(x, verbose=0)) for _ in range(2))
    assert np.abs(second - first).max() > 1e-3
    model.layers[0].reset_state()
    np.testing.assert_array_equal(model.predict(x, verbose=0), first)


def test_depth_must_be_positive():
    with pytest.raises(ValueError, match="depth"):
        lstm_lm(10, depth=0)


def test_nothing_to_reset_is_an_error():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no stateful recurrent layer"):
        model.evaluate(np.ones((2, 3)), np.ones((2, 2)), callbacks=[ResetStates()])
