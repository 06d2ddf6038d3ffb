"""LSTM and GRU on hardware: the weights sit still while a sequence runs."""

from keras import layers

from hwa_keras.layers.base import HardwareLayer, register
from hwa_keras.substitution import in_full_precision


class _HardwareRNN(HardwareLayer):
    """One draw of both kernels for the whole sequence.

    What a stateful layer carries from one batch to the next is a weight here. Keras
    does not track it in its own layers, where JAX and chips lose it.
    """

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

    def _converted_shape(self, input_shape):
        shape = self.compute_output_shape(input_shape)
        return shape[0] if self.return_state else shape

    def call(self, sequences, initial_state=None, mask=None, training=False):
        sequences = self.convert_inputs(sequences)
        keras_call = super(HardwareLayer, self).call

        def run():
            return keras_call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )

        outputs = self.run_on_hardware(run, training)
        if self.return_state:
            return self.convert_outputs(outputs[0], training), *outputs[1:]
        return self.convert_outputs(outputs, training)


class _HardwareCell(HardwareLayer):
    """One draw for the pass of the RNN layer around the cell.

    `keras.layers.RNN` asks its cell for the dropout masks before the first step and
    resets them after the last, which marks the pass: the kernels are drawn and
    dropped with the masks. On its own, the cell draws at each call.
    """

    _drawn = None

    def _converted_shape(self, input_shape):
        return (input_shape[0], self.units)

    def get_dropout_mask(self, step_input):
        if self._drawn is None and self.kernel_noise is not None:
            self._drawn = (in_full_precision(self.noisy_kernels),)
        return super().get_dropout_mask(step_input)

    def reset_dropout_mask(self):
        self._drawn = None
        super().reset_dropout_mask()

    def noisy_kernels(self):
        return self._drawn[0] if self._drawn else super().noisy_kernels()

    def call(self, inputs, states, training=False):
        inputs = self.convert_inputs(inputs)
        keras_call = super(HardwareLayer, self).call
        outputs, states = self.run_on_hardware(
            lambda: keras_call(inputs, states, training=training), training
        )
        return self.convert_outputs(outputs, training), states


@register("hwa_lstm_cell")
class HWALSTMCell(_HardwareCell, layers.LSTMCell):
    """`keras.layers.LSTMCell` on hardware, for `keras.layers.RNN`."""


@register("hwa_gru_cell")
class HWAGRUCell(_HardwareCell, layers.GRUCell):
    """`keras.layers.GRUCell` on hardware, for `keras.layers.RNN`."""


@register("hwa_lstm")
class HWALSTM(_HardwareRNN, layers.LSTM):
    """`keras.layers.LSTM` on hardware: one draw of its kernels for a sequence.

    Takes the arguments of `keras.layers.LSTM` and of `HardwareLayer`.

    Example:
        >>> layer = hwa_keras.layers.HWALSTM(5, kernel_noise="programming_noise")
        >>> layer(np.ones((2, 7, 3)), training=True).shape == (2, 5)
        True
    """


@register("hwa_gru")
class HWAGRU(_HardwareRNN, layers.GRU):
    """`keras.layers.GRU` on hardware: one draw of its kernels for a sequence."""
