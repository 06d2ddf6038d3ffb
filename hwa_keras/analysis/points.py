"""Points: what a study changes from one evaluation of a chip to the next."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from hwa_keras.results import Axis

if TYPE_CHECKING:
    from hwa_keras.analysis.study import ChipStudy

__all__ = ["Bench", "Points"]


class Bench:
    """A model that becomes chip after chip, and is put at point after point.

    Args:
        model: The compiled Keras model that is evaluated.
        data: Dictionary of arguments of its `evaluate`.
        calibrate: Function without arguments that calibrates the chip as it is, or
            None.

    Attributes:
        settled: Set of the points at which all chips are the same, so that one is
            enough.
        settings: Dictionary of what the numbers depend on, such as the device.
    """

    def __init__(
        self,
        model: keras.Model,
        data: dict[str, Any],
        calibrate: Callable[[], Any] | None = None,
    ) -> None:
        self.model, self.data, self.calibrate = model, data, calibrate
        self.settled: set = set()
        self.settings: dict = {}

    def write(self, seed: int) -> None:
        """Become the chip of a seed."""

    def put(self, point: tuple) -> None:
        """Put the chip at a point: a tuple with a level of each axis."""

    def evaluate(self, point: tuple) -> dict[str, float]:
        """{metric: value} of the chip at a point."""
        self.put(point)
        if self.calibrate is not None:
            self.calibrate()
        return self.model.evaluate(**self.data, return_dict=True, verbose=0)


class Points:
    """Base class of the points of a study.

    `ChipStudy.run` evaluates each chip at each of them. Their numbers must depend on
    the arguments and on the seed of a chip alone: a study may cut its chips into shares
    that run elsewhere, for which points are pickled.

    Attributes:
        axes: Tuple of `hwa_keras.results.Axis`es; a point is a level of each.
        is_random: Bool, whether chips differ. If not, one is evaluated.

    Example:
        >>> from hwa_keras.analysis import Bench, ChipStudy, Points
        >>> from hwa_keras.results import Axis
        >>> class Scaled(Points):
        ...     axes = (Axis("factor", [1.0, 0.5]),)
        ...     is_random = False
        ...     def bench(self, study):
        ...         return ScaledBench(study.model, study.evaluable())
        >>> class ScaledBench(Bench):
        ...     def put(self, point):
        ...         self.model.layers[-1].kernel.assign(point[0] * np.ones((8, 3)))
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mae")
        >>> data = np.ones((4, 8)), np.zeros((4, 3))
        >>> found = ChipStudy(model, data, verbose=0).run(Scaled())
        >>> round(found.estimate(1.0).mean, 4), round(found.estimate(0.5).mean, 4)
        (8.0, 4.0)
    """

    axes: tuple[Axis, ...] = ()
    is_random = True

    def axes_of(self, study: "ChipStudy") -> tuple[Axis, ...]:
        """The axes, where they depend on the model of a `ChipStudy`."""
        return self.axes

    def bench(self, study: "ChipStudy") -> Bench:
        """A `Bench` for a `ChipStudy`.

        Raises:
            ValueError: If the model, the data or what the points ask for is not right.
        """
        raise NotImplementedError
