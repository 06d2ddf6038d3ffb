"""A wide residual network for small images, from digital training to a year on chips.

    python examples/train_wideresnet.py --preset=smoke
    python examples/train_wideresnet.py --preset=small --device=simple_pcm
    python examples/train_wideresnet.py --preset=paper --distribute=mirrored
    python examples/train_wideresnet.py --resume --out=runs/train_wideresnet

Presets are in configs/train_wideresnet.yaml; flags go before them.
"""

import dataclasses
from pathlib import Path

import keras

from hwa_keras import datasets, models, recipes
from hwa_keras.recipes import classifier, task_runner

CONFIG = Path(__file__).parents[1] / "configs/train_wideresnet.yaml"


@dataclasses.dataclass(frozen=True)
class Settings(recipes.TwoPhaseSettings, classifier.ImageSettings):
    dataset: str
    chip_images: int
    calibration_images: int
    depth: int
    width: int

    def __post_init__(self):
        recipes.TwoPhaseSettings.__post_init__(self)
        classifier.ImageSettings.__post_init__(self)


class WideResNet(recipes.Task):
    name = "wideresnet"

    def __init__(self, settings):
        self.settings = settings
        counts = settings.train_images, settings.test_images
        data = classifier.standardized(datasets.load(settings.dataset), *counts)
        x, y = data.train
        self.classes = data.num_classes
        self.input_shape = x.shape[1:]
        self.train = datasets.Batches(
            x,
            y,
            settings.batch_size,
            seed=settings.seed,
            transform=datasets.pad_crop_flip if settings.augment else None,
            drop_remainder=True,
        )
        self.test = data.test
        self.chip_test = tuple(part[: settings.chip_images] for part in data.test)
        self.calibration = x[: settings.calibration_images]
        self.example = data.test[0][:64]

    def digital(self):
        settings = self.settings
        return models.wide_resnet(
            settings.depth, settings.width, self.input_shape, self.classes
        )

    def compile(self, model, learning_rate, epochs):
        model.compile(
            classifier.sgd(self.settings, learning_rate, epochs * len(self.train)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )


if __name__ == "__main__":
    task_runner.main(WideResNet, Settings, CONFIG)
