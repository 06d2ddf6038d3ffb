"""InputsAlone: how Larq quantizes the inputs of a separable convolution."""

import keras

from hwa_keras import quantizers
from hwa_keras.core.registry import PACKAGE

__all__ = ["InputsAlone"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class InputsAlone(quantizers.Quantizer):
    """Quantizes the inputs of a layer, and not what its first product hands on.

    A separable convolution has two products, and on hardware each has a DAC. Larq
    quantizes the inputs of the layer alone. `from_larq` makes it.

    Args:
        quantizer: A quantizer, its name, or any callable `tensor → tensor`.
    """

    def __init__(self, quantizer, **kwargs):
        super().__init__(**kwargs)
        self.quantizer = quantizers.get(quantizer)
        self.is_inner = False

    @property
    def precision(self):
        """Bits of a code, which Larq's summary counts for both products."""
        return getattr(self.quantizer, "precision", None)

    def bind(self, kernel):
        self.is_inner = kernel.keys == ("pointwise_kernel",)
        self.built = True

    def convert(self, x, training=False, bound=None):
        """Convert inputs as a DAC does, whose largest output is not known."""
        return self(x), None

    def quantized(self, inputs):
        return inputs if self.is_inner else self.quantizer(inputs)

    def get_config(self):
        config = {"quantizer": quantizers.serialize(self.quantizer)}
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls(quantizers.deserialize(config.pop("quantizer")), **config)
