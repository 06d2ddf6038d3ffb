"""Reference architectures, in plain Keras."""

from hwa_keras.models.wide_resnet import wide_resnet

__all__ = ["wide_resnet"]
