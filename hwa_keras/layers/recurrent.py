"""Recurrent layers on hardware: the weights sit still while a sequence runs."""

from typing import Any

import keras
from keras import layers, ops

from hwa_keras import constraints
from hwa_keras.circuits.hardware import Hardware
from hwa_keras.core import modes
from hwa_keras.core.keras_private import call_training, unlocked
from hwa_keras.core.types import Config, Mixin, Tensor
from hwa_keras.core.views import MatrixView
from hwa_keras.layers.array import multiply
from hwa_keras.layers.base import (
    HardwareLayer,
    drawn_once,
    hardware_config,
    kernels_inside,
    put_layer_on,
    register,
    split_arguments,
)
from hwa_keras.layers.products import DenseProduct

_KERNEL, _RECURRENT = DenseProduct("kernel"), DenseProduct("recurrent_kernel")


class HardwareCell(HardwareLayer):
    """Mixin of the cells: two products a time step, each with its own converters.

    `keras.layers.RNN` asks its cell for the dropout masks before the first step and
    resets them after the last, dropout or not, which marks the pass: the kernels are
    drawn and dropped with the masks. On its own, the cell draws at each call.
    """

    hardware_mixin = True
    _drawn = None

    def _check_known(self, hardware):
        if hardware.bias == "analog":
            raise ValueError(
                f"'{self.name}' ({type(self).__name__}) adds its bias after two "
                "products, so that it is a row of neither array. Give it "
                "bias='digital'."
            )

    def _kernel_views(self):
        return {
            (product.attribute,): MatrixView(
                tuple(getattr(self, product.attribute).shape)
            )
            for product in (_KERNEL, _RECURRENT)
        }

    def _converted_shapes(self, input_shape):
        return [
            (
                (None, kernel.view.matrix_shape[0]),
                (None, *kernel.tiling.sums_shape(kernel.view.matrix_shape[1:])),
            )
            for kernel in self.hardware_kernels
        ]

    @property
    def is_ideal(self) -> bool:
        """Whether the cell computes as Keras's own."""
        return all(kernel.is_ideal for kernel in self.hardware_kernels)

    def get_dropout_mask(self, step_input: Tensor) -> Tensor | None:
        if self._drawn is None and not self.is_ideal:
            training = call_training()
            self._check_loop(training)
            self._drawn = {id(k): k.value(training) for k in self.hardware_kernels}
        return super().get_dropout_mask(step_input)

    def _check_loop(self, training):
        """Raise `ValueError` where a plain `keras.layers.RNN` would lose what moves."""
        inside = all(id(k) in modes.current().drawn for k in self.hardware_kernels)
        if not inside and _must_unroll(self.hardware_kernels, training):
            raise ValueError(
                f"In '{self.name}' noise of outputs or a learned range moves from one "
                "time step to the next, which keras.layers.RNN loses on JAX. Put the "
                "cell into hwa_keras.layers.HWARNN."
            )

    def reset_dropout_mask(self) -> None:
        self._drawn = None
        super().reset_dropout_mask()

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        if self.is_ideal:
            return super().call(inputs, states, training=training)
        known = modes.current().drawn
        with modes.hardware_mode(drawn={**(self._drawn or {}), **known}):
            return self._step(inputs, states, training)

    def _products(self, inputs, training, count=1):
        """The products of the inputs and the kernel, by gate, dropout applied."""
        mask = None
        if training and 0 < self.dropout < 1:
            mask = self.get_dropout_mask(inputs)
        return self._gates(0, _KERNEL, inputs, mask, training, count)

    def _recurrent_products(self, state, training, count=1):
        """The products of the state and the recurrent kernel, by gate."""
        mask = None
        if training and 0 < self.recurrent_dropout < 1:
            mask = self.get_recurrent_dropout_mask(state)
        return self._gates(1, _RECURRENT, state, mask, training, count)

    def _gates(self, i, product, x, mask, training, count):
        kernel = self.hardware_kernels[i]

        def gates(x):
            y = multiply(kernel, product, self, x, training)
            return ops.split(y, count, axis=-1) if count > 1 else [y]

        if not isinstance(mask, list):
            return gates(x if mask is None else x * mask)
        # Each gate has a mask of its own, and so inputs of its own.
        return [gates(x * m)[gate] for gate, m in enumerate(mask)]


@register("hwa_simple_rnn_cell")
class HWASimpleRNNCell(HardwareCell, layers.SimpleRNNCell):
    """`keras.layers.SimpleRNNCell` on hardware, for `keras.layers.RNN`."""

    def _step(self, inputs, states, training):
        state = states[0] if isinstance(states, (list, tuple)) else states
        [x] = self._products(inputs, training)
        [h] = self._recurrent_products(state, training)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        output = x + h
        if self.activation is not None:
            output = self.activation(output)
        return output, [output] if isinstance(states, (list, tuple)) else output


@register("hwa_lstm_cell")
class HWALSTMCell(HardwareCell, layers.LSTMCell):
    """`keras.layers.LSTMCell` on hardware, for `keras.layers.RNN`."""

    def _step(self, inputs, states, training):
        h, c = states
        x = self._products(inputs, training, 4)
        h = self._recurrent_products(h, training, 4)
        z = [ops.add(a, b) for a, b in zip(x, h, strict=True)]
        if self.use_bias:
            biases = ops.split(self.bias, 4, axis=0)
            z = [ops.add(a, b) for a, b in zip(z, biases, strict=True)]
        c, o = self._compute_carry_and_output_fused(z, c)
        h = o * self.activation(c)
        return h, [h, c]


@register("hwa_gru_cell")
class HWAGRUCell(HardwareCell, layers.GRUCell):
    """`keras.layers.GRUCell` on hardware, for `keras.layers.RNN`."""

    def _step(self, inputs, states, training):
        nested = isinstance(states, (list, tuple))
        state = states[0] if nested else states
        x = self._products(inputs, training, 3)
        h = self._recurrent_products(state, training, 3)
        if self.use_bias:
            bias = self.bias[0] if self.reset_after else self.bias
            biases = ops.split(bias, 3, axis=0)
            x = [ops.add(a, b) for a, b in zip(x, biases, strict=True)]
        if self.use_bias and self.reset_after:
            biases = ops.split(self.bias[1], 3, axis=0)
            h = [ops.add(a, b) for a, b in zip(h, biases, strict=True)]
        z = self.recurrent_activation(x[0] + h[0])
        r = self.recurrent_activation(x[1] + h[1])
        if self.reset_after:
            candidate = r * h[2]
        else:
            candidate = self._recurrent_products(r * state, training, 3)[2]
        candidate = self.activation(x[2] + candidate)
        output = z * state + (1 - z) * candidate
        return output, [output] if nested else output


def _must_unroll(kernels, training):
    """Whether a step changes variables, and the backend's loops cannot tell."""
    if keras.backend.backend() != "jax":
        return False
    noisy = modes.current().is_noisy(training)
    return modes.current().recorder is not None or any(
        (k.output_noise is not None and (noisy or getattr(k.output_noise, "always", 0)))
        or (training and getattr(k.dac, "range", None) == "learned")
        for k in kernels
    )


class HardwareRNN(Mixin):
    """Mixin of `keras.layers.RNN` and its subclasses.

    What a stateful layer carries from one batch to the next is a weight here. Keras
    does not track it in its own layers, where JAX and chips lose it.
    """

    hardware_mixin = True
    unroll: bool

    def _create_state_variables(self, batch_size):
        self.states = [
            self.add_weight(
                shape=state.shape,
                initializer="zeros",
                trainable=False,
                autocast=False,
                name=f"rnn_state_{i}",
            )
            for i, state in enumerate(self.get_initial_state(batch_size))
        ]

    def adopt_states(self) -> None:
        """Take the states that Keras has made for weights."""
        if self.stateful and self.states is not None:
            with unlocked(self):
                self.states = list(self.states)

    def inner_loop(
        self, sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        # Keras's fused loops take a kernel, and leave no place for an array.
        mask = mask[0] if keras.tree.is_nested(mask) else mask
        unroll = self.unroll
        self.unroll = unroll or _must_unroll(kernels_inside(self), training)
        try:
            return keras.layers.RNN.inner_loop(
                self, sequences, initial_state, mask, training=training
            )
        finally:
            self.unroll = unroll

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        try:
            with drawn_once(self, training):
                return keras.layers.RNN.call(
                    self,
                    sequences,
                    initial_state=initial_state,
                    mask=mask,
                    training=training,
                )
        finally:
            self._maybe_reset_dropout_masks(self.cell)


class HardwareCellRNN(HardwareRNN):
    """Mixin of the layers that make their cell themselves, and put it on hardware.

    Args:
        *args: Positional arguments of the Keras layer.
        hardware, kernel_quantizer, kernel_noise, input_quantizer, output_quantizer,
            output_noise, noise_seed: As in `HardwareLayer`, for the cell.
        **kwargs: Keyword arguments of the Keras layer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs, hardware, noise_seed = split_arguments(type(self), kwargs)
        super().__init__(*args, **constraints.resolve(kwargs))
        put_layer_on(self.cell, self.cell_class, hardware, noise_seed)

    @property
    def hardware(self) -> Hardware:
        """The description of the cell's hardware."""
        return self.cell.hardware

    @property
    def kernel_quantizer(self) -> Any:
        return self.cell.kernel_quantizer

    @property
    def kernel_noise(self) -> Any:
        return self.cell.kernel_noise

    @property
    def input_quantizer(self) -> Any:
        return self.cell.input_quantizer

    @property
    def output_quantizer(self) -> Any:
        return self.cell.output_quantizer

    @property
    def output_noise(self) -> Any:
        return self.cell.output_noise

    @property
    def noise_seed(self) -> int | None:
        return self.cell.noise_seed

    def noises(self) -> list[Any]:
        """All elementary noises of the layer, of kernels and of outputs."""
        return self.cell.noises()

    def get_config(self) -> Config:
        config = hardware_config(self.hardware)
        return {**super().get_config(), **config, "noise_seed": self.noise_seed}


@register("hwa_rnn")
class HWARNN(HardwareRNN, layers.RNN):
    """`keras.layers.RNN` around cells on hardware: one draw of kernels a sequence."""


@register("hwa_simple_rnn")
class HWASimpleRNN(HardwareCellRNN, layers.SimpleRNN):
    """`keras.layers.SimpleRNN` on hardware: one draw of its kernels for a sequence."""

    cell_class = HWASimpleRNNCell


@register("hwa_lstm")
class HWALSTM(HardwareCellRNN, layers.LSTM):
    """`keras.layers.LSTM` on hardware: one draw of its kernels for a sequence.

    Takes the arguments of `keras.layers.LSTM` and of `HardwareLayer`. Converters and
    output noise stand at both products of each time step.

    Example:
        >>> layer = hwa_keras.layers.HWALSTM(5, kernel_noise="programming_noise")
        >>> layer(np.ones((2, 7, 3)), training=True).shape == (2, 5)
        True
    """

    cell_class = HWALSTMCell


@register("hwa_gru")
class HWAGRU(HardwareCellRNN, layers.GRU):
    """`keras.layers.GRU` on hardware: one draw of its kernels for a sequence."""

    cell_class = HWAGRUCell


@register("hwa_time_distributed")
class HWATimeDistributed(layers.TimeDistributed):
    """`keras.layers.TimeDistributed` around a layer on hardware."""

    hardware_mixin = True

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        with drawn_once(self, bool(training)):
            return super().call(inputs, training=training, mask=mask)
