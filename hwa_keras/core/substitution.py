"""Run a Keras object with other tensors in place of its variables.

Pure functions of a model's weights, for steps that look at other weights than the
model's; and layers whose own call is not known.
"""

import keras

__all__ = ["recurrent_states", "stateless", "substitute", "untracked_states"]


def stateless(module, values, function, others=()):
    """Call a function while tensors stand in for variables, and change none of them.

    Args:
        module: A Keras layer or model.
        values: List of pairs `(variable, tensor)`.
        function: Callable without arguments.
        others: Variables of which assignments are wanted beside the module's own.

    Returns:
        What the function returns; what it assigned, a list of pairs `(variable,
        tensor)`; and the losses that it added, a list of tensors.
    """
    replaced = {id(variable): tensor for variable, tensor in values}
    variables = [*module.variables, *untracked_states(module), *others]
    # Every variable is mapped, the untouched ones to their current value: an outer
    # stateless scope (JAX's train step) is not seen from inside this one.
    scope = keras.StatelessScope(
        [(v, replaced.get(id(v), v)) for v in variables], collect_losses=True
    )
    before = [scope.get_current_value(v) for v in variables]
    with scope:
        outputs = function()
    after = [scope.get_current_value(v) for v in variables]
    updates = [
        (variable, new)
        for variable, old, new in zip(variables, before, after, strict=True)
        if new is not old
    ]
    return outputs, updates, scope.losses


def recurrent_states(module):
    """What the stateful recurrent layers in a Keras object carry between batches."""
    return [
        state
        for layer in module._flatten_layers()
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(getattr(layer, "states", None))
        if state is not None
    ]


def untracked_states(module):
    """The states among these that Keras does not count as weights, as in its LSTM."""
    tracked = {id(variable) for variable in module.variables}
    return [state for state in recurrent_states(module) if id(state) not in tracked]


def substitute(module, values, function):
    """Call a function while tensors stand in for variables of a Keras object.

    What the function assigns to variables (batch-norm statistics, seed states,
    recurrent states) is assigned to the variables for real afterwards, and what it
    adds as a loss is added to the module.

    Args:
        module: A Keras layer or model.
        values: List of pairs `(variable, tensor)`.
        function: Callable without arguments.

    Returns:
        What the function returns.
    """
    outputs, updates, losses = stateless(module, values, function)
    replaced = {id(variable) for variable, _ in values}
    for variable, new in updates:
        if id(variable) in replaced:
            raise ValueError(
                f"'{module.name}' assigns '{variable.path}' in its call, which runs "
                "with another tensor in its place: what was computed from that tensor "
                "would overwrite the weights. Leave the layer digital."
            )
        variable.assign(new)
    for loss in losses:
        # A new tensor: under an outer scope Keras tells owners by identity, and this
        # one belongs to a layer inside already.
        module.add_loss(loss + 0.0)
    return outputs
