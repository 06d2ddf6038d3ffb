"""Memristor crossbars: what accuracy costs in energy, and what predicts it.

Trains a network on small images, folds its batch normalization, and puts it on
crossbars: conductance ranges for each layer and one for all, tile sizes with the
voltage drop of wires and without, bits of the ADCs, and the error of the outputs by
moments, by delta and by Monte Carlo.

    python examples/crossbar_power.py --preset=smoke
    python examples/crossbar_power.py --preset=small --out=runs/crossbar_power

Presets are in configs/crossbar_power.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import time
from pathlib import Path

import crossbar_studies as studies
import keras
import presets
from absl import app, flags, logging
from study import check, console, fit, prepared, show

import hwa_keras
from hwa_keras.results import report, write_json

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_enum("preset", "smoke", ["smoke", "small", "paper"], "How large a run.")
flags.DEFINE_string(
    "config", str(ROOT / "configs/crossbar_power.yaml"), "File of the presets."
)
flags.DEFINE_string("out", "runs/crossbar_power", "Folder for all that is written.")
# Left out, these are what the preset says.
OVERRIDES = ("dataset", "epochs", "seeds", "chips")
flags.DEFINE_enum("dataset", None, ["digits", "mnist", "cifar10"], "What to learn.")
flags.DEFINE_integer("epochs", None, "Epochs of each training.", 1)
flags.DEFINE_integer("seeds", None, "Trainings.", 1)
flags.DEFINE_integer("chips", None, "Chips for each accuracy.", 2)


def convnet(input_shape=(32, 32, 3), classes=10):
    """Three strided convolutions with batch normalization: every layer has moments."""
    inputs = x = keras.Input(input_shape)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(
            filters, 3, 2, padding="same", kernel_initializer="he_normal"
        )(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x), name="convnet")


NETWORKS = {"convnet": convnet, "vgg13": hwa_keras.models.vgg13}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; the file explains each key."""

    dataset: str
    network: str
    train_images: int
    test_images: int
    augment: bool
    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    weight_decay: float
    seeds: int
    sigma: float
    g_min: float
    g_max: float
    wire: float
    v_read: float
    t_read: float
    chips: int
    energy_images: int
    range_steps: int
    range_points: int
    gradient_examples: int
    tiles: list
    adc_bits: list
    error_images: int
    draws: int

    def __post_init__(self):
        check(self, network=NETWORKS)


def trained(data, settings, seed):
    """A trained network, its batch normalization folded, and its accuracy."""
    keras.utils.set_random_seed(seed)
    network = NETWORKS[settings.network]
    model = network(data.train[0].shape[1:], classes=data.num_classes)
    fit(model, data, settings, [], seed)
    folded = hwa_keras.fold_batchnorm(model)
    return folded, folded.evaluate(*data.test, verbose=0, return_dict=True)["accuracy"]


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    settings = presets.checked(
        "crossbar_power",
        lambda: presets.read(FLAGS.config, FLAGS.preset, Settings, overrides),
    )
    data, out = presets.begin("crossbar_power", settings.dataset, FLAGS.out)
    data = prepared(data, settings)
    models, accuracies = [], []
    for seed in range(settings.seeds):
        model, accuracy = trained(data, settings, seed)
        models.append(model)
        accuracies.append(accuracy)
        console.print(f"Trained, seed {seed}: accuracy {accuracy:.4f} in software.")
    sections, numbers = [], {"software": accuracies}
    fronts, rows = studies.ranges(models, data, settings)
    sections.append(studies.ranges_section(fronts, rows))
    numbers["ranges"] = {"fronts": [f.to_dict() for f in fronts], "chips": rows}
    for name in ("tiles", "converters", "errors"):
        section, numbers[name] = getattr(studies, name)(models[0], data, settings)
        sections.append(section)
    for section in sections:
        show(section)
    fronts[0].plot(out / "front.png")
    used = {"preset": FLAGS.preset, **dataclasses.asdict(settings)}
    content = {"settings": used, "seconds": time.monotonic() - start, **numbers}
    write_json(out / "results.json", content)
    title = f"{settings.dataset} on memristor crossbars: accuracy and energy"
    report(out / "report.html", title, settings=used, sections=sections)
    console.print(f"Written to {out}. Done in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    app.run(main)
