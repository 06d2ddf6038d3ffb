"""What examples/sharpness_cifar10.py trains, and what it measures of it."""

import dataclasses

import keras
import numpy as np
from study import fit

import hwa_keras
from hwa_keras import analysis, noise
from hwa_keras.constraints import AggressiveClip, HistogramClip
from hwa_keras.training import ConstrainKernels, SharpnessAwareModel

# The sizes of neighborhoods that sharpness is measured in.
MEASURES = {
    "SAM": {"method": "sam", "rho": 0.05},
    "ASAM": {"method": "asam", "rho": 0.5},
    "SAMSON₂": {"method": "samson", "rho": 0.5, "norm": 2},
    "SAMSON∞": {"method": "samson", "rho": 0.5, "norm": "inf"},
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: a file of configs/sharpness_cifar10.

    Args:
        method: `"sam"`, `"asam"`, `"samson"` or None for plain SGD.
        rho: Size of the neighborhood.
        norm: 2 or `"inf"`, for SAMSON.
        clip: Weights are clipped to ± this after each update; None for not.
        noise: Standard deviation of additive noise while training, over the largest
            weight of a layer; None for none.
        alpha: With `noise`: weights are clipped to ± this many standard deviations.
    """

    method: str | None = None
    rho: float | None = None
    norm: int | str = 2
    clip: float | None = None
    noise: float | None = None
    alpha: float | None = None

    @property
    def title(self):
        """The name of the method, as in the thesis."""
        title = "SGD" if self.method is None else self.method.upper()
        if self.method == "samson":
            title += "₂" if self.norm == 2 else "∞"
        return title + (" + noise" if self.noise else " + clip" if self.clip else "")

    @property
    def group(self):
        """Which methods are compared with each other, as in table 5.10."""
        return "noise" if self.noise else "clipped" if self.clip else "plain"


def convnet(input_shape=(32, 32, 3), classes=10):
    """Three convolutions with batch normalization, small enough for a CPU."""
    inputs = x = keras.Input(input_shape)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal"
        )(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x), name="convnet")


NETWORKS = {
    "convnet": convnet,
    "vgg13": hwa_keras.models.vgg13,
    "wide_resnet_16_4": hwa_keras.models.wide_resnet,
}


def train(recipe, settings, data, seed):
    """A network trained by a recipe, from scratch, compiled for evaluation."""
    keras.utils.set_random_seed(seed)
    network = NETWORKS[settings.network]
    model = network(data.train[0].shape[1:], classes=data.num_classes)
    callbacks = []
    if recipe.noise:
        drawn = noise.AdditiveGaussian(recipe.noise)
        hwa_keras.to_hwa(model, kernel_noise=drawn, verbose=0)
        callbacks = [ConstrainKernels(HistogramClip(recipe.alpha))]
    elif recipe.clip:
        callbacks = [ConstrainKernels(AggressiveClip(recipe.clip))]
    if recipe.method:
        SharpnessAwareModel.wrap(
            model, method=recipe.method, rho=recipe.rho, norm=recipe.norm
        )
    fit(model, data, settings, callbacks, seed)
    if recipe.noise or recipe.method:
        hwa_keras.to_digital(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


def measure(model, settings, data, seed):
    """Curves of a trained network, and its sharpness.

    Returns:
        A dictionary of `Curve`s and, under "sharpness", of numbers by measure.
    """
    x, y = data.train
    shuffled = np.random.default_rng(seed).permutation(len(x))
    calibration = shuffled[: settings.calibration_images]
    seen = shuffled[: settings.sharpness_images]
    return {
        "robustness": analysis.robustness_curve(
            model,
            data.test,
            settings.sigmas,
            settings.repeats,
            calibration=x[calibration] if len(calibration) else None,
            seed=seed * 1000,
            verbose=0,
        ),
        "quantization": analysis.quantization_curve(
            model, data.test, settings.bits, verbose=0
        ),
        "shift": analysis.shift_curve(model, data.test, verbose=0),
        "sharpness": {
            name: analysis.m_sharpness(model, (x[seen], y[seen]), **arguments).mean
            for name, arguments in MEASURES.items()
        },
    }
