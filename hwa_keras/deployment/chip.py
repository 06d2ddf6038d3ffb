"""A chip: a model whose kernels were written to devices once, and age."""

from typing import Any, NoReturn

import keras
import numpy as np
from keras import ops

from hwa_keras import backend, devices
from hwa_keras.conversion.hardware_model import (
    HardwareModel,
    digital_class,
    model_class,
    register_mixin,
)
from hwa_keras.core import random
from hwa_keras.core.checks import check_choice
from hwa_keras.core.keras_private import become, forget_compiled, unlocked
from hwa_keras.core.kernels import Kernel, distinct, find_kernels, hardware_kernels
from hwa_keras.core.modes import current, hardware_mode
from hwa_keras.core.types import Config, Tensor
from hwa_keras.deployment.compensation import Compensation, as_compensation
from hwa_keras.deployment.tile import READ_NOISES, Tile

__all__ = ["Chip", "make_chip"]


@register_mixin
class Chip(HardwareModel):
    """One chip: a copy of a model, of its class, with its kernels on devices.

    `hwa_keras.program` makes one. Every kernel was written once; at the time `t` it
    is read as c(t)·W(t), where c is the drift compensation: a scale on the product of
    inputs and kernel that leaves the bias alone, one per tile. All other weights are
    copies, so training the model further does not change the chip. A chip does what
    the model does, with the model's own methods: it evaluates with its loss, metrics
    and `test_step`, predicts, generates, exports, saves and loads. It does not train.

    Attributes:
        tiles: List of `Tile`s, one per programmed kernel.
        digital: List of pairs (layer path, reason): what stays digital.
        seed: Integer, the seed the chip was programmed with.

    Call arguments:
        *args, **kwargs: What the model takes.
        t: Scalar, seconds since the end of programming; None means the chip's `t`.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> chip = hwa_keras.program(model, "pcm", seed=1)
        >>> isinstance(chip, keras.Sequential), isinstance(chip, hwa_keras.Chip)
        (True, True)
        >>> chip.t = 3600.0
        >>> chip.predict(np.ones((2, 8)), verbose=0).shape
        (2, 3)
        >>> chip(np.ones((2, 8)), t=31_536_000.0).shape == (2, 3)
        True
    """

    is_chip = True
    _programmed_statistics: Any = None

    @property
    def tiles(self) -> list[Tile]:
        """The `Tile`s, in the order of the model's layers."""
        return [k.hardware.tile for k in self.programmed_kernels()]

    def programmed_kernels(self) -> list[Kernel]:
        """The `Kernel`s that are on tiles, in the order of the model's layers."""
        found = find_kernels(self)[0]
        return [
            k for k in found if k.hardware is not None and k.hardware.tile is not None
        ]

    def write(self, seed: int) -> None:
        """Program the same weights onto devices drawn anew, and set t = 0.

        Layers with mismatch of their own, which have a method `draw_chip(seed)`, draw
        it from the same seed.

        Args:
            seed: Integer. The same seed writes the same chip.
        """
        self.reset()
        base = random.seed_from(seed)
        for i, tile in enumerate(self.tiles):
            tile.program(random.fold_in(base, i))
        own = random.fold_in(base, len(self.tiles))
        drawn = [a for a in self._flatten_layers() if hasattr(a, "draw_chip")]
        for i, layer in enumerate(drawn):
            layer.draw_chip(random.fold_in(own, i))
        self.seed = seed
        self.t = 0.0

    def reset(self) -> None:
        """Take back what calibrations and calls have changed.

        These are batch-norm statistics, corrections of outputs and recurrent states.
        """
        for variable, value in self._statistics():
            variable.assign(value)
        for kernel in self.programmed_kernels():
            if kernel.hardware.correction is not None:
                kernel.hardware.correction.reset()
        self.reset_states()

    def reset_states(self) -> None:
        """Have stateful layers, recurrent or spiking, begin anew."""
        for layer in self._flatten_layers():
            if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
                layer.reset_state()

    def _statistics(self):
        """Pairs (statistic of a batch normalization, its value as programmed)."""
        if self._programmed_statistics is None:
            variables = [
                variable
                for layer in self._flatten_layers()
                if isinstance(layer, keras.layers.BatchNormalization)
                for variable in (layer.moving_mean, layer.moving_variance)
            ]
            values = [ops.convert_to_numpy(v.value) for v in variables]
            self._programmed_statistics = lambda: list(
                zip(variables, values, strict=True)
            )
        return self._programmed_statistics()

    @property
    def t(self) -> float:
        """Seconds since the end of programming; set it to let the chip age."""
        return float(ops.convert_to_numpy(self.tiles[0].clock.value))

    @t.setter
    def t(self, value: float) -> None:
        seconds = ops.convert_to_tensor(self.check_time(value), dtype="float32")
        for tile in self.tiles:
            tile.settle(seconds)

    def check_time(self, t: float | Tensor) -> float:
        """Return a time in seconds as a float, if all devices can be read then."""
        return [tile.device.check_time(t) for tile in self.tiles][0]

    @property
    def compensation(self) -> str:
        """How drift is compensated, as the name of a `Compensation`."""
        return self.tiles[0].compensation.name

    @compensation.setter
    def compensation(self, value: str | Compensation) -> None:
        compensation = as_compensation(value)
        if compensation.name == self.compensation:
            return
        gains = [tile.gain for tile in self.tiles]
        for tile in self.tiles:
            tile.compensate(compensation)
            tile.settle(tile.clock.value)
        if any(a is not tile.gain for a, tile in zip(gains, self.tiles, strict=True)):
            forget_compiled(self)  # What was compiled reads the gains of before.

    @property
    def read_noise(self) -> str:
        """Whether reads are noisy: "per_call", "frozen" or "off"."""
        return self.tiles[0].read_noise

    @read_noise.setter
    def read_noise(self, value: str) -> None:
        check_choice("a chip", READ_NOISES, read_noise=value)
        for tile in self.tiles:
            tile.read_noise = value
            tile.settle(tile.clock.value)
        forget_compiled(self)  # What was compiled reads its kernels the old way.

    def __call__(
        self, *args: Any, t: float | Tensor | None = None, **kwargs: Any
    ) -> Any:
        changes = {}
        if t is not None:
            is_number = isinstance(t, (int, float, np.number, np.ndarray))
            if is_number or (ops.is_tensor(t) and not backend.is_symbolic(t)):
                t = self.check_time(t)
            changes["time"] = ops.cast(t, "float32")
        if self.read_noise != "per_call" and current().read_noise is None:
            changes["read_noise"] = self.read_noise
        with hardware_mode(**changes):
            return super().__call__(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """What the model's own `generate` gives on the chip, at its time `t`."""
        own = getattr(super(), "generate", None)
        if own is None:
            raise ValueError(
                f"'{self.name}' is a {digital_class(self).__name__}, which has no "
                "`generate`. Program a model that generates, such as a CausalLM of "
                "keras-hub, or call the chip on tokens: chip(inputs)."
            )
        return own(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"'{self.name}' is a chip, whose weights were written once: it does not "
            "train. Train the model that it was made from, and program it again."
        )

    def get_compile_config(self) -> Config | None:
        config = super().get_compile_config()
        return config and {**config, "optimizer": None}  # A chip does not train.

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tiles": [
                {
                    "path": path,
                    "corrected": kernel.correction is not None,
                    **kernel.tile.description(),
                }
                for path, kernel in _by_path(self).items()
                if kernel.tile is not None
            ],
            "compensation": self.compensation,
            "read_noise": self.read_noise,
            "seed": self.seed,
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Any:
        model = HardwareModel.from_config(config, custom_objects)
        # By the paths that were saved: Keras numbers the names of layers made anew.
        kernels = _by_path(model)
        for entry in config["tiles"]:
            options = {**entry, "device": devices.deserialize(entry["device"])}
            kernel = kernels[options.pop("path")]
            if options.pop("corrected", False):
                kernel.correct_outputs()
            place_tile(kernel, **options)
        make_chip(model, config["digital"], config["seed"])
        for tile in model.tiles:
            tile.compensate(as_compensation(config["compensation"]))
            tile.read_noise = config["read_noise"]
        return model


def _by_path(model):
    """{path: `HardwareKernel`}, where several have one path with a number."""
    kernels = hardware_kernels(model)
    return dict(zip(distinct(k.path for k in kernels), kernels, strict=True))


def place_tile(kernel, device, **options):
    """Give a `HardwareKernel` the devices that hold it, with options of `Tile`."""
    with unlocked(kernel):
        kernel.tile = Tile(device, kernel, **options)


def make_chip(model, digital, seed):
    """Make a chip of a model whose kernels are on tiles, in place."""
    become(model, model_class(Chip, digital_class(model)))
    model.trainable = False
    model.digital = [tuple(pair) for pair in digital]
    model.seed = seed
    model._programmed_statistics = None
    return model
