"""A wide residual network for small images, from digital training to a year on chips.

    python examples/train_wideresnet.py --preset=smoke
    python examples/train_wideresnet.py --preset=small --device=simple_pcm
    python examples/train_wideresnet.py --preset=paper --distribute=mirrored
    python examples/train_wideresnet.py --resume --out=runs/train_wideresnet

Presets are in configs/train_wideresnet.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses

import keras
import recipe
import study

from hwa_keras import datasets, models, recipes


@dataclasses.dataclass(frozen=True)
class Settings(recipes.TwoPhaseSettings):
    dataset: str
    train_images: int
    test_images: int
    chip_images: int
    calibration_images: int
    depth: int
    width: int
    augment: bool
    schedule: str
    weight_decay: float

    def __post_init__(self):
        super().__post_init__()
        study.check(self)


class WideResNet(recipes.Task):
    name = "wideresnet"

    def __init__(self, settings):
        self.settings = settings
        data = study.prepared(datasets.load(settings.dataset), settings)
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
            study.sgd(self.settings, learning_rate, epochs * len(self.train)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )


if __name__ == "__main__":
    recipe.main("train_wideresnet", Settings, WideResNet)
