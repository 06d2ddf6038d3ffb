"""layer_sensitivity: which layers must be reliable, and which need not be."""

from typing import Any

import keras

from hwa_keras.analysis.points import Bench, Points
from hwa_keras.analysis.study import ChipStudy, StudyOptions
from hwa_keras.analysis.variation import VariedBench, checked_noise, exact_chip
from hwa_keras.core.checks import check_not_negative
from hwa_keras.core.kernels import distinct
from hwa_keras.core.types import Data, Unpack
from hwa_keras.devices.bits import check_error_rate
from hwa_keras.noise import Noise
from hwa_keras.noise.bit_flip import BitFlip, bit_flip_of
from hwa_keras.results import Axis, Result

__all__ = ["SensitivityPoints", "layer_sensitivity"]

_P = 0.5  # Of the noises that are made here: a power of 2, so that factors are exact.


def layer_sensitivity(
    model: keras.Model,
    data: Data,
    *,
    p_base: float = 0.01,
    p_probe: float = 0.5,
    noise: str | Noise | None = None,
    **study: Unpack[StudyOptions],
) -> Result:
    """Measure a model with one kernel at a time read through much more noise.

    All kernels are read through noise of the level `p_base`, and one of them at
    `p_probe` instead; by default wrong bits, of which at p = ½ nothing of the kernel
    is left. The metric falls where the layer is critical, and stays where it could be
    less reliable, and cost less, than the others. With `p_probe` below `p_base` the
    question is which layer is worth more care.

    Every level is measured on the same chips: the draws of a kernel stay, whichever
    is probed. All evaluations share one compiled graph.

    Args:
        model: A built and compiled Keras model, as `hwa_keras.program` takes it:
            kernels on hardware are those quantized as in training. It is not changed.
        data: What to evaluate on, as in `ChipStudy`.
        p_base: Float in [0, ½], the probability that a bit of any kernel is read
            wrong; with another `noise` a float ≥ 0, a factor on its scale. Defaults
            to `0.01`.
        p_probe: The same, for the kernel in question. Defaults to `0.5`.
        noise: A `hwa_keras.noise.Noise` or its name. None flips bits: of each kernel
            as the `BitFlip` that it was trained with, or else as `BitFlip(p)`.
            Defaults to `None`.
        **study: Options of `ChipStudy`: metric, chips, seed, calibration, tolerance,
            min_chips, batch_size, executor, verbose. Chip i has the draws that
            `hwa_keras.program` makes from `seed + i`.

    Returns:
        A `Result`. Its first level is no kernel probed, such as `"all at 0.01"`; one
        for each kernel follows, called by its path, in the order of the model. Each
        has all chips; `result.plot(boxes=True)` draws their distributions.

    Raises:
        TypeError: If `noise` is no noise of hwa_keras.
        ValueError: If the model is not compiled, bits are to be flipped of a kernel
            without a quantizer, the data is empty or an argument is out of its range.

    Example:
        >>> bits = dict(use_bias=False, kernel_quantizer="ste_sign")
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     hwa_keras.layers.HWADense(4, **bits, name="hidden"),
        ...     hwa_keras.layers.HWADense(3, **bits, name="head"),
        ... ])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> found = hwa_keras.analysis.layer_sensitivity(
        ...     model, data, chips=3, verbose=0
        ... )
        >>> found.levels
        ['all at 0.01', 'hidden/kernel', 'head/kernel']

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 4.3.1 and
          figure 4.3 (1 % and 50 %, ten chips).
    """
    points = SensitivityPoints(p_base, p_probe, noise)
    return ChipStudy(model, data, **study).run(points)


class SensitivityPoints(Points):
    """The points of `layer_sensitivity`: no kernel probed, and each in turn.

    Args:
        p_base, p_probe, noise: As of `layer_sensitivity`.
    """

    def __init__(
        self,
        p_base: float = 0.01,
        p_probe: float = 0.5,
        noise: str | Noise | None = None,
    ) -> None:
        self.p_base, self.p_probe = p_base, p_probe
        self.noise, self.label = _checked(noise, p_base, p_probe)
        self._chip: Any = None

    def __getstate__(self):
        return {**vars(self), "_chip": None}

    def axes_of(self, study: ChipStudy) -> tuple[Axis, ...]:
        self._chip = exact_chip(study)  # For `bench` too: it is a copy of the model.
        kernels = self._chip.programmed_kernels()
        paths = distinct(kernel.path for kernel in kernels)
        levels = [f"all at {self.p_base:g}", *paths]
        return (Axis("kernel", levels, label=self.label),)

    def bench(self, study: ChipStudy) -> Bench:
        unit = _P if self.noise is _bit_flips else 1.0
        factors = self.p_base / unit, self.p_probe / unit
        chip, self._chip = self._chip or exact_chip(study), None
        return _SensitivityBench(chip, study, self.noise, factors)


class _SensitivityBench(VariedBench):
    def __init__(self, chip, study, noise, factors):
        super().__init__(chip, study, noise)
        self.factors = factors
        paths = distinct(kernel.path for kernel in chip.programmed_kernels())
        self.places = {path: i for i, path in enumerate(paths)}

    def write(self, seed):
        super().write(seed)
        self.base, self.probes = (self.variation(f, seed) for f in self.factors)

    def varied(self, point):
        varied = list(self.base)
        if point[0] in self.places:
            i = self.places[point[0]]
            varied[i] = self.probes[i]
        return varied


def _checked(noise, p_base, p_probe):
    """The noise, or what gives each kernel its noise, and what the levels are."""
    levels = {"p_base": p_base, "p_probe": p_probe}
    if noise is None:
        check_error_rate("layer_sensitivity", **levels)
        return _bit_flips, f"kernel at p = {p_probe:g}, others at {p_base:g}"
    noise = checked_noise(noise)
    check_not_negative("layer_sensitivity", **levels)
    name = type(noise).__name__
    return noise, f"kernel at scale {p_probe:g} of {name}, others at {p_base:g}"


def _bit_flips(kernel):
    """Flips of the bits of a kernel, stored as its own `BitFlip` has them."""
    noise = (bit_flip_of(kernel.noise) or BitFlip(_P)).for_kernel(kernel)
    noise.p.assign(_P)
    noise.scale.assign(1.0)
    return noise
