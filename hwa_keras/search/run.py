"""Run: one search with NSGA-II, its state after some generations and its front."""

import numpy as np

from hwa_keras.search.checkpoint import read_checkpoint, write_checkpoint
from hwa_keras.search.design_space import Candidate
from hwa_keras.search.evaluation import failed, report_failures
from hwa_keras.search.search_result import (
    SearchResult,
    Solution,
    costs_of,
    hypervolume,
    pareto,
)

__all__ = ["Run"]


class Run:
    """One search: its state after some generations, and what it has found.

    Args:
        design: A `DesignSpace`.
        evaluation: An `Evaluation`.
        population, seed, initial, checkpoint: As in `search`.
        bar: A progress bar of candidates.
    """

    def __init__(self, design, evaluation, population, seed, initial, bar, checkpoint):
        self.design = design
        self.evaluation = evaluation
        self.directions = evaluation.objectives.directions
        self.population, self.seed = population, seed
        self.bar, self.checkpoint = bar, checkpoint
        self.given = [design.genes(candidate) for candidate in initial]
        if len(self.given) > population:
            raise ValueError(
                f"`initial` has {len(self.given)} candidates, and the population "
                f"{population}. Give a larger `population`."
            )
        self.history, self.failures, self.reference = [], [], []

    def until(self, generations, mode):
        """Run up to so many generations, from the checkpoint if there is one."""
        self._begin(generations)
        while len(self.history) < generations:
            genes = self.algorithm.ask()
            if not len(genes):
                self.bar.update(self.bar.target, finalize=True)
                break  # All that can be reached is in the population.
            self._advance(genes)
            if self.checkpoint is not None:
                write_checkpoint(self.checkpoint, self._state())
        names = list(self.directions)
        return SearchResult(
            mode,
            self.seed,
            self.directions,
            self._front(),
            self.history,
            [Candidate.from_dict(each) for each in self.failures],
            dict(zip(names, self.reference, strict=True)),
        )

    def _begin(self, generations):
        from hwa_keras.search.nsga2 import NSGA2Search

        count = len(self.directions)
        state = read_checkpoint(self.checkpoint, self._settings(), generations)
        first = self.given if state is not None else self._first()
        arguments = self.design, count, self.population, self.seed
        self.algorithm = NSGA2Search(*arguments, first)
        if state is None:
            return
        values = [_from_json(each) for each in state["values"]]
        costs, bad = self._judged(values)
        self.algorithm.restore(state["nsga2"], costs, bad, values)
        self.history, self.failures = state["history"], state["failures"]
        self.reference = state["reference"]
        self.evaluation.add(self._candidates(self.algorithm.genes), values)
        self.bar.add(self.population * len(self.history))

    def _first(self):
        """Genes of the first generation: those given, and random ones."""
        rng = np.random.default_rng([self.seed, 1])
        more = self.population - len(self.given)
        if not more:
            return np.array(self.given)
        drawn = self.design.sample(more, rng)
        return np.concatenate([np.array(self.given).reshape(-1, drawn.shape[1]), drawn])

    def _advance(self, genes):
        candidates = self._candidates(genes)
        values = self.evaluation(candidates, self.bar.add)
        costs, bad = self._judged(values)
        new = [
            wrong and candidate.to_dict() not in self.failures
            for candidate, wrong in zip(candidates, bad, strict=True)
        ]
        report_failures(candidates, values, new)
        self.failures += [
            c.to_dict() for c, is_new in zip(candidates, new, strict=True) if is_new
        ]
        if not self.reference:
            if bad.all():
                raise ValueError(
                    "No candidate of the first generation has finite objectives. The "
                    f"first gave {values[0]}."
                )
            directions = self.directions.values()
            signs = np.array([-1 if d == "max" else 1 for d in directions])
            self.reference = (signs * costs[~bad].max(0)).tolist()
        self.algorithm.tell(costs, bad, values)
        front = [costs_of(s.values, self.directions) for s in self._front()]
        worst = dict(zip(self.directions, self.reference, strict=True))
        self.history.append(
            {
                "generation": len(self.history) + 1,
                "evaluations": self._evaluations() + len(genes),
                "failures": len(self.failures),
                "front": len(front),
                "hypervolume": hypervolume(front, costs_of(worst, self.directions)),
            }
        )

    def _evaluations(self):
        return self.history[-1]["evaluations"] if self.history else 0

    def _candidates(self, genes):
        return [self.design.candidate(row) for row in genes]

    def _judged(self, values):
        """Costs `[n, objectives]` of candidates with some values, and which failed."""
        costs = np.array([costs_of(v, self.directions) for v in values])
        return costs, np.array([failed(v, self.directions) for v in values])

    def _front(self):
        genes, values = self.algorithm.genes, self.algorithm.values
        best = np.flatnonzero(self.algorithm.best)
        best = best[pareto([costs_of(values[i], self.directions) for i in best])]
        candidates = self._candidates(genes[best])
        return [
            Solution(candidate, values[i])
            for candidate, i in zip(candidates, best, strict=True)
        ]

    def _settings(self):
        return {
            "population": self.population,
            "seed": self.seed,
            "directions": self.directions,
            **self.design.describe(),
        }

    def _state(self):
        return {
            "settings": self._settings(),
            "generation": len(self.history),
            "nsga2": self.algorithm.state(),
            "values": [_to_json(values) for values in self.algorithm.values],
            "history": self.history,
            "failures": self.failures,
            "reference": self.reference,
        }


def _to_json(values):
    """Values with strings for numbers that JSON has not."""
    return {n: v if np.isfinite(v) else str(v) for n, v in values.items()}


def _from_json(values):
    return {name: float(value) for name, value in values.items()}
