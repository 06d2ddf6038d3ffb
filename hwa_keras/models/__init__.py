"""Reference architectures, in plain Keras."""

from hwa_keras.models.densenet import densenet40
from hwa_keras.models.keyword_spotting import keyword_spotting
from hwa_keras.models.lstm_lm import lstm_lm
from hwa_keras.models.mobilenet import mobilenet_v2, mobilenet_v3_small
from hwa_keras.models.resnet import resnet18, resnet34, resnet50
from hwa_keras.models.transformer_translation import transformer_translation
from hwa_keras.models.vgg import vgg13
from hwa_keras.models.vit import vit
from hwa_keras.models.wide_resnet import wide_resnet

__all__ = [
    "densenet40",
    "keyword_spotting",
    "lstm_lm",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "resnet34",
    "resnet50",
    "transformer_translation",
    "vgg13",
    "vit",
    "wide_resnet",
]
