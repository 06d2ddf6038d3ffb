import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from tests import fresh, zoo

pytestmark = pytest.mark.tensorflow_only

TIMES = [0.0, 1.0, 3600.0, 31_536_000.0]

SERVE_SAVED_MODEL = """
    import sys
    import numpy as np, tensorflow as tf
    serve = tf.saved_model.load(path).signatures["serve"]
    x = tf.constant(np.load(inputs_path))
    y = [serve(x=x, t=tf.constant(t, tf.float32))["output"].numpy() for t in times]
    assert "hwa_keras" not in sys.modules
    np.save(outputs_path, y)
"""
SERVE_TFLITE = """
    import sys
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    serve = Interpreter(path).get_signature_runner("serve")
    x = np.load(inputs_path)
    y = [serve(x=x, t=np.float32(t))["output"] for t in times]
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    np.save(outputs_path, y)
"""


def chip_of(model, **kwargs):
    return hwa_keras.program(model, "pcm", seed=1, **kwargs)


def relative(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


def test_artefacts_equal_the_chip_in_a_process_without_hwa_keras(tmp_path):
    chip = chip_of(zoo.residual_cnn(), read_noise="off")
    x = zoo.inputs_for(chip)
    np.save(tmp_path / "x.npy", x)
    expected = [ops.convert_to_numpy(chip(x, t=t)) for t in TIMES]
    hwa_keras.export(chip, tmp_path / "chip")
    hwa_keras.export_tflite(chip, tmp_path / "chip.tflite")
    for code, name, bound in (
        (SERVE_SAVED_MODEL, "chip", 1e-6),
        (SERVE_TFLITE, "chip.tflite", 1e-5),
    ):
        fresh.run_bare(
            code,
            path=str(tmp_path / name),
            inputs_path=str(tmp_path / "x.npy"),
            outputs_path=str(tmp_path / "y.npy"),
            times=TIMES,
        )
        for found, wanted in zip(np.load(tmp_path / "y.npy"), expected, strict=True):
            assert relative(found, wanted) <= bound
    assert b"Flex" not in (tmp_path / "chip.tflite").read_bytes()


@pytest.mark.parametrize("compensation", ["none", "oracle"])
def test_other_compensations_are_in_the_tflite_graph(tmp_path, compensation):
    chip = chip_of(zoo.mlp(), compensation=compensation, read_noise="off")
    x = zoo.inputs_for(chip)
    hwa_keras.export_tflite(chip, tmp_path / "chip.tflite")
    assert hwa_keras.verify_export(tmp_path / "chip.tflite", chip, x, TIMES) <= 1e-5
    start, end = (ops.convert_to_numpy(chip(x, t=t)) for t in (0.0, TIMES[-1]))
    assert relative(end, start) > 0.01


@pytest.mark.parametrize(
    "build", [zoo.recurrent, zoo.attention], ids=lambda f: f.__name__
)
def test_saved_models_of_every_kind_are_verified(tmp_path, build):
    chip = chip_of(build())
    x = zoo.inputs_for(chip)
    hwa_keras.export(chip, tmp_path / "chip")
    assert hwa_keras.verify_export(tmp_path / "chip", chip, x, TIMES) <= 1e-6


def test_a_subclassed_model_needs_an_example(tmp_path):
    chip = chip_of(zoo.subclassed())
    x = zoo.inputs_for(chip)
    with pytest.raises(ValueError, match="Pass example=x"):
        hwa_keras.export(chip, tmp_path / "chip")
    hwa_keras.export_tflite(chip, tmp_path / "chip.tflite", example=x)
    assert hwa_keras.verify_export(tmp_path / "chip.tflite", chip, x, TIMES) <= 1e-5


def test_an_existing_export_stays_whole(tmp_path, monkeypatch):
    model = zoo.mlp()
    chip, other = chip_of(model), hwa_keras.program(model, "pcm", seed=2)
    x = zoo.inputs_for(chip)
    for export, path in (
        (hwa_keras.export, tmp_path / "chip"),
        (hwa_keras.export_tflite, tmp_path / "chip.tflite"),
    ):
        export(chip, path)
        with pytest.raises(ValueError, match="exists and is not empty.*overwrite=True"):
            export(chip, path)
        from hwa_keras.deployment import export_tensorflow

        def fail(self, path):
            path.mkdir()
            raise OSError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(export_tensorflow.Writer, "saved_model", fail)
            patch.setattr(export_tensorflow.Writer, "tflite", fail)
            with pytest.raises(OSError, match="disk is full"):
                export(chip, path, overwrite=True)
        assert hwa_keras.verify_export(path, chip, x, TIMES) <= 1e-5
        assert hwa_keras.verify_export(path, other, x, TIMES) > 1e-3
        export(other, path, overwrite=True)
        assert hwa_keras.verify_export(path, other, x, TIMES) <= 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chip", "chip.tflite"]


def test_bad_input(tmp_path):
    model = zoo.mlp()
    chip = chip_of(model)
    x = zoo.inputs_for(chip)
    with pytest.raises(TypeError, match="Only a Keras model, or a chip"):
        hwa_keras.export("chip.keras", tmp_path / "chip")
    with pytest.raises(ValueError, match="'off' or 'frozen'"):
        hwa_keras.export(chip, tmp_path / "chip", read_noise="per_call")
    with pytest.raises(FileNotFoundError, match="no exported chip"):
        hwa_keras.verify_export(tmp_path / "chip", chip, x, TIMES)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="holds no SavedModel"):
        hwa_keras.verify_export(tmp_path / "other", chip, x, TIMES)
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="no TensorFlow Lite file"):
        hwa_keras.verify_export(foreign, chip, x, TIMES)
    plain = tmp_path / "plain"
    model.export(plain, verbose=False)
    with pytest.raises(ValueError, match="no signature 'serve'"):
        hwa_keras.verify_export(plain, chip, x, TIMES)


def loads_as(path, model, x):
    """Whether what Keras exported gives what the model does."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    served = ops.convert_to_numpy(loaded.serve(x))
    return relative(served, ops.convert_to_numpy(model(x, training=False))) <= 1e-5


@pytest.mark.parametrize("build", [zoo.mlp, zoo.subclassed], ids=lambda f: f.__name__)
def test_keras_exports_fitted_models_and_their_chips(tmp_path, build):
    hwa = hwa_keras.to_hwa(build(), "ste_sign", "programming_noise", verbose=0)
    x, y = zoo.digits_like(30)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    hwa.compile("adam", loss, metrics=["accuracy"])
    hwa.fit(x, y, verbose=0)
    hwa.evaluate(x, y, verbose=0)
    hwa.predict(x, verbose=0)
    hwa.export(tmp_path / "hwa", verbose=False)
    assert loads_as(tmp_path / "hwa", hwa, x)
    chip = hwa_keras.program(hwa, "pcm", seed=1, read_noise="frozen")
    chip.evaluate(x, y, verbose=0)
    for t in (0.0, 1e6):
        chip.t = t
        chip.export(tmp_path / f"chip_{t:g}", verbose=False)
        assert loads_as(tmp_path / f"chip_{t:g}", chip, x)
    assert not loads_as(tmp_path / "chip_0", chip, x)


def test_what_cannot_be_compared_never_verifies(tmp_path):
    model = zoo.mlp()
    x = zoo.inputs_for(model)
    chip = chip_of(model)
    hwa_keras.export(chip, tmp_path / "good")
    hwa_keras.export(model, tmp_path / "good_model", verbose=0)
    model.layers[2].bias.assign([np.nan, 0.0, np.inf])
    broken = chip_of(model)
    hwa_keras.export(broken, tmp_path / "broken")
    hwa_keras.export(model, tmp_path / "broken_model", verbose=0)
    for name, other in (("good", broken), ("broken", chip), ("broken", broken)):
        with pytest.raises(ValueError, match="'output' is not finite.*of 12 values"):
            hwa_keras.verify_export(tmp_path / name, other, x, [1.0])
    for name in ("good_model", "broken_model"):
        with pytest.raises(ValueError, match="8 of 12 values of the original"):
            hwa_keras.verify_export(tmp_path / name, model, x)
    for times, message in (
        ([], "`times` is empty"),
        ([1.0, np.nan], "t=nan"),
        ([-1.0], "t=-1"),
        ([1e39], "32-bit"),
    ):
        with pytest.raises(ValueError, match=message):
            hwa_keras.verify_export(tmp_path / "good", chip, x, times)
    with pytest.raises(ValueError, match="not empty"):
        hwa_keras.verify_export(tmp_path / "good", chip, x[:0], [1.0])
