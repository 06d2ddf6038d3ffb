"""What every device is: programs once, ages, is read."""

import math
import numbers
from dataclasses import asdict, dataclass

from keras import ops

from hwa_keras.registry import Family

_family = Family("device")
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize
register = _family.register


@dataclass(frozen=True, eq=False)  # Equal by what a subclass holds.
class Device:
    """A technology that stores weights imperfectly.

    A subclass is a frozen dataclass of plain numbers; its methods are pure functions
    of tensors, so that training noise, chips and exported graphs use one formula.
    Register it with `hwa_keras.devices.register("alias")` to have it saved and found
    by name.

    Attributes:
        drifts: Bool. Whether the weights age, so that there is drift to compensate.
    """

    drifts = True

    def for_kernel(self, path, quantizer, noise):
        """This device for one kernel of a chip: itself, or a copy that knows more.

        Args:
            path: Where the kernel stands, for messages.
            quantizer: What the kernel was quantized with, or None.
            noise: What the kernel was trained with, or None.
        """
        return self

    def program(self, weights, seed):
        """Write weights once.

        Args:
            weights: Float tensor, the target weights.
            seed: `uint32` tensor of shape `(2,)`.

        Returns:
            The state of the written devices: a dictionary of float tensors.
        """
        raise NotImplementedError

    def read(self, state, t, z=None):
        """The weights that the devices hold at a time.

        Args:
            state: What `program` returned.
            t: Scalar, seconds since the end of programming.
            z: Random numbers that `draw_read_noise` gave, or None to read without
                read noise.

        Returns:
            A float tensor of the shape of the programmed weights.
        """
        raise NotImplementedError

    def perturb(self, weights, seed, scale=1.0):
        """The weights as they stand right after programming: training noise.

        Args:
            weights: Float tensor.
            seed: `uint32` tensor of shape `(2,)`.
            scale: Scalar, factor on the standard deviation of the noise.
        """
        raise NotImplementedError

    def oracle_gain(self, state, t):
        """The factor that undoes the mean drift, for who knows the drift exponent."""
        raise NotImplementedError

    def draw_read_noise(self, shape, seed):
        """The random numbers of one read of an array, or None if reads are exact."""
        return None

    def get_config(self):
        return asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


_family.base = Device


def weight_range(weights, per):
    """Largest magnitude of a kernel, or of each of its columns.

    Args:
        weights: Float tensor.
        per: `"layer"` for one range, `"column"` for one per slice along the last
            axis.

    Returns:
        A pair of tensors that broadcast with `weights`: the range, and 1 where there
        is a weight to write. Where all weights are zero nothing tells the range: it
        is 1 there, the second tensor is 0, and the devices stay unwritten.
    """
    axes = tuple(range(len(weights.shape) - (per == "column")))
    largest = ops.max(ops.abs(weights), axis=axes, keepdims=True)
    written = largest > 0
    largest = ops.where(written, largest, ops.ones_like(largest))
    return largest, ops.cast(written, weights.dtype)


def check_time(t):
    """Raise `ValueError` for a time that is negative or not a finite number."""
    value = float(t)
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(
            "`t` is the time in seconds since the end of programming and must be "
            f"finite and not negative. Received: t={value}."
        )
    return value


def _is_finite(value):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def check_not_negative(owner, **values):
    """Raise `ValueError` naming the first value that is negative or not finite."""
    for name, value in values.items():
        if not (_is_finite(value) and value >= 0):
            raise ValueError(
                f"`{name}` of {owner} must be a finite number and not negative. "
                f"Received: {name}={value!r}."
            )


def check_positive(owner, **values):
    """Raise `ValueError` naming the first value that is not positive and finite."""
    for name, value in values.items():
        if not (_is_finite(value) and value > 0):
            raise ValueError(
                f"`{name}` of {owner} must be a positive, finite number. "
                f"Received: {name}={value!r}."
            )


def check_per(owner, per):
    """Raise `ValueError` for an unknown granularity of the conductance range."""
    if per not in ("layer", "column"):
        raise ValueError(
            f"`per` of {owner} must be 'layer' (one conductance range for a kernel) "
            f"or 'column' (one per output column). Received: per={per!r}."
        )
