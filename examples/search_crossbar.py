"""Architecture search with memristor crossbars in the loop.

Trains a supernet once, and searches it for networks of high accuracy and little power:
architectures alone (M1), with a conductance range for each layer (M2) or one multiplier
of all ranges (M2u), and M1's networks scaled afterwards (M3). Then it makes the best
ones: extracted, tuned under noise, programmed, followed for a year and exported.

    python examples/search_crossbar.py --preset=smoke
    python examples/search_crossbar.py --preset=small --out=runs/search_crossbar

A run that was stopped goes on where it was. Presets are in
configs/search_crossbar.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import time
from pathlib import Path

import presets
import search_networks as networks
import search_studies as studies
from absl import app, flags, logging
from search_training import train_supernet
from study import console, show

from hwa_keras.results import report, write_json
from hwa_keras.search import spaces

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_enum("preset", "smoke", ["smoke", "small", "paper"], "How large a run.")
flags.DEFINE_string(
    "config", str(ROOT / "configs/search_crossbar.yaml"), "File of the presets."
)
flags.DEFINE_string("out", "runs/search_crossbar", "Folder for all that is written.")
# Left out, these are what the preset says.
OVERRIDES = ("dataset", "epochs", "seeds", "population", "generations", "sigma")
flags.DEFINE_string("dataset", None, "Images to learn.")
flags.DEFINE_integer("epochs", None, "Epochs of the supernet's training.", 1)
flags.DEFINE_integer("seeds", None, "Searches of each mode.", 1)
flags.DEFINE_integer("population", None, "Candidates of a generation.", 2)
flags.DEFINE_integer("generations", None, "Generations of a search.", 1)
flags.DEFINE_float("sigma", None, "Programming noise, µS.", 0.0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; the file explains each key."""

    dataset: str
    space: str
    resolution: list
    train_images: int
    search_images: int
    test_images: int
    augment: bool
    batch_size: int
    epochs: int
    learning_rate: float
    weight_decay: float
    calibration_images: int
    sigma: float
    g_u: float
    batches_accuracy: int
    batches_power: int
    eval_batch: int
    population: int
    generations: int
    seeds: int
    rank_networks: int
    rank_batches: int
    best: int
    tune_epochs: int
    tune_rate: float
    chips: int

    def __post_init__(self):
        if self.space not in spaces.__all__:
            raise ValueError(f"`space` must be one of {', '.join(spaces.__all__)}.")
        needed = self.eval_batch * max(self.batches_accuracy, self.rank_batches)
        if needed > self.search_images:
            raise ValueError(f"`search_images` must be {needed} or more.")


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    settings = presets.checked(
        "search_crossbar",
        lambda: presets.read(FLAGS.config, FLAGS.preset, Settings, overrides),
    )
    data, out = presets.begin("search_crossbar", settings.dataset, FLAGS.out)
    images = studies.parts(data, settings)
    space = getattr(spaces, settings.space)(
        tuple(settings.resolution), data.train[0].shape[-1], data.num_classes
    )
    supernet = train_supernet(
        space,
        images["train"],
        out / "supernet.keras",
        settings.epochs,
        settings.batch_size,
        settings.learning_rate,
        settings.weight_decay,
        settings.augment,
    )
    console.print(f"Supernet trained, {time.monotonic() - start:.0f} s so far.")
    objective = studies.objective_of(supernet, images["search"], images, settings)
    sections, numbers = [], {}
    section, numbers["samples"] = studies.samples(supernet, images, settings)
    sections.append(section)
    numbers["speed"] = studies.speed(objective)
    results = studies.searches(objective, settings, out)
    tested = studies.tested(results, supernet, images, settings, out)
    section, numbers["modes"] = studies.modes(tested, numbers["speed"])
    sections.append(section)
    section, numbers["networks"] = networks.made(
        tested["M2"][0], objective, images, settings, out
    )
    sections.append(section)
    for section in sections:
        show(section)
    used = {"preset": FLAGS.preset, **dataclasses.asdict(settings)}
    content = {"settings": used, "seconds": time.monotonic() - start, **numbers}
    write_json(out / "results.json", content)
    title = f"{settings.dataset}: architectures for memristor crossbars"
    report(out / "report.html", title, settings=used, sections=sections)
    console.print(f"Written to {out}. Done in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    app.run(main)
