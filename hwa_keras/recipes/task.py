"""A task of the recipe of two phases: its settings, and what differs by network."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from hwa_keras import devices, noise, quantizers, training
from hwa_keras.conversion import to_hwa

__all__ = ["Task", "TwoPhaseSettings"]


@dataclass(frozen=True)
class TwoPhaseSettings:
    """What a recipe of two phases is run with.

    Args:
        batch_size: Integer, examples of a step.
        epochs: Integer, of the teacher.
        learning_rate: Float, of the teacher.
        hwa_epochs: Integer, of the student.
        hwa_learning_rate: Float, of the student.
        noise_scale: Float ≥ 0, the factor on the programming noise of training.
        ramp_epochs: Integer ≥ 0, epochs over which it grows to that.
        drop_connect: Float in [0, 1), the share of weights that are dropped.
        clip: Float, weights are clipped at so many standard deviations; 0 is never.
        levels: Integer, of the weights.
        scale: String, the scale of `quantizers.Uniform`.
        remap_interval: Integer ≥ 0, steps between two remappings; 0 is never.
        distillation: Float in [0, 1], the teacher's share of the loss.
        temperature: Float > 0, of the distillation.
        device: String, the name of the device that chips are made of.
        per: `"layer"` or `"column"`: what has a conductance range of its own.
        chips: Integer, chips of each network.
        seed: Integer, of training and of the first chip.

    Raises:
        ValueError: If one of them is out of its range.
    """

    batch_size: int
    epochs: int
    learning_rate: float
    hwa_epochs: int
    hwa_learning_rate: float
    noise_scale: float
    ramp_epochs: int
    drop_connect: float
    clip: float
    levels: int
    scale: str
    remap_interval: int
    distillation: float
    temperature: float
    device: str
    per: str
    chips: int
    seed: int

    def __post_init__(self):
        self.chip()  # An unknown one is an error right here.
        quantizers.Uniform(self.levels, self.scale)
        for key in ("batch_size", "epochs", "hwa_epochs", "chips"):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}` must be at least 1.")
        training.NoiseRamp(stop=self.noise_scale, epochs=self.ramp_epochs)

    def chip(self) -> devices.Device:
        """The device that chips are made of."""
        if self.device == "pcm":
            return devices.PCM(per=self.per)
        return devices.get(self.device)

    def hardware(self) -> dict[str, Any]:
        """The quantizer and the noise of every kernel that goes on hardware."""
        return {
            "kernel_quantizer": quantizers.Uniform(self.levels, self.scale),
            "kernel_noise": noise.Compose(
                [
                    noise.DropConnect(self.drop_connect),
                    noise.ProgrammingNoise(self.chip()),
                ]
            ),
        }


class Task:
    """What differs between networks that the recipe of two phases trains.

    Attributes:
        name: String.
        settings: A `TwoPhaseSettings`.
        metric: Name of the compiled metric that tables show.
        train: What `fit` reads: a `Batches` or `Windows`.
        validation: What `fit` validates on, or None.
        test: What the software is evaluated on.
        chip_test: What chips are evaluated on, which takes a thousand evaluations.
        calibration: Inputs for AdaBS, or None for networks without batch normalization.
        example: Inputs on which the export is compared with the chip.
        resets: Callbacks of every `fit` and `evaluate`.
    """

    name: str
    settings: TwoPhaseSettings
    train: Any
    test: Any
    chip_test: Any
    example: Any
    metric = "accuracy"
    validation = None
    calibration = None
    resets: tuple[Any, ...] = ()

    def digital(self) -> keras.Model:
        """The network before any training here, built."""
        raise NotImplementedError

    def compile(self, model: keras.Model, learning_rate: float, epochs: int) -> None:
        """Compile a model for a training, or for evaluation."""
        raise NotImplementedError

    def student(self, teacher: keras.Model) -> keras.Model:
        """A hardware-aware network with the weights of a teacher, which it may take."""
        teacher.name = "hwa"
        return to_hwa(
            teacher,
            **self.settings.hardware(),
            seed=self.settings.seed,
            verbose=0,  # The page of the run says it.
        )

    @functools.cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of what is trained, which tell one architecture from another."""
        return [tuple(w.shape) for w in self.digital().trainable_weights]

    def callbacks(self, folder: Path) -> list[Any]:
        """Callbacks of a training that writes to a folder."""
        return []

    def finish(self, model: keras.Model, folder: Path) -> None:
        """Whatever follows a training."""
