"""DAC: from the numbers of a layer to the signals of a crossbar."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from hwa_keras.circuits import learned_ranges, ranges
from hwa_keras.circuits.converter import Converter
from hwa_keras.core.checks import (
    check_choice,
    check_count,
    check_not_negative,
    check_positive,
)
from hwa_keras.core.types import Config, Tensor
from hwa_keras.quantizers.base import family

__all__ = ["DAC"]

_FROM_INPUTS = {
    "vector_max": ranges.vector_bound,
    "example_max": ranges.example_bound,
    "batch_max": ranges.batch_bound,
}


@family.register("dac")
class DAC(Converter):
    """Converts digital inputs to analog: uniform codes over a range.

    On a symmetric range (−r, r): x̂ = r·round(clip(x/r, −1, 1)·Q)/Q with
    Q = 2^(bits − 1) − 1. On a pair: x̂ = low + Δ·round((clip(x, low, high) − low)/Δ)
    with Δ = (high − low)/(2^bits − 1). dx̂/dx = 1 inside the range, 0 outside.

    What the range is:

    - a positive number r, or a pair (low, high): fixed;
    - `"vector_max"`: r = max|x| over each vector that drives the rows: each token, each
      patch of a convolution. As a layer of its own it takes the last axis. This is
      aihwkit's noise management (`NoiseManagementType.ABS_MAX`);
    - `"example_max"`: over each example (all axes but the first), `"batch_max"`: over
      the batch; these three anew at each call, 1 where all is zero, no gradient;
    - `"learned"`: r is trained. It starts at `start`, or at the mean of
      start_stds·σ(x) over the first `start_batches` batches of training;
    - `"calibrated"`: r is what `set_range` set; using it before is an error.

    A learned range is trained with one of two gradients:

    - `"clip"`, that of IBM's aihwkit: inputs beyond the range widen it where this
      lowers the loss, and `decay` narrows it while more than `min_unclipped` of the
      inputs are inside. The share of clipped inputs settles near 1 − min_unclipped: to
      have the range find the 99.99 % quantile of its inputs take min_unclipped=0.9999.
      With SGD the decay narrows r by the factor 1 − lr·decay a step. See
      `learned_ranges.clip_gradient` for the formula.
    - `"lsq"`, that of learned step size quantization, so that SGD moves the step r/Q as
      LSQ does. See `learned_ranges.lsq_learned`.

    Under Adam r moves by no more than about the learning rate a step, with either.

    Args:
        bits: Integer from 1 to 16 (from 2 on a symmetric range).
        range: See above, in the unit of the inputs.
        gradient: `"clip"` or `"lsq"`, for a learned range. Defaults to `"clip"`.
        decay: Float ≥ 0, for `"clip"`. Defaults to `0.01`.
        min_unclipped: Float from 0 to 1, for `"clip"`. Defaults to `0.95`.
        start: Positive float, where a learned range starts, or None: from data.
        start_batches: Integer ≥ 1. Defaults to `100`.
        start_stds: Float > 0. Defaults to `3.0`.
        metrics: As for every quantizer.

    Raises:
        ValueError: If an argument is out of its range. Called eagerly, if the range is
            calibrated or learned and has no value yet; a graph takes max|x| there, so
            that models can be traced before: `check_ready` tells.
        TypeError: If the inputs are integers.

    Example:
        >>> dac = hwa_keras.circuits.DAC(bits=3, range="batch_max")
        >>> [float(v) for v in dac(np.array([-3.0, 0.4, 1.2], "float32"))]
        [-3.0, 0.0, 1.0]

    Reference:
        - Rasch et al., 2021, arXiv:2104.02184, for the code left out.
        - Rasch et al., 2023, arXiv:2302.08469, for learned input ranges.
        - Esser et al., ICLR 2020, arXiv:1902.08153, for LSQ.
    """

    def __init__(
        self,
        bits: int,
        range: float | Sequence[float] | str,
        gradient: str = "clip",
        decay: float = 0.01,
        min_unclipped: float = 0.95,
        start: float | None = None,
        start_batches: int = 100,
        start_stds: float = 3.0,
        **kwargs: Any,
    ) -> None:
        named = (*_FROM_INPUTS, "learned", "calibrated")
        super().__init__(bits, range, named, **kwargs)
        check_not_negative("DAC", decay=decay, min_unclipped=min_unclipped)
        check_positive("DAC", start_stds=start_stds)
        if min_unclipped > 1:
            raise ValueError(
                "`min_unclipped` is a share of the inputs, from 0 to 1. Received: "
                f"min_unclipped={min_unclipped!r}."
            )
        if start is not None and self.range != "learned":
            raise ValueError(
                "`start` is where a learned range starts. Received: "
                f"start={start!r}, range={range!r}."
            )
        self.gradient = check_choice("DAC", ("clip", "lsq"), gradient=gradient)
        self.decay, self.min_unclipped = float(decay), float(min_unclipped)
        self.start = None if start is None else ranges.checked_bound(start, "start")
        self.start_batches = check_count("DAC", start_batches=start_batches)
        self.start_stds = float(start_stds)

    def _make_variables(self, columns, kernel=None):
        if self.range == "learned":
            # What data set is apart from what is trained: Keras's JAX trainer keeps
            # no other change of a trainable variable than the optimizer's.
            self._start = self._scalar("input_range_start", self.start or 0.0)
            self._shift = self._scalar("input_range", trainable=True)
            seen = 0.0 if self.start is None else self.start_batches
            self._batches = self._scalar("input_range_batches", seen)
        elif self.range == "calibrated":
            self._start = self._scalar("input_range")

    @property
    def input_range(self) -> Tensor | None:
        """r of a learned or calibrated range as a tensor, 0 where it is not set."""
        if not (self.built and self._needs_values()):
            return None
        value = ops.convert_to_tensor(self._start.value)
        if self.range == "learned":
            value = ops.abs(value + self._shift.value)
        return value

    def _is_set(self):
        return (self._batches if self.range == "learned" else self._start).value > 0

    def _what_is_missing(self):
        if self.range == "calibrated":
            return super()._what_is_missing()
        return (
            "has a learned range that has seen no training data. Train the model, run "
            "calibrate(model, data), or give the range a `start`."
        )

    def set_range(self, value: float | Tensor) -> None:
        """Set r, as calibration does; data of training no longer start it.

        Args:
            value: Positive float, in the unit of the inputs.

        Raises:
            ValueError: If the value is not positive and finite, if the range is
                neither calibrated nor learned, or if the DAC is not built.
        """
        value = self._checked_values(value)
        if value.shape != ():
            raise ValueError(
                f"The DAC of '{self.served}' has one range. Received: shape "
                f"{value.shape}."
            )
        self._start.assign(value)
        if self.range == "learned":
            self._shift.assign(0.0)
            self._batches.assign(float(self.start_batches))

    @property
    def by_vector(self) -> bool:
        """Whether each vector on the rows has a range of its own."""
        return self.range == "vector_max"

    def known_bound(self, x: Tensor) -> Tensor:
        """The bound r for inputs, where neither training nor calibration tells it.

        Args:
            x: Float tensor `[batch, ...]`.

        Raises:
            ValueError: If the range is calibrated or learned.
        """
        if self.is_fixed:
            return ops.convert_to_tensor(max(map(abs, self.range)))
        if self.range in _FROM_INPUTS:
            return _FROM_INPUTS[self.range](x)
        raise ValueError(
            f"The ADC of '{self.served}' is to be calibrated relative to what a full "
            f"column gives, and its DAC has a {self.range} range, which is not known "
            "before. Give the DAC a number or range='vector_max', or the ADC "
            "relative_to='absolute'."
        )

    def convert(
        self, x: Tensor, training: bool = False, bound: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Convert inputs, and tell the bound that was used.

        Args:
            x: Float tensor `[batch, ...]`.
            training: Bool. Whether data may start a learned range.
            bound: r, in place of that of `x`, for a range that follows the inputs; or
                None.

        Returns:
            A pair: the converted inputs, of the shape and dtype of `x`; and r, a tensor
            without gradient that broadcasts with them: a scalar, `[batch, 1, ..., 1]`
            for `"example_max"`, or `[..., 1]` for `"vector_max"`. Of a pair (low, high)
            it is max(|low|, |high|).

        Raises:
            ValueError: If it is called eagerly and the range has no value yet.
            TypeError: If `x` has integers.
        """
        x = self._checked_float(x)
        if self.is_fixed:
            return self._between(x), self.known_bound(x)
        if not self.built:
            self.build(x.shape)
        if self.range == "learned":
            bound = self._learned_bound(x, training and self.trainable)
            return self._learned(x, bound), ops.stop_gradient(bound)
        if self.range == "calibrated":
            bound = self._or_batch(ops.convert_to_tensor(self._start.value), x)
        elif bound is None:
            bound = self.known_bound(x)
        bound = ops.stop_gradient(bound)
        clips = self.range not in _FROM_INPUTS
        return ranges.quantized_within(x, bound, self.bits, clips), bound

    def _learned_bound(self, x, training):
        shift = ops.convert_to_tensor(self._shift.value)
        if training:
            self._start_from(x, shift)
        bound = ops.convert_to_tensor(self._start.value) + shift
        # A step across zero must not end the learning: r is a magnitude.
        bound = ops.maximum(ops.abs(bound), keras.config.epsilon())
        if training:
            # Only batches of zeros leave it unset.
            return ops.where(self._is_set(), bound, ops.ones_like(bound))
        return self._or_batch(bound, x)

    def _start_from(self, x, shift):
        shift = ops.stop_gradient(shift)
        bound, batches = learned_ranges.moved_start(
            self._start.value + shift,
            ops.convert_to_tensor(self._batches.value),
            x,
            self.start_batches,
            self.start_stds,
        )
        moved = batches > self._batches.value
        self._start.assign(ops.where(moved, bound - shift, self._start.value))
        self._batches.assign(batches)

    def _learned(self, x, bound):
        if self.gradient == "lsq":
            return learned_ranges.lsq_learned(x, bound, self.bits)
        return learned_ranges.clip_learned(
            x, bound, self.bits, self.decay, self.min_unclipped
        )

    def quantized(self, inputs: Tensor, training: bool = False) -> Tensor:
        return self.convert(inputs, training)[0]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = self.quantized(inputs, bool(training))
        if self.flip_ratio is not None:
            self.flip_ratio.update_state(outputs)
        return outputs

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "gradient": self.gradient,
            "decay": self.decay,
            "min_unclipped": self.min_unclipped,
            "start": self.start,
            "start_batches": self.start_batches,
            "start_stds": self.start_stds,
        }
