"""SilentLayers: say when neurons have stopped spiking."""

import warnings
from collections.abc import Sequence

import keras
from keras import ops

from hwa_keras.core.checks import check_count
from hwa_keras.core.substitution import stateless
from hwa_keras.core.types import Data, Logs
from hwa_keras.spiking.cells import LIFCell
from hwa_keras.spiking.neurons import Neurons
from hwa_keras.training.probes import Probed

__all__ = ["SilentLayers"]


class SilentLayers(keras.callbacks.Callback):
    """Warns of layers of spiking neurons that no input makes spike, once for each.

    A layer without spikes passes nothing on, and its surrogate gradient may be too
    small to bring it back: the loss stays where it is, and nothing else tells why. At
    the end of each epoch the model runs on the inputs that are given here, as at
    inference, without a change of any state. A layer that has no spike on any of them
    is named in a warning, and not looked at again.

    Args:
        x: Array or tensor of inputs, or a structure of them as the model takes: those
            of some batches are enough.
        batch_size: Integer ≥ 1, examples that run at once. Defaults to `32`.
        layers: List of layers or of their names, whose first output is spikes. Defaults
            to `None`, for all layers of `hwa_keras.spiking` neurons in the model.

    Raises:
        ValueError: If `batch_size` is out of its range; at the start of the fit, if the
            model has no such layer.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((125, 13)),
        ...     keras.layers.Dense(13),
        ...     hwa_keras.spiking.LIF(tau=20e-3, dt=8e-3, name="quiet"),
        ... ])
        >>> model.compile("sgd", "mse")
        >>> x = np.zeros((4, 125, 13), "float32")
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     history = model.fit(
        ...         x, x, epochs=2, verbose=0,
        ...         callbacks=[hwa_keras.training.SilentLayers(x)],
        ...     )
        >>> print(caught[0].message)
        Epoch 1 has left 'quiet' silent: no neuron of it spikes ...
    """

    def __init__(
        self,
        x: Data,
        batch_size: int = 32,
        layers: Sequence[str | keras.Layer] | None = None,
    ) -> None:
        super().__init__()
        self.x = x
        self.batch_size = check_count("SilentLayers", batch_size=batch_size)
        self.layers = layers
        self._unnamed = []  # The layers to look at.

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._unnamed = self._watched()

    def _watched(self):
        known = self.model._flatten_layers(include_self=False)
        if self.layers is None:
            found = [layer for layer in known if _spikes(layer)]
            if not found:
                raise ValueError(
                    "SilentLayers found no spiking neurons in the model "
                    f"'{self.model.name}'. Name the layers whose outputs are spikes: "
                    "layers=[...]."
                )
            return found
        by_name = {layer.name: layer for layer in known}
        found = [by_name.get(getattr(each, "name", each)) for each in self.layers]
        for given, layer in zip(self.layers, found, strict=True):
            if layer is None:
                raise ValueError(
                    f"The model '{self.model.name}' has no layer that `layers` of "
                    f"SilentLayers names. Received: {given!r}. Its layers: "
                    f"{', '.join(by_name)}."
                )
        return found

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if not self._unnamed:
            return
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        spiking, _, _ = stateless(self.model, [], self._spiking)
        silent = [layer for layer in self._unnamed if id(layer) not in spiking]
        self._unnamed = [layer for layer in self._unnamed if id(layer) in spiking]
        if silent:
            names = " and ".join(f"'{layer.name}'" for layer in silent)
            warnings.warn(
                f"Epoch {epoch + 1} has left {names} silent: no neuron of it spikes on "
                "the inputs of SilentLayers, so that it passes nothing on. Larger "
                "weights before it, a lower threshold, a slower leak or a regularizer "
                "of its rate, hwa_keras.spiking.FiringRate, make it spike.",
                stacklevel=2,
            )

    def _spiking(self):
        """The ids of the layers that spike."""
        probed = Probed(self.model, self._unnamed)
        spiking: set = set()
        for batch in self._batches():
            _, outputs, _ = probed.run(batch, training=False)
            for layer, output in zip(self._unnamed, outputs, strict=True):
                spikes = output[0] if isinstance(output, (list, tuple)) else output
                if spikes is not None and bool(ops.any(spikes != 0)):
                    spiking.add(id(layer))
            if len(spiking) == len(self._unnamed):
                break
        return spiking

    def _batches(self):
        leaves = keras.tree.flatten(self.x)
        for start in range(0, len(leaves[0]), self.batch_size):
            yield keras.tree.map_structure(
                lambda leaf, start=start: leaf[start : start + self.batch_size], self.x
            )


def _spikes(layer):
    """Whether a layer is one of spiking neurons."""
    is_cell = isinstance(getattr(layer, "cell", None), LIFCell)
    return is_cell or isinstance(layer, Neurons)
