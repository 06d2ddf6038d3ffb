"""The TensorFlow side of export: SavedModel and TensorFlow Lite."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.packing import StoredKernel, pack
from hwa_keras.kernels import find_kernels
from hwa_keras.model import HWAModel
from hwa_keras.substitution import final_kernels, stateless

SIGNATURE = "serve"
TIME = "t"


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


def chip_writer(chip, draws, example=None):
    """A writer of a chip, whose signature takes the time.

    Args:
        chip: A `Chip`.
        draws: Per tile, the constant random numbers of its reads.
        example: A batch of inputs, for a model that does not know its inputs itself.
    """
    _check_draws_nothing(chip.structure)
    module = tf.Module()
    # The chip's own variables, and nothing of the model it was made from.
    module.weights = [v.value for v in chip.variables]

    def run(inputs, t):
        return chip.run(chip.kernels_at(t, draws), inputs)

    module.serve = _serve_function(run, chip.structure, example, timed=True)
    return Writer(module)


def model_writer(model, example=None):
    """A writer of a Keras model, and how it stores the model's kernels.

    Args:
        model: A built Keras model.
        example: A batch of inputs, for a model that does not know its inputs itself.

    Returns:
        A pair: a `Writer` and a list of `StoredKernel`s.
    """
    structure = structure_of(model)
    _check_draws_nothing(structure)
    kernels, stored = _kernels_of(model)
    on_file = {id(variable) for variable, _ in kernels}
    kept = [w for w in structure.weights if id(w) not in on_file]
    function = _serve_model(structure, kernels, kept, example)
    needed = _read_by(function)
    if not all(id(w.value) in needed for w in kept):
        # What only training uses, such as scales of quantizers and noises.
        kept = [w for w in kept if id(w.value) in needed]
        function = _serve_model(structure, kernels, kept, example)
    module = tf.Module()
    module.weights = [w.value for w in kept]
    module.kernels = [kernel for _, kernel in kernels]
    module.serve = function
    return Writer(module), stored


def _serve_model(structure, kernels, kept, example):
    """A concrete function that has no variables but those of kernels and `kept`."""
    known = {id(variable) for variable in [*kept, *(v for v, _ in kernels)]}
    absent = [v for v in structure.variables if id(v) not in known]

    def run(inputs):
        first = tree.flatten(inputs)[0]
        # Zero, though the TensorFlow Lite converter does not see it: what depends on
        # constants alone it computes, and writes as floats.
        zero = tf.minimum(tf.shape(first)[0], 0)
        tables = {}
        values = [(variable, kernel(zero, tables)) for variable, kernel in kernels]
        values += [(w, w.value) for w in kept]
        values += [(v, ops.zeros(v.shape, v.dtype)) for v in absent]
        with final_kernels():
            return stateless(
                structure, values, lambda: structure(inputs, training=False)
            )[0]

    return _serve_function(run, structure, example, timed=False)


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


def _check_draws_nothing(model):
    for layer in model._flatten_layers():
        if getattr(layer, "always", False):
            raise ValueError(
                f"'{layer.name}' of '{model.name}' adds noise at inference, too "
                "(always=True), and an artefact draws no random numbers. Set its "
                "`always` to False before the export."
            )


def _kernels_of(model):
    """Pairs (variable, what computes its kernel in a graph), and `StoredKernel`s."""
    structure = structure_of(model)
    owners = _owners(model)
    with keras.StatelessScope():  # Metrics of the quantizers stay as they are.
        quantized = {id(k): w for owner in owners for k, w in owner.quantized_kernels()}
    scales = _scales(owners)
    kernels, stored = [], []
    for kernel in find_kernels(structure)[0]:
        variable = kernel.variable
        value = ops.convert_to_numpy(quantized.get(id(variable), variable.value))
        sizes = kernel.path, value.shape
        try:
            packed = pack(value, scales.get(id(variable), ()))
        except ValueError as error:
            kernels.append((variable, _Floats(value)))
            stored.append(
                StoredKernel(*sizes, value.nbytes, value.nbytes, reason=str(error))
            )
            continue
        kernels.append((variable, _Unpacked(packed)))
        stored.append(
            StoredKernel(
                *sizes,
                packed.nbytes,
                value.nbytes,
                len(packed.values),
                packed.digits,
                packed.scale is not None,
            )
        )
    return kernels, stored


def _owners(model):
    """What quantizes kernels: hardware models and layers."""
    layers = model._flatten_layers()
    return [x for x in layers if hasattr(x, "quantized_kernels") and x.built]


def _scales(owners):
    """What the quantizer of each kernel has learned, by the id of the kernel."""
    return {
        id(kernel): [ops.convert_to_numpy(v) for v in getattr(quantizer, "weights", ())]
        for owner in owners
        for kernel, quantizer in zip(
            owner.kernels, owner.kernel_quantizers, strict=True
        )
    }


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


def structure_of(model):
    """The Keras model that runs inside a chip, an `HWAModel` or, itself, any other."""
    if isinstance(model, Chip):
        return model.structure
    return model.model if isinstance(model, HWAModel) else model


def _serve_function(run, model, example, timed):
    """A concrete function serve(x), or with each input by name in place of x.

    It takes the time as well, as `t`, if it is timed.
    """
    structure = _input_structure(model, example)
    names = input_names(model, example)
    specs = {
        name: tf.TensorSpec((None, *tuple(spec.shape)[1:]), spec.dtype, name=name)
        for name, spec in zip(names, tree.flatten(structure), strict=True)
    }
    if timed and TIME in specs:
        raise ValueError(
            "An input of the model is called 't', which is the name of the time in "
            "the signature. Rename the input."
        )

    def serve(**arguments):
        flat = [arguments.pop(name) for name in names]
        return named_outputs(run(tree.pack_sequence_as(structure, flat), **arguments))

    if timed:
        specs[TIME] = tf.TensorSpec((), tf.float32, name=TIME)
    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def named_outputs(outputs):
    """The outputs of a model by the names that they have in the signature."""
    if isinstance(outputs, dict):
        return dict(outputs)
    flat = tree.flatten(outputs)
    if len(flat) == 1:
        return {"output": flat[0]}
    return {f"output_{i}": y for i, y in enumerate(flat)}


def _own_inputs(model):
    if getattr(model, "inputs", None) is None:
        return None
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _input_structure(model, example):
    if example is not None:
        return tree.map_structure(tf.convert_to_tensor, example)
    structure = _own_inputs(model)
    if structure is None:
        raise ValueError(
            f"The model '{model.name}' is subclassed and does not know the shapes of "
            "its inputs. Pass example=x, a batch of inputs."
        )
    return structure


def input_names(model, example):
    """The names of a model's inputs in the signature, in the order of the inputs."""
    structure = _own_inputs(structure_of(model))
    if structure is None:
        structure = example
    flat = tree.flatten(structure)
    if len(flat) == 1 and not isinstance(structure, dict):
        return ["x"]
    if isinstance(structure, dict):
        return tree.flatten({key: key for key in structure})
    return [getattr(spec, "name", f"x_{i}") for i, spec in enumerate(flat)]


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
        return {name: y.numpy() for name, y in serve(**tensors).items()}

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
