"""Memristor crossbars: what accuracy costs in energy, and what predicts it.

Trains a network on small images, folds its batch normalization, and puts it on
crossbars: conductance ranges for each layer and one for all, tile sizes with the
voltage drop of wires and without, bits of the ADCs, and the error of the outputs by
moments, by delta and by Monte Carlo.

    python examples/crossbar_power.py --preset=smoke
    python examples/crossbar_power.py --preset=small --out=runs/crossbar_power

Presets are in configs/crossbar_power.yaml; flags go before them.
"""

import dataclasses
from pathlib import Path

import crossbar_studies as studies

from hwa_keras import datasets
from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.recipes import classifier, runner

CONFIG = Path(__file__).parents[1] / "configs/crossbar_power.yaml"


@dataclasses.dataclass(frozen=True)
class Settings(classifier.ImageSettings):
    """What a preset must say; the file explains each key."""

    dataset: str
    network: str
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
    tiles: list[int]
    adc_bits: list[int]
    error_images: int
    draws: int

    def __post_init__(self):
        super().__post_init__()
        check_choice("a preset", studies.NETWORKS, network=self.network)
        check_count("a preset", seeds=self.seeds, chips=self.chips)


def study(run):
    settings = run.settings
    with runner.reading(CONFIG.stem):
        data = datasets.load(settings.dataset)
    data = classifier.standardized(data, settings.train_images, settings.test_images)
    found = [studies.trained(data, settings, seed) for seed in range(settings.seeds)]
    models, accuracies = zip(*found, strict=True)
    sections, numbers = {}, {"software": accuracies}
    fronts, rows = studies.ranges(models, data, settings)
    fronts[0].plot(run.out / "front.png")
    sections["ranges"] = studies.ranges_section(fronts, rows)
    numbers["ranges"] = {"fronts": [f.to_dict() for f in fronts], "chips": rows}
    for name in ("tiles", "converters", "errors"):
        part = getattr(studies, name)
        sections[name], numbers[name] = part(models[0], data, settings)
    run.write_numbers(**numbers)
    title = f"{settings.dataset} on memristor crossbars: accuracy and energy"
    run.write_report(title, sections)


if __name__ == "__main__":
    runner.main(study, Settings, CONFIG)
