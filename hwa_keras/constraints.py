"""Constraints on the weights that are trained behind quantized ones."""

import keras
from keras import ops

from hwa_keras.registry import PACKAGE

__all__ = ["WeightClip"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class WeightClip(keras.constraints.Constraint):
    """Clips weights to [−clip_value, clip_value] after each update.

    Beyond the clip value of a straight-through quantizer a weight gets no gradient
    any more; clipped, it stays within reach.

    Args:
        clip_value: Float > 0. Defaults to `1`.

    Example:
        >>> constraint = hwa_keras.constraints.WeightClip()
        >>> [float(w) for w in constraint(np.array([-3.0, 0.5, 2.0]))]
        [-1.0, 0.5, 1.0]
        >>> layer = hwa_keras.layers.HWADense(3, kernel_constraint="weight_clip")
    """

    def __init__(self, clip_value=1):
        if not clip_value > 0:
            raise ValueError(
                f"`clip_value` must be positive. Received: clip_value={clip_value!r}."
            )
        self.clip_value = clip_value

    def __call__(self, w):
        w = ops.convert_to_tensor(w)
        return ops.clip(w, -self.clip_value, self.clip_value)

    def get_config(self):
        return {"clip_value": self.clip_value}


def resolve(kwargs):
    """Keras does not know the name "weight_clip", which hardware layers take."""
    named = [key for key, value in kwargs.items() if str(value) == "weight_clip"]
    return {**kwargs, **{key: WeightClip() for key in named}}
