"""robustness_curve: what a metric loses on chips that vary more and more."""

import math
from collections.abc import Sequence

import keras

from hwa_keras.analysis.points import Bench, Points
from hwa_keras.analysis.study import ChipStudy, StudyOptions
from hwa_keras.analysis.variation import VariedBench, checked_noise, exact_chip
from hwa_keras.core.checks import is_number
from hwa_keras.core.types import Data, Unpack
from hwa_keras.noise import MultiplicativeGaussian, Noise
from hwa_keras.results import Axis, Result

__all__ = ["RobustnessPoints", "robustness_curve"]


def robustness_curve(
    model: keras.Model,
    data: Data,
    *,
    sigmas: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
    noise: str | Noise | None = None,
    **study: Unpack[StudyOptions],
) -> Result:
    """Measure a model on chips whose conductances vary more and more.

    Every kernel is replaced by W̃ = W·(1 + σ_c·z) with z standard normal, drawn once
    per chip: σ_c is the conductance variation. All levels are measured on the same
    chips, whose z stay while σ_c grows, so that the curve is paired along its levels,
    and with that of another model of the same shapes. All evaluations share one
    compiled graph. At σ_c = 0 one sample suffices, and is all that is taken, where
    the noise leaves the kernels as they are.

    Args:
        model: A built and compiled Keras model, as `hwa_keras.program` takes it:
            kernels on hardware are those quantized as in training. It is not changed.
        data: What to evaluate on, as in `ChipStudy`.
        sigmas: List of floats ≥ 0, the values of σ_c. Defaults to those of the thesis.
        noise: A `hwa_keras.noise.Noise` or its name: another noise, whose scale is
            multiplied by each of `sigmas`. None means
            `MultiplicativeGaussian(std=1.0)`. `BitFlip(0.5)` flips bits with
            probability σ/2; its kernels need quantizers.
        **study: Options of `ChipStudy`: metric, chips, seed, calibration, tolerance,
            min_chips, batch_size, executor, verbose. Chip i is the one that
            `hwa_keras.program(model, noise, seed=seed + i)` gives.

    Returns:
        A `Result` over σ_c.

    Raises:
        TypeError: If `noise` is no noise of hwa_keras.
        ValueError: If the model is not compiled, the data is empty, an argument is
            out of its range, or the noise does not suit a kernel.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> found = hwa_keras.analysis.robustness_curve(
        ...     model, data, sigmas=[0.0, 0.4], chips=3, verbose=0
        ... )
        >>> found.values(0.0).shape, found.values(0.4).shape
        ((1,), (3,))

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.38 (the
          variation) and section 5.4 (σ_c from 0 to 0.4, ten chips).
    """
    return ChipStudy(model, data, **study).run(RobustnessPoints(sigmas, noise))


class RobustnessPoints(Points):
    """The points of `robustness_curve`: scales of a noise.

    Args:
        sigmas, noise: As of `robustness_curve`.
    """

    def __init__(
        self,
        sigmas: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
        noise: str | Noise | None = None,
    ) -> None:
        sigmas = list(sigmas)
        if not sigmas or not all(
            is_number(sigma) and 0 <= sigma < math.inf for sigma in sigmas
        ):
            raise ValueError(
                "`sigmas` must be one or more finite numbers ≥ 0. Received: "
                f"sigmas={sigmas}."
            )
        label = "conductance variation σ_c"
        if noise is not None:
            noise = checked_noise(noise)
            label = f"scale of {type(noise).__name__}"
        self.noise = noise
        self.axes = (Axis("sigma", [float(s) for s in sigmas], label=label),)

    def bench(self, study: ChipStudy) -> Bench:
        noise = self.noise or MultiplicativeGaussian(std=1.0)
        return _RobustnessBench(exact_chip(study), study, noise)


class _RobustnessBench(VariedBench):
    def varied(self, point):
        varied = self.variation(point[0], self.seed)
        if point[0] == 0 and self.variation.leaves(varied):
            self.settled.add(point)
        return varied
