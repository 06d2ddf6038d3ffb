"""The TensorFlow side of export: SavedModel and TensorFlow Lite."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import tree

SIGNATURE = "serve"


class Writer:
    """Writes one chip.

    Args:
        chip: A `Chip`.
        draws: Per tile, the constant random numbers of its reads.
        example: A batch of inputs, for a model that does not know its inputs itself.
    """

    def __init__(self, chip, draws, example=None):
        self._module = tf.Module()
        # The chip's own variables, and nothing of the model it was made from.
        self._module.weights = [v.value for v in chip.variables]
        self._module.serve = _serve_function(chip, draws, example)

    def saved_model(self, path):
        tf.saved_model.save(
            self._module, str(path), signatures={SIGNATURE: self._module.serve}
        )

    def tflite(self, path):
        with tempfile.TemporaryDirectory() as folder:
            self.saved_model(folder)
            converter = tf.lite.TFLiteConverter.from_saved_model(
                folder, signature_keys=[SIGNATURE]
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            # As BATCH_MATMUL, a product with a computed matrix loses a ReLU that
            # follows it directly (TensorFlow 2.21); as FULLY_CONNECTED it does not.
            converter.unfold_batchmatmul = True
            Path(path).write_bytes(converter.convert())


def _serve_function(chip, draws, example):
    """A concrete function serve(x, t), or with each input by name in place of x."""
    structure = _input_structure(chip, example)
    flat = tree.flatten(structure)
    names = _input_names(structure, flat)
    specs = {
        name: tf.TensorSpec((None, *tuple(spec.shape)[1:]), spec.dtype, name=name)
        for name, spec in zip(names, flat, strict=True)
    }
    if "t" in specs:
        raise ValueError(
            "An input of the model is called 't', which is the name of the time in "
            "the signature. Rename the input."
        )

    def serve(t, **inputs):
        packed = tree.pack_sequence_as(structure, [inputs[name] for name in names])
        outputs = chip.run(chip.kernels_at(t, draws), packed)
        flat_outputs = tree.flatten(outputs)
        if isinstance(outputs, dict):
            return dict(outputs)
        if len(flat_outputs) == 1:
            return {"output": flat_outputs[0]}
        return {f"output_{i}": y for i, y in enumerate(flat_outputs)}

    function = tf.function(serve, autograph=False)
    return function.get_concrete_function(
        t=tf.TensorSpec((), tf.float32, name="t"), **specs
    )


def _input_structure(chip, example):
    if example is not None:
        return tree.map_structure(tf.convert_to_tensor, example)
    model = chip.structure
    if getattr(model, "inputs", None) is None:
        raise ValueError(
            f"The model '{model.name}' is subclassed and does not know the shapes of "
            "its inputs. Pass example=x, a batch of inputs."
        )
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _input_names(structure, flat):
    if len(flat) == 1 and not isinstance(structure, dict):
        return ["x"]
    if isinstance(structure, dict):
        return tree.flatten({key: key for key in structure})
    return [getattr(spec, "name", f"x_{i}") for i, spec in enumerate(flat)]


def load(path):
    """A function from a batch of inputs and a time to a list of NumPy outputs."""
    if path.is_file():
        return _load_tflite(path)
    if not (path / "saved_model.pb").exists():
        raise ValueError(
            f"'{path}' holds no SavedModel. Give the folder that `export` wrote, or "
            "the file that `export_tflite` wrote."
        )
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures.get(SIGNATURE)
    if serve is None or "t" not in serve.structured_input_signature[1]:
        raise ValueError(
            f"The SavedModel at '{path}' has no signature '{SIGNATURE}' that takes a "
            "time 't': it is no chip exported by hwa_keras."
        )

    def run(x, t):
        arguments = _named(x, set(serve.structured_input_signature[1]) - {"t"})
        tensors = {
            name: tf.cast(value, serve.structured_input_signature[1][name].dtype)
            for name, value in arguments.items()
        }
        return _ordered(serve(t=tf.constant(t, tf.float32), **tensors))

    return run


def _load_tflite(path):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(f"'{path}' is no TensorFlow Lite file.")
    interpreter = Interpreter(model_content=content)
    if SIGNATURE not in interpreter.get_signature_list():
        raise ValueError(
            f"'{path}' has no signature '{SIGNATURE}': it is no chip exported by "
            "hwa_keras."
        )
    runner = interpreter.get_signature_runner(SIGNATURE)
    details = runner.get_input_details()

    def run(x, t):
        arguments = _named(x, set(details) - {"t"})
        arrays = {
            name: np.asarray(value).astype(details[name]["dtype"])
            for name, value in arguments.items()
        }
        return _ordered(runner(t=np.float32(t), **arrays))

    return run


def _named(x, names):
    if isinstance(x, dict):
        return x
    flat = tree.flatten(x)
    return dict(zip(sorted(names), flat, strict=True))


def _ordered(outputs):
    return [np.asarray(outputs[name]) for name in sorted(outputs)]
