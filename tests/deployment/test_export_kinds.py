"""Artefacts of what Keras exports: tables, names, dictionaries, states, sizes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.deployment import programming
from tests import fresh, zoo

pytestmark = pytest.mark.tensorflow_only

TIMES = [0.0, 31_536_000.0]
X = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")

SERVE_TEXT = """
    import sys
    import numpy as np, tensorflow as tf
    serve = tf.saved_model.load(path).signatures["serve"]
    y = serve(x=tf.constant([["a"], ["b"], ["?"]]), t=tf.constant(1.0))["output"]
    assert "hwa_keras" not in sys.modules
    np.save(outputs_path, y.numpy())
"""


def chip_of(model, **kwargs):
    return hwa_keras.program(model, "pcm", seed=1, verbose=0, **kwargs)


def shapes(path):
    """The shapes of the variables in a SavedModel."""
    import tensorflow as tf

    return sorted(tuple(w.shape) for w in tf.saved_model.load(str(path)).weights)


def inputs_of(path):
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serve"]
    return set(serve.structured_input_signature[1]), set(serve.structured_outputs)


def test_tables_of_lookup_layers(tmp_path):
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    chip = chip_of(model, read_noise="off")
    text = np.array([["a"], ["b"], ["?"]])
    hwa_keras.export(chip, tmp_path / "chip")
    assert hwa_keras.verify_export(tmp_path / "chip", chip, text, TIMES) <= 1e-6
    fresh.run_bare(
        SERVE_TEXT,
        path=str(tmp_path / "chip"),
        outputs_path=str(tmp_path / "y.npy"),
    )
    expected = ops.convert_to_numpy(chip(text, t=1.0))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5)
    hwa = hwa_keras.to_hwa(model, "ste_sign", verbose=0)
    hwa_keras.export(hwa, tmp_path / "model", verbose=0)
    assert hwa_keras.verify_export(tmp_path / "model", hwa, text) <= 1e-6


def test_text_passes_through(tmp_path):
    inputs = keras.Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    outputs = {"y": layers.Dense(2)(lookup(inputs)), "echo": inputs}
    model = keras.Model(inputs, outputs)
    hwa_keras.export(model, tmp_path / "model", verbose=0)
    text = np.array([["a"], ["c"]])
    assert hwa_keras.verify_export(tmp_path / "model", model, text) <= 1e-6


def named():
    left, right = keras.Input((12,), name="my-left"), keras.Input((12,), name="right")
    x = layers.Subtract()([left, right])
    heads = [layers.Dense(3, name="a")(x), layers.Dense(2, name="b")(x)]
    return (
        keras.Model([left, right], heads),
        [X, 2 * X],
        {"my_left", "right"},
        {"a", "b"},
    )


def nested():
    one, two = keras.Input((12,), name="one"), keras.Input((12,), name="two")
    x = layers.Subtract()([one, two])
    outputs = {"y": layers.Dense(3)(x), "rest": [layers.Dense(2)(x), x]}
    model = keras.Model({"one": one, "more": {"two": two}}, outputs)
    x = {"one": X, "more": {"two": 2 * X}}
    return model, x, {"one", "more_two"}, {"y", "rest_0", "rest_1"}


@keras.saving.register_keras_serializable("test_export_kinds")
class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return {"y": self.dense(inputs["u"]), "z": self.dense(inputs["v"])}


def subclassed():
    model, x = Two(), {"u": X, "v": 2 * X}
    model(x)
    return model, x, {"u", "v"}, {"y", "z"}


@pytest.mark.parametrize("build", [named, nested, subclassed], ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_inputs_and_outputs_have_names(tmp_path, build):
    model, x, inputs, outputs = build()
    chip = chip_of(model)
    example = x if isinstance(model, Two) else None
    hwa_keras.export(chip, tmp_path / "chip", example=example)
    assert inputs_of(tmp_path / "chip") == ({*inputs, "t"}, outputs)
    assert hwa_keras.verify_export(tmp_path / "chip", chip, x, TIMES) <= 1e-6
    hwa_keras.export_tflite(chip, tmp_path / "chip.tflite", example=example)
    assert hwa_keras.verify_export(tmp_path / "chip.tflite", chip, x, TIMES) <= 1e-5
    hwa_keras.export(model, tmp_path / "model", example=example, verbose=0)
    assert inputs_of(tmp_path / "model") == (inputs, outputs)
    assert hwa_keras.verify_export(tmp_path / "model", model, x) <= 1e-6
    with pytest.raises(ValueError, match="takes the inputs|that takes \\['x'\\]"):
        hwa_keras.verify_export(tmp_path / "model", model, X)


def test_names_that_do_not_fit_a_signature(tmp_path):
    one, two = keras.Input((12,), name="a-b"), keras.Input((12,), name="a.b")
    model = keras.Model([one, two], layers.Dense(3)(layers.Add()([one, two])))
    with pytest.raises(ValueError, match="Two inputs.*a_b, a_b"):
        hwa_keras.export(model, tmp_path / "model")
    t, x = keras.Input((12,), name="t"), keras.Input((12,), name="x")
    model = keras.Model([t, x], layers.Dense(3)(layers.Add()([t, x])))
    with pytest.raises(ValueError, match="name of the time"):
        hwa_keras.export(chip_of(model), tmp_path / "chip")


def test_an_artefact_holds_the_devices_and_no_more(tmp_path):
    model = keras.Sequential([keras.Input((12,)), layers.Dense(5), layers.Dropout(0.1)])
    hwa = hwa_keras.to_hwa(model, "ste_sign", "programming_noise", verbose=0)
    hwa.compile("adam", "mse", metrics=["mae"])
    hwa.fit(X, X[:, :5], verbose=0)
    chip = chip_of(hwa)
    chip.evaluate(X, X[:, :5], verbose=0)
    [tile] = chip.tiles
    state = [tuple(variable.shape) for variable in tile.state.values()]
    path = tmp_path / "chip"
    hwa_keras.export(chip, path)
    # The state of the devices, what was noted after programming, and the bias.
    assert shapes(path) == sorted([*state, (), (5,)])
    hwa_keras.export(hwa, path, overwrite=True, verbose=0)
    assert shapes(path) == [(5,)]


def test_chips_that_make_their_devices_again(tmp_path, monkeypatch):
    model, options = zoo.mlp(), {"read_noise": "frozen"}
    kept = chip_of(model, **options)
    monkeypatch.setattr(programming, "_MOST_KEPT", 0)
    chip = chip_of(model, **options)
    assert not any(tile.keeps_state for tile in chip.tiles)
    hwa_keras.export(chip, tmp_path / "chip", **options)
    for same in (chip, kept):
        found = hwa_keras.verify_export(tmp_path / "chip", same, X, TIMES, **options)
        assert found <= 1e-5


def test_frozen_noise_of_a_chip_that_reads_without(tmp_path):
    chip = chip_of(zoo.mlp(), read_noise="off")
    for name, export in (
        ("chip", hwa_keras.export),
        ("chip.tflite", hwa_keras.export_tflite),
    ):
        path = tmp_path / name
        export(chip, path, read_noise="frozen")
        found = hwa_keras.verify_export(path, chip, X, TIMES, read_noise="frozen")
        assert found <= 1e-5
        assert hwa_keras.verify_export(path, chip, X, TIMES) > 1e-3


def test_tiles_and_converters(tmp_path):
    hardware = hwa_keras.Hardware(
        dac=hwa_keras.circuits.DAC(8, 3.0),
        adc=hwa_keras.circuits.ADC(8, 8.0),
        tile=(8, 4),
    )
    model = hwa_keras.to_hwa(zoo.mlp(), hardware=hardware, verbose=0)
    chip = chip_of(model)
    hwa_keras.export(chip, tmp_path / "chip")
    # A sum at the edge of a step may be read a step apart.
    assert hwa_keras.verify_export(tmp_path / "chip", chip, X, TIMES) <= 0.1
    hwa_keras.export(model, tmp_path / "model", verbose=0)
    assert hwa_keras.verify_export(tmp_path / "model", model, X) <= 0.1


def test_stateful_layers_begin_at_zero_and_stay_as_they_are(tmp_path):
    lstm = layers.LSTM(4, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(4, 3, 4)), lstm])
    x = X.reshape(4, 3, 4)
    chip = chip_of(model, read_noise="off")
    first = ops.convert_to_numpy(chip(x, t=1.0))
    assert np.any(first != ops.convert_to_numpy(chip(x, t=1.0)))
    model(x)
    state = ops.convert_to_numpy(lstm.states[0])
    hwa_keras.export(chip, tmp_path / "chip")
    hwa_keras.export(model, tmp_path / "model", verbose=0)
    for _ in range(2):
        assert hwa_keras.verify_export(tmp_path / "chip", chip, x, [1.0]) <= 1e-6
        assert hwa_keras.verify_export(tmp_path / "model", model, x) <= 1e-6
    np.testing.assert_array_equal(ops.convert_to_numpy(lstm.states[0]), state)
    chip.reset_states()
    np.testing.assert_allclose(ops.convert_to_numpy(chip(x, t=1.0)), first, rtol=1e-5)


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.filterwarnings("ignore:Layer InputLayer does not")
def test_codes_of_keras_s_quantization_stay_codes(tmp_path, mode):
    model = keras.Sequential([keras.Input((12,)), layers.Dense(8)])
    model.quantize(mode)
    stored = hwa_keras.export(model, tmp_path / "model", verbose=0)
    assert all(mode in kernel.reason for kernel in stored)
    assert all(4 * kernel.nbytes == kernel.float_nbytes for kernel in stored)
    assert hwa_keras.verify_export(tmp_path / "model", model, X) <= 1e-6


def test_what_a_layer_always_draws_is_the_same_at_each_call(tmp_path):
    inputs = keras.Input((12,))
    x = layers.Dropout(0.5)(layers.Dense(16)(inputs), training=True)
    chip = chip_of(keras.Model(inputs, layers.Dense(3)(x)))
    hwa_keras.export(chip, tmp_path / "chip")
    for _ in range(2):
        assert hwa_keras.verify_export(tmp_path / "chip", chip, X, TIMES) <= 1e-6
