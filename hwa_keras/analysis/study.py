"""ChipStudy: many chips, each evaluated at many points."""

import itertools
import sys
from concurrent.futures import Executor
from typing import Any, TypedDict

import keras

from hwa_keras.analysis.points import Points
from hwa_keras.analysis.study_data import evaluable
from hwa_keras.core.checks import check_count, check_positive
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Data
from hwa_keras.core.workers import Remote
from hwa_keras.results import Result
from hwa_keras.results.estimates import is_precise

__all__ = ["ChipStudy", "StudyOptions", "check_compiled"]

_SHARES = 16  # Calls that chips are cut into for an executor, or fewer.


class StudyOptions(TypedDict, total=False):
    """The options of `ChipStudy`, as functions that make one take them by name."""

    metric: str | None
    chips: int | range
    seed: int
    calibration: Data | None
    tolerance: float | None
    min_chips: int
    batch_size: int
    executor: Executor | None
    verbose: int


class ChipStudy:
    """Many chips of a model, each evaluated at many points.

    `run(points)` makes chip i from the seed `seed + i`, and evaluates it at each point:
    the times of a drift sweep, the levels of a noise, the layers that are probed. All
    chips run in one compiled graph. `drift_sweep`, `monte_carlo`, `robustness_curve`,
    `layer_sensitivity`, `quantization_curve` and `shift_curve` are studies of which
    each defines points; they take the options below by name.

    Args:
        model: A built and compiled Keras model, as `program` takes it. It is not
            changed.
        data: What to evaluate on, all that `model.evaluate` takes: `(x, y)` or `(x, y,
            sample_weight)` of arrays, or of lists or dictionaries of arrays for several
            inputs; a batched `tf.data.Dataset` or a `keras.utils.PyDataset`, which have
            an end; or a generator, whose batches are read once and kept.
        metric: Name of the compiled metric (or `"loss"`) that early stopping, tables
            and figures look at. Defaults to the first metric, else the loss. All are
            measured.
        chips: Integer ≥ 1, the number of chips, or with `tolerance` the largest
            number; or a `range` of their numbers i, the share of one of several
            machines, whose results `Result.join` puts together. Defaults to `25`.
        seed: Integer, the seed of chip 0. Defaults to `0`.
        calibration: Inputs, as `adapt_batchnorm` takes them, or None. With inputs, each
            chip is calibrated before each evaluation, from what it was when it was
            written.
        tolerance: Float, or None. Stop once the 95 % interval of the mean of `metric`
            is within ± tolerance at every point, after `min_chips` at the earliest.
        min_chips: Integer ≥ 10, the chips before an early stop. Defaults to `30`, of
            which at least one is dead in 96 % of the cases if one of ten is.
        batch_size: Integer ≥ 1, for arrays. Defaults to `256`.
        executor: A `concurrent.futures.Executor` whose workers evaluate the chips, such
            as a `ProcessPoolExecutor` or that of a Dask cluster; or None for here. The
            result is the same. Workers get the model and the data pickled.
        verbose: 0 or 1, whether to show a progress bar (in a log: one line at the
            end). Defaults to `1`.

    Raises:
        ValueError: If the model is not compiled, or an argument is out of its range.

    Example:
        >>> from hwa_keras.analysis import ChipStudy, DriftPoints
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3))
        >>> study = ChipStudy(model, data, chips=2, verbose=0)
        >>> found = study.run(DriftPoints("pcm", times=[1.0, 3600.0]))
        >>> found.values("measured", "3600 s").shape
        (2,)
    """

    def __init__(
        self,
        model: keras.Model,
        data: Data,
        *,
        metric: str | None = None,
        chips: int | range = 25,
        seed: int = 0,
        calibration: Data | None = None,
        tolerance: float | None = None,
        min_chips: int = 30,
        batch_size: int = 256,
        executor: Executor | None = None,
        verbose: int = 1,
    ) -> None:
        self.model, self.data, self.metric = model, data, metric
        self.numbers = _numbers(chips)
        self.seed = check_count("ChipStudy", least=0, seed=seed)
        self.calibration = calibration
        self.tolerance, self.min_chips = tolerance, min_chips
        self.batch_size = check_count("ChipStudy", batch_size=batch_size)
        self.executor, self.verbose = executor, verbose
        _check_stop(tolerance, min_chips, len(self.numbers))
        check_compiled(model)

    def evaluable(self) -> dict[str, Any]:
        """The data, as arguments of `evaluate` that are read as often as needed."""
        return evaluable(self.data, self.batch_size)

    def run(self, points: Points) -> Result:
        """Evaluate each chip at each point.

        Args:
            points: A `Points`, such as `DriftPoints`.

        Returns:
            A `hwa_keras.results.Result` over the axes of the points.
        """
        numbers = self.numbers if points.is_random else self.numbers[:1]
        work = _Work(self, points)
        share = work.share if self.executor is None else work.elsewhere(self.executor)
        bar = progress_bar(len(numbers) * len(work.points), self.verbose)
        samples: dict = {point: {} for point in work.points}
        settled: set = set()
        metric: Any = self.metric
        settings: dict[str, Any] = {}
        for part in self._rounds(numbers):
            for found, exact, told in share(part, bar.add):
                settled, settings = settled | exact, told
                for point, chips in found.items():
                    samples[point] |= chips
            metric = chosen_metric(metric, _any_values(samples))
            last = self._last_needed(samples, metric, settled, part)
            if last is not None:
                samples = _up_to(last, samples)
                bar.update(bar.target, finalize=True)
                break
        for point in settled:  # All chips are the same: one stands for them.
            samples[point] = {numbers[0]: _any_values({point: samples[point]})}
        if points.is_random:
            settings = {**settings, "seed": self.seed}
        return Result(self.model.name, metric, work.axes, samples, settings)

    def _rounds(self, numbers):
        """The numbers of the chips, in parts between which the study may stop."""
        if self.tolerance is None or len(numbers) <= self.min_chips:
            return [numbers]
        size = 1 if self.executor is None else _SHARES
        first, rest = numbers[: self.min_chips], numbers[self.min_chips :]
        return [first, *(rest[i : i + size] for i in range(0, len(rest), size))]

    def _last_needed(self, samples, metric, settled, part):
        """The number of the first chip at which the study may stop, or None."""
        if self.tolerance is None or len(self.numbers) <= self.min_chips:
            return None
        chips = [c for point, c in samples.items() if point not in settled]
        for last in part:
            if last >= self.numbers[self.min_chips - 1] and all(
                is_precise(_values(c, metric, last), self.tolerance, self.min_chips)
                for c in chips
            ):
                return last
        return None

    def __getstate__(self):
        # To a worker, which has no executor of its own, shows nothing, and trains not.
        state = {**vars(self), "executor": None, "verbose": 0}
        return {**state, "model": _without_optimizer(self.model)}


class _Work:
    """What a worker does: chips of some numbers, at all points."""

    def __init__(self, study, points):
        self.study, self.definition = study, points
        self.axes = points.axes_of(study)
        self.points = list(itertools.product(*(axis.levels for axis in self.axes)))
        self._bench = None

    def __getstate__(self):
        return {**vars(self), "_bench": None}

    def chips(self, numbers, done=lambda count: None):
        """{point: {chip: {metric: value}}}, the settled points, and settings.

        Args:
            numbers: The numbers of the chips.
            done: Function that is told how many more evaluations are finished.
        """
        if self._bench is None:
            self._bench = self.definition.bench(self.study)
        bench, samples = self._bench, {point: {} for point in self.points}
        for i in numbers:
            bench.write(self.study.seed + i)
            for point in self.points:
                if point not in bench.settled:
                    samples[point][i] = bench.evaluate(point)
                    chosen_metric(self.study.metric, samples[point][i])
                done(1)
        return samples, set(bench.settled), bench.settings

    def share(self, numbers, done):
        """Yield what `chips` returns for some numbers."""
        yield self.chips(numbers, done)

    def elsewhere(self, executor):
        """`share`, run by the workers of an executor."""
        remote = Remote(self, executor, "the study")

        def share(numbers, done):
            size = -(-len(numbers) // _SHARES)
            parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
            for part, found in zip(parts, remote.map("chips", parts), strict=True):
                done(len(part) * len(self.points))
                yield found

        return share


def _without_optimizer(model):
    """A copy of a model for evaluation: its optimizer has no state to be sent."""
    copy = replicate(model)
    copy.compile_from_config({**model.get_compile_config(), "optimizer": "sgd"})
    return copy


def _any_values(samples):
    """{metric: value} of some chip at some point."""
    return next(values for chips in samples.values() for values in chips.values())


def _values(chips, metric, last):
    """The values of a metric, up to a chip."""
    return [values[metric] for i, values in chips.items() if i <= last]


def _up_to(last, samples):
    """Samples without the chips after one."""
    return {
        point: {i: values for i, values in chips.items() if i <= last}
        for point, chips in samples.items()
    }


def _numbers(chips):
    """The numbers of the chips, as an ascending range."""
    if not isinstance(chips, range):
        return range(check_count("ChipStudy", chips=chips))
    if not chips:
        raise ValueError("`chips` is an empty range: there is no chip to program.")
    if chips.step < 0 or chips.start < 0:
        raise ValueError(
            "`chips` must be a range of ascending numbers ≥ 0. Received: "
            f"chips={chips!r}."
        )
    return chips


def _check_stop(tolerance, min_chips, chips):
    check_count("ChipStudy", least=10, min_chips=min_chips)
    if tolerance is None:
        return
    check_positive("ChipStudy", tolerance=tolerance)
    if chips <= min_chips:
        raise ValueError(
            f"`tolerance` stops a study after min_chips={min_chips} chips at the "
            f"earliest, and there are {chips}. Allow more `chips`, or leave "
            "`tolerance` out."
        )


def check_compiled(model):
    """Raise an error if a model cannot be evaluated."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model. Received: "
            f"{model!r} of type {type(model).__name__}."
        )
    if not model.compiled:
        raise ValueError(
            f"The model '{model.name}' is not compiled. Call model.compile(loss=..., "
            "metrics=[...]) first: it is evaluated with its loss and metrics."
        )


def progress_bar(target, verbose):
    """A progress bar of evaluations: in a log, one line at the end."""
    if verbose and not sys.stdout.isatty() and "ipykernel" not in sys.modules:
        verbose = 2  # In a log, one line at the end.
    return keras.utils.Progbar(target, verbose=verbose, unit_name="evaluation")


def chosen_metric(metric, values):
    """The metric asked for, or the first of the values found, or else the loss."""
    if metric is None:
        return next((name for name in values if name != "loss"), "loss")
    if metric not in values:
        raise ValueError(
            f"`metric` '{metric}' is not among the compiled ones: {', '.join(values)}."
        )
    return metric
