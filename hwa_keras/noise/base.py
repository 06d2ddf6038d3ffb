"""What all noises share: the family, the base class, and putting them together."""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from hwa_keras import backend
from hwa_keras.core import random
from hwa_keras.core.checks import check_not_negative
from hwa_keras.core.registry import Family
from hwa_keras.core.types import Config, Seed, Self, Tensor

__all__ = ["Compose", "Noise", "leaves"]

family = Family("noise", takes_callables=True)


@ops.custom_gradient
def _straight_through(x, perturbed):
    """`perturbed` in the forward pass, the identity of `x` in the backward pass."""

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream, ops.zeros_like(upstream)

    return perturbed, gradient


# What is compiled for noises that live, by class and identity.
_compiled: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


def _fused(noise):
    """`perturb` of a noise as one compiled function, shared with its equals."""
    says = "identity" in vars(type(noise))
    identity = noise.identity() if says else None
    if identity is None:
        return backend.fuse(noise._perturb_any_dtype)
    key = type(noise), identity
    found = _compiled.get(key)
    if found is None:
        found = _compiled[key] = backend.fuse(noise._perturb_any_dtype)
    return found


class Noise(keras.layers.Layer):
    """Base class of the noises: called as `noise(w, seed)`.

    A subclass writes `perturb`, a pure function of tensors, which is compiled with
    XLA as one kernel, random numbers included. `noise.register` gives it a name.

    Args:
        scale: Float ≥ 0, the initial value of the `scale` variable, a factor on the
            strength of the noise; 0 is the identity to the bit. Defaults to `1.0`.

    Call arguments:
        inputs: Float tensor.
        seed: `uint32` tensor of shape `(2,)`: `hwa_keras.random.seed_from(7)`.
    """

    always = False  # Whether it is there at inference, too.

    def __init__(self, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        check_not_negative(type(self).__name__, scale=scale)
        self._initial_scale = float(scale)
        self.scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self._initial_scale),
            trainable=False,
            dtype="float32",
            autocast=False,
            name="scale",
        )
        self._fused: Any = None
        self._outer: Any = None  # A weak reference to the Compose that it is part of.
        self.built = True

    @property
    def total_scale(self) -> float:
        """The `scale` as a float, times that of each `Compose` around it."""
        outer = None if self._outer is None else self._outer()
        own = float(ops.convert_to_numpy(self.scale.value))
        return own if outer is None else own * outer.total_scale

    def perturb(self, w: Tensor, seed: Seed, strength: Any) -> Tensor:
        """Return the perturbed tensor.

        Args:
            w: `float32` (or `float64`) tensor.
            seed: `uint32` tensor of shape `(2,)`.
            strength: What `strength()` returned: here the value of `scale`.
        """
        raise NotImplementedError

    def strength(self, factor: float | Tensor = 1.0, chip: Seed | None = None) -> Any:
        """The values of variables that `perturb` needs, as tensors.

        Args:
            factor: Scalar, a factor on the scale.
            chip: A seed, or None. What a chip holds is drawn from it instead of from
                what the noise itself holds.
        """
        return self.scale.value * factor

    def bind(self, kernel: Any, seed: Seed | None = None) -> None:
        """Belong to one kernel.

        Args:
            kernel: What has a `path` and a `quantizer`, such as a `HardwareKernel`.
            seed: Seed for what a chip holds, or None.
        """

    def for_kernel(self, kernel: Any) -> "Noise":
        """This noise for one kernel of a chip: itself, or a copy that knows the bits.

        Args:
            kernel: What has a `path` and a `quantizer`, such as a `HardwareKernel`.
        """
        return self

    def leaves(self) -> "list[Noise]":
        """The elementary noises in this one, itself included."""
        return [self]

    def identity(self) -> Any:
        """What `perturb` depends on besides its arguments, as hashable values.

        Noises of one class with equal identities share what is compiled for them, so
        that a model compiles one program for each shape of its kernels. None, as for a
        subclass that does not say: a program of its own.
        """
        return None

    def call(self, inputs: Tensor, seed: Seed) -> Tensor:
        inputs = ops.convert_to_tensor(inputs)
        if self._fused is None:
            self._fused = _fused(self)
        perturbed = self._fused(ops.stop_gradient(inputs), seed, self.strength())
        return _straight_through(inputs, ops.stop_gradient(perturbed))

    def _perturb_any_dtype(self, w, seed, strength):
        dtype = w.dtype
        if dtype != "float64":
            w = ops.cast(w, "float32")
        return ops.cast(self.perturb(w, seed, strength), dtype)

    def compute_output_spec(self, inputs: Tensor, seed: Seed | None = None) -> Any:
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_build_config(self) -> Config | None:
        return None

    def get_config(self) -> Config:
        return {**super().get_config(), "scale": self._initial_scale}


@family.register("compose")
class Compose(Noise):
    """Applies noises one after the other, each with random numbers of its own.

    Args:
        noises: List of noises or their names, the first applied first.
        scale: Initial value of the `scale` variable, a factor on the scales of all.
            Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.Compose([
        ...     hwa_keras.noise.ProgrammingNoise("pcm"),
        ...     hwa_keras.noise.DropConnect(0.01),
        ... ])
        >>> w = np.ones((4, 4), "float32")
        >>> noise(w, hwa_keras.random.seed_from(7)).shape == (4, 4)
        True
    """

    def __init__(
        self, noises: Sequence[str | Noise], scale: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(scale=scale, **kwargs)
        if not isinstance(noises, (list, tuple)):
            raise TypeError(
                "`noises` must be a list of hwa_keras noises or their names. "
                f"Received: {noises!r}."
            )
        self.noises = [family.get(noise) for noise in noises]
        for noise in self.noises:
            if not isinstance(noise, Noise):
                raise TypeError(
                    "`noises` must be a list of hwa_keras noises or their names. "
                    f"Received in it: {noise!r}."
                )
            noise._outer = weakref.ref(self)

    def strength(self, factor: float | Tensor = 1.0, chip: Seed | None = None) -> Any:
        common = super().strength(factor)
        return [
            noise.strength(common, None if chip is None else random.fold_in(chip, i))
            for i, noise in enumerate(self.noises)
        ]

    def bind(self, kernel: Any, seed: Seed | None = None) -> None:
        for i, noise in enumerate(self.noises):
            noise.bind(kernel, None if seed is None else random.fold_in(seed, i))

    def for_kernel(self, kernel: Any) -> Noise:
        noises = [noise.for_kernel(kernel) for noise in self.noises]
        if all(a is b for a, b in zip(noises, self.noises, strict=True)):
            return self
        copy = Compose(noises)
        copy.scale.assign(self.scale)
        return copy

    def leaves(self) -> list[Noise]:
        return [leaf for noise in self.noises for leaf in noise.leaves()]

    def perturb(self, w: Tensor, seed: Seed, strength: Any) -> Tensor:
        for i, (noise, own) in enumerate(zip(self.noises, strength, strict=True)):
            w = noise.perturb(w, random.fold_in(seed, i), own)
        return w

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "noises": [family.serialize(noise) for noise in self.noises],
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        noises = [family.deserialize(noise) for noise in config.pop("noises")]
        return cls(noises, **config)


def leaves(noises: Iterable[Any]) -> list[Noise]:
    """The elementary noises in a list that may hold None and other callables."""
    known = [noise for noise in noises if isinstance(noise, Noise)]
    return [leaf for noise in known for leaf in noise.leaves()]
