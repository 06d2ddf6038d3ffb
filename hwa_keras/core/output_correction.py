"""OutputCorrection: a digital gain and offset for each column of a product."""

import keras
from keras import ops

__all__ = ["OutputCorrection"]


class OutputCorrection(keras.layers.Layer):
    """z → gain·z + offset, column by column, behind the ADC and before a bias.

    Args:
        columns: Integer, number of columns.

    Attributes:
        gain, offset: Variables `[columns]`, at first 1 and 0.
    """

    def __init__(self, columns):
        super().__init__(
            autocast=False, dtype="float32", trainable=False, name="correction"
        )
        self.gain = self._column("gain", columns, "ones")
        self.offset = self._column("offset", columns, "zeros")
        self.built = True

    def _column(self, name, columns, initializer):
        return self.add_weight(
            shape=(columns,), initializer=initializer, trainable=False, name=name
        )

    def corrected(self, z):
        """The products of columns `[..., columns]`, corrected."""
        gain, offset = (ops.cast(v.value, z.dtype) for v in (self.gain, self.offset))
        return z * gain + offset

    def reset(self):
        """Correct nothing."""
        self.gain.assign(ops.ones(self.gain.shape))
        self.offset.assign(ops.zeros(self.offset.shape))
