"""Objectives of candidates: what a search asks for, here or in other processes."""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hwa_keras.core.checks import check_choice
from hwa_keras.core.workers import Remote
from hwa_keras.search.design_space import Candidate

__all__ = ["Evaluation", "Objective", "Objectives"]

_CHUNKS = 32  # Tasks that a generation is cut into.


class Objective:
    """A function of a candidate, with the directions that its values should go.

    A search takes any object with `directions` and a call of this kind. One that is
    faster on many candidates at once has `evaluate(candidates)` too.

    Args:
        function: Function of a `Candidate` that returns a dictionary from names to
            numbers. It may return more than `directions` names.
        directions: Dictionary from names to `"max"` or `"min"`.

    Raises:
        ValueError: If there are no directions or one is unknown.

    Example:
        >>> objective = hwa_keras.search.Objective(
        ...     lambda candidate: {"layers": sum(candidate.mask)}, {"layers": "min"}
        ... )
        >>> objective(hwa_keras.search.Candidate({}, (1.0, 0.0)))
        {'layers': 1}
    """

    def __init__(
        self,
        function: Callable[[Candidate], Mapping[str, float]],
        directions: Mapping[str, str],
    ) -> None:
        self.function = function
        self.directions = checked_directions(directions)

    def __call__(self, candidate: Candidate) -> Mapping[str, float]:
        return self.function(candidate)


class Objectives:
    """Several objectives as one.

    Args:
        *objectives: Objects with `directions`, called on a candidate.

    Raises:
        TypeError: If one has no directions or is no function.
        ValueError: If two have the same name, or there is none.
    """

    def __init__(self, *objectives: Any) -> None:
        if not objectives:
            raise ValueError("`Objectives` needs at least one objective.")
        self.objectives = objectives
        self.directions = {}
        for objective in objectives:
            if not (callable(objective) and hasattr(objective, "directions")):
                raise TypeError(
                    "An objective is called on a candidate and has `directions`, such "
                    f"as Objective(function, {{'name': 'min'}}). Received: "
                    f"{objective!r}."
                )
            directions = checked_directions(objective.directions)
            twice = [name for name in directions if name in self.directions]
            if twice:
                raise ValueError(f"Two objectives are named '{twice[0]}'.")
            self.directions.update(directions)

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        return self.evaluate([candidate])[0]

    def evaluate(self, candidates: Sequence[Candidate]) -> list[dict[str, float]]:
        """The values of a list of candidates, a list of dictionaries."""
        merged = [{} for _ in candidates]
        for objective in self.objectives:
            several = getattr(objective, "evaluate", None)
            found = several(candidates) if several else map(objective, candidates)
            for values, more in zip(merged, found, strict=True):
                values.update(_checked(more, objective))
        return merged


def as_objectives(objectives):
    """One objective or a list of them, as `Objectives`."""
    if isinstance(objectives, Objectives):
        return objectives
    if isinstance(objectives, (list, tuple)):
        return Objectives(*objectives)
    return Objectives(objectives)


def checked_directions(directions):
    """Directions as a dictionary, each `"max"` or `"min"`."""
    if not (isinstance(directions, Mapping) and directions):
        raise ValueError(
            "`directions` must be a dictionary from names to 'max' or 'min'. "
            f"Received: {directions!r}."
        )
    for direction in directions.values():
        check_choice("an objective", ("max", "min"), directions=direction)
    return dict(directions)


def _checked(values, objective):
    """What an objective returned, as floats."""
    missing = [name for name in objective.directions if name not in values]
    if missing:
        raise ValueError(
            f"An objective promises {', '.join(objective.directions)} and returned "
            f"only {', '.join(map(repr, values)) or 'nothing'}."
        )
    return {str(name): float(value) for name, value in values.items()}


class Evaluation:
    """Values of candidates, each evaluated once.

    Args:
        objectives: `Objectives`.
        executor: A `concurrent.futures.Executor`, or None for this thread.
    """

    def __init__(self, objectives, executor=None):
        self.objectives = objectives
        self._known = {}
        self._remote: Any = None
        if executor is not None:
            self._remote = Remote(objectives, executor, "the objectives")

    @property
    def count(self):
        """How many candidates were evaluated."""
        return len(self._known)

    def add(self, candidates, values):
        """Take over values from an earlier run."""
        for candidate, found in zip(candidates, values, strict=True):
            self._known[_digest(candidate.key.encode())] = found

    def __call__(self, candidates, done=lambda count: None):
        """The values of candidates, a list of dictionaries.

        Args:
            candidates: A list of `Candidate`s.
            done: Function that is told how many more are finished.
        """
        keys = [_digest(candidate.key.encode()) for candidate in candidates]
        new = {k: c for k, c in zip(keys, candidates, strict=True)}
        new = {k: c for k, c in new.items() if k not in self._known}
        run = self._here if self._remote is None else self._elsewhere
        done(len(candidates) - len(new))
        found = run(list(new.values()), done)
        self._known.update(zip(new, found, strict=True))
        return [self._known[key] for key in keys]

    def _here(self, candidates, done):
        if any(hasattr(o, "evaluate") for o in self.objectives.objectives):
            found = self.objectives.evaluate(candidates) if candidates else []
            done(len(candidates))
            return found
        found = []
        for candidate in candidates:
            found.append(self.objectives(candidate))
            done(1)
        return found

    def _elsewhere(self, candidates, done):
        size = -(-len(candidates) // _CHUNKS) or 1
        chunks = [candidates[i : i + size] for i in range(0, len(candidates), size)]
        found = []
        for values in self._remote.map("evaluate", chunks):
            found += values
            done(len(values))
        return found


def failed(values, directions):
    """Whether an objective of a candidate is no finite number."""
    return not all(np.isfinite(values[name]) for name in directions)


def report_failures(candidates, values, bad):
    """Warn of each candidate whose objectives are not finite."""
    for candidate, found, wrong in zip(candidates, values, bad, strict=True):
        if wrong:
            warnings.warn(
                f"The configuration {candidate.config} with multipliers "
                f"{candidate.multipliers} gave {found}. The search goes on without it.",
                stacklevel=3,
            )


def _digest(content):
    return hashlib.blake2b(content, digest_size=16).digest()
