"""quantization_curve: a metric over the bits of weights, untrained for it."""

from collections.abc import Sequence

import keras
import numpy as np

from hwa_keras.analysis.chip_bench import evaluate_in_one_call
from hwa_keras.analysis.points import Bench, Points
from hwa_keras.analysis.study import ChipStudy, StudyOptions
from hwa_keras.conversion.hardware_model import HardwareModel
from hwa_keras.conversion.rules import resolved_skip
from hwa_keras.core.kernels import kernels_of
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Data, Selector, Unpack
from hwa_keras.quantizers import Uniform
from hwa_keras.results import Axis, Result

__all__ = ["QuantizationPoints", "quantization_curve"]


def quantization_curve(
    model: keras.Model,
    data: Data,
    *,
    bits: Sequence[int] = (8, 7, 6, 5, 4),
    skip: Selector | Sequence[Selector] = ("first",),
    **study: Unpack[StudyOptions],
) -> Result:
    """Measure a model whose kernels are quantized ever more coarsely, untrained for it.

    A kernel is rounded to the uniform, symmetric grid of b-bit signed codes from
    −(2^(b−1) − 1) to 2^(b−1) − 1, the largest code at the largest magnitude of the
    kernel. Biases, normalization and embeddings keep their precision. All evaluations
    share one compiled graph.

    Args:
        model: A built and compiled Keras model. Of a model that `to_hwa` converted,
            the kernels in full precision are rounded, in place of what its quantizers
            give; converters stay. Layers that were built with a quantizer of their
            own keep it. The model is not changed.
        data: What to evaluate on, as in `ChipStudy`.
        bits: List of integers ≥ 2, the bits per weight.
        skip: Layers that keep their precision, as in `hwa_keras.to_hwa`. Defaults to
            the first layer with a kernel.
        **study: Options of `ChipStudy`: metric, batch_size, executor, verbose. Nothing
            is random, so one chip is evaluated, and none is calibrated.

    Returns:
        A `Result` over the bits per weight, with one sample at each level. Results of
        models that were trained from different seeds give the spread.

    Raises:
        ValueError: If the model is not compiled or is a chip, no kernel is left to
            round, the data is empty or an argument is out of its range.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(3)
        ... ])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> found = hwa_keras.analysis.quantization_curve(
        ...     model, data, bits=[8, 4], verbose=0
        ... )
        >>> found.levels
        [8, 4]

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 5.5.1.
    """
    return ChipStudy(model, data, **study).run(QuantizationPoints(bits, skip))


class QuantizationPoints(Points):
    """The points of `quantization_curve`: numbers of bits per weight.

    Args:
        bits, skip: As of `quantization_curve`.
    """

    is_random = False

    def __init__(
        self,
        bits: Sequence[int] = (8, 7, 6, 5, 4),
        skip: Selector | Sequence[Selector] = ("first",),
    ) -> None:
        bits = list(bits)
        if not bits or not all(
            isinstance(b, (int, np.integer)) and b >= 2 for b in bits
        ):
            raise ValueError(
                f"`bits` must be one or more integers ≥ 2. Received: bits={bits}."
            )
        self.skip = skip
        self.axes = (Axis("bits", bits, label="bits per weight"),)

    def bench(self, study: ChipStudy) -> Bench:
        if study.calibration is not None:
            raise ValueError(
                "A study of bits calibrates nothing. Leave `calibration` out, or run "
                "adapt_batchnorm on a quantized model."
            )
        twin = replicate(study.model)
        rounded, quantized = _kernels_to_round(twin, self.skip)
        for kernel in quantized:
            kernel.variable.assign(kernel.target())
        evaluate_in_one_call(twin)
        return _RoundedBench(twin, study.evaluable(), rounded)


class _RoundedBench(Bench):
    def __init__(self, model, data, rounded):
        super().__init__(model, data)
        self.exact = [(k.variable, k.variable.numpy()) for k in rounded]

    def evaluate(self, point):
        quantizer = Uniform(levels=2 ** (point[0] - 1), scale="max")
        for variable, value in self.exact:
            variable.assign(quantizer(value))
        with hardware_mode(kernels="final"):
            return super().evaluate(point)


def _kernels_to_round(model, skip):
    """A pair of lists of `Kernel`s: those to round, and those quantized in layers."""
    if getattr(model, "is_chip", False):
        raise ValueError(
            f"'{model.name}' is a chip, whose kernels are what its devices hold. Give "
            "the model that was programmed."
        )
    kernels = kernels_of(model)
    skipped = resolved_skip(skip, kernels)
    # `to_hwa` lists there what it has found on hardware already.
    built_so = dict(model.digital) if isinstance(model, HardwareModel) else None
    rounded, quantized = [], []
    for kernel in kernels:
        own = built_so is None or kernel.layer_path in built_so
        if kernel.quantizer is not None and own:
            quantized.append(kernel)
        elif not kernel.digital and not any(matched(kernel) for matched, _ in skipped):
            rounded.append(kernel)
    if not rounded:
        raise ValueError(
            f"The model '{model.name}' has no kernel left to round: `skip` and layers "
            f"with quantizers of their own leave none. Received: skip={skip!r}."
        )
    return rounded, quantized
