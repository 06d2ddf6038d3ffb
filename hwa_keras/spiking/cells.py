"""Cells of spiking neurons, for recurrent weights: one time step in `layers.RNN`."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import layers, ops

from hwa_keras.core.checks import check_count
from hwa_keras.core.keras_private import call_training
from hwa_keras.core.types import ArrayLike, Config, Shape, Tensor
from hwa_keras.layers.base import register
from hwa_keras.layers.conversion import register_cell
from hwa_keras.layers.recurrent import HardwareCell
from hwa_keras.noise import Noise
from hwa_keras.spiking import surrogates
from hwa_keras.spiking.constants import NeuronConstants
from hwa_keras.spiking.membrane import reset_membrane
from hwa_keras.spiking.neurons import check_float, firing_of
from hwa_keras.spiking.surrogates import spike

__all__ = ["HWALIFCell", "LIFCell"]


@register("lif_cell")
class LIFCell(NeuronConstants, layers.SimpleRNNCell):
    """A cell of leaky integrate-and-fire neurons with recurrent weights.

    Currents are I_t = x_t·W + z_{t−1}·U + b; what they do to the neurons is as in
    `LIF`. In `keras.layers.RNN` each time step is differentiated by itself: without
    recurrent weights, `Dense` and `LIF` give the same in less time. `to_hwa` puts W and
    U on hardware, as `HWALIFCell`. Mismatch is drawn once for a sequence.

    Args:
        units: Integer ≥ 1, the number of neurons.
        tau, dt: As in `LIF`.
        threshold, tau_levels, tau_noise, threshold_noise, learn_tau, mismatch_seed: As
            in `LIF`.
        reset, floor, surrogate, reset_gradient: As in `LIF`.
        **kwargs: Arguments of `keras.layers.SimpleRNNCell`, but for `activation`. The
            states are the spikes and the membranes of the step before.

    Example:
        >>> cell = hwa_keras.spiking.LIFCell(5, tau=20e-3, dt=5e-3)
        >>> layer = keras.layers.RNN(cell, return_sequences=True)
        >>> layer(np.ones((2, 7, 3), "float32")).shape == (2, 7, 5)
        True
    """

    _drawn_constants = None

    def __init__(
        self,
        units: int,
        tau: ArrayLike,
        dt: float,
        threshold: ArrayLike = 1.0,
        tau_levels: Sequence[float] | None = None,
        tau_noise: float | str | Noise | None = None,
        threshold_noise: float | str | Noise | None = None,
        learn_tau: bool = False,
        mismatch_seed: int | None = None,
        reset: str = "zero",
        floor: float | None = None,
        surrogate: str | Callable[[Tensor], Tensor] = "fast_sigmoid",
        reset_gradient: bool = False,
        **kwargs: Any,
    ) -> None:
        check_count("LIFCell", units=units)
        super().__init__(units, activation=None, **kwargs)
        self._set_constants(
            dt,
            threshold,
            tau_levels,
            tau_noise,
            threshold_noise,
            learn_tau,
            mismatch_seed,
            tau=tau,
        )
        self.firing = firing_of(self, reset, floor, surrogate, reset_gradient)
        self.state_size = [self.units, self.units]

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self._build_constants((self.units,))
        if self.on_chip:
            self._add_factors()  # After all else, as on the chip that was saved.
        self.built = True

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        shape = (batch_size, self.units)
        return [ops.zeros(shape, dtype=self.compute_dtype) for _ in self.state_size]

    # `keras.layers.RNN` asks for the masks before the first step and drops them after
    # the last, dropout or not, which marks the sequence.
    def get_dropout_mask(self, step_input: Tensor) -> Tensor | None:
        if self._drawn_constants is None:
            self._drawn_constants = self.constants(call_training())
        return super().get_dropout_mask(step_input)

    def reset_dropout_mask(self) -> None:
        self._drawn_constants = None
        super().reset_dropout_mask()

    def call(
        self, sequence: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        spikes = states[0]
        if training and self.dropout > 0:
            sequence = sequence * self.get_dropout_mask(sequence)
        if training and self.recurrent_dropout > 0:
            spikes = spikes * self.get_recurrent_dropout_mask(spikes)
        current = ops.matmul(sequence, self.kernel)
        current = current + ops.matmul(spikes, self.recurrent_kernel)
        return self._advance(current, sequence, states, training)

    def _advance(self, current, inputs, states, training):
        """Spikes and states after a step, of the products of inputs and spikes."""
        check_float(type(self).__name__, inputs)
        if self.bias is not None:
            current = current + self.bias
        known = self._drawn_constants
        [beta], threshold = self.constants(training) if known is None else known
        current, membrane = (
            ops.cast(x, self.state_dtype) for x in (current, states[1])
        )
        u = beta * membrane + current
        z = spike(u - threshold, self.firing.surrogate)
        seen = z if self.firing.reset_gradient else ops.stop_gradient(z)
        v = reset_membrane(u, seen, threshold, self.firing)
        z, v = (ops.cast(x, self.compute_dtype) for x in (z, v))
        return z, [z, v]

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("activation")
        return {
            **config,
            **self._constants_config(),
            "reset": self.firing.reset,
            "floor": self.firing.floor,
            "surrogate": surrogates.serialize(self.firing.surrogate),
            "reset_gradient": self.firing.reset_gradient,
        }


@register("hwa_lif_cell")
class HWALIFCell(HardwareCell, LIFCell):
    """`LIFCell` on hardware, for `keras.layers.RNN`.

    Takes the arguments of `LIFCell` and of `layers.HardwareLayer`.

    Example:
        >>> cell = hwa_keras.spiking.HWALIFCell(
        ...     5, tau=20e-3, dt=5e-3, kernel_noise="programming_noise"
        ... )
        >>> layer = hwa_keras.layers.HWARNN(cell)
        >>> layer(np.ones((2, 7, 3), "float32"), training=True).shape == (2, 5)
        True
    """

    def _step(self, inputs, states, training):
        [current] = self._products(inputs, training)
        [recurrent] = self._recurrent_products(states[0], training)
        return self._advance(current + recurrent, inputs, states, training)


register_cell(LIFCell, HWALIFCell)
