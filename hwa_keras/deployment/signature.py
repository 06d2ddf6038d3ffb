"""The signature of an artefact: the names of a model's inputs and outputs."""

import re

import keras
from keras import tree

__all__ = [
    "SIGNATURE",
    "TIME",
    "input_names",
    "inputs_by_name",
    "own_inputs",
    "outputs_by_name",
]

SIGNATURE = "serve"
TIME = "t"


def own_inputs(model):
    """The structure of inputs that a model knows of itself, or None."""
    if getattr(model, "inputs", None) is None:
        return None
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def input_names(model, example=None):
    """The names of a model's inputs in the signature, in the order of the inputs.

    A single input is called `x`, one in a dictionary by its key, one of several by the
    name of its `keras.Input`, or by its number if the model is subclassed.

    Args:
        model: A Keras model.
        example: A batch of inputs, for a model that does not know its inputs itself.
    """
    structure = own_inputs(model)
    structure = example if structure is None else structure
    flat = tree.flatten(structure)
    if isinstance(structure, dict):
        names = _paths(structure)
    elif len(flat) == 1:
        names = ["x"]
    elif all(isinstance(spec, keras.KerasTensor) for spec in flat):
        names = [spec.name for spec in flat]
    else:
        names = [f"x_{i}" for i in range(len(flat))]
    return _checked([re.sub(r"\W", "_", name) for name in names], "inputs", model)


def inputs_by_name(model, x):
    """{name in the signature: input} of a batch of inputs."""
    names = input_names(model, x)
    flat = tree.flatten(x)
    if isinstance(x, dict):  # Of which the model may take a part.
        found = dict(zip((re.sub(r"\W", "_", p) for p in _paths(x)), flat, strict=True))
        missing = [name for name in names if name not in found]
        if not missing:
            return {name: found[name] for name in names}
    elif len(flat) == len(names):
        return dict(zip(names, flat, strict=True))
    raise ValueError(
        f"The model '{model.name}' takes the inputs {names}. Received: "
        f"{_paths(x) if isinstance(x, dict) else f'{len(flat)} arrays'}."
    )


def outputs_by_name(model, outputs):
    """{name in the signature: output} of what a model returned.

    A single output is called `output`, one in a dictionary by its key, one of several
    by the name of its layer, or by its number if the model is subclassed.
    """
    flat = tree.flatten(outputs)
    known = getattr(model, "output_names", None)
    if isinstance(outputs, dict):
        names = _paths(outputs)
    elif len(flat) == 1:
        names = ["output"]
    elif known and len(known) == len(set(known)) == len(flat):
        names = known
    else:
        names = [f"output_{path}" for path in _paths(outputs)]
    return dict(zip(_checked(names, "outputs", model), flat, strict=True))


def _paths(structure):
    """The keys and positions that lead to each leaf, joined."""
    found = tree.flatten_with_path(structure)
    return ["_".join(str(key) for key in path) for path, _ in found]


def _checked(names, what, model):
    if len(set(names)) < len(names):
        raise ValueError(
            f"Two {what} of '{model.name}' have the same name in the signature of an "
            f"artefact: {', '.join(names)}. Rename one of them."
        )
    return list(names)
