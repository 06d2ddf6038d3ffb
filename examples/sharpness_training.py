"""What the sharpness studies train, and what they measure of it."""

import dataclasses
import functools
import time
from pathlib import Path

import keras
import numpy as np

import hwa_keras
from hwa_keras import analysis, noise
from hwa_keras.constraints import AggressiveClip, HistogramClip
from hwa_keras.core.checks import check_count
from hwa_keras.recipes import classifier, presets
from hwa_keras.recipes.runner import console
from hwa_keras.training import ConstrainKernels, SharpnessAwareModel

# The sizes of neighborhoods that sharpness is measured in.
MEASURES = {
    "SAM": {"method": "sam", "rho": 0.05},
    "ASAM": {"method": "asam", "rho": 0.5},
    "SAMSON₂": {"method": "samson", "rho": 0.5, "norm": 2},
    "SAMSON∞": {"method": "samson", "rho": 0.5, "norm": "inf"},
}

GROUPS = {"plain": "without clipping", "clipped": "clipped", "noise": "under noise"}
OPTIMIZERS = {"SGD": classifier.sgd, "AdamW": classifier.adamw}


def check_sigmas(settings):
    """Raise `ValueError` for settings that no study of sharpness can run with."""
    check_count("a preset", seeds=settings.seeds, chips=settings.chips)
    if settings.sigmas[:1] != [0.0] or len(settings.sigmas) < 2:
        raise ValueError("`sigmas` must begin with 0.0 and go on.")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: a file beside the presets of a study.

    Args:
        method: `"sam"`, `"asam"`, `"samson"` or None for the optimizer alone.
        rho: Size of the neighborhood.
        norm: 2 or `"inf"`, for SAMSON.
        clip: Weights are clipped to ± this after each update; None for not.
        noise: Standard deviation of additive noise while training, over the largest
            weight of a layer; None for none.
        alpha: With `noise`: weights are clipped to ± this many standard deviations.
        optimizer: `"SGD"` or `"AdamW"`.
    """

    method: str | None = None
    rho: float | None = None
    norm: int | str = 2
    clip: float | None = None
    noise: float | None = None
    alpha: float | None = None
    optimizer: str = "SGD"

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}.")

    @property
    def title(self):
        """The name of the method, as in the thesis."""
        title = self.optimizer if self.method is None else self.method.upper()
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
    "mobilenet_v3_small": hwa_keras.models.mobilenet_v3_small,
    "mobilenet_v3_small_narrow": functools.partial(
        hwa_keras.models.mobilenet_v3_small, width=0.35
    ),
    "vgg13": hwa_keras.models.vgg13,
    "vit": hwa_keras.models.vit,
    "vit_of_16_patches": functools.partial(
        hwa_keras.models.vit, patch_size=8, dim=96, depth=4, heads=4, mlp_dim=192
    ),
    "wide_resnet_16_4": hwa_keras.models.wide_resnet,
}


def read_recipes(folder, names):
    """The methods of a folder by name, plain SGD or AdamW first."""
    folder = Path(folder)
    known = [path.stem for path in folder.glob("*.yaml") if path.stem != "presets"]
    names = sorted(known) if names is None else names
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"{folder} has no method {', '.join(unknown)}. It has "
            f"{', '.join(sorted(known))}."
        )
    found = {
        name: presets.read(folder / f"{name}.yaml", None, Recipe) for name in names
    }
    order = [*OPTIMIZERS, *MEASURES]
    return dict(
        sorted(
            found.items(),
            key=lambda item: (
                list(GROUPS).index(item[1].group),
                order.index(item[1].title.split(" ")[0]),
            ),
        )
    )


def compared(recipes, run, data, build, **losses):
    """Train and measure everything: per method, one dictionary per seed.

    Args:
        recipes: Dictionary from names to `Recipe`s.
        run: The `Run` of the study; trained networks are written to its folder.
        data: A data set with `train` and `test`.
        build: Function without arguments that makes a new network.
        **losses: `loss` and `metrics`, where a classifier's will not do.
    """
    settings, found = run.settings, {}
    for name, recipe in recipes.items():
        found[name] = []
        for seed in range(settings.seeds):
            start = time.monotonic()
            model = train(recipe, settings, data, build, seed, **losses)
            trained = time.monotonic()
            model.save(run.out / f"{name}_{seed}.keras")
            found[name].append(measure(model, settings, data, seed))
            curve = found[name][-1]["robustness"]
            last = settings.sigmas[-1]
            console.print(
                f"{recipe.title}, seed {seed}: {curve.estimate(0.0).mean:.4f}, at "
                f"σ_c = {last:g} {curve.estimate(last).mean:.4f} (trained in "
                f"{trained - start:.0f} s, measured in "
                f"{time.monotonic() - trained:.0f} s)"
            )
    return found


def train(recipe, settings, data, build, seed, **losses):
    """A network trained by a recipe, from scratch, compiled for evaluation."""
    keras.utils.set_random_seed(seed)
    model = build()
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
    optimizer = OPTIMIZERS[recipe.optimizer]
    how = {"optimizer": optimizer, "augment": settings.augment, **losses}
    classifier.fit(model, data, settings, callbacks, seed, **how)
    if recipe.noise or recipe.method:
        hwa_keras.to_digital(model)
    model.compile("sgd", **(losses or classifier.classification()))
    return model


def measure(model, settings, data, seed):
    """What the settings ask for of a trained network.

    Returns:
        A dictionary of `Result`s and, under "sharpness", of numbers by measure.
    """
    x, y = data.train
    shuffled = np.random.default_rng(seed).permutation(len(y))
    calibration = shuffled[: settings.calibration_images]
    seen = shuffled[: settings.sharpness_images]
    found = {
        "robustness": analysis.robustness_curve(
            model,
            data.test,
            sigmas=settings.sigmas,
            chips=settings.chips,
            calibration=x[calibration] if len(calibration) else None,
            seed=seed * 1000,
            verbose=0,
        )
    }
    if settings.bits:
        found["quantization"] = analysis.quantization_curve(
            model, data.test, bits=settings.bits, verbose=0
        )
    if settings.shifts:
        found["shift"] = analysis.shift_curve(model, data.test, verbose=0)
    if settings.sharpness_images:
        found["sharpness"] = {
            name: analysis.m_sharpness(model, (x[seen], y[seen]), **arguments).mean
            for name, arguments in MEASURES.items()
        }
    return found
