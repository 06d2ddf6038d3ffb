"""How unreliable may a memory be? Bit errors, energy and accuracy, layer by layer.

A binary network is stored in SRAM near threshold, where the lower the supply, the more
bits are read wrong. Networks are trained for one error rate in all layers, and with
LaNMax, which learns a rate for each layer; beside them smaller networks, in binary and
in 16-bit floats, in reliable memory.

    python examples/lanmax_cifar10.py --preset=small --out=runs/lanmax
    KERAS_BACKEND=jax python examples/lanmax_cifar10.py --preset=paper

Presets are in configs/lanmax_cifar10.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import time
from pathlib import Path

import presets
from absl import app, flags, logging
from lanmax_report import sections_of
from lanmax_training import NETWORKS, measure, points, read_at, train
from study import check, console, prepared, show

import hwa_keras
from hwa_keras.analysis import compare_spectra, layer_sensitivity
from hwa_keras.results import report, write_json

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_enum("preset", "smoke", ["smoke", "small", "paper"], "How large a run.")
flags.DEFINE_string("config", str(ROOT / "configs/lanmax_cifar10.yaml"), "Presets.")
flags.DEFINE_string("out", "runs/lanmax_cifar10", "Folder for all that is written.")
# Left out, these are what the preset says.
OVERRIDES = ("dataset", "network", "epochs", "seeds", "draws", "alphas", "rates")
flags.DEFINE_enum("dataset", None, ["digits", "mnist", "cifar10"], "What to learn.")
flags.DEFINE_enum("network", None, sorted(NETWORKS), "What to train.")
flags.DEFINE_integer("epochs", None, "Epochs of each training.", 2)
flags.DEFINE_integer("seeds", None, "Trainings of each point.", 1)
flags.DEFINE_integer("draws", None, "Draws of wrong bits to evaluate a training.", 1)
flags.DEFINE_multi_float("alphas", None, "Weight of the energy in LaNMax; repeated.")
flags.DEFINE_multi_float("rates", None, "Bit error rate of all layers; repeated.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; configs/lanmax_cifar10.yaml explains each key."""

    dataset: str
    network: str
    widths: list
    train_images: int
    test_images: int
    augment: bool
    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    weight_decay: float
    rates: list
    alphas: list
    h: float
    p_learning_rate: float | None
    seeds: int
    draws: int
    tolerance: float
    read_rates: list
    sensitivity_chips: int

    def __post_init__(self):
        check(self, network=NETWORKS)
        for key in ("widths", "rates", "alphas", "read_rates"):
            if not getattr(self, key):
                raise ValueError(f"`{key}` must not be empty.")
        if not all(0 <= p <= 0.5 for p in [*self.rates, *self.read_rates]):
            raise ValueError("`rates` and `read_rates` are from 0 to 0.5.")
        if not all(alpha >= 0 for alpha in self.alphas):
            raise ValueError("`alphas` must not be negative.")
        if self.epochs < 2:
            raise ValueError(
                "`epochs` must be 2 or more: LaNMax learns in 80 % of them."
            )


def run(settings, data):
    """Train and measure everything.

    Returns:
        A list of records, one per training: what JSON can hold.
        A dictionary of the networks trained at one p for all: lists by p.
    """
    records, uniform = [], {p: [] for p in settings.rates}
    for point in points(settings):
        for seed in range(settings.seeds):
            start = time.monotonic()
            model, history = train(point, settings, data, seed)
            trained = time.monotonic()
            record = measure(model, point, settings, data, seed)
            record.update(dataclasses.asdict(point), label=point.label, seed=seed)
            record["history"] = history
            if point.curve == "uniform":
                uniform[point.p].append(model)
                record["read_at"] = read_at(
                    model, settings.read_rates, settings, data, seed
                )
            records.append(record)
            accuracy = sum(record["accuracy"]) / len(record["accuracy"])
            console.print(
                f"{point.curve}, {point.label}, seed {seed}: {record['energy']:,.0f} "
                f"bits' energy, accuracy {accuracy:.4f} (trained in "
                f"{trained - start:.0f} s, measured in "
                f"{time.monotonic() - trained:.0f} s)"
            )
    return records, uniform


def looks(uniform, settings, data):
    """Which layers bear noise, and what it does to the spectra of the weights."""
    p = min(settings.rates, key=lambda rate: abs(rate - 0.01))
    sensitivity = layer_sensitivity(
        uniform[p][0],
        data.test,
        p_base=p,
        chips=settings.sensitivity_chips,
        batch_size=500,
        verbose=0,
    )
    spectra = None
    if settings.seeds >= 2 and len(settings.rates) >= 2:
        # As in the thesis, the last layer but one: large, and robust.
        kernels = hwa_keras.memory_energy(uniform[p][0]).kernels
        layer = kernels[-2].path.rpartition("/")[0]
        spectra = compare_spectra(
            uniform[min(settings.rates)], uniform[max(settings.rates)], layer=layer
        )
    return sensitivity, spectra


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    settings = presets.checked(
        "lanmax_cifar10",
        lambda: presets.read(FLAGS.config, FLAGS.preset, Settings, overrides),
    )
    data, out = presets.begin("lanmax_cifar10", settings.dataset, FLAGS.out)
    data = prepared(data, settings)
    records, uniform = run(settings, data)
    used = {"preset": FLAGS.preset, **dataclasses.asdict(settings)}
    content = {"settings": used, "trainings": records}
    write_json(out / "results.json", content)
    sections = sections_of(records, settings, *looks(uniform, settings, data))
    for key, section in sections.items():
        show(section)
        if section.figure is not None:
            section.figure.savefig(out / f"{key}.png", dpi=150)
    title = f"{data.name}: bit errors, energy and accuracy"
    report(out / "report.html", title, settings=used, sections=sections.values())
    console.print(f"Written to {out}. Done in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    app.run(main)
