"""How few bits and how imperfect circuits a network bears: a study in six parts.

a  A float network for digits: data, training, evaluation.
b  The same network with binary, ternary and DoReFa weights and activations.
c  Accuracy, memory, operations, file size and latency side by side.
d  Gaussian noise on the outputs of layers: trained under some, tested under some.
e  Process variation of the weights: many chips, trained with it and without.
f  Outputs that saturate and have few bits: trained with them and without.

    python examples/mnist_larq_study.py
    python examples/mnist_larq_study.py --dataset=mnist --out=runs/mnist_larq_study

Presets are in configs/mnist_larq_study.yaml; flags go before them.
"""

import dataclasses
from pathlib import Path

from larq_networks import VARIANTS
from larq_studies import (
    Study,
    bear_noise,
    bear_saturation,
    bear_variation,
    compare_bits,
)

from hwa_keras import datasets
from hwa_keras.core.checks import check_count
from hwa_keras.recipes import runner

CONFIG = Path(__file__).parents[1] / "configs/mnist_larq_study.yaml"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; configs/mnist_larq_study.yaml explains each key."""

    hidden: list[int]
    networks: list[str]
    batch_size: int
    learning_rate: float
    epochs: int
    tune_learning_rate: float
    tune_epochs: int
    noise_train: list[float]
    noise_test: list[float]
    noise_draws: int
    variation_train: float
    variation_test: list[float]
    chips: int
    saturation_ranges: list[float]
    saturation_bits: list[int]
    seed: int

    def __post_init__(self):
        check_count("a preset", epochs=self.epochs, tune_epochs=self.tune_epochs)
        check_count("a preset", least=2, chips=self.chips)
        unknown = [name for name in self.networks if name not in VARIANTS]
        if unknown or self.networks[:1] != ["float"]:
            raise ValueError(
                "`networks` must begin with float, and may have "
                f"{', '.join(list(VARIANTS)[1:])}. Received: {self.networks}."
            )
        if 0 not in self.noise_train:
            raise ValueError("`noise_train` must have 0, to compare with.")
        if self.variation_train not in self.variation_test:
            raise ValueError("`variation_test` must have the level trained for.")


def study(run):
    dataset = run.used["dataset"]
    with runner.reading(CONFIG.stem):
        parts = Study(datasets.load(dataset), run.settings, run.out)
    base = compare_bits(parts)
    bear_noise(parts, base)
    bear_variation(parts, base)
    bear_saturation(parts, base)
    run.write_numbers(**parts.numbers)
    title = f"{dataset}: few bits and imperfect circuits"
    run.write_report(title, parts.sections)


if __name__ == "__main__":
    runner.main(study, Settings, CONFIG, "dataset", "digits")
