"""What the sharpness studies train, and what they measure of it."""

import dataclasses
import functools
import time
from pathlib import Path

import keras
import numpy as np
import presets
import study
from absl import flags

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

GROUPS = {"plain": "without clipping", "clipped": "clipped", "noise": "under noise"}
OPTIMIZERS = {"SGD": study.sgd, "AdamW": study.adamw}


def define_flags(folder):
    """The flags of a sharpness study; those left out are what the preset says.

    Args:
        folder: Name of the folder in configs that holds presets and methods.

    Returns:
        The names of the flags that go before a preset.
    """
    root = Path(__file__).parents[1]
    sizes = ["smoke", "small", "paper"]
    flags.DEFINE_enum("preset", "smoke", sizes, "How large a run.")
    flags.DEFINE_string(
        "config", str(root / "configs" / folder), "Folder of presets and methods."
    )
    flags.DEFINE_list("methods", None, "Files of that folder. Default: all of them.")
    flags.DEFINE_string("out", f"runs/{folder}", "Folder for all that is written.")
    flags.DEFINE_integer("epochs", None, "Epochs of each training.", 1)
    flags.DEFINE_integer("seeds", None, "Trainings of each method.", 1)
    flags.DEFINE_integer("chips", None, "Chips per level of variation.", 1)
    return "epochs", "seeds", "chips"


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
        name: presets.read(folder / f"{name}.yaml", None, Recipe, {}) for name in names
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


def run(recipes, settings, data, build, out, **losses):
    """Train and measure everything: per method, one dictionary per seed.

    Args:
        recipes: Dictionary from names to `Recipe`s.
        settings: The settings of the study.
        data: A data set with `train` and `test`.
        build: Function without arguments that makes a new network.
        out: Folder for the trained networks.
        **losses: `loss` and `metrics`, where a classifier's will not do.
    """
    found = {}
    for name, recipe in recipes.items():
        found[name] = []
        for seed in range(settings.seeds):
            start = time.monotonic()
            model = train(recipe, settings, data, build, seed, **losses)
            trained = time.monotonic()
            model.save(out / f"{name}_{seed}.keras")
            found[name].append(measure(model, settings, data, seed))
            curve = found[name][-1]["robustness"]
            last = settings.sigmas[-1]
            study.console.print(
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
    study.fit(model, data, settings, callbacks, seed, optimizer, **losses)
    if recipe.noise or recipe.method:
        hwa_keras.to_digital(model)
    model.compile("sgd", **(losses or study.of_classifier()))
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
