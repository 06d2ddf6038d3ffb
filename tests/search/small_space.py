"""A small architecture space, and objectives that other processes can import."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Option:
    """A choice of the space."""

    name: str
    options: tuple


class SmallSpace:
    """Two stages of one to three blocks, each block with a width and two layers."""

    def __init__(self, stages=2, blocks=3, widths=(0.5, 0.75, 1.0)):
        self.stages, self.blocks = stages, blocks
        self.choices = tuple(
            choice
            for s in range(stages)
            for choice in (
                Option(f"depth{s}", tuple(range(1, blocks + 1))),
                *(Option(f"width{s}{b}", widths) for b in range(blocks)),
            )
        )
        self.layers = tuple(
            f"{s}{b}{part}"
            for s in range(stages)
            for b in range(blocks)
            for part in "ab"
        )

    def encode(self, config):
        return np.array([c.options.index(config[c.name]) for c in self.choices])

    def decode(self, indices):
        config = {
            c.name: c.options[int(i)]
            for c, i in zip(self.choices, indices, strict=True)
        }
        for c in self.choices:
            if c.name.startswith("width"):
                stage, block = c.name[-2:]
                if int(block) >= config[f"depth{stage}"]:
                    config[c.name] = c.options[0]
        return config

    def sample(self, rng):
        return self.decode([rng.integers(len(c.options)) for c in self.choices])

    def active(self, config):
        return np.array(
            [
                block < config[f"depth{stage}"]
                for stage in range(self.stages)
                for block in range(self.blocks)
                for _ in "ab"
            ]
        )


class OnlyRanges:
    """No choices: multipliers alone, all in use."""

    choices = ()

    def __init__(self, count):
        self.layers = tuple(map(str, range(count)))

    def encode(self, config):
        return np.zeros(0, int)

    def decode(self, indices):
        return {}

    def sample(self, rng):
        return {}

    def active(self, config):
        return np.ones(len(self.layers), bool)


class Model:
    """Accuracy that grows with size and ranges, and power that grows with both.

    Args:
        failing: Depth of the first stage at which the accuracy is NaN, or None.
        killed_at: Number of the call at which the process ends, or None.
    """

    directions = {"accuracy": "max", "power": "min"}

    def __init__(self, failing=None, killed_at=None):
        self.failing, self.killed_at, self.calls = failing, killed_at, 0

    def __call__(self, candidate):
        self.calls += 1
        if self.calls == self.killed_at:
            os._exit(9)
        config, multipliers = candidate.config, np.array(candidate.multipliers)
        if config["depth0"] == self.failing:
            return {"accuracy": float("nan"), "power": 1.0}
        size = sum(v for name, v in config.items() if name.startswith("width"))
        size += config["depth0"] + config["depth1"]
        used = multipliers[multipliers > 0]
        noise = np.mean(np.linspace(0.5, 2.0, len(used)) / used**2)
        return {
            "accuracy": float(round(1 - np.exp(-size / 4) - 0.02 * noise, 9)),
            "power": float(round(size * np.mean(used), 9)),
        }


class Zdt1:
    """The test problem ZDT1, whose front is f₂ = 1 − √f₁."""

    directions = {"first": "min", "second": "min"}

    def __call__(self, candidate):
        x = np.array(candidate.multipliers)
        g = 1 + 9 * np.mean(x[1:])
        return {"first": x[0], "second": g * (1 - np.sqrt(x[0] / g))}


class CountProcess:
    """Notes the processes that it runs in."""

    directions = {"accuracy": "max", "power": "min"}

    def __init__(self, folder):
        self.folder, self.model = folder, Model()

    def __call__(self, candidate):
        (Path(self.folder) / str(os.getpid())).touch()
        return self.model(candidate)
