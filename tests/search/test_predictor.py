"""A network in place of objectives, and its error on candidates it has not seen."""

import numpy as np
import pytest

from hwa_keras.search import DesignSpace, Objective, Predictor, search
from tests.search.small_space import Model, SmallSpace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fitted():
    space = DesignSpace(SmallSpace())
    predictor = Predictor(space, Model(), units=64)
    candidates = space.latin_hypercube(60, 8, seed=1)
    predictor.fit(candidates, epochs=60, batch_size=32, verbose=0)
    return space, predictor, candidates


def test_predictions_rank_architectures_that_were_held_out(fitted):
    _, predictor, _ = fitted
    assert set(predictor.error) == {"accuracy", "power"}
    for error in predictor.error.values():
        assert error["spearman"] > 0.9
        assert error["mae"] <= error["rmse"] < 0.1 * error["range"]


def test_the_error_holds_on_other_candidates(fitted):
    space, predictor, _ = fitted
    fresh = space.latin_hypercube(40, 2, seed=9)
    found = predictor.evaluate(fresh)
    for name, error in predictor.error.items():
        off = [f[name] - Model()(c)[name] for f, c in zip(found, fresh, strict=True)]
        assert np.sqrt(np.mean(np.square(off))) < 2 * error["rmse"]
    assert predictor(fresh[0])["power"] == pytest.approx(found[0]["power"], rel=1e-4)


def test_it_takes_the_place_of_objectives_in_a_search(fitted):
    pytest.importorskip("pymoo")
    _, predictor, _ = fitted
    result = search(SmallSpace(), predictor, population=16, generations=4, verbose=0)
    assert result.directions == Model.directions and len(result.front) > 3


def test_whole_architectures_are_held_out():
    space = DesignSpace(SmallSpace(widths=(1.0,)))
    candidates = space.latin_hypercube(9, 4)
    calls = []

    def measure(candidate):
        calls.append(candidate)
        nan = float("nan") if candidate.config["depth1"] == 1 else 1.0
        return {"a": nan * sum(candidate.multipliers)}

    predictor = Predictor(space, Objective(measure, {"a": "min"}), units=8)
    predictor.fit(candidates, epochs=1, held_out=0.5, verbose=0)
    assert len(calls) == 36 and np.isfinite(predictor.error["a"]["rmse"])


def test_bad_arguments_are_refused():
    space = DesignSpace(SmallSpace())
    predictor = Predictor(space, Model())
    candidates = space.latin_hypercube(1, 4)
    with pytest.raises(RuntimeError, match="Call `fit` first"):
        predictor(candidates[0])
    with pytest.raises(ValueError, match="two or more .* there are 1"):
        predictor.fit(candidates)
    with pytest.raises(ValueError, match="`held_out` of Predictor"):
        predictor.fit(candidates, held_out=0.0)
    with pytest.raises(ValueError, match="`units` of Predictor"):
        Predictor(space, Model(), units=0)
