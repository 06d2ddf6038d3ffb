"""From a Keras model to a year on phase-change memory, in one run.

A small network learns to read digits. It is programmed onto simulated PCM chips as it
is, then made hardware-aware and programmed again, and both are followed for a year.
What comes out is a table, a plot, a page to read, and a chip to ship.

    python examples/quickstart.py
    python examples/quickstart.py --dataset=mnist --out=runs/mnist
    python examples/quickstart.py --device=simple_pcm --chips=25

Presets are in configs/quickstart.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import math
import time
from pathlib import Path

import keras
import presets
from absl import app, flags, logging
from rich.console import Console

import hwa_keras
from hwa_keras.analysis import TIMES
from hwa_keras.results import report, write_json

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", "digits", ["digits", "mnist"], "What to learn.")
flags.DEFINE_string("config", str(ROOT / "configs/quickstart.yaml"), "Presets.")
flags.DEFINE_string("out", "runs/quickstart", "Folder for all that is written.")
# Left out, these are what the preset says.
OVERRIDES = ("epochs", "hwa_epochs", "chips", "device", "seed")
flags.DEFINE_integer("epochs", None, "Epochs of the digital model.", 1)
flags.DEFINE_integer("hwa_epochs", None, "Epochs of hardware-aware tuning.", 1)
flags.DEFINE_integer("chips", None, "Chips to program per model.", 1)
flags.DEFINE_enum("device", None, ["pcm", "simple_pcm"], "What chips are made of.")
flags.DEFINE_integer("seed", None, "Seed of training and of the first chip.", 0)

console = Console()


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; configs/quickstart.yaml explains each key."""

    hidden: list
    dropout: float
    batch_size: int
    learning_rate: float
    epochs: int
    hwa_learning_rate: float
    hwa_epochs: int
    noise_scale: float
    ramp_epochs: int
    device: str
    chips: int
    seed: int

    def __post_init__(self):
        hwa_keras.devices.get(self.device)  # An unknown one is an error right here.
        for key in ("batch_size", "epochs", "hwa_epochs", "ramp_epochs", "chips"):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}` must be at least 1.")


def multilayer_perceptron(input_shape, num_classes, settings):
    """Plain Keras: nothing in the model knows about hardware."""
    layers = [keras.Input(input_shape), keras.layers.Flatten()]
    for units in settings.hidden:
        layers += [
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(settings.dropout),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(num_classes)], name="digital")


def fit(model, data, learning_rate, epochs, batch_size, callbacks=None):
    """Compile and train with Adam; hardware-aware or not, it is the same `fit`."""
    x, y = data.train
    steps = epochs * math.ceil(len(x) / batch_size)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size, epochs, verbose=2, callbacks=callbacks)
    accuracy = model.evaluate(*data.test, verbose=0, return_dict=True)["accuracy"]
    console.print(f"Test accuracy of {model.name} in software: {accuracy:.4f}")
    return accuracy


def make_hardware_aware(digital, data, settings):
    """Fine-tune a copy of the digital model under the noise of programming."""
    copy = keras.models.clone_model(digital)  # Both models are wanted at the end.
    copy.set_weights(digital.get_weights())
    copy.name = "hardware_aware"
    hwa = hwa_keras.to_hwa(
        copy,
        kernel_noise=hwa_keras.noise.ProgrammingNoise(settings.device),
        seed=settings.seed,
    )
    # Trained under more noise than the chip has, the model tolerates the chip's; the
    # ramp gives it time to adapt.
    ramp = hwa_keras.training.NoiseRamp(
        stop=settings.noise_scale, epochs=settings.ramp_epochs
    )
    training = settings.hwa_learning_rate, settings.hwa_epochs, settings.batch_size
    accuracy = fit(hwa, data, *training, callbacks=[ramp])
    return hwa, accuracy


def follow_for_a_year(model, data, settings):
    """Program many chips and evaluate them from a second to a year later."""
    result = hwa_keras.drift_sweep(
        model,
        settings.device,
        data.test,
        chips=settings.chips,
        seed=settings.seed,
    )
    console.print(result.table())
    return result


def ship(model, data, settings, out):
    """Program one chip, write it in three formats, and run what was written."""
    chip = hwa_keras.program(model, settings.device, seed=settings.seed)
    chip.save(out / "chip.keras")
    hwa_keras.export(chip, out / "saved_model", overwrite=True)
    hwa_keras.export_tflite(chip, out / "chip.tflite", overwrite=True)
    x = data.test[0][:256]
    for artefact in ("saved_model", "chip.tflite"):
        difference = hwa_keras.verify_export(out / artefact, chip, x, TIMES.values())
        console.print(f"Largest relative difference of {artefact}: {difference:.1e}")


def write_results(results, settings, out):
    """All numbers as CSV and JSON, each chip's in the latter, and the plot."""
    digital, hwa = results
    digital.to_csv(out / "results.csv", hwa)
    content = {"settings": settings, "results": [r.to_dict() for r in results]}
    write_json(out / "results.json", content)
    hwa.plot(out / "drift.png", axes=digital.plot())


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)  # TensorFlow reports on each export else.
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    settings, data, out = presets.begin(
        "quickstart",
        FLAGS.dataset,
        FLAGS.out,
        lambda: presets.read(FLAGS.config, FLAGS.dataset, Settings, overrides),
    )
    keras.utils.set_random_seed(settings.seed)

    console.rule("1. Train a digital model")
    digital = multilayer_perceptron(data.train[0].shape[1:], data.num_classes, settings)
    training = settings.learning_rate, settings.epochs, settings.batch_size
    accuracy = fit(digital, data, *training)

    console.rule("2. Put it on chips as it is")
    results = [follow_for_a_year(digital, data, settings)]

    console.rule("3. Make it hardware-aware")
    hwa, hwa_accuracy = make_hardware_aware(digital, data, settings)

    console.rule("4. Put that on the same chips")
    results.append(follow_for_a_year(hwa, data, settings))

    console.rule("5. Ship a chip")
    ship(hwa, data, settings, out)

    console.rule("6. Write it all down")
    used = {"dataset": FLAGS.dataset, **dataclasses.asdict(settings)}
    write_results(results, used, out)
    report(
        out / "report.html",
        f"{FLAGS.dataset}: a year on {settings.device}",
        results,
        conversions=hwa,
        settings=used,
        notes=[
            f"In software, the test accuracy of the digital model is {accuracy:.4f}, "
            f"that of the hardware-aware model {hwa_accuracy:.4f}."
        ],
    )
    for path in sorted(out.iterdir()):
        console.print(f"  {path}")
    console.print(f"Done in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    app.run(main)
