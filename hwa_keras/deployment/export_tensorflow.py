"""The TensorFlow side of export: SavedModel and TensorFlow Lite."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.random import is_seed_state
from hwa_keras.core.substitution import recurrent_states, stateless, untracked_states
from hwa_keras.deployment.packing import StoredKernel, pack
from hwa_keras.deployment.signature import (
    SIGNATURE,
    TIME,
    input_names,
    outputs_by_name,
    own_inputs,
)
from hwa_keras.noise import Noise

__all__ = ["Writer", "chip_writer", "load", "model_writer", "run_fixed"]


class Writer:
    """Writes what a module serves. `chip_writer` and `model_writer` make one.

    Args:
        module: A `tf.Module` that tracks the variables to write, with the concrete
            function `serve`.
    """

    def __init__(self, module):
        self._module = module

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


def chip_writer(chip, read_noise, example=None, unroll=False):
    """A writer of a chip, whose signature takes the time.

    Args:
        chip: A `Chip`.
        read_noise: `"off"`, or `"frozen"` for the draw that the chip keeps.
        example: A batch of inputs, for a model that does not know its inputs itself.
        unroll: Bool. Whether loops over time of spiking layers are written out.
    """
    _check_draws_nothing(chip)
    if read_noise == "frozen":
        for tile in chip.tiles:
            tile.frozen_draws()  # Here, not in the graph: constants of it.

    def mode(t):
        return {"time": t, "read_noise": read_noise, "unroll": unroll}

    return Writer(_module(chip, [], mode, example, timed=True))


def model_writer(model, example=None, unroll=False):
    """A writer of a Keras model, and how it stores the model's kernels.

    Args:
        model: A built Keras model.
        example: A batch of inputs, for a model that does not know its inputs itself.
        unroll: Bool. Whether loops over time of spiking layers are written out.

    Returns:
        A pair: a `Writer` and a list of `StoredKernel`s.
    """
    _check_draws_nothing(model)
    kernels, stored = _kernels_of(model)

    def mode():
        return {"kernels": "final", "unroll": unroll}

    return Writer(_module(model, kernels, mode, example, timed=False)), stored


def run_fixed(model, inputs, values=()):
    """The outputs of a model at inference, as a pure function that an artefact is.

    Stateful recurrent layers begin at zero, and what layers draw at inference is the
    same at each call. Nothing of the model is assigned.

    Args:
        model: A Keras model.
        inputs: What it takes.
        values: List of pairs (variable, tensor in its place).
    """
    zeros = [(v, ops.zeros(v.shape, v.dtype)) for v in _states(model)]
    return stateless(model, [*values, *zeros], lambda: model(inputs, training=False))[0]


def _states(model):
    """The variables that calls of a model change."""
    return [*recurrent_states(model), *filter(is_seed_state, model.variables)]


def _module(model, kernels, mode, example, timed):
    """A `tf.Module` with the function `serve` and the variables that it reads.

    Args:
        model: A Keras model.
        kernels: List of pairs (variable, what computes its kernel in a graph).
        mode: Function of the time, if it is timed, to what `hardware_mode` takes.
        example: A batch of inputs, or None.
        timed: Bool. Whether `serve` takes the time.
    """
    elsewhere = {id(v) for v in [*_states(model), *(v for v, _ in kernels)]}
    own = [*model.variables, *untracked_states(model)]
    own = [v for v in own if id(v) not in elsewhere]

    def traced(absent):
        run = _runner(model, kernels, absent, mode)
        return _serve_function(run, model, example, timed)

    needed = _read_by(traced([]))
    # What only training uses, such as metrics and scales of quantizers.
    function = traced([v for v in own if id(v.value) not in needed])
    module = tf.Module()
    module.kernels = [kernel for _, kernel in kernels]
    packed = {id(v) for kernel in module.kernels for v in kernel.variables}
    module.weights = [v for v in function.graph.variables if id(v) not in packed]
    module.resources = _resources(model)
    module.serve = function
    return module


def _runner(model, kernels, absent, mode):
    """A function of inputs, and of the time, to outputs."""

    def run(inputs, **time):
        first = tree.flatten(inputs)[0]
        # Zero, though the TensorFlow Lite converter does not see it: what depends on
        # constants alone it computes, and writes as floats.
        zero = tf.minimum(tf.shape(first)[0], 0) if kernels else 0
        tables = {}
        values = [(variable, kernel(zero, tables)) for variable, kernel in kernels]
        values += [(v, ops.zeros(v.shape, v.dtype)) for v in absent]
        with hardware_mode(**mode(**time)):
            return run_fixed(model, inputs, values)

    return run


def _read_by(function):
    """Ids of the variables that the outputs of a concrete function depend on."""
    graph = function.graph
    reached, ahead = set(), [output.op for output in graph.outputs]
    while ahead:
        op = ahead.pop()
        if op not in reached:
            reached.add(op)
            ahead += [tensor.op for tensor in op.inputs]
    handles = {
        id(outside) for outside, inside in graph.captures if inside.op in reached
    }
    return {id(v) for v in graph.variables if id(v.handle) in handles}


def _resources(model):
    """What a graph needs beside variables, such as tables of lookup layers."""
    parts = tf.train.TrackableView(model).descendants()
    kind = tf.saved_model.experimental.TrackableResource
    return [part for part in parts if isinstance(part, kind)]


def _check_draws_nothing(model):
    for layer in model._flatten_layers():
        if isinstance(layer, Noise) and layer.always:
            raise ValueError(
                f"'{layer.name}' of '{model.name}' adds noise at inference, too "
                "(always=True), and an artefact draws no random numbers. Set its "
                "`always` to False before the export."
            )


def _kernels_of(model):
    """Pairs (variable, what computes its kernel in a graph), and `StoredKernel`s."""
    kernels, stored = [], []
    for kernel in find_kernels(model)[0]:
        with keras.StatelessScope():  # Metrics of the quantizers stay as they are.
            value = ops.convert_to_numpy(kernel.target())
        sizes = kernel.path, value.shape
        if kernel.digital:  # The codes of Keras's own quantization.
            reason = kernel.digital
            stored.append(
                StoredKernel(*sizes, value.nbytes, 4 * value.size, reason=reason)
            )
            continue
        try:
            packed = pack(value, _scales(kernel, value))
        except ValueError as error:
            kernels.append((kernel.variable, _Floats(value)))
            reason = str(error)
            stored.append(
                StoredKernel(*sizes, value.nbytes, value.nbytes, reason=reason)
            )
            continue
        kernels.append((kernel.variable, _Unpacked(packed)))
        numbers = len(packed.values), packed.digits, packed.scale is not None
        nbytes = packed.nbytes, value.nbytes
        stored.append(StoredKernel(*sizes, *nbytes, *numbers))
    return kernels, stored


def _scales(kernel, value):
    """What the quantizer of a kernel has learned, and the largest of each column."""
    learned = getattr(kernel.quantizer, "weights", ())
    scales = [ops.convert_to_numpy(variable) for variable in learned]
    if kernel.view.columns != (value.ndim - 1,):
        largest = np.max(np.abs(value), axis=kernel.view.rows, keepdims=True)
        scales.append(largest)
    return scales


class _Floats(tf.Module):
    """A kernel as it is."""

    def __init__(self, value):
        super().__init__()
        self.value = tf.Variable(value, trainable=False)

    def __call__(self, zero, tables):
        return self.value.value()


class _Unpacked(tf.Module):
    """A packed kernel, unpacked in the graph."""

    def __init__(self, packed):
        super().__init__()
        self.packed = packed
        # One byte more than is read: a slice of all of a constant is a constant.
        codes = np.append(packed.codes, np.uint8(0))
        self.codes = tf.Variable(codes, trainable=False)
        self.scale = None
        if packed.scale is not None:
            self.scale = tf.Variable(packed.scale, trainable=False)

    def __call__(self, zero, tables):
        packed = self.packed
        key = (packed.values.tobytes(), packed.digits)
        if key not in tables:
            tables[key] = tf.constant(packed.table())
        codes = tf.slice(self.codes, [zero], [packed.codes.size])
        weights = tf.reshape(tf.gather(tables[key], tf.cast(codes, tf.int32)), [-1])
        if packed.codes.size * packed.digits != packed.size:
            weights = weights[: packed.size]
        weights = tf.reshape(weights, packed.stored_shape)
        if self.scale is not None:
            weights = weights * self.scale
        rank = len(packed.shape)
        return tf.transpose(weights, [*range(1, rank), 0])


def _serve_function(run, model, example, timed):
    """A concrete function serve(x), or with each input by name in place of x.

    It takes the time as well, as `t`, if it is timed.
    """
    structure = _input_structure(model, example)
    names = input_names(model, example)
    fixed = bool(recurrent_states(model))  # Their states are of one batch size.
    specs = {
        name: tf.TensorSpec(_batch_shape(spec, fixed), spec.dtype, name=name)
        for name, spec in zip(names, tree.flatten(structure), strict=True)
    }
    if timed and TIME in specs:
        raise ValueError(
            "An input of the model is called 't', which is the name of the time in "
            "the signature. Rename the input."
        )

    def serve(**arguments):
        flat = [arguments.pop(name) for name in names]
        outputs = run(tree.pack_sequence_as(structure, flat), **arguments)
        return outputs_by_name(model, outputs)

    if timed:
        specs[TIME] = tf.TensorSpec((), tf.float32, name=TIME)
    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _batch_shape(spec, fixed):
    shape = tuple(spec.shape)
    return shape if fixed else (None, *shape[1:])


def _input_structure(model, example):
    if example is not None:
        return tree.map_structure(tf.convert_to_tensor, example)
    structure = own_inputs(model)
    if structure is None:
        raise ValueError(
            f"The model '{model.name}' is subclassed and does not know the shapes of "
            "its inputs. Pass example=x, a batch of inputs."
        )
    return structure


def load(path, names):
    """A function from a dictionary of inputs to a dictionary of NumPy outputs.

    Args:
        path: A `pathlib.Path`.
        names: The names of the inputs that the artefact must take.
    """
    run, found = (_load_tflite if path.is_file() else _load_saved_model)(path)
    if found != set(names):
        raise ValueError(
            f"'{path}' has no signature '{SIGNATURE}' that takes {sorted(names)}; what "
            f"it has takes {sorted(found)}. Only a chip takes a time 't'. Compare the "
            "artefact with the chip or model that it was exported from."
        )
    return run


def _load_saved_model(path):
    if not (path / "saved_model.pb").exists():
        raise ValueError(
            f"'{path}' holds no SavedModel. Give the folder that `export` wrote, or "
            "the file that `export_tflite` wrote."
        )
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures.get(SIGNATURE)
    if serve is None:
        raise ValueError(_no_signature(path))
    specs = serve.structured_input_signature[1]

    def run(arguments):
        tensors = {
            name: tf.cast(value, specs[name].dtype) for name, value in arguments.items()
        }
        # Through what was loaded, which keeps its variables and tables alive.
        outputs = loaded.signatures[SIGNATURE](**tensors)
        return {name: y.numpy() for name, y in outputs.items()}

    return run, set(specs)


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
        raise ValueError(_no_signature(path))
    runner = interpreter.get_signature_runner(SIGNATURE)
    details = runner.get_input_details()

    def run(arguments):
        arrays = {
            name: np.asarray(value).astype(details[name]["dtype"])
            for name, value in arguments.items()
        }
        return runner(**arrays)

    return run, set(details)


def _no_signature(path):
    return f"'{path}' has no signature '{SIGNATURE}': hwa_keras has not exported it."
