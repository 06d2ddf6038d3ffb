"""Flat minima and weights that are off: SGD, SAM, ASAM and SAMSON on CIFAR-10.

Each method trains a network, with clipped weights and without; then the networks are
put on chips whose conductances vary, their sharpness is measured, their weights are
quantized and their images shifted.

    python examples/sharpness_cifar10.py --preset=small --out=runs/sharpness
    python examples/sharpness_cifar10.py --preset=smoke --methods=sgd,samson_inf
    KERAS_BACKEND=jax python examples/sharpness_cifar10.py --preset=paper
    python examples/sharpness_cifar10.py --config=configs/sharpness_vit
    python examples/sharpness_cifar10.py --config=configs/sharpness_mobilenet

Presets and methods are in configs/sharpness_cifar10, or in the folder that `--config`
names; flags go before them.
"""

import dataclasses
import functools
from pathlib import Path

from sharpness_report import write
from sharpness_training import NETWORKS, check_sigmas, compared, read_recipes

from hwa_keras import datasets
from hwa_keras.core.checks import check_choice
from hwa_keras.recipes import classifier, runner

CONFIG = Path(__file__).parents[1] / "configs/sharpness_cifar10"


@dataclasses.dataclass(frozen=True)
class Settings(classifier.ImageSettings):
    """What a preset must say; configs/sharpness_cifar10/presets.yaml explains it."""

    network: str
    sigmas: list[float]
    chips: int
    calibration_images: int
    sharpness_images: int
    bits: list[int]
    seeds: int
    shifts: bool = True
    methods: list[str] | None = None  # All.

    def __post_init__(self):
        super().__post_init__()
        check_choice("a preset", NETWORKS, network=self.network)
        check_sigmas(self)


def study(run):
    settings = run.settings
    with runner.reading(CONFIG.stem):
        recipes = read_recipes(run.config, settings.methods)
        data = datasets.load("cifar10")
    data = classifier.standardized(data, settings.train_images, settings.test_images)
    shape, classes = data.train[0].shape[1:], data.num_classes
    build = functools.partial(NETWORKS[settings.network], shape, classes=classes)
    found = compared(recipes, run, data, build)
    title = "CIFAR-10: sharpness-aware training and weights that are off"
    write(title, recipes, found, run)


if __name__ == "__main__":
    runner.main(study, Settings, CONFIG)
