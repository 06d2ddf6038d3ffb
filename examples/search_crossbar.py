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

import dataclasses
from pathlib import Path

import search_networks as networks
import search_studies as studies
from search_training import train_supernet

from hwa_keras import datasets
from hwa_keras.core.checks import check_count
from hwa_keras.recipes import runner
from hwa_keras.search import spaces

CONFIG = Path(__file__).parents[1] / "configs/search_crossbar.yaml"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; the file explains each key."""

    dataset: str
    space: str
    resolution: list[int]
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
        check_count("a preset", epochs=self.epochs, seeds=self.seeds)
        check_count("a preset", generations=self.generations, chips=self.chips)
        check_count("a preset", least=2, population=self.population)
        needed = self.eval_batch * max(self.batches_accuracy, self.rank_batches)
        if needed > self.search_images:
            raise ValueError(f"`search_images` must be {needed} or more.")


def study(run):
    settings = run.settings
    with runner.reading(CONFIG.stem):
        data = datasets.load(settings.dataset)
        images = studies.parts(data, settings)
    shape = tuple(settings.resolution), data.train[0].shape[-1], data.num_classes
    space = getattr(spaces, settings.space)(*shape)
    path = run.out / "supernet.keras"
    supernet = train_supernet(space, images["train"], path, settings)
    runner.console.print(f"Supernet trained, {run.seconds:.0f} s so far.")
    objective = studies.objective_of(supernet, images["search"], images, settings)
    samples, samples_found = studies.samples(supernet, images, settings)
    speed = studies.speed(objective)
    results = studies.searches(objective, settings, run.out)
    tested = studies.tested(results, supernet, images, settings, run.out)
    modes, modes_found = studies.modes(tested, speed)
    best = tested["M2"][0]
    made, made_found = networks.made(best, objective, images, settings, run.out)
    found = {"samples": samples_found, "speed": speed}
    run.write_numbers(**found, modes=modes_found, networks=made_found)
    title = f"{settings.dataset}: architectures for memristor crossbars"
    sections = {"samples": samples, "fronts": modes, "networks": made}
    run.write_report(title, sections)


if __name__ == "__main__":
    runner.main(study, Settings, CONFIG)
