"""calibrate: the ranges of converters, from a few batches of inputs."""

import collections

import keras
import numpy as np
from keras import ops

from hwa_keras.core.checks import check_choice, check_count, check_positive
from hwa_keras.core.keras_private import forget_compiled
from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Data
from hwa_keras.deployment.batchnorm import calibration_batches

__all__ = ["calibrate"]

_MOST_VALUES = 2**20  # Kept of each kernel and batch, at either end of its tiles,
_MOST_OF_ALL = 2**28  # and of all together: 1 GB.
_METHODS = ("quantile", "max", "std")


def calibrate(
    model: keras.Model,
    data: Data,
    method: str = "quantile",
    quantile: float = 0.9999,
    stds: float = 3.0,
    batches: int = 13,
    batch_size: int = 200,
) -> keras.Model:
    """Set the ranges of DACs and ADCs from a few batches, in one pass, untrained.

    The batches run through the model as at inference, without converters and without
    noise. The range of each DAC becomes a statistic of the magnitudes |x| of what goes
    into its kernel, that of each ADC one of the magnitudes of the sums that come out of
    the tiles, per tile, column or kernel as the ADC says; of an ADC that is relative to
    a full column in units of what that can give. Ranges that are fixed, or that follow
    the inputs, are left alone; those that are learned begin at what is found here.

    Args:
        model: A built Keras model with layers on hardware, or a chip.
        data: Inputs, as `adapt_batchnorm` takes them: arrays, or batches of inputs or
            of tuples `(inputs, targets)`.
        method: `"quantile"` of the magnitudes, `"max"`, their largest, or `"std"`, a
            number of standard deviations from 0. Defaults to `"quantile"`.
        quantile: Float in (0, 1], for that method. Defaults to `0.9999`.
        stds: Float > 0, for `"std"`. Defaults to `3.0`.
        batches: Integer ≥ 1, the largest number of batches. Defaults to `13`.
        batch_size: Integer ≥ 1, for arrays. Defaults to `200`.

    Returns:
        The model.

    Raises:
        TypeError: If `data` holds no batches.
        ValueError: If no converter has a range to set, the data is empty or holds NaN
            or infinite values, or an argument is out of its range.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> hardware = hwa_keras.Hardware(
        ...     dac=hwa_keras.circuits.DAC(8, range="calibrated"),
        ...     adc=hwa_keras.circuits.ADC(8, range="calibrated"),
        ... )
        >>> hwa = hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
        >>> x = np.random.default_rng(0).uniform(-2, 2, size=(400, 8))
        >>> hwa = hwa_keras.calibrate(hwa, x, method="max")
        >>> round(float(hwa_keras.hardware_kernels(hwa)[0].dac.input_range), 1)
        2.0

    Reference:
        - Rasch et al., 2023, arXiv:2302.08469, methods: static input ranges.
    """
    check_choice("calibrate", _METHODS, method=method)
    check_positive("calibrate", quantile=quantile, stds=stds)
    check_count("calibrate", batches=batches, batch_size=batch_size)
    if quantile > 1:
        raise ValueError(
            f"`quantile` must be in (0, 1]. Received: quantile={quantile}."
        )
    inputs = calibration_batches(data, batches, batch_size)
    for batch in inputs:
        check_finite(batch)
    twin = _unrolled_twin(model)
    kernels = [k.hardware for k in find_kernels(twin)[0] if _is_calibrated(k.hardware)]
    if not kernels:
        raise ValueError(
            f"No converter of '{model.name}' has a range to calibrate. Give its "
            "kernels some: Hardware(dac=DAC(8, range='calibrated'), adc=ADC(8, "
            "range='calibrated')), or range='learned' of a DAC."
        )
    statistic = _Statistic(method, quantile, stds)
    most = _MOST_OF_ALL // (2 * len(kernels) * len(inputs))
    recorder = _Recorder(min(_MOST_VALUES, max(1, most)))
    with hardware_mode(kernels="quantized", recorder=recorder):
        for batch in inputs:
            twin(batch, training=False)
    for kernel in kernels:
        _set_ranges(kernel, recorder, statistic)
    forget_compiled(model)
    return model


def _is_calibrated(kernel):
    return kernel is not None and any(
        getattr(converter, "range", None) in ("calibrated", "learned")
        for converter in (kernel.dac, kernel.adc)
    )


def _unrolled_twin(model):
    """A second structure around the model's variables, without loops in graphs."""
    if not isinstance(model, keras.Layer) or not model.built:
        raise ValueError(
            "`calibrate` takes a built Keras model with layers on hardware. Received: "
            f"{model!r}."
        )
    twin = replicate(model, share_variables=True)
    for layer in twin._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            layer.unroll = True
    return twin


class _Recorder:
    """Keeps what goes into and comes out of the arrays: part of a `Mode`."""

    bypasses_converters = True

    def __init__(self, most):
        self.most = most
        self.steps: dict = {}  # So that a rest of a batch counts for less than a whole.
        self.inputs = collections.defaultdict(list)
        self.sums = collections.defaultdict(list)

    def record_inputs(self, kernel, x):
        magnitudes = _magnitudes(kernel, x)
        # Whole rows: every other value would leave out every other channel.
        rows = magnitudes.reshape(-1, magnitudes.shape[-1])
        self.inputs[id(kernel)].append(self._some(rows, "x", kernel).reshape(-1))

    def record_sums(self, kernel, z):
        rank = 1 if kernel.tiling.grid[0] == 1 else 2
        magnitudes = _magnitudes(kernel, z)
        flat = magnitudes.reshape(-1, *magnitudes.shape[-rank:])
        self.sums[id(kernel)].append(self._some(flat, "z", kernel))

    def _some(self, values, what, kernel):
        """Evenly spaced ones of many rows, so that they fit in memory."""
        size = max(1, int(np.prod(values.shape[1:])))
        step = max(1, len(values) * size // self.most)
        return values[:: self.steps.setdefault((what, id(kernel)), step)]


def _magnitudes(kernel, x):
    try:
        return np.abs(ops.convert_to_numpy(x)).astype("float32")
    except Exception as error:
        raise ValueError(
            f"'{kernel.path}' is called inside of a loop that is compiled (such as "
            "keras.layers.TimeDistributed), where no values can be recorded. Give its "
            "converters fixed ranges."
        ) from error


class _Statistic:
    def __init__(self, method, quantile, stds):
        self.method, self.quantile, self.stds = method, quantile, stds

    def __call__(self, magnitudes):
        """The range of magnitudes, along their first axis."""
        if self.method == "max":
            return magnitudes.max(axis=0)
        if self.method == "std":
            return self.stds * np.sqrt(np.mean(np.square(magnitudes), axis=0))
        return np.quantile(magnitudes, self.quantile, axis=0)


def _set_ranges(kernel, recorder, statistic):
    if getattr(kernel.dac, "range", None) in ("calibrated", "learned"):
        values = _recorded(recorder.inputs, kernel)
        kernel.dac.set_range(_positive(statistic(values)))
    if getattr(kernel.adc, "range", None) == "calibrated":
        values = _recorded(recorder.sums, kernel)
        kernel.adc.set_range(_positive(_by_tile(kernel, values, statistic)))


def _recorded(records, kernel):
    found = records[id(kernel)]
    if not found:
        raise ValueError(
            f"'{kernel.path}' was not called by the calibration inputs, so that its "
            "ranges are not known. Give inputs that reach it."
        )
    return np.concatenate(found)


def _by_tile(kernel, sums, statistic):
    """Ranges of sums `[n, (K,) C]` in the shape that the ADC has them."""
    shape = tuple(kernel.adc.output_range.shape)
    if len(shape) == 0:
        return statistic(sums.reshape(-1))
    sums = sums.reshape(len(sums), shape[0], -1)
    if kernel.adc.per == "column":
        return statistic(sums)
    width = kernel.tiling.tile_shape[1]
    parts = [
        sums[:, :, start : start + width].transpose(0, 2, 1).reshape(-1, shape[0])
        for start in range(0, sums.shape[-1], width)
    ]
    return np.stack([statistic(part) for part in parts], axis=-1)


def _positive(ranges):
    """Ranges, where nothing flows the largest one, or 1 if nothing flows at all."""
    ranges = np.asarray(ranges, "float32")
    largest = ranges.max()
    return np.where(ranges > 0, ranges, largest if largest > 0 else 1.0)


def check_finite(batch):
    """Raise `ValueError` if a batch of calibration inputs holds what is not finite."""
    for values in keras.tree.flatten(batch):
        if "float" not in keras.backend.standardize_dtype(values.dtype):
            continue
        if not np.all(np.isfinite(ops.convert_to_numpy(values))):
            raise ValueError(
                "`data` holds NaN or infinite values, from which nothing can be told. "
                "Clean the inputs first."
            )
