"""ArchitectureSpace: the networks that a search chooses from."""

import math
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import keras
import numpy as np

from hwa_keras.core.checks import check_choice, check_count, is_number
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import ArrayLike, Config, Self
from hwa_keras.search.sizes import Choice, Size
from hwa_keras.search.supernets.blocks import BLOCKS, walk

__all__ = ["ArchitectureSpace", "Stage"]


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind after each other, with what can be chosen of them.

    Args:
        block: `"conv"`, a convolution; `"residual"`, two of them around which the input
            is added; `"bottleneck"`, 1×1, k×k and 1×1, added as well; or `"mbconv"`,
            the inverted bottleneck with a depthwise convolution.
        depth: Numbers of blocks, tuple of integers ≥ 1.
        width: Channels that come out, tuple of integers ≥ 1.
        expansion: Channels inside of a block: relative to those that come out, or with
            `"mbconv"` to those that come in. Tuple of numbers > 0, chosen for each
            block. Not for `"conv"`. Defaults to `(1.0,)`.
        kernel_size: Odd integers, chosen for each block; a smaller kernel is the middle
            of the larger one. Defaults to `(3,)`.
        strides: Integer ≥ 1, of the first block. Defaults to `1`.

    Raises:
        ValueError: If a tuple is empty or an option is not allowed.

    Example:
        >>> stage = hwa_keras.search.Stage("residual", depth=(1, 2), width=(8, 16))
        >>> stage.kernel_size
        (3,)
    """

    block: str
    depth: Any  # A number too, until it is checked; so for the next three.
    width: Any
    expansion: Any = (1.0,)
    kernel_size: Any = (3,)
    strides: int = 1

    def __post_init__(self):
        check_choice("Stage", tuple(BLOCKS), block=self.block)
        check_count("Stage", strides=self.strides)
        for name in ("depth", "width", "kernel_size"):
            _sort(self, "Stage", name, _is_count, "integers ≥ 1")
        _sort(self, "Stage", "expansion", _is_positive, "numbers > 0")
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(
                "`kernel_size` of Stage must be odd, so that a smaller kernel is the "
                f"middle of a larger one. Received: kernel_size={self.kernel_size}."
            )
        if 1 in self.kernel_size and len(self.kernel_size) > 1:
            raise ValueError(
                "`kernel_size` of Stage: 1 stands alone, as with strides its products "
                "lie elsewhere than the middles of larger kernels. Received: "
                f"kernel_size={self.kernel_size}."
            )
        if self.block == "conv" and self.expansion != (1.0,):
            raise ValueError(
                'A "conv" has no channels inside: leave `expansion` out. Received: '
                f"expansion={self.expansion}."
            )


@keras.saving.register_keras_serializable(package=PACKAGE)
@dataclass(frozen=True)
class ArchitectureSpace:
    """Networks that a search chooses from: all that their stages allow.

    A network is a convolution, the stages, the mean over the image and a dense layer to
    logits, with batch normalization after each convolution and ReLUs. A *configuration*
    is a dictionary from the names of choices to options, plain values for JSON.
    Settings with a single option are no choices. Each block has its own kernel size and
    expansion; where the depth leaves a block out, these do not matter, and `decode` and
    `sample` give the first option.

    Args:
        stages: Tuple of `Stage`s.
        resolution: Height and width to which images are resized first, tuple of
            integers. Images come in the largest. Defaults to `(32,)`.
        stem: Integer ≥ 1, channels of the first convolution. Defaults to `16`.
        stem_kernel_size: Odd integer, its kernel. Defaults to `3`.
        stem_strides: Integer ≥ 1, its strides. Defaults to `1`.
        stem_pool: Bool. Whether a 3×3 max pooling with strides 2 follows it. Defaults
            to `False`.
        channels: Integer ≥ 1, channels of the images. Defaults to `3`.
        classes: Integer ≥ 1, logits. Defaults to `10`.

    Attributes:
        choices: Tuple of `Choice(name, options)`, all settings with several options.
        layers: Tuple of the names of all layers with a kernel in the largest network.

    Raises:
        ValueError: If there are no stages, a tuple is empty, an option is not allowed,
            or a stage shrinks the smallest image below one pixel.

    Example:
        >>> space = hwa_keras.search.ArchitectureSpace(
        ...     (hwa_keras.search.Stage("conv", (1, 2), (8, 16)),), resolution=(8,)
        ... )
        >>> [choice.name for choice in space.choices]
        ['stage0.depth', 'stage0.width']
        >>> space.layers
        ('stem', 'stage0_block0_conv', 'stage0_block1_conv', 'classifier')
        >>> space.active(space.smallest).tolist()
        [True, True, False, True]
        >>> space.encode({"stage0.depth": 2, "stage0.width": 8}).tolist()
        [1, 0]

    Reference:
        - H. Cai et al., "Once-for-all: train one network and specialize it for
          efficient deployment", ICLR 2020, arXiv:1908.09791.
    """

    stages: tuple[Stage, ...]
    resolution: tuple[int, ...] = (32,)
    stem: int = 16
    stem_kernel_size: int = 3
    stem_strides: int = 1
    stem_pool: bool = False
    channels: int = 3
    classes: int = 10

    def __post_init__(self):
        stages = self.stages
        stages = (stages,) if isinstance(stages, Stage) else tuple(stages)
        object.__setattr__(self, "stages", stages)
        if not stages or not all(isinstance(stage, Stage) for stage in stages):
            raise ValueError(
                "`stages` of ArchitectureSpace must be a tuple of Stage(...)s, at "
                f"least one. Received: stages={stages!r}."
            )
        for name in ("stem", "stem_strides", "channels", "classes", "stem_kernel_size"):
            check_count("ArchitectureSpace", **{name: getattr(self, name)})
        if self.stem_kernel_size % 2 == 0:
            raise ValueError(
                "`stem_kernel_size` of ArchitectureSpace must be odd. Received: "
                f"stem_kernel_size={self.stem_kernel_size}."
            )
        check_choice("ArchitectureSpace", (True, False), stem_pool=self.stem_pool)
        _sort(self, "ArchitectureSpace", "resolution", _is_count, "integers ≥ 1")
        walk(self, _Pixels(self.resolution[0]), self.resolution[0])

    @cached_property
    def kernels(self) -> tuple[Any, ...]:
        """The `Kernel`s of the largest network, in order."""
        builder = _Listing()
        walk(self, builder, None)
        return tuple(builder.kernels)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        return tuple(kernel.name for kernel in self.kernels)

    @cached_property
    def image_size(self) -> Size:
        """`Size`, height and width of the images in the network."""
        return Size.of(Choice("resolution", self.resolution))

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        found = [Choice("resolution", self.resolution)]
        for i, stage in enumerate(self.stages):
            found += [
                Choice(f"stage{i}.{name}", getattr(stage, name))
                for name in ("depth", "width")
            ]
            found += [
                Choice(f"stage{i}.block{j}.{name}", getattr(stage, name))
                for j in range(max(stage.depth))
                for name in ("expansion", "kernel_size")
            ]
        return tuple(choice for choice in found if len(choice.options) > 1)

    @property
    def largest(self) -> dict[str, Any]:
        """The configuration with the largest option of each choice."""
        return {choice.name: choice.options[-1] for choice in self.choices}

    @property
    def smallest(self) -> dict[str, Any]:
        """The configuration with the smallest option of each choice."""
        return {choice.name: choice.options[0] for choice in self.choices}

    @property
    def count(self) -> int:
        """How many configurations there are, those that mean the same counted once."""
        return len(self.resolution) * math.prod(
            len(stage.width)
            * sum(
                (len(stage.expansion) * len(stage.kernel_size)) ** depth
                for depth in stage.depth
            )
            for stage in self.stages
        )

    def encode(self, config: dict[str, Any]) -> np.ndarray:
        """The index of each choice's option, an integer array.

        Raises:
            ValueError: If a choice is missing, unknown or not among its options.
        """
        names = [choice.name for choice in self.choices]
        if not isinstance(config, dict) or set(config) != set(names):
            raise ValueError(
                f"A configuration is a dictionary with the keys {', '.join(names)}. "
                f"Received: {config!r}."
            )
        for choice in self.choices:
            if config[choice.name] not in choice.options:
                raise ValueError(
                    f"'{choice.name}' must be one of {choice.options}. Received: "
                    f"{config[choice.name]!r}."
                )
        return np.array([c.options.index(config[c.name]) for c in self.choices], int)

    def decode(self, indices: ArrayLike) -> dict[str, Any]:
        """The configuration of such indices; the inverse of `encode`."""
        indices = np.asarray(indices)
        limits = [len(choice.options) for choice in self.choices]
        if indices.shape != (len(limits),) or not np.all(
            (indices >= 0) & (indices < limits)
        ):
            raise ValueError(
                f"There are {len(limits)} indices of options, each from 0 to below "
                f"{limits}. Received: {indices.tolist()}."
            )
        pairs = zip(self.choices, indices, strict=True)
        return self._canonical({c.name: c.options[int(i)] for c, i in pairs})

    def _canonical(self, config):
        """The configuration with the first option where a choice does not matter."""
        for choice in self.choices:
            stage, _, rest = choice.name.partition(".block")
            depth = config.get(f"{stage}.depth")
            if rest and depth is not None and int(rest.split(".")[0]) >= depth:
                config[choice.name] = choice.options[0]
        return config

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A configuration at random, each option of a choice as likely as the others.

        Args:
            rng: A `np.random.Generator`, which is advanced.
        """
        return self.decode([rng.integers(len(c.options)) for c in self.choices])

    def active(self, config: dict[str, Any]) -> np.ndarray:
        """Which of `layers` a network of a configuration has, a boolean array."""
        return np.array([kernel.is_active(config) for kernel in self.kernels])

    def get_config(self) -> Config:
        config = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**config, "stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        stages = tuple(Stage(**stage) for stage in config["stages"])
        return cls(**{**config, "stages": stages})


class _Listing:
    """A builder that lists the kernels."""

    def __init__(self):
        self.kernels = []

    def conv(self, kernel, x, activate=True):
        self.kernels.append(kernel)

    classify = conv

    def add(self, y, x, activate):
        pass

    def pool(self, x):
        pass

    def optional(self, gate, function, x):
        function(x)


class _Pixels:
    """A builder that follows the height of an image."""

    def __init__(self, resolution):
        self.resolution = resolution

    def conv(self, kernel, pixels, activate=True):
        if kernel.strides > pixels:
            raise ValueError(
                f"'{kernel.name}' has strides of {kernel.strides}, and an image of "
                f"{self.resolution} pixels has {pixels} there: less than one would be "
                "left. Take larger images, or fewer stages with strides."
            )
        return -(-pixels // kernel.strides)

    def classify(self, kernel, pixels):
        return pixels

    def add(self, y, x, activate):
        return y

    def pool(self, pixels):
        if pixels < 2:
            raise ValueError(
                f"`stem_pool` halves what is left of an image of {self.resolution} "
                "pixels, a single one. Take larger images, or no pooling."
            )
        return -(-pixels // 2)

    def optional(self, gate, function, x):
        return function(x)


def _is_count(value):
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and value >= 1


def _is_positive(value):
    return is_number(value) and 0 < value < float("inf")


def _sort(owner, cls, name, is_allowed, what):
    """Check the options of a setting and keep them ascending, each once."""
    options = getattr(owner, name)
    options = options if isinstance(options, (list, tuple)) else (options,)
    if not options or not all(map(is_allowed, options)):
        raise ValueError(
            f"`{name}` of {cls} must be {what} to choose from, at least one. Received: "
            f"{name}={options!r}."
        )
    number = float if name == "expansion" else int
    object.__setattr__(owner, name, tuple(sorted({number(v) for v in options})))
