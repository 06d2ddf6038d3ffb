"""The architectures of the sharpness experiments: sizes, shapes, kernels."""

import numpy as np
import pytest

from hwa_keras import models
from hwa_keras.kernels import find_kernels


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "classes", "count"),
    [
        # The sizes that the CIFAR versions are known by, and of MobileNetV2 that with
        # the published 1,000 classes.
        (models.vgg13, 10, 9_416_010),
        (models.resnet18, 10, 11_173_962),
        (models.resnet34, 10, 21_282_122),
        (models.resnet50, 10, 23_520_842),
        (models.mobilenet_v2, 1000, 3_504_872),
        (models.densenet40, 10, densenet_count()),
    ],
)
def test_parameter_counts_are_the_published_ones(build, classes, count):
    assert trainable(build(classes=classes)) == count


def test_densenet40_has_the_million_parameters_of_its_paper():
    assert round(densenet_count() / 1e6, 1) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "kernels"),
    [(models.vgg13, 11), (models.mobilenet_v2, 53), (models.densenet40, 40)],
)
def test_logits_are_finite_and_every_kernel_is_found(build, kernels):
    model = build()
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    logits = np.array(model(x))
    assert logits.shape == (2, 10) and np.isfinite(logits).all()
    assert len(find_kernels(model)[0]) == kernels
