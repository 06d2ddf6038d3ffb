"""Layers of images in each step of time: convolutions and pooling between spikes."""

import keras
from keras import ops

from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import Shape, Tensor

__all__ = ["MaxRatePooling", "PerStep"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class PerStep(keras.layers.Wrapper):
    """Runs a layer on all time steps at once, as on a larger batch.

    As `keras.layers.TimeDistributed`, but in one call of the layer: one convolution
    whatever the number of steps, and on hardware one draw of noise for all of them.

    Args:
        layer: A layer over `[batch, ...]`.

    Call arguments:
        inputs: Tensor `[batch, time, ...]`.
        training: Bool, passed on to the layer.

    Returns:
        Tensor `[batch, time, ...]`.

    Example:
        >>> layer = hwa_keras.spiking.PerStep(keras.layers.Conv2D(4, 3))
        >>> layer(np.ones((2, 10, 8, 8, 1), "float32")).shape == (2, 10, 6, 6, 4)
        True
    """

    def build(self, input_shape: Shape) -> None:
        if not self.layer.built:
            self.layer.build((input_shape[0], *input_shape[2:]))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        steps = ops.shape(inputs)[1]
        together = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        outputs = self.layer(together, training=training)
        return ops.reshape(outputs, (-1, steps, *outputs.shape[1:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, steps, *rest = input_shape
        return (batch, steps, *self.layer.compute_output_shape((batch, *rest))[1:])


@keras.saving.register_keras_serializable(package=PACKAGE)
class MaxRatePooling(PerStep):
    """Passes on as many spikes as the neuron of a window with the most spikes so far.

    Where one neuron has the most spikes in a window, it is that neuron's spikes that
    pass. A maximum of the spikes of each step would pass on the spikes of all of them.
    At time t the number of spikes that have passed is the maximum, over the window, of
    the numbers of spikes until t.

    Args:
        layer: A layer of maxima, such as `keras.layers.MaxPooling2D(2)`.

    Call arguments:
        inputs: Tensor of spikes `[batch, time, ...]`.

    Returns:
        Tensor of spikes `[batch, time, ...]`.

    Example:
        >>> pooling = hwa_keras.spiking.MaxRatePooling(
        ...     keras.layers.GlobalMaxPooling1D()
        ... )
        >>> spikes = np.array([[[1, 0], [0, 1], [0, 1]]], "float32")[..., None]
        >>> ops.convert_to_numpy(pooling(spikes)).ravel().tolist()
        [1.0, 0.0, 1.0]

    Reference:
        - Rueckauer et al., "Conversion of continuous-valued deep networks to efficient
          event-driven networks for image classification", Frontiers in Neuroscience 11,
          2017, section 2.2.3.
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        most = super().call(ops.cumsum(inputs, axis=1), training=training)
        before = ops.concatenate([ops.zeros_like(most[:, :1]), most[:, :-1]], axis=1)
        return most - before
