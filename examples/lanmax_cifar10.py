"""How unreliable may a memory be? Bit errors, energy and accuracy, layer by layer.

A binary network is stored in SRAM near threshold, where the lower the supply, the more
bits are read wrong. Networks are trained for one error rate in all layers, and with
LaNMax, which learns a rate for each layer; beside them smaller networks, in binary and
in 16-bit floats, in reliable memory.

    python examples/lanmax_cifar10.py --preset=small --out=runs/lanmax
    KERAS_BACKEND=jax python examples/lanmax_cifar10.py --preset=paper

Presets are in configs/lanmax_cifar10.yaml; flags go before them.
"""

import dataclasses
from pathlib import Path

from lanmax_report import sections_of
from lanmax_training import NETWORKS, looks, measured

from hwa_keras import datasets
from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.recipes import classifier, runner

CONFIG = Path(__file__).parents[1] / "configs/lanmax_cifar10.yaml"


@dataclasses.dataclass(frozen=True)
class Settings(classifier.ImageSettings):
    """What a preset must say; configs/lanmax_cifar10.yaml explains each key."""

    dataset: str
    network: str
    widths: list[int]
    rates: list[float]
    alphas: list[float]
    h: float
    p_learning_rate: float | None
    seeds: int
    draws: int
    tolerance: float
    read_rates: list[float]
    sensitivity_chips: int

    def __post_init__(self):
        super().__post_init__()
        check_choice("a preset", NETWORKS, network=self.network)
        check_count("a preset", seeds=self.seeds, draws=self.draws)
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


def study(run):
    settings = run.settings
    with runner.reading(CONFIG.stem):
        data = datasets.load(settings.dataset)
    data = classifier.standardized(data, settings.train_images, settings.test_images)
    records, uniform = measured(settings, data)
    run.write_numbers(trainings=records)
    sections = sections_of(records, settings, *looks(uniform, settings, data))
    run.write_report(f"{data.name}: bit errors, energy and accuracy", sections)


if __name__ == "__main__":
    runner.main(study, Settings, CONFIG)
