"""rank_samples: how many mini-batches it takes to tell which network is better."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwa_keras.core.checks import check_count, check_not_negative
from hwa_keras.core.types import ArrayLike, PathLike
from hwa_keras.results.plots import finish, new_axes, next_color
from hwa_keras.results.text import plot_text

__all__ = ["RankSamples", "rank_samples"]


@dataclass(frozen=True)
class RankSamples:
    """The least number of mini-batches that ranks networks, over their difference.

    `rank_samples` makes one.

    Args:
        deltas: Tuple of floats, differences between networks, ascending.
        needed: Tuple of integers, the mini-batches that the search found for each;
            None where no two networks differ by so much.
        epsilon: Float, the probability of a wrong rank that is accepted.
        name: String, what was measured.
    """

    deltas: tuple[float, ...]
    needed: tuple[int | None, ...]
    epsilon: float
    name: str = "value"

    def front(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (δ, n) that no other beats in both, arrays: n falls with δ."""
        least, kept = np.inf, []
        for delta, count in zip(self.deltas, self.needed, strict=True):
            if count is not None and count < least:
                kept.append((delta, count))
                least = count
        deltas, counts = zip(*kept, strict=True)
        return np.array(deltas), np.array(counts)

    def at(self, delta: float) -> int:
        """Mini-batches for networks that differ by delta: linear between the front.

        Raises:
            ValueError: If delta is below the smallest that was tried.
        """
        deltas, counts = self.front()
        if delta < deltas[0]:
            raise ValueError(
                f"The smallest difference with an answer is {deltas[0]:.4g}. Received: "
                f"delta={delta!r}."
            )
        return int(np.ceil(np.interp(delta, deltas, counts) - 1e-9))

    def plot(self, path: PathLike | None = None, axes: Any = None) -> Any:
        """Draw the mini-batches over the difference.

        Args:
            path: Where to write the figure (its ending tells the format), or None.
            axes: Matplotlib axes to draw on, or None for a new figure.

        Returns:
            The axes.
        """
        axes = axes or new_axes()
        label = plot_text(f"{self.name}, ε = {self.epsilon:g}")
        style = {"marker": "o", "markersize": 3, "color": next_color(axes)}
        axes.plot(*self.front(), label=label, **style)
        axes.set_xlabel("difference δ, relative to the range over networks")
        axes.set_ylabel("mini-batches")
        return finish(axes, 2, path)


def rank_samples(
    values: ArrayLike | Iterable[ArrayLike],
    deltas: ArrayLike | None = None,
    epsilon: float = 0.05,
    orders: int = 200,
    seed: int = 0,
    name: str = "value",
) -> RankSamples:
    """Find how many mini-batches tell which of two networks is better.

    The least n for which Pr(A_j(n) > A_l(n)) > 1 − ε over networks j and l with
    A_j(N) > A_l(N) + δ, by bisection; A(n) is the mean of n mini-batches, the same for
    both networks, drawn without replacement from all N. All pairs count, over random
    orders of the mini-batches.

    Args:
        values: Array `[networks, N]`, what each network gave on each mini-batch; or an
            iterable of such rows.
        deltas: Sequence of floats ≥ 0, relative to the range of A(N) over the networks.
            Defaults to 25 from 0.002 to 0.5, evenly spaced in logarithm.
        epsilon: Float in ]0, 1[. Defaults to `0.05`.
        orders: Integer ≥ 1, random orders of the mini-batches. Defaults to `200`.
        seed: Integer, of the orders. Defaults to `0`.
        name: String, what was measured, for plots.

    Returns:
        A `RankSamples`.

    Raises:
        ValueError: If there are no two networks, values are not finite, all networks
            are equal, or an argument is out of its range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> accuracies = rng.normal(np.linspace(0.5, 0.9, 20)[:, None], 0.05, (20, 50))
        >>> found = hwa_keras.search.rank_samples(accuracies)
        >>> found.at(0.2) < found.at(0.05)
        True

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 6.3.2, equation
          6.7 and figure 6.1.
    """
    values = _checked(values, epsilon, orders)
    if deltas is None:
        deltas = np.geomspace(0.002, 0.5, 25)
    deltas = np.sort(np.asarray(deltas, float).ravel())
    check_not_negative("rank_samples", deltas=float(deltas.min(initial=0.0)))
    rng = np.random.default_rng(seed)
    means = values.mean(axis=1)
    better, worse = np.nonzero(means[:, None] > means[None])
    if not len(better):
        raise ValueError("All networks are equal: there is no rank to find.")
    gaps = (means[better] - means[worse]) / np.ptp(means)
    rank = np.array([rng.permutation(values.shape[1]) for _ in range(orders)])

    def right(n):
        """How often each pair has its right rank after n mini-batches."""
        firsts = values[:, rank[:, :n]].mean(axis=2)  # [networks, orders]
        return (firsts[better] > firsts[worse]).mean(axis=1)

    return RankSamples(
        tuple(deltas.tolist()),
        tuple(_bisect(right, gaps > d, values.shape[1], epsilon) for d in deltas),
        float(epsilon),
        name,
    )


def _checked(values, epsilon, orders):
    values = np.asarray([np.asarray(row, float) for row in values])
    if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
        raise ValueError(
            "`values` must be an array [networks, mini-batches] of two networks or "
            f"more. Received the shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("`values` has entries that are not finite.")
    if not 0 < epsilon < 1:
        raise ValueError(
            f"`epsilon` of rank_samples must be in ]0, 1[. Received: {epsilon!r}."
        )
    check_count("rank_samples", orders=orders)
    return values


def _bisect(right, pairs, most, epsilon):
    """The least n at which pairs have their right rank, or None without pairs.

    Mini-batches beyond n only help; all of them are always right.
    """
    if not pairs.any():
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if right(middle)[pairs].mean() > 1 - epsilon:
            high = middle
        else:
            low = middle + 1
    return low
