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
    x = zoo.inputs_for(chip.structure)
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


@pytest.mark.parametrize("compensation", ["none", "oracle", "measured"])
def test_every_compensation_is_in_the_tflite_graph(tmp_path, compensation):
    chip = chip_of(zoo.mlp(), compensation=compensation, read_noise="off")
    x = zoo.inputs_for(chip.structure)
    hwa_keras.export_tflite(chip, tmp_path / "chip.tflite")
    assert hwa_keras.verify_export(tmp_path / "chip.tflite", chip, x, TIMES) <= 1e-5
    start, end = (ops.convert_to_numpy(chip(x, t=t)) for t in (0.0, TIMES[-1]))
    assert relative(end, start) > 0.01


@pytest.mark.parametrize(
    "build", [zoo.mlp, zoo.recurrent, zoo.attention, zoo.bert], ids=lambda f: f.__name__
)
def test_saved_models_of_every_kind_are_verified(tmp_path, build):
    chip = chip_of(build())
    x = zoo.inputs_for(chip.structure)
    hwa_keras.export(chip, tmp_path / "chip")
    assert hwa_keras.verify_export(tmp_path / "chip", chip, x, TIMES) <= 1e-6


def test_a_subclassed_model_needs_an_example(tmp_path):
    chip = chip_of(zoo.subclassed())
    x = zoo.inputs_for(chip.structure)
    with pytest.raises(ValueError, match="Pass example=x"):
        hwa_keras.export(chip, tmp_path / "chip")
    hwa_keras.export_tflite(chip, tmp_path / "chip.tflite", example=x)
    assert hwa_keras.verify_export(tmp_path / "chip.tflite", chip, x, TIMES) <= 1e-5


def test_frozen_read_noise_is_one_draw_in_the_artefact(tmp_path):
    chip = chip_of(zoo.mlp(), read_noise="frozen")
    x = zoo.inputs_for(chip.structure)
    path = tmp_path / "chip.tflite"
    hwa_keras.export_tflite(chip, path, read_noise="frozen")
    assert hwa_keras.verify_export(path, chip, x, TIMES, read_noise="frozen") <= 1e-5
    assert hwa_keras.verify_export(path, chip, x, TIMES, read_noise="off") > 1e-3


def test_verification_sees_another_chip(tmp_path):
    chip = chip_of(zoo.mlp())
    hwa_keras.export(chip, tmp_path / "chip")
    other = hwa_keras.program(chip.structure, "pcm", seed=2)
    x = zoo.inputs_for(chip.structure)
    assert hwa_keras.verify_export(tmp_path / "chip", other, x, TIMES) > 1e-3


def test_tflite_holds_built_in_operators_only(tmp_path):
    path = tmp_path / "chip.tflite"
    hwa_keras.export_tflite(chip_of(zoo.residual_cnn()), path)
    assert b"Flex" not in path.read_bytes()


def test_an_existing_export_stays_whole(tmp_path, monkeypatch):
    chip = chip_of(zoo.mlp())
    x = zoo.inputs_for(chip.structure)
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
        other = hwa_keras.program(chip.structure, "pcm", seed=2)
        export(other, path, overwrite=True)
        assert hwa_keras.verify_export(path, other, x, TIMES) <= 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chip", "chip.tflite"]


def test_bad_input(tmp_path):
    chip = chip_of(zoo.mlp())
    x = zoo.inputs_for(chip.structure)
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
    chip.structure.export(plain, verbose=False)
    with pytest.raises(ValueError, match="no signature 'serve'"):
        hwa_keras.verify_export(plain, chip, x, TIMES)


def test_hwa_models_export_as_keras_models_do(tmp_path):
    import tensorflow as tf

    model = zoo.mlp()
    hwa = hwa_keras.to_hwa(model, "ste_sign", "programming_noise", verbose=0)
    x = zoo.inputs_for(model)
    expected = ops.convert_to_numpy(hwa(x))
    signature = [keras.InputSpec(shape=(None, 12), dtype="float32")]
    hwa.export(tmp_path / "hwa", input_signature=signature, verbose=False)
    loaded = tf.saved_model.load(tmp_path / "hwa")
    served = loaded.serve(x)
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
