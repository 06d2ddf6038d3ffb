"""Compensation: how the outputs of tiles are scaled against drift."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from hwa_keras.core.checks import check_choice

__all__ = [
    "COMPENSATIONS",
    "Compensation",
    "as_compensation",
    "drift_gain",
    "mean_magnitude",
]

COMPENSATIONS = ("none", "oracle", "measured")


@dataclass(frozen=True)
class Compensation:
    """How the output of each tile of a chip is scaled against drift.

    Of the kind `"measured"` the factor is mean |w_ref| / mean |w(t)|, where w(t) is
    what the devices are read as at the time t, over a whole tile or over each of its
    columns. The reference is what was read right after programming, which keeps the
    scale that programming left; or what should have been written, which undoes that
    too. A mean of fewer devices is noisier: columns pay where they are long.

    Args:
        kind: `"none"`; `"oracle"`, by the mean drift exponent, which no controller
            knows; or `"measured"`. Defaults to `"measured"`.
        per: `"tile"` or `"column"`: what has a factor of its own. Defaults to `"tile"`.
        reference: `"measured"`, the mean |weight| read right after programming, or
            `"ideal"`, the mean |target|. Defaults to `"measured"`.

    Raises:
        ValueError: If an argument is not among these, or `per` or `reference` is given
            with a kind that does not measure.

    Attributes:
        name: Its short form, which goes wherever a compensation does.

    Example:
        >>> hwa_keras.deployment.Compensation(per="column", reference="ideal").name
        'measured_columns_ideal'
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> chip = hwa_keras.program(model, seed=1, compensation="measured_columns")
        >>> tuple(chip.tiles[0].gain.shape)
        (3,)

    Reference:
        - Le Gallo et al., 2018, doi:10.1038/s41928-018-0054-8; Joshi et al., 2020,
          arXiv:1906.03138: global drift compensation.
    """

    kind: str = "measured"
    per: str = "tile"
    reference: str = "measured"

    def __post_init__(self):
        check_choice("Compensation", COMPENSATIONS, kind=self.kind)
        check_choice("Compensation", ("tile", "column"), per=self.per)
        known = ("measured", "ideal")
        check_choice("Compensation", known, reference=self.reference)
        is_plain = (self.per, self.reference) == ("tile", "measured")
        if self.kind != "measured" and not is_plain:
            raise ValueError(
                f"`per` and `reference` of Compensation go with the kind 'measured'. "
                f"Received: {self!r}."
            )

    @property
    def name(self) -> str:
        parts = [self.kind]
        parts += ["columns"] if self.per == "column" else []
        parts += ["ideal"] if self.reference == "ideal" else []
        return "_".join(parts)


_KNOWN = {
    each.name: each
    for each in (
        Compensation("none"),
        Compensation("oracle"),
        Compensation(),
        Compensation(per="column"),
        Compensation(reference="ideal"),
        Compensation(per="column", reference="ideal"),
    )
}


def as_compensation(value):
    """The `Compensation` of a name, or one as it is.

    Raises:
        ValueError: For anything else; the message lists the names.
    """
    if isinstance(value, Compensation):
        return value
    if not isinstance(value, str) or value not in _KNOWN:
        raise ValueError(
            f"`compensation` must be one of {', '.join(map(repr, _KNOWN))}, or a "
            f"deployment.Compensation. Received: compensation={value!r}."
        )
    return _KNOWN[value]


def drift_gain(device, used, compensation, state, targets, reference, t, z):
    """The factor on the output of each tile, or of each of its columns, at a time.

    Args:
        device: A `Device`.
        used: What tells which places hold weights; see `mean_magnitude`.
        compensation: A `Compensation`.
        state: The state of the device.
        targets: Tensor `[..., rows, columns]`, what was written.
        reference: Tensor `[...]`, the mean |weight| right after programming.
        t: Scalar tensor, seconds since the end of programming.
        z: The read noise of this measurement, or None.

    Returns:
        Tensor `[...]`, or `[..., columns]`.
    """
    is_ideal = compensation.reference == "ideal"
    if compensation.kind == "none" or not (device.drifts or is_ideal):
        return ops.ones(ops.shape(reference))
    if compensation.kind == "oracle":
        factor = ops.cast(device.oracle_gain(state, t), "float32")
        return ops.broadcast_to(factor, ops.shape(reference))
    now = mean_magnitude(device.read(state, t, z), used, compensation.per)
    if is_ideal:
        reference = mean_magnitude(targets, used, compensation.per)
    elif compensation.per == "column":
        written = device.read(state, ops.zeros(()))
        reference = mean_magnitude(written, used, compensation.per)
    # What is all zeros reads zero at every time.
    return ops.where(now > 0, reference / ops.where(now > 0, now, 1.0), 1.0)


def mean_magnitude(weights, used, per="tile"):
    """The mean |weight| of each tile, or column of one, over what holds weights.

    Args:
        weights: Tensor `[..., rows, columns]`.
        used: Pair (bytes, shape) of a float32 array that is 1 where there is a weight
            and 0 where a tile is filled up, or None where all places hold weights.
        per: `"tile"` or `"column"`.

    Returns:
        Tensor `[...]`, or `[..., columns]`: 0 for columns without weights.
    """
    axes = (-2, -1) if per == "tile" else (-2,)
    magnitude = ops.abs(weights)
    if used is None:
        return ops.mean(magnitude, axis=axes)
    mask = np.frombuffer(used[0], "float32").reshape(used[1])
    count = ops.convert_to_tensor(np.maximum(np.sum(mask, axis=axes), 1))
    return ops.sum(magnitude * ops.convert_to_tensor(mask), axis=axes) / count
