"""The one mechanism: run a Keras object with other tensors in place of its variables.

Quantization and noise while training, a programmed chip, one time in a drift sweep
and an exported graph are all the same model, run with W̃ in place of W.
"""

import contextlib
import contextvars

import keras

_final_kernels = contextvars.ContextVar("final_kernels", default=False)


def substitute(module, values, function, keep=True):
    """Call a function while tensors stand in for variables of a Keras object.

    What the function assigns to variables (batch-norm statistics, seed states,
    recurrent states) is assigned to the variables for real afterwards, and what it
    adds as a loss is added to the module, unless `keep` is False.

    Args:
        module: A Keras layer or model.
        values: List of pairs `(variable, tensor)`.
        function: Callable without arguments.
        keep: Bool. Whether assignments and losses outlive the call.

    Returns:
        What the function returns.
    """
    replaced = {id(variable): tensor for variable, tensor in values}
    variables = module.variables
    # Every variable is mapped, the untouched ones to their current value: an outer
    # stateless scope (JAX's train step) is not seen from inside this one.
    scope = keras.StatelessScope(
        [(v, replaced.get(id(v), v)) for v in variables], collect_losses=True
    )
    before = [scope.get_current_value(v) for v in variables]
    with scope:
        outputs = function()
    if not keep:
        return outputs
    for variable, old in zip(variables, before, strict=True):
        new = scope.get_current_value(variable)
        if new is not old:
            variable.assign(new)
    for loss in scope.losses:
        # A new tensor: under an outer scope Keras tells owners by identity, and this
        # one belongs to a layer inside already.
        module.add_loss(loss + 0.0)
    return outputs


class _FullPrecision(keras.layers.Layer):
    def __init__(self):
        super().__init__(autocast=False)
        self.built = True

    def call(self, *, function):
        return function()


def in_full_precision(function):
    """Call a function that sees variables in their own dtype.

    Inside a layer of a mixed policy Keras casts every variable when it is read; inside
    a layer that does not autocast it does not.
    """
    return _FullPrecision()(function=function)


@contextlib.contextmanager
def final_kernels():
    """Have hardware layers take their kernels as they are.

    A chip's kernels are quantized, noisy and aged already.
    """
    token = _final_kernels.set(True)
    try:
        yield
    finally:
        _final_kernels.reset(token)


def kernels_are_final():
    """Whether the code runs inside `final_kernels()`."""
    return _final_kernels.get()
