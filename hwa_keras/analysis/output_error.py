"""output_error: how far chips are from the model, without thousands of draws."""

import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.analysis.delta import output_delta
from hwa_keras.analysis.moments import output_moments
from hwa_keras.circuits.hardware import Hardware
from hwa_keras.conversion import to_hwa
from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Data
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.devices.device import Device
from hwa_keras.results import estimate

__all__ = ["OutputError", "output_error", "weight_moments"]

_METHODS = ("moments", "delta", "monte_carlo")
_CIRCUITS = ("dac", "adc", "output_noise")
_LARGEST_NOISE = 0.1  # To the signal, up to which moments and delta are trusted.


@dataclass(frozen=True, eq=False)
class OutputError:
    """The error of a network on chips, right after programming.

    `output_error` makes one; `print` shows it.

    Args:
        mse: Float, E(ỹ − y)² over chips, averaged over examples and outputs: of the
            outputs ỹ of a chip and those of the software model, y.
        mean: Array of the shape of the outputs, E ỹ over chips.
        variance: Array of the shape of the outputs, Var ỹ over chips.
        outputs: Array, y.
        noise_to_signal: Float, √(mse / mean of y²).
        method: `"moments"`, `"delta"` or `"monte_carlo"`.
        seconds: Float, the time that the method took, without what all methods share:
            preparing a chip, and the outputs of the software model.
        draws: Integer, the number of chips drawn by Monte Carlo, else None.
        interval: Pair of floats, the 95 % interval of the `mse` of Monte Carlo (NaN for
            one draw), else None.
        warnings: Tuple of strings: why not to trust the result.
    """

    mse: float
    mean: np.ndarray = field(repr=False)
    variance: np.ndarray = field(repr=False)
    outputs: np.ndarray = field(repr=False)
    noise_to_signal: float
    method: str
    seconds: float
    draws: int | None = None
    interval: tuple | None = None
    warnings: tuple = ()

    def __str__(self):
        lines = [f"{self.method}: mean squared error {self.mse:.4g}"]
        if self.interval is not None:
            low, high = self.interval
            lines[0] += f" (95 % interval {low:.4g} to {high:.4g}, {self.draws} draws)"
        lines[0] += f", noise to signal {self.noise_to_signal:.3g}"
        lines[0] += f", in {self.seconds:.3g} s"
        return "\n".join([*lines, *(f"Warning: {text}" for text in self.warnings)])


def output_error(
    model: keras.Model,
    crossbar: Hardware | Device | None,
    data: Data,
    method: str = "moments",
    draws: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
    max_bytes: int = 2**31,
    terms: int = 2,
) -> "OutputError":
    """Predict the error of a network's outputs on crossbars, right after programming.

    Three methods give the mean and variance of each output over chips:

    - `"moments"` carries means and covariances through the layers. The two branches of
      a skip are correlated through what they share, and so are the positions of a
      convolution, which share one draw of the kernel. Exact for linear layers; what
      a ReLU takes is taken as jointly Gaussian. Known are dense and einsum layers,
      convolutions, batch normalization, average pooling, padding, reshapes, sums and
      ReLU. The time grows with the square of the size of the layers' outputs.
    - `"delta"` is first order in the errors: Var(y) ≈ Σ_w Var(w̃)·(∂y/∂w)² at the mean
      weights. It takes any architecture, and one backward pass for each example and
      output.
    - `"monte_carlo"` draws chips and runs them. It takes converters too.

    Args:
        model: A built Keras model with one output. It is not changed.
        crossbar: A `crossbar.Crossbar` or another `Hardware` with a device, or a
            device alone. A plain model is put on it as `to_hwa` does; of a model that
            is on hardware already the kernels are written to its device, and None
            takes the devices of the model's own hardware.
        data: The inputs: an array; arrays in a list or dictionary for several inputs;
            a pair `(inputs, targets)` or an iterable of batches, as `evaluate` takes
            them. The targets are not used.
        method: `"moments"`, `"delta"` or `"monte_carlo"`. Defaults to `"moments"`.
        draws: Integer ≥ 1, the number of chips of Monte Carlo. Defaults to `2000`.
        seed: Integer, the seed of the first chip of Monte Carlo: chip i is the one that
            `program(model, ..., seed=seed + i)` gives. Defaults to `0`.
        batch_size: Integer ≥ 1, examples that run at once in software and in Monte
            Carlo. Defaults to `256`.
        max_bytes: Integer ≥ 1, the most memory that moments may use for the covariance
            of one example between two tensors, of which a few exist at a time. Defaults
            to 2 GiB.
        terms: Integer ≥ 1, terms of the series for the covariance of two rectified
            Gaussians; 1 is Φ_i·Φ_j·Γ_ij. Defaults to `2`.

    Returns:
        An `OutputError`. Where the noise to signal of moments or delta is above 0.1,
        its `warnings` say so, and a `UserWarning` is raised.

    Raises:
        ValueError: If the hardware has converters or output noise and the method is not
            Monte Carlo; if moments know no rule for a layer or do not fit `max_bytes`;
            if the model has several outputs, or an argument is out of its range.
        NotImplementedError: If the device has no formula for the moments of its
            weights.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> device = hwa_keras.devices.Memristor(sigma=0.5, g_max=25.0)
        >>> x = np.ones((2, 8), "float32")
        >>> found = hwa_keras.analysis.output_error(model, device, x)
        >>> found.variance.shape
        (2, 3)
        >>> drawn = hwa_keras.analysis.output_error(
        ...     model, device, x, method="monte_carlo", draws=200
        ... )
        >>> low, high = drawn.interval
        >>> bool(low < found.mse < high)
        True

    Reference:
        - J. Kern, S. Henwood et al., "MemSE: fast MSE prediction for noisy
          memristor-based DNN accelerators", AICAS 2022, arXiv:2205.01707 (moments).
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 3.3.2.
    """
    check_choice("output_error", _METHODS, method=method)
    check_count("output_error", draws=draws, batch_size=batch_size, terms=terms)
    check_count("output_error", max_bytes=max_bytes)
    inputs = _inputs(data)
    chip = _on_crossbar(model, crossbar)
    if method != "monte_carlo":
        _check_no_converters(chip, method)
    outputs = _software_outputs(model, inputs, batch_size)
    start = time.perf_counter()
    extra: dict[str, Any] = {}
    if method == "monte_carlo":
        mean, variance, each = _drawn(chip, inputs, outputs, draws, seed, batch_size)
        found = estimate(each)
        extra = {"draws": draws, "interval": (found.low, found.high)}
        mse = found.mean
    else:
        mean, variance = _predicted(chip, inputs, method, max_bytes, terms)
        mse = float(np.mean(variance + np.square(mean - outputs)))
    seconds = time.perf_counter() - start
    _check_finite(mse, method)
    ratio = _noise_to_signal(mse, outputs)
    texts = () if method == "monte_carlo" else _warnings(ratio, method)
    return OutputError(
        *(mse, mean, variance, outputs, ratio, method, seconds),
        **extra,
        warnings=texts,
    )


def _inputs(data):
    """The inputs, as a nested structure of arrays of all examples."""
    if isinstance(data, tuple):
        if len(data) not in (2, 3):
            raise ValueError(
                "`data` must be inputs, a pair (inputs, targets) or batches. Received: "
                f"a tuple of {len(data)}. Several inputs are given as a list."
            )
        data = data[0]
    if not isinstance(data, (list, dict)) and not hasattr(data, "shape"):
        batches = [b[0] if isinstance(b, tuple) else b for b in data]
        if not batches:
            raise ValueError("`data` is empty: there are no examples.")
        data = keras.tree.map_structure(
            lambda *parts: np.concatenate([ops.convert_to_numpy(p) for p in parts]),
            *batches,
        )
    arrays = keras.tree.map_structure(np.asarray, data)
    sizes = {len(array) for array in keras.tree.flatten(arrays)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "`data` must hold one number of examples, at least one. Received arrays "
            f"of {sorted(sizes)} examples."
        )
    return arrays


def _on_crossbar(model, crossbar):
    """A blank chip of a model on the hardware."""
    device = crossbar.device if isinstance(crossbar, Hardware) else crossbar
    found = find_kernels(model)[0] if isinstance(model, keras.Layer) else []
    converted = [kernel.hardware for kernel in found if kernel.hardware is not None]
    if isinstance(crossbar, Hardware):
        if device is None:
            raise ValueError(
                "`crossbar` must name a device that the weights are written to. "
                f"Received: {crossbar!r}."
            )
        if converted:
            for kernel in converted:
                _check_same_circuits(kernel, crossbar)
        else:
            model = to_hwa(replicate(model), hardware=crossbar, verbose=0)
    return blank_chip(model, device, "none", "off", verbose=0)


def _check_same_circuits(kernel, crossbar):
    """Raise `ValueError` where a kernel is on other circuits than a crossbar's."""
    if kernel.keys == ("bias",):
        return
    own = kernel.hardware
    differ = [
        name
        for name in ("tile", "bias")
        if getattr(own, name) != getattr(crossbar, name)
    ]
    for name in _CIRCUITS:
        if (getattr(own, name) is None) != (getattr(crossbar, name) is None):
            differ.append(name)
    if differ:
        raise ValueError(
            f"The kernel '{kernel.path}' is on hardware already, with other circuits "
            f"than `crossbar` has: {', '.join(differ)}. Give crossbar=None for the "
            "model's own hardware, or the model before to_hwa."
        )


def _check_no_converters(chip, method):
    for kernel in (k.hardware for k in chip.programmed_kernels()):
        found = [name for name in _CIRCUITS if getattr(kernel, name) is not None]
        if found:
            raise ValueError(
                f"'{kernel.path}' has {' and '.join(found)}, of which "
                f"method={method!r} knows nothing. Use method='monte_carlo', or "
                "hardware without converters and output noise."
            )


def _software_outputs(model, inputs, batch_size):
    outputs = model.predict(inputs, batch_size=batch_size, verbose=0)
    flat = keras.tree.flatten(outputs)
    if len(flat) != 1:
        raise ValueError(
            f"'{model.name}' has {len(flat)} outputs, and one is needed: build a model "
            "of the output of interest."
        )
    return np.asarray(flat[0], "float64")


def weight_moments(chip):
    """The moments of the kernels of a blank chip.

    Args:
        chip: A `Chip`, written or not.

    Returns:
        A list of triples (`HardwareKernel`, mean, variance), the latter tensors of the
        kernel's shape.
    """
    found = []
    for tile in chip.tiles:
        kernel = tile.kernel()
        if not hasattr(tile.device, "weight_moments"):
            raise NotImplementedError(
                f"{type(tile.device).__name__} has no formula for the moments of its "
                "weights. Use method='monte_carlo'."
            )
        moments = tile.device.weight_moments(tile.targets.value)
        if len(tile.shape) > 2:
            moments = [kernel.tiling.join(m) for m in moments]
        found.append((kernel, *(kernel.view.from_matrix(m) for m in moments)))
    return found


def _predicted(chip, inputs, method, max_bytes, terms):
    """Mean and variance of the outputs by moments or delta, as float64."""
    weights = weight_moments(chip)
    if method == "delta":
        chip.write(0)  # Devices that are not written have no gain.
        moments = output_delta(chip, weights, inputs)
    else:
        by_kernel = {id(kernel): pair for kernel, *pair in weights}
        flat = _in_order(chip, inputs)
        moments = output_moments(chip, by_kernel, flat, max_bytes, terms)
    return [np.asarray(m, "float64") for m in moments]


def _in_order(chip, inputs):
    """The inputs as a list, in the order of the model's."""
    if isinstance(inputs, dict):
        return [inputs[tensor.name] for tensor in chip.inputs]
    return keras.tree.flatten(inputs)


def _drawn(chip, inputs, outputs, draws, seed, batch_size):
    """Mean and variance of the outputs of chips, and the MSE of each of them."""
    batches = _batches(inputs, batch_size)
    total, squares, each = np.zeros(outputs.shape), np.zeros(outputs.shape), []
    for i in range(draws):
        chip.write(seed + i)
        parts = [keras.tree.flatten(chip.predict_on_batch(b))[0] for b in batches]
        difference = np.concatenate([ops.convert_to_numpy(p) for p in parts]) - outputs
        total += difference
        squares += np.square(difference)
        each.append(float(np.mean(np.square(difference))))
    mean = total / draws
    variance = (squares - draws * np.square(mean)) / (draws - 1 or math.nan)
    return outputs + mean, np.maximum(variance, 0), each


def _batches(inputs, batch_size):
    count = len(keras.tree.flatten(inputs)[0])
    return [
        keras.tree.map_structure(lambda x, i=i: x[i : i + batch_size], inputs)
        for i in range(0, count, batch_size)
    ]


def _check_finite(mse, method):
    if not math.isfinite(mse):
        raise ValueError(
            f"The mean squared error by {method} is {mse}: the model or its inputs "
            "hold NaN or infinite values, or its outputs overflow."
        )


def _noise_to_signal(mse, outputs):
    signal = float(np.mean(np.square(outputs)))
    return math.sqrt(mse / signal) if signal > 0 else math.inf


def _warnings(ratio, method):
    if ratio <= _LARGEST_NOISE:
        return ()
    text = (
        f"The noise is {ratio:.3g} of the signal, above {_LARGEST_NOISE}, where "
        f"{method} need not hold. Compare with method='monte_carlo'."
    )
    warnings.warn(text, stacklevel=3)
    return (text,)
