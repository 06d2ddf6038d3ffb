"""Modes: what the kernels of hardware layers are, for the time of a block of code.

A hardware layer computes with noisy kernels while it trains and with quantized ones
otherwise. Calibration, distillation, export and chips need something else for a while;
they say so here, and nothing of a live layer is changed.
"""

import contextlib
import contextvars
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Mode", "current", "hardware_mode"]

_KERNELS = (None, "noisy", "quantized", "final")


@dataclass(frozen=True)
class Mode:
    """What hardware layers compute with.

    Args:
        kernels: `"noisy"`: quantized and perturbed; `"quantized"`; `"final"`: as they
            are, because what stands in the variables is what the hardware holds; None:
            noisy with `training=True`, else quantized.
        time: Scalar, or None. The layers of a chip read their devices at this time,
            in seconds, instead of at the chip's.
        read_noise: `"frozen"`, `"off"`, or None for that of the chip: whether the
            devices of a chip are read with noise. With one of the two, what else is
            drawn at inference is the same at each call.
        recorder: What is told the inputs of each array, `record_inputs(kernel, x)`; or
            None. With `bypasses_converters = True` inputs and sums meet no converter,
            and it is told the sums as well, `record_sums(kernel, z)`.
        drawn: Dictionary from the ids of `HardwareKernel`s to tensors: kernels that
            were drawn already, for a pass of several steps.
        unroll: Bool. Whether the loops over time of spiking layers are written out in
            the graph, step by step, as TensorFlow Lite needs them.
    """

    kernels: str | None = None
    time: Any = None
    read_noise: str | None = None
    recorder: Any = None
    drawn: dict = field(default_factory=dict)
    unroll: bool = False

    def is_noisy(self, training):
        """Whether kernels are perturbed in a call with this `training`."""
        if self.kernels is None:
            return bool(training)
        return self.kernels == "noisy"


_PLAIN = Mode()
_mode: contextvars.ContextVar[Mode] = contextvars.ContextVar("mode", default=_PLAIN)


def current():
    """The `Mode` that holds here."""
    return _mode.get()


@contextlib.contextmanager
def hardware_mode(**changes):
    """Change the `Mode` within a block.

    Args:
        **changes: Arguments of `Mode`; what is not given stays as it is around.

    Example:
        >>> from hwa_keras.core.modes import hardware_mode
        >>> layer = hwa_keras.layers.HWADense(3, kernel_noise="programming_noise")
        >>> x = np.ones((2, 4))
        >>> with hardware_mode(kernels="quantized"):
        ...     exact = layer(x, training=True)
        >>> bool(ops.all(exact == layer(x, training=False)))
        True
    """
    if changes.get("kernels") not in _KERNELS:
        raise ValueError(
            f"`kernels` must be one of {', '.join(map(repr, _KERNELS))}. Received: "
            f"kernels={changes['kernels']!r}."
        )
    token = _mode.set(replace(_mode.get(), **changes))
    try:
        yield
    finally:
        _mode.reset(token)
