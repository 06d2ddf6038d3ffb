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

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import functools
import time
from pathlib import Path

import presets
from absl import app, flags, logging
from sharpness_report import write
from sharpness_training import NETWORKS, define_flags, read_recipes, run
from study import check, console, prepared

FLAGS = flags.FLAGS
OVERRIDES = (*define_flags("sharpness_cifar10"), "network")
flags.DEFINE_enum("network", None, sorted(NETWORKS), "What to train.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; configs/sharpness_cifar10/presets.yaml explains it."""

    network: str
    train_images: int
    test_images: int
    augment: bool
    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    weight_decay: float
    sigmas: list
    chips: int
    calibration_images: int
    sharpness_images: int
    bits: list
    seeds: int
    shifts: bool = True

    def __post_init__(self):
        check(self, network=NETWORKS)
        if self.sigmas[:1] != [0.0] or len(self.sigmas) < 2:
            raise ValueError("`sigmas` must begin with 0.0 and go on.")


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    file = Path(FLAGS.config, "presets.yaml")
    settings, recipes, data, out = presets.begin(
        "sharpness_cifar10",
        "cifar10",
        FLAGS.out,
        lambda: presets.read(file, FLAGS.preset, Settings, overrides),
        lambda: read_recipes(FLAGS.config, FLAGS.methods),
    )
    data = prepared(data, settings)
    shape, classes = data.train[0].shape[1:], data.num_classes
    build = functools.partial(NETWORKS[settings.network], shape, classes=classes)
    found = run(recipes, settings, data, build, out)
    title = "CIFAR-10: sharpness-aware training and weights that are off"
    write(title, recipes, settings, found, out, FLAGS.preset)
    console.print(f"Written to {out}. Done in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    app.run(main)
