"""The steps of a model: which operation computes which tensor from which others.

It reads the graph of a functional model off the history of its symbolic tensors, seen
in Keras 3.15.1.
"""

from dataclasses import dataclass
from typing import Any

import keras

__all__ = ["Step", "steps_of"]


@dataclass(frozen=True)
class Step:
    """One operation of a model.

    Args:
        operation: The Keras layer, or operation of `keras.ops`.
        inputs: Tuple of the numbers of the tensors that it takes.
        output: The number of the tensor that it gives.
        shape: The shape of an example of the latter; sizes that depend on the inputs
            are None.
    """

    operation: Any
    inputs: tuple
    output: int
    shape: tuple


def steps_of(model):
    """The steps of a sequential or functional model, those of nested models inlined.

    Args:
        model: A built Keras model.

    Returns:
        A triple: a list of `Step`s in the order of the computation, a list of the
        numbers of the inputs, and a list of the numbers of the outputs.

    Raises:
        ValueError: If the model, or one inside of it, has no graph to read, or an
            operation takes or gives anything but one tensor per argument.

    Example:
        >>> from hwa_keras.analysis.moments.graph import steps_of
        >>> x = keras.Input((4,))
        >>> y = keras.layers.Add()([x, keras.layers.Dense(4, name="dense")(x)])
        >>> steps, inputs, outputs = steps_of(keras.Model(x, y))
        >>> inputs, [(step.inputs, step.output) for step in steps], outputs
        ([0], [((0,), 1), ((0, 1), 2)], [2])
    """
    graph = _Graph()
    inputs = [graph.number() for _ in _inputs(model)]
    outputs = graph.follow(model, inputs)
    return graph.steps, inputs, outputs


def _inputs(model):
    if not _has_graph(model):
        raise ValueError(
            f"'{model.name}' ({type(model).__name__}) is no sequential or functional "
            "model, so that the order of its operations is not known. Use "
            "method='delta', which takes any architecture."
        )
    return model.inputs


def _has_graph(model):
    """Whether a model computes what Keras's graph of it says."""
    owner = next(c for c in type(model).__mro__ if "call" in vars(c))
    of_a_graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    return of_a_graph and owner.__module__.startswith("keras.src.models")


class _Graph:
    """The steps found so far."""

    def __init__(self):
        self.steps = []
        self._count = 0

    def number(self):
        self._count += 1
        return self._count - 1

    def follow(self, model, inputs):
        """Add the steps of a model, and return the numbers of its outputs."""
        known = dict(zip(map(id, model.inputs), inputs, strict=True))
        for node in _in_order(model):
            taken = [known[id(tensor)] for tensor in node.input_tensors]
            _check_arguments(node)
            given = self._add(node.operation, taken, node.outputs)
            known.update(zip(map(id, node.outputs), given, strict=True))
        return [known[id(tensor)] for tensor in model.outputs]

    def _add(self, operation, inputs, outputs):
        if isinstance(operation, keras.Model):
            _inputs(operation)
            return self.follow(operation, inputs)
        if len(outputs) != 1:
            raise ValueError(
                f"'{operation.name}' ({type(operation).__name__}) gives {len(outputs)} "
                "tensors: no rule for its moments is known. Use method='delta'."
            )
        shape = tuple(outputs[0].shape[1:])
        step = Step(operation, tuple(inputs), self.number(), shape)
        self.steps.append(step)
        return [step.output]


def _in_order(model):
    """The nodes that lead from a functional model's inputs to its outputs."""
    known = {id(tensor) for tensor in model.inputs}
    ordered, waiting = [], list(reversed(model.outputs))
    while waiting:
        tensor = waiting[-1]
        if id(tensor) in known:
            waiting.pop()
            continue
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        missing = [t for t in node.input_tensors if id(t) not in known]
        if missing:
            waiting.extend(reversed(missing))
            continue
        ordered.append(node)
        known.update(id(output) for output in node.outputs)
    return ordered


def _check_arguments(node):
    """Raise `ValueError` for a call with numbers beside its tensors, as in 2·x."""
    args = node.arguments.args
    flat = keras.tree.flatten(list(args))
    if isinstance(node.operation, keras.Layer):
        return
    if any(not isinstance(x, keras.KerasTensor) for x in flat):
        raise ValueError(
            f"'{node.operation.name}' ({type(node.operation).__name__}) is called with "
            "other arguments than tensors: no rule for its moments is known. Use "
            "method='delta'."
        )
