"""The architectures of the sharpness experiments: sizes, shapes, kernels."""

import numpy as np
import pytest

from hwa_keras import models
from hwa_keras.core.kernels import find_kernels


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def densenet_count(growth=12):
    """Counted from the paper: section 3 and the caption of its table 2."""
    channels, total = 16, 27 * 16
    for block in range(3):
        for _ in range(12):
            total += 2 * channels + 9 * channels * growth
            channels += growth
        if block < 2:
            total += 2 * channels + channels * channels
    return total + 2 * channels + 10 * channels + 10


# The sizes that the CIFAR versions are known by, and of MobileNetV2 that with the
# published 1,000 classes, of which these leave out 990.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "count"),
    [
        (models.resnet18, 11_173_962),
        (models.resnet34, 21_282_122),
        (models.resnet50, 23_520_842),
    ],
)
def test_parameter_counts_are_the_published_ones(build, count):
    assert trainable(build(classes=10)) == count


def test_densenet40_has_the_million_parameters_of_its_paper():
    assert round(densenet_count() / 1e6, 1) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "count", "kernels"),
    [
        (models.vgg13, 9_416_010, 11),
        (models.mobilenet_v2, 3_504_872 - 990 * (1280 + 1), 53),
        (models.densenet40, densenet_count(), 40),
        # That of torchvision for 1,000 classes, of which this leaves out 990.
        (models.mobilenet_v3_small, 2_542_856 - 990 * (1024 + 1), 54),
    ],
)
def test_logits_are_finite_and_every_kernel_is_found(build, count, kernels):
    model = build()
    assert trainable(model) == count
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    logits = np.array(model(x))
    assert logits.shape == (2, 10) and np.isfinite(logits).all()
    assert len(find_kernels(model)[0]) == kernels
