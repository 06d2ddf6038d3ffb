"""Reference architectures, in plain Keras."""

from hwa_keras.models.densenet import densenet40
from hwa_keras.models.keyword_spotting import keyword_spotting
from hwa_keras.models.lstm_lm import lstm_lm
from hwa_keras.models.mobilenet import mobilenet_v2
from hwa_keras.models.resnet import resnet18, resnet34, resnet50
from hwa_keras.models.vgg import vgg13
from hwa_keras.models.wide_resnet import wide_resnet

__all__ = [
    "densenet40",
    "keyword_spotting",
    "lstm_lm",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg13",
    "wide_resnet",
]
