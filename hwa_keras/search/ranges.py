"""optimize_ranges: the conductance range of each kernel, for least energy."""

from dataclasses import replace

import keras
import numpy as np
from keras import ops

from hwa_keras.analysis import monte_carlo
from hwa_keras.analysis.delta import squared_gradients
from hwa_keras.analysis.output_error import weight_moments
from hwa_keras.analysis.study import chosen_metric
from hwa_keras.conversion import to_hwa
from hwa_keras.core.checks import check_count, check_positive
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Data
from hwa_keras.crossbar import Crossbar, Wired
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.devices import Memristor
from hwa_keras.profile.array_energy import array_energy
from hwa_keras.profile.converters import Periphery
from hwa_keras.search.range_front import RangeFront, RangePoint

__all__ = ["optimize_ranges"]


def optimize_ranges(
    model: keras.Model,
    crossbar: Crossbar,
    data: Data,
    max_error: float | None = None,
    max_loss: float | None = None,
    steps: int = 24,
    examples: int = 16,
    chips: int = 10,
    seed: int = 0,
    periphery: Periphery | None = None,
) -> RangeFront:
    """Find the conductance range g_u of each kernel for least energy.

    To first order the mean squared error of the outputs is a sum over kernels, Σ_l
    E_l(g_l) with E_l(g) = Σ_w Var(w̃; g)·Σ_o (∂y_o/∂w)²/O, and so is the energy of the
    arrays: of devices, wires and amplifiers, as converters and additions take the same
    whatever the range. For each λ > 0 the ranges that minimize energy + λ·error are
    found for each kernel alone; over all λ these are the convex front. One range for
    all is tried beside it.

    Args:
        model: A built Keras model, not on hardware. It is not changed.
        crossbar: A `crossbar.Crossbar` of `devices.Memristor`s.
        data: Inputs, or a pair `(inputs, targets)`, arrays.
        max_error: Float > 0, or None: the largest mean squared error of the outputs.
        max_loss: Float ≥ 0, or None: how much of the first compiled metric (or of the
            loss) may be lost, on the mean of chips over the data.
        steps: Integer ≥ 2, ranges that are tried for all kernels, evenly spaced in
            logarithm from near g_min to g_max; between them errors and energies are
            taken for power laws. Defaults to `24`.
        examples: Integer ≥ 1, examples that gradients are taken at. Defaults to `16`.
        chips: Integer ≥ 2, chips that a metric is measured on. Defaults to `10`.
        seed: Integer, the seed of the first chip. Defaults to `0`.
        periphery: As in `profile.array_energy`.

    Returns:
        A `RangeFront`.

    Raises:
        TypeError: If it is no Crossbar of Memristors.
        ValueError: If both bounds are given, if no range keeps the bound, or if
            `max_loss` is given without targets or for a model that is not compiled.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     keras.layers.Dense(8, activation="relu"),
        ...     keras.layers.Dense(3),
        ... ])
        >>> crossbar = hwa_keras.crossbar.Crossbar(
        ...     hwa_keras.devices.Memristor(sigma=0.3, g_max=25.0)
        ... )
        >>> x = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
        >>> front = hwa_keras.search.optimize_ranges(model, crossbar, x, steps=5)
        >>> len(front.points[0].g_u)
        2

    Reference:
        - J. Kern, S. Henwood et al., AICAS 2022, arXiv:2205.01707 (MemSE): power
          against error, one g_u for each layer.
    """
    device = _checked(model, crossbar, max_error, max_loss)
    check_count("optimize_ranges", examples=examples)
    check_count("optimize_ranges", least=2, steps=steps, chips=chips)
    inputs, targets = data if isinstance(data, tuple) else (data, None)
    grid = _grid(device, steps)
    chip = blank_chip(_converted(model, crossbar), None, "none", "off", verbose=0)
    errors = _errors(chip, device, grid, _first(inputs, examples))
    paths, energies = _energies(model, crossbar, grid, inputs, periphery)
    points = _front(*_finer(device, grid, errors, energies))
    uniform = tuple(
        RangePoint((float(g),) * len(paths), float(e), float(p))
        for g, e, p in zip(grid, errors.sum(0), energies.sum(0), strict=True)
    )
    unit = "" if crossbar.v_read is None else "J"
    front = RangeFront(paths, points, uniform, unit=unit)
    if max_error is not None:
        return replace(front, chosen=_within(points, max_error))
    if max_loss is not None:
        measure = _Accuracy(model, crossbar, (inputs, targets), chips, seed)
        return measure.choose(front, max_loss)
    return front


def _checked(model, crossbar, max_error, max_loss):
    device = getattr(crossbar, "device", None)
    device = device.device if isinstance(device, Wired) else device
    if not isinstance(crossbar, Crossbar) or not isinstance(device, Memristor):
        raise TypeError(
            "`crossbar` must be a crossbar.Crossbar of devices.Memristor, whose range "
            f"g_u can be chosen. Received: {crossbar!r}."
        )
    if max_error is not None and max_loss is not None:
        raise ValueError("Give one bound: `max_error` or `max_loss`.")
    if max_error is not None:
        check_positive("optimize_ranges", max_error=max_error)
    if max_loss is not None and not getattr(model, "compiled", False):
        raise ValueError(
            f"`max_loss` is about a metric, and '{model.name}' is not compiled. Call "
            "model.compile(loss=..., metrics=[...]) first."
        )
    return device


def _grid(device, steps):
    """Ranges above g_min, evenly spaced in the logarithm of the span."""
    span = device.g_max - device.g_min
    return device.g_min + np.geomspace(span / 50, span, steps)


def _with_range(crossbar, g_u):
    """The crossbar with another range, or ranges, of its devices."""
    return crossbar.with_settings(device=crossbar.device.with_range(g_u))


def _converted(model, crossbar):
    return to_hwa(replicate(model), hardware=crossbar, verbose=0)


def _first(inputs, count):
    return keras.tree.map_structure(lambda x: np.asarray(x[:count]), inputs)


def _errors(chip, device, grid, inputs):
    """E_l(g): what each kernel `[kernels, steps]` adds to the error of the outputs."""
    weights = weight_moments(chip)
    chip.write(0)
    squares, outputs = squared_gradients(chip, weights, inputs)
    found = np.zeros((len(weights), len(grid)))
    for k, g_u in enumerate(grid):
        for tile in chip.tiles:
            tile.device = tile.device.with_range(float(g_u))
        for i, (_, _, variance) in enumerate(weight_moments(chip)):
            variance = ops.convert_to_numpy(variance).astype("float64")
            found[i, k] = np.sum(variance * squares[i]) / outputs
    return found


def _energies(model, crossbar, grid, inputs, periphery):
    """The kernels' paths, and what their arrays take `[kernels, steps]`."""
    columns = []
    for g_u in grid:
        found = array_energy(
            model, inputs, _with_range(crossbar, float(g_u)), periphery, batches=1
        )
        columns.append([k.array + k.wires + k.tias for k in found.kernels])
    return tuple(kernel.path for kernel in found.kernels), np.array(columns).T


def _finer(device, grid, errors, energies):
    """Twenty times as many ranges, errors and energies between them as power laws."""
    spans = np.log(grid - device.g_min)
    finer = np.linspace(spans[0], spans[-1], 20 * len(grid))
    between = [
        np.array([np.exp(np.interp(finer, spans, np.log(row))) for row in values])
        for values in (np.maximum(errors, 1e-300), np.maximum(energies, 1e-300))
    ]
    return np.minimum(device.g_min + np.exp(finer), device.g_max), *between


def _front(ranges, errors, energies):
    """The points that are best for some λ, from low to high energy."""
    saved, lost = np.abs(np.diff(energies)).ravel(), np.abs(np.diff(errors)).ravel()
    slopes = saved[(saved > 0) & (lost > 0)] / lost[(saved > 0) & (lost > 0)]
    if not slopes.size:
        raise ValueError(
            "No range makes a difference: no output depends on the kernels at these "
            "examples. Give other inputs, or more `examples`."
        )
    multipliers = np.geomspace(slopes.min() / 2, slopes.max() * 2, 400)
    found = {}
    kernels = np.arange(len(errors))
    for multiplier in multipliers:
        best = np.argmin(energies + multiplier * errors, axis=1)
        found[tuple(best)] = RangePoint(
            tuple(float(g) for g in ranges[best]),
            float(errors[kernels, best].sum()),
            float(energies[kernels, best].sum()),
        )
    return tuple(sorted(found.values(), key=lambda point: point.energy))


def _within(points, max_error):
    """The point of least energy with at most this error."""
    kept = [point for point in points if point.error <= max_error]
    if not kept:
        raise ValueError(
            f"No range keeps the error within {max_error:.4g}. The smallest, with all "
            f"devices in full use, is {min(p.error for p in points):.4g}."
        )
    return min(kept, key=lambda point: point.energy)


class _Accuracy:
    """The metric of chips at points of a front."""

    def __init__(self, model, crossbar, data, chips, seed):
        if data[1] is None:
            raise ValueError("`max_loss` needs targets: data=(inputs, targets).")
        self.model, self.crossbar, self.data = model, crossbar, data
        self.chips, self.seed = chips, seed

    def choose(self, front, max_loss):
        """The front with its point of least energy that loses at most so much."""
        before = self.model.evaluate(*self.data, verbose=0, return_dict=True)
        metric = chosen_metric(None, before)
        sign = -1.0 if metric == "loss" else 1.0
        points = list(front.points)
        low, high = 0, len(points)  # By bisection: energy buys accuracy.
        while low < high:
            middle = (low + high) // 2
            points[middle] = self._measured(points[middle], metric)
            if sign * (before[metric] - points[middle].metric) <= max_loss:
                high = middle
            else:
                low = middle + 1
        if low == len(points):
            raise ValueError(
                f"No range loses at most {max_loss:.4g} of {metric}: with all devices "
                f"in full use it is {points[-1].metric:.4g}, in software "
                f"{before[metric]:.4g}."
            )
        return replace(front, points=tuple(points), chosen=points[low], metric=metric)

    def _measured(self, point, metric):
        crossbar = _with_range(self.crossbar, point.g_u)
        found = monte_carlo(
            _converted(self.model, crossbar),
            None,
            self.data,
            chips=self.chips,
            seed=self.seed,
            verbose=0,
        )
        return point.measured(found.values(metric=metric))
