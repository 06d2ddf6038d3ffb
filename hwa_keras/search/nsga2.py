"""NSGA-II of pymoo on a design space: its problem, operators and state.

The one module that imports pymoo's algorithms, when a search starts.
"""

import numpy as np

try:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.crossover import Crossover
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.mutation import Mutation
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem
    from pymoo.core.repair import Repair
    from pymoo.problems.static import StaticProblem
except ImportError as error:
    raise ImportError(
        "Searching for architectures needs pymoo. Install it with "
        "`pip install 'hwa_keras[search]'`."
    ) from error

from hwa_keras.search import operators

__all__ = ["NSGA2Search"]


class NSGA2Search:
    """NSGA-II, one generation after another.

    Args:
        space: A `DesignSpace`.
        objectives: Integer ≥ 2, how many values are minimized.
        population: Integer ≥ 2, the size of the population.
        seed: Integer.
        first: Genes `[n, genes]` of the first generation.
    """

    def __init__(self, space, objectives, population, seed, first):
        self.problem = _Genes(space, objectives)
        self.algorithm = NSGA2(
            pop_size=population,
            sampling=np.asarray(first, float),
            crossover=_Crossover(2, 2),  # Parents and children.
            mutation=_Mutation(prob=0.9),  # As of pymoo's own.
            repair=_Repair(),  # Of the first generation and of each after it.
        )
        self.algorithm.setup(self.problem, seed=seed, termination=("n_gen", np.inf))

    def ask(self):
        """Genes of the next generation `[n, genes]`; none if no new one is found."""
        self._asked = self.algorithm.ask()
        if self._asked is None:
            return np.zeros((0, self.problem.n_var))
        return self._asked.get("X").astype(float)

    def tell(self, costs, failed, values):
        """Select with the costs `[n, objectives]` of what was asked.

        Args:
            costs: Array, smaller is better.
            failed: Bools `[n]`: whom all others beat.
            values: List of any objects, which survivors keep.
        """
        self._evaluate(self._asked, costs, failed, values)
        self.algorithm.tell(infills=self._asked)

    def _evaluate(self, individuals, costs, failed, values):
        costs = np.where(failed[:, None], 0.0, costs)
        known = StaticProblem(self.problem, F=costs, G=failed[:, None].astype(float))
        Evaluator().eval(known, individuals)
        individuals.set("values", values)

    @property
    def genes(self):
        """Genes of the population."""
        return self.algorithm.pop.get("X").astype(float)

    @property
    def values(self):
        """What `tell` was given for each of the population."""
        return list(self.algorithm.pop.get("values"))

    @property
    def best(self):
        """Bools: which of the population no other beats."""
        population = self.algorithm.pop
        first = np.array([rank == 0 for rank in population.get("rank")])
        return first & np.ravel(population.get("FEAS")).astype(bool)

    def state(self):
        """All that the next generations depend on, as what JSON can hold."""
        population = self.algorithm.pop
        return {
            "genes": self.genes.tolist(),
            "ranks": [_number(rank) for rank in population.get("rank")],
            "crowding": [_number(each) for each in population.get("crowding")],
            "iteration": self.algorithm.n_iter,
            "random": self.algorithm.random_state.bit_generator.state,
        }

    def restore(self, state, costs, failed, values):
        """Go on from a state, with what `tell` was given for its population."""
        population = Population.new("X", np.array(state["genes"], float))
        self._evaluate(population, costs, failed, values)
        ends = [np.inf if each == "inf" else each for each in state["crowding"]]
        population.set("rank", state["ranks"])
        population.set("crowding", ends)
        algorithm = self.algorithm
        algorithm._initialize()
        algorithm.pop = population
        algorithm.is_initialized = True
        algorithm.n_iter = state["iteration"]
        algorithm.random_state.bit_generator.state = state["random"]


def _number(value):
    """A rank or crowding distance for JSON; candidates that failed have none."""
    if value is None:
        return None
    if np.isinf(value):
        return "inf"  # At the ends of a front.
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


class _Genes(Problem):
    """Genes within bounds; a violated constraint marks a candidate that failed."""

    def __init__(self, space, objectives):
        super().__init__(
            n_var=len(space.upper),
            n_obj=objectives,
            n_ieq_constr=1,
            xl=space.lower,
            xu=space.upper,
        )
        self.space = space


class _Repair(Repair):
    def _do(self, problem, X, **kwargs):
        return operators.repair(problem.space, X)


class _Crossover(Crossover):
    def _do(self, problem, X, *args, random_state=None, **kwargs):
        return operators.crossover(problem.space, X.astype(float), random_state)


class _Mutation(Mutation):
    def _do(self, problem, X, *args, random_state=None, **kwargs):
        return operators.mutate(problem.space, X.astype(float), random_state)
