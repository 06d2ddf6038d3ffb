"""Objectives, their composition, and where they are evaluated."""

import concurrent.futures
import math

import pytest

from hwa_keras.search import Candidate, Objective, Objectives
from hwa_keras.search.evaluation import Evaluation
from tests.search.small_space import Model

ONE, TWO = Candidate({"d": 1}, (1.0,)), Candidate({"d": 2}, (1.0,))


class Batched:
    """An objective that is asked once for many candidates."""

    directions = {"depth": "max"}

    def __init__(self):
        self.asked = []

    def __call__(self, candidate):
        return self.evaluate([candidate])[0]

    def evaluate(self, candidates):
        self.asked.append(len(candidates))
        return [{"depth": c.config["d"], "extra": 7} for c in candidates]


def test_several_objectives_are_one():
    square = Objective(lambda c: {"square": c.config["d"] ** 2}, {"square": "min"})
    batched = Batched()
    both = Objectives(square, batched)
    assert both.directions == {"square": "min", "depth": "max"}
    assert both(TWO) == {"square": 4.0, "depth": 2.0, "extra": 7.0}
    assert Evaluation(both)([ONE, TWO, ONE])[2]["square"] == 1.0
    assert batched.asked == [1, 2]


def test_a_known_candidate_is_not_evaluated_again():
    calls = []
    evaluation = Evaluation(
        Objectives(Objective(lambda c: calls.append(c) or {"a": 1.0}, {"a": "min"}))
    )
    evaluation.add([ONE], [{"a": 5.0}])
    finished = []
    found = evaluation([ONE, TWO, TWO], finished.append)
    assert [f["a"] for f in found] == [5.0, 1.0, 1.0] and calls == [TWO]
    assert sum(finished) == 3 and evaluation.count == 2


def test_bad_objectives_are_refused():
    with pytest.raises(ValueError, match="`directions` of an objective must be one of"):
        Objective(len, {"a": "up"})
    with pytest.raises(ValueError, match="must be a dictionary"):
        Objective(len, {})
    with pytest.raises(TypeError, match="has `directions`"):
        Objectives(len)
    with pytest.raises(ValueError, match="at least one"):
        Objectives()
    with pytest.raises(ValueError, match="named 'accuracy'"):
        Objectives(Model(), Model())
    with pytest.raises(ValueError, match="promises a and returned only 'b'"):
        Objectives(Objective(lambda c: {"b": 1}, {"a": "min"}))(ONE)


def test_objectives_for_workers_must_pickle():
    nan = Objectives(Objective(lambda c: {"a": math.nan}, {"a": "min"}))
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        with pytest.raises(ValueError, match="does not pickle.*top of a module"):
            Evaluation(nan, executor)


def test_an_error_in_a_worker_comes_back():
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        evaluation = Evaluation(Objectives(Model()), executor)
        with pytest.raises(KeyError, match="depth0"):
            evaluation([ONE, TWO])
