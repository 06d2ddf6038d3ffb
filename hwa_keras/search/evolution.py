"""search: architectures, and conductance ranges with them, by NSGA-II."""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from hwa_keras.analysis.study import progress_bar
from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.core.types import PathLike
from hwa_keras.search.design_space import Candidate, DesignSpace
from hwa_keras.search.evaluation import (
    Evaluation,
    as_objectives,
    failed,
    report_failures,
)
from hwa_keras.search.run import Run
from hwa_keras.search.search_result import SearchResult, Solution, costs_of, pareto

__all__ = ["COEFFICIENTS", "MODES", "reevaluate", "scale_ranges", "search"]

MODES = {"M1": None, "M2": "layer", "M2u": "network", "M3": None}
"""Dictionary from modes to what has a conductance range of its own in the search."""

COEFFICIENTS = {
    "written": tuple(np.linspace(0.9, 1.1, 10)),
    "published": tuple(np.cumprod(np.linspace(0.8, 1.0, 10, endpoint=False))),
}
"""Dictionary from names to the coefficients of M3.

Those of the thesis's text are spread over [0.9, 1.1]. Its published code
(github.com/sebastienwood/MemSE) takes ten from 0.8 to 0.98 and multiplies the ranges by
each in turn, so that they compound: from 0.8 down to 0.31.
"""


def search(
    space: Any,
    objectives: Any,
    mode: str = "M2",
    population: int = 64,
    generations: int = 50,
    seed: int = 0,
    multipliers: Sequence[float] = (0.5, 1.5),
    coefficients: str | Sequence[float] = "written",
    initial: Sequence[Candidate] = (),
    executor: Executor | None = None,
    checkpoint: PathLike | None = None,
    verbose: int = 1,
) -> SearchResult:
    """Search for the networks that no other beats in all objectives.

    NSGA-II starts from random architectures, and keeps the best of parents and children
    in each generation. A candidate with an objective that is no finite number is named
    in a warning, and every other beats it.

    Args:
        space: The architectures, as `DesignSpace` takes them, or an object with such a
            `space`, as a `Supernet` is.
        objectives: An objective, or a list of them: objects with `directions`, called
            on a `Candidate`. They have two names or more together.
        mode: `"M1"`, architectures with default ranges; `"M2"`, architectures and a
            range for each layer; `"M2u"`, architectures and one multiplier of all
            ranges; `"M3"`, M1 with its front scaled afterwards by `scale_ranges`.
            Defaults to `"M2"`.
        population: Integer ≥ 2, candidates of a generation. Defaults to `64`.
        generations: Integer ≥ 1, the first one included. Defaults to `50`.
        seed: Integer, of all that is random in the search. Defaults to `0`.
        multipliers: Bounds of g_u in units of its default, as in `DesignSpace`.
            Defaults to `(0.5, 1.5)`.
        coefficients: Of M3, as in `scale_ranges`. Defaults to `"written"`.
        initial: Candidates that the first generation begins with. Defaults to none.
        executor: A `concurrent.futures.Executor` that evaluates the candidates of a
            generation, such as `ProcessPoolExecutor(mp_context=get_context("spawn"))`
            or the `get_executor()` of a Dask client; its workers get the objectives
            pickled. None for this process. Defaults to `None`.
        checkpoint: Path of a file that is written after each generation. If it is
            there, the search goes on from it, and finds what it would have found.
            Defaults to `None`.
        verbose: 0 or 1, whether to show a progress bar. Defaults to `1`.

    Returns:
        A `SearchResult`.

    Raises:
        ImportError: If pymoo is not installed.
        ValueError: If an argument is out of its range, the checkpoint is of another
            search or has more generations, or all candidates fail.

    Example:
        >>> class Depths:
        ...     layers = ("first", "second")
        ...     choices = (hwa_keras.search.Choice("depth", (1, 2)),)
        ...     def encode(self, config): return [config["depth"] - 1]
        ...     def decode(self, indices): return {"depth": int(indices[0]) + 1}
        ...     def sample(self, rng): return {"depth": int(rng.integers(1, 3))}
        ...     def active(self, config): return np.arange(2) < config["depth"]
        >>> def measure(candidate):
        ...     power = sum(candidate.multipliers)
        ...     return {"accuracy": np.tanh(power), "power": power}
        >>> directions = {"accuracy": "max", "power": "min"}
        >>> objective = hwa_keras.search.Objective(measure, directions)
        >>> result = hwa_keras.search.search(
        ...     Depths(), objective, population=10, generations=3, verbose=0
        ... )
        >>> len(result.history)
        3

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, chapter 6.
        - K. Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II",
          IEEE Transactions on Evolutionary Computation 6(2), 2002.
    """
    check_choice("search", tuple(MODES), mode=mode)
    check_count("search", least=2, population=population)
    check_count("search", generations=generations)
    check_count("search", least=0, seed=seed)
    design = DesignSpace(getattr(space, "space", space), multipliers, MODES[mode])
    objectives = as_objectives(objectives)
    if len(objectives.directions) < 2:
        raise ValueError(
            "A search trades objectives against each other and needs two or more. "
            f"Received: {', '.join(objectives.directions)}."
        )
    factors = _coefficients(coefficients)
    bar = progress_bar(population * generations, verbose)
    evaluation = Evaluation(objectives, executor)
    run = Run(design, evaluation, population, seed, initial, bar, checkpoint)
    result = run.until(generations, "M1" if mode == "M3" else mode)
    if mode == "M3":
        return scale_ranges(result, objectives, factors, executor, verbose)
    return result


def scale_ranges(
    result: SearchResult,
    objectives: Any,
    coefficients: str | Sequence[float] = "written",
    executor: Executor | None = None,
    verbose: int = 1,
) -> SearchResult:
    """Multiply all ranges of a front's networks by coefficients: mode M3.

    Args:
        result: A `SearchResult`, of M1 in the thesis.
        objectives: Those of the search.
        coefficients: `"written"`, ten from 0.9 to 1.1, as the thesis says;
            `"published"`, ten from 0.8 down to 0.31, as its code computes; or a
            sequence of floats > 0. Defaults to `"written"`.
        executor: As in `search`.
        verbose: As in `search`.

    Returns:
        A `SearchResult` of mode `"M3"`, the front among the scaled networks.

    Raises:
        ValueError: If coefficients are not positive, or all candidates fail.

    Reference:
        - S. Henwood, 2024, section 6.2.2.
    """
    candidates = [
        solution.candidate.scaled(coefficient)
        for solution in result.front
        for coefficient in _coefficients(coefficients)
    ]
    return _front_among(candidates, "M3", result, objectives, executor, verbose)


def reevaluate(
    result: SearchResult,
    objectives: Any,
    executor: Executor | None = None,
    verbose: int = 1,
) -> SearchResult:
    """Measure the front of a search again, with other objectives or on other data.

    A search keeps whom its own data favors; only new data tells how good they are.

    Args:
        result: A `SearchResult`.
        objectives: An objective or a list of them.
        executor, verbose: As in `search`.

    Returns:
        A `SearchResult`, what no other beats of the front as it is measured now.

    Raises:
        ValueError: If all candidates fail.
    """
    candidates = [solution.candidate for solution in result.front]
    arguments = candidates, result.mode, result, objectives, executor, verbose
    return _front_among(*arguments)


def _front_among(candidates, mode, result, objectives, executor, verbose):
    """The front among candidates, with the history of a result."""
    objectives = as_objectives(objectives)
    directions = objectives.directions
    bar = progress_bar(len(candidates), verbose)
    values = Evaluation(objectives, executor)(candidates, bar.add)
    bad = [failed(v, directions) for v in values]
    report_failures(candidates, values, bad)
    triples = list(zip(candidates, values, bad, strict=True))
    solutions = [Solution(c, v) for c, v, wrong in triples if not wrong]
    if not solutions:
        raise ValueError("No candidate has finite objectives.")
    best = pareto([costs_of(s.values, directions) for s in solutions])
    same = directions == result.directions
    return SearchResult(
        mode,
        result.seed,
        directions,
        [s for s, kept in zip(solutions, best, strict=True) if kept],
        result.history,
        [*result.failures, *(c for c, _, wrong in triples if wrong)],
        result.reference if same else None,
    )


def _coefficients(coefficients):
    if isinstance(coefficients, str):
        check_choice("search", tuple(COEFFICIENTS), coefficients=coefficients)
        return COEFFICIENTS[coefficients]
    factors = np.asarray(coefficients, float)
    if factors.ndim != 1 or not factors.size or not (factors > 0).all():
        raise ValueError(
            "`coefficients` must be 'written', 'published' or a sequence of positive "
            f"numbers. Received: {coefficients!r}."
        )
    return tuple(factors)
