"""compare_spectra: what training has done to the singular values of kernels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import rich.table
import scipy.stats

from hwa_keras.analysis.spectrum import named_kernels, selected, spectra_of
from hwa_keras.core.types import ArrayLike, PathLike, Selector, Self
from hwa_keras.results.plots import finish, new_axes, next_color
from hwa_keras.results.tabular import Tabular, plain_table
from hwa_keras.results.text import plot_text

__all__ = ["Difference", "SpectrumComparison", "compare_spectra"]


@dataclass(frozen=True, eq=False)
class Difference:
    """How a quantity differs between two sets of models.

    Args:
        first: The mean over the first set.
        second: The mean over the second set.
        change: The relative change, (second − first)/first; NaN where `first` is 0.
        t: The statistic of the t-test, positive where the second mean is larger; NaN
            where no set has any spread.
        p: The probability of a |t| as large if the means were the same.

    Each is a float, or an array with a number for each singular value.

    Example:
        >>> found = hwa_keras.analysis.SpectrumComparison(
        ...     {"head/kernel": [[4.0], [4.2]]}, {"head/kernel": [[5.0], [5.4]]}
        ... ).mean()
        >>> isinstance(found, hwa_keras.analysis.Difference)
        True
        >>> round(found.change, 3), round(found.t, 3), round(found.p, 3)
        (0.268, 4.919, 0.069)
    """

    first: np.ndarray | float
    second: np.ndarray | float
    change: np.ndarray | float
    t: np.ndarray | float
    p: np.ndarray | float


class SpectrumComparison(Tabular):
    """The leading singular values of kernels in two sets of models.

    `compare_spectra` makes one.

    Args:
        first: Dictionary from the paths of kernels to arrays of shape
            `(models, values)`.
        second: The same of the second set.
        mode: Integer, the axis along which the kernels were unfolded.
        equal_var: Bool, whether the test takes the variances of both sets as equal.

    Example:
        >>> found = hwa_keras.analysis.SpectrumComparison(
        ...     {"conv/kernel": np.array([[4.0, 2.0], [4.2, 2.2]])},
        ...     {"conv/kernel": np.array([[5.0, 2.1], [5.2, 2.3]])},
        ... )
        >>> [round(float(c), 3) for c in found.values().change]
        [0.244, 0.048]
    """

    def __init__(
        self,
        first: Mapping[str, ArrayLike],
        second: Mapping[str, ArrayLike],
        mode: int = -1,
        equal_var: bool = False,
    ) -> None:
        self.first = {k: np.asarray(v, "float64") for k, v in first.items()}
        self.second = {k: np.asarray(v, "float64") for k, v in second.items()}
        self.mode = mode
        self.equal_var = equal_var

    @property
    def kernels(self) -> list[str]:
        """The paths of the kernels, in the order of the models."""
        return list(self.first)

    def values(self, kernel: str | None = None) -> "Difference":
        """The difference of each singular value.

        Args:
            kernel: One of `kernels`; None where there is only one.

        Returns:
            A `Difference` of arrays of shape `(values,)`.

        Raises:
            ValueError: If the kernel was not compared.
        """
        kernel = self._kernel(kernel)
        return _difference(self.first[kernel], self.second[kernel], self.equal_var)

    def mean(self, kernel: str | None = None) -> "Difference":
        """The difference of the mean of the leading singular values of a model.

        Args:
            kernel: One of `kernels`; None where there is only one.

        Returns:
            A `Difference` of floats.

        Raises:
            ValueError: If the kernel was not compared.
        """
        kernel = self._kernel(kernel)
        first, second = self.first[kernel].mean(axis=1), self.second[kernel].mean(1)
        found = _difference(first, second, self.equal_var)
        return Difference(*(float(number) for number in vars(found).values()))

    def _kernel(self, kernel):
        if kernel is None and len(self.first) == 1:
            return self.kernels[0]
        if kernel not in self.first:
            raise ValueError(
                f"The kernel {kernel!r} was not compared. Give one of: "
                f"{', '.join(self.kernels)}."
            )
        return kernel

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: per kernel one for each value, and their mean."""
        rows = []
        for kernel in self.kernels:
            each, mean = self.values(kernel), self.mean(kernel)
            for i in range(self.first[kernel].shape[1]):
                numbers = {name: float(v[i]) for name, v in vars(each).items()}
                rows.append({"kernel": kernel, "value": i + 1, **numbers})
            rows.append({"kernel": kernel, "value": "mean", **vars(mean)})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything, the values of each model included, as what JSON can hold."""
        return {
            "mode": self.mode,
            "equal_var": self.equal_var,
            "first": {kernel: v.tolist() for kernel, v in self.first.items()},
            "second": {kernel: v.tolist() for kernel, v in self.second.items()},
            "summary": self.rows(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The comparison that `to_dict` wrote."""
        keys = "first", "second", "mode", "equal_var"
        return cls(*(content[key] for key in keys))

    def table(self) -> rich.table.Table:
        """A `rich` table: the means of both sets, the change, t and p."""
        counts = [len(next(iter(s.values()))) for s in (self.first, self.second)]
        heads = [f"first ({counts[0]})", f"second ({counts[1]})", "change", "t", "p"]
        rows = [
            (
                row["kernel"],
                row["value"],
                f"{row['first']:.4f}",
                f"{row['second']:.4f}",
                f"{100 * row['change']:+.1f} %",
                f"{row['t']:.3f}",
                f"{row['p']:.4g}",
            )
            for row in self.rows()
        ]
        title = f"Singular values, mode {self.mode}"
        return plain_table(title, ["kernel", "value", *heads], rows)

    def plot(self, path: PathLike | None = None, axes: Any = None) -> Any:
        """Draw the relative change of each singular value, one line per kernel.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, such as those that the `plot` of another
                comparison returned; or None for a new figure.

        Returns:
            The axes.
        """
        axes = axes or new_axes()
        for kernel in self.kernels:
            change = 100 * np.asarray(self.values(kernel).change)
            numbers = np.arange(1, len(change) + 1)
            color = next_color(axes)
            axes.plot(numbers, change, marker="o", label=plot_text(kernel), color=color)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("singular value, the largest first")
        axes.set_ylabel("relative change (%)")
        return finish(axes, min(len(axes.lines), 3), path)


def compare_spectra(
    first: Iterable[keras.Model],
    second: Iterable[keras.Model],
    layer: Selector | None = None,
    mode: int = -1,
    count: int = 10,
    quantized: bool = False,
    equal_var: bool = False,
) -> SpectrumComparison:
    """Compare the leading singular values of two sets of models of one architecture.

    Such as those trained with many and with few wrong bits. Whether the means of both
    sets differ is told by Welch's t-test, for each singular value and for the mean of
    all that were computed: training with noise may well change the spread of the
    values, which Student's test takes as equal. The t and p that the thesis gives go
    with seven degrees of freedom, those of Student's test of its nine networks, which
    is `equal_var=True`.

    Args:
        first: Iterable of two models or more, as `spectrum` takes them. Of an iterator,
            such as `(keras.models.load_model(p) for p in paths)`, one model at a time
            is held.
        second: The same, the set that is compared to the first.
        layer: Which kernels, as in `spectrum`, by the names of the first model: kernels
            of different models belong together by their order.
        mode: Integer, the axis to unfold along, as in `spectrum`. Defaults to `-1`.
        count: Integer ≥ 1, how many values. Defaults to `10`.
        quantized: Bool, as in `spectrum`. Defaults to `False`.
        equal_var: Bool. Whether to take the variances of both sets as equal, as
            Student's test does. Defaults to `False`: Welch's test.

    Returns:
        A `SpectrumComparison`.

    Raises:
        TypeError: If a set is no iterable of Keras models.
        ValueError: If a set has fewer than two models, the models differ in their
            kernels, or for what `spectrum` raises it.

    Example:
        >>> def trained(scale):
        ...     layer = keras.layers.Dense(4, name="head")
        ...     model = keras.Sequential([keras.Input((8,)), layer])
        ...     layer.kernel.assign(scale * layer.kernel)
        ...     return model
        >>> few = [trained(1.0) for _ in range(3)]
        >>> many = [trained(2.0) for _ in range(3)]
        >>> found = hwa_keras.analysis.compare_spectra(few, many, layer="head")
        >>> found.mean().t > 0, found.values().p.shape
        (True, (4,))

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 4.5 and figure
          4.8 (the ten largest, of the last layer but one).
    """
    chosen, shapes, sets = {}, None, []
    for which, models in {"first": first, "second": second}.items():
        found = []
        for model in _models(which, models):
            named = named_kernels(model)
            kernels = list(named.values())
            if shapes is None:
                shapes = [kernel.view.shape for kernel in kernels]
                meant = selected(kernels, layer)
                chosen = {n: i for i, n in enumerate(named) if named[n] in meant}
            _check_shapes(kernels, shapes, which)
            # Kernels of different models belong together by their order.
            kernels = [kernels[i] for i in chosen.values()]
            found.append(spectra_of(model, kernels, mode, count, quantized))
        if len(found) < 2:
            raise ValueError(
                f"`{which}` must hold two models or more: a t-test needs their spread. "
                f"Received: {len(found)}."
            )
        by_kernel = [np.stack(values) for values in zip(*found, strict=True)]
        sets.append(dict(zip(chosen, by_kernel, strict=True)))
    return SpectrumComparison(sets[0], sets[1], mode, equal_var)


def _difference(first, second, equal_var):
    """The `Difference` of arrays whose first axis is that of the models."""
    # Not where all are the same to the bit: their t would be one of rounding errors.
    spread = np.ptp(first, axis=0) + np.ptp(second, axis=0) > 0
    means = first.mean(axis=0), second.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        test = scipy.stats.ttest_ind_from_stats(
            *(means[1], second.std(axis=0, ddof=1), len(second)),
            *(means[0], first.std(axis=0, ddof=1), len(first)),
            equal_var=equal_var,
        )
        change = np.where(means[0] == 0, np.nan, (means[1] - means[0]) / means[0])
    t, p = (np.where(spread, v, np.nan) for v in (test.statistic, test.pvalue))
    return Difference(*means, change, t, p)


def _models(which, models):
    """The models of a set, one after the other."""
    if isinstance(models, keras.Model) or not hasattr(models, "__iter__"):
        raise TypeError(
            f"`{which}` must be a list, or another iterable, of Keras models. "
            f"Received: {models!r} of type {type(models).__name__}."
        )
    for model in models:
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"`{which}` must hold Keras models. Received in it: {model!r} of type "
                f"{type(model).__name__}."
            )
        yield model


def _check_shapes(kernels, shapes, which):
    found = [kernel.view.shape for kernel in kernels]
    if found != shapes:
        raise ValueError(
            f"All models must have one architecture, and a model in `{which}` has "
            f"kernels of the shapes {found}, unlike the first one: {shapes}."
        )
