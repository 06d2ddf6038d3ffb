"""Callbacks that begin each epoch at a known point: random numbers, states."""

from typing import Any

import keras
from keras import ops

from hwa_keras.core import random
from hwa_keras.core.substitution import recurrent_states
from hwa_keras.core.types import Logs

__all__ = ["ResetStates", "SeedEpochs"]


class SeedEpochs(keras.callbacks.Callback):
    """Derives all random numbers of an epoch from a seed and the epoch's number.

    A fit that was interrupted and goes on with `EpochBackup` or `initial_epoch=` then
    ends at the weights of one that was not. Keras saves neither the state of dropout
    nor where a shuffled data set stood; with this callback there is nothing to save: at
    the start of an epoch every seed generator of the model (dropout, hardware noise) is
    set from `(seed, epoch)`, and the data are told which epoch it is.

    Args:
        seed: Integer in [0, 2**64). Defaults to `0`.
        data: A `hwa_keras.datasets.Batches`, or anything whose `epoch` can be set and
            decides its order; None if the data come in the same order in each epoch.

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((8,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        ... )
        >>> model.compile("sgd", "mse")
        >>> data = hwa_keras.datasets.Batches(np.ones((4, 8)), np.ones((4, 3)), 2)
        >>> history = model.fit(
        ...     data, epochs=2, verbose=0,
        ...     callbacks=[hwa_keras.training.SeedEpochs(7, data)],
        ... )
    """

    def __init__(self, seed: int = 0, data: Any = None) -> None:
        super().__init__()
        random.seed_from(seed)  # An impossible one is an error right here.
        if data is not None and not hasattr(data, "epoch"):
            raise TypeError(
                "`data` must have an attribute `epoch`, as hwa_keras.datasets.Batches "
                f"has. Received: {data!r} of type {type(data).__name__}."
            )
        self.seed = seed
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        base = random.fold_in(random.seed_from(self.seed), epoch)
        for i, state in enumerate(_seed_states(self.model)):
            state.assign(ops.cast(random.fold_in(base, i), state.dtype))
        if self.data is not None:
            self.data.epoch = epoch


def _seed_states(model):
    """The states of a model's seed generators, each once; not those of a teacher."""
    found = {
        id(variable): variable
        for layer in model._flatten_layers()
        for generator in layer._seed_generators
        for variable in [generator.state]
    }
    return list(found.values())


class ResetStates(keras.callbacks.Callback):
    """Has stateful recurrent layers begin anew at each epoch and each evaluation.

    A text that is read window by window begins again there; what the layers remember
    of its end, or of the validation text, has no place at its beginning.

    Raises:
        ValueError: At the start, if the model has no stateful recurrent layer.

    Example:
        >>> model = hwa_keras.models.lstm_lm(100, batch_size=4, length=7)
        >>> model.compile(
        ...     "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ... )
        >>> text = hwa_keras.datasets.Windows(np.arange(100) % 9, 4, 7)
        >>> reset = hwa_keras.training.ResetStates()
        >>> loss = model.evaluate(text, verbose=0, callbacks=[reset])
    """

    def _reset(self):
        if hasattr(self.model, "reset_states"):  # A chip keeps its own.
            self.model.reset_states()
            return
        states = recurrent_states(self.model)
        if not states:
            raise ValueError(
                f"ResetStates found no stateful recurrent layer in '{self.model.name}'."
            )
        for state in states:
            state.assign(ops.zeros(state.shape, state.dtype))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._reset()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._reset()

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._reset()
