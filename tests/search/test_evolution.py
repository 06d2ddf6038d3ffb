"""Searches with NSGA-II: fronts, checkpoints, executors, what fails."""

import concurrent.futures
import json
import os
import re
import sys

import numpy as np
import pytest

pytest.importorskip("pymoo")

from hwa_keras.search import (
    Candidate,
    DesignSpace,
    Objective,
    reevaluate,
    scale_ranges,
    search,
)
from hwa_keras.search.evolution import COEFFICIENTS
from tests import fresh
from tests.search.small_space import (
    CountProcess,
    Model,
    OnlyRanges,
    SmallSpace,
    Zdt1,
)

pytestmark = pytest.mark.slow

SMALL = {"population": 12, "generations": 6, "verbose": 0}


def content(result):
    return json.dumps(result.to_dict())


def test_zdt1_reaches_its_front():
    result = search(
        OnlyRanges(10),
        Zdt1(),
        multipliers=(1e-9, 1.0),
        population=60,
        generations=150,
        verbose=0,
    )
    found = np.stack([result.values("first"), result.values("second")], axis=1)
    first = np.linspace(0, 1, 200)
    front = np.stack([first, 1 - np.sqrt(first)], axis=1)
    distances = np.linalg.norm(front[:, None] - found[None], axis=-1)
    assert distances.min(axis=1).mean() < 0.02  # IGD
    volumes = [each["hypervolume"] for each in result.history]
    assert volumes[-1] > 1.05 * volumes[0] and len(volumes) == 150


@pytest.mark.parametrize("mode", ["M1", "M2", "M2u", "M3"])
def test_each_mode_finds_candidates_of_its_own(mode):
    result = search(SmallSpace(), Model(), mode=mode, seed=3, **SMALL)
    assert result.mode == mode and len(result.front) > 3
    for solution in result.front:
        candidate = solution.candidate
        used = np.array(candidate.multipliers)[np.array(candidate.mask)]
        assert candidate.mask == tuple(SmallSpace().active(candidate.config))
        assert Model()(candidate) == solution.values
        if mode != "M2":
            assert len(set(used)) == 1
        if mode == "M1":
            assert set(used) == {1.0}
        if mode == "M3":
            assert any(np.isclose(used[0], c) for c in COEFFICIENTS["written"])
    costs = np.stack([-result.values("accuracy"), result.values("power")], axis=1)
    assert (np.diff(costs[:, 0]) < 0).all() and (np.diff(costs[:, 1]) > 0).all()
    assert [each["generation"] for each in result.history] == [1, 2, 3, 4, 5, 6]
    assert result.history[-1]["evaluations"] == 72


def test_own_ranges_beat_default_ones_where_layers_differ():
    modes = {
        m: search(SmallSpace(), Model(), m, 24, 30, verbose=0) for m in ("M1", "M2")
    }
    level = 0.8 * modes["M1"].values("accuracy").max()
    assert modes["M2"].power_at(level) < modes["M1"].power_at(level)


def test_the_same_seed_gives_the_same_front():
    first, second, other = (
        search(SmallSpace(), Model(), seed=seed, **SMALL) for seed in (1, 1, 2)
    )
    assert content(first) == content(second) != content(other)


def test_m3_is_m1_scaled_as_written_and_as_published():
    np.testing.assert_allclose(COEFFICIENTS["written"], np.linspace(0.9, 1.1, 10))
    left, expected = 1.0, []
    for i in range(10):
        left *= 0.8 + 0.02 * i
        expected.append(left)
    np.testing.assert_allclose(COEFFICIENTS["published"], expected)
    m1 = search(SmallSpace(), Model(), mode="M1", **SMALL)
    for name in ("written", "published"):
        scaled = scale_ranges(m1, Model(), name, verbose=0)
        at_once = search(SmallSpace(), Model(), mode="M3", coefficients=name, **SMALL)
        assert content(scaled) == content(at_once)
    one = scale_ranges(m1, Model(), [1.0], verbose=0)
    assert [s.candidate for s in one.front] == [s.candidate for s in m1.front]


def test_a_front_measured_again_is_what_still_stands():
    result = search(SmallSpace(), Model(), **SMALL)
    assert reevaluate(result, Model(), verbose=0).front == result.front
    size = Objective(
        lambda c: {"layers": sum(c.mask), "mean": np.mean(c.multipliers)},
        {"layers": "min", "mean": "max"},
    )
    again = reevaluate(result, size, verbose=0)
    assert again.directions == size.directions and again.mode == "M2"
    assert 1 <= len(again.front) <= len(result.front)
    nan = Objective(lambda c: {"a": float("nan")}, {"a": "min"})
    with pytest.warns(UserWarning, match="gave"):
        with pytest.raises(ValueError, match="No candidate has finite"):
            reevaluate(result, nan, verbose=0)


def test_initial_candidates_are_in_the_first_generation():
    best = search(SmallSpace(), Model(), mode="M1", **SMALL).front[-1]
    seen = []

    def measure(candidate):
        seen.append(candidate)
        return Model()(candidate)

    objective = Objective(measure, Model.directions)
    search(SmallSpace(), objective, initial=[best.candidate], **SMALL)
    assert seen[0] == best.candidate


def test_each_candidate_is_evaluated_once():
    model = Model()
    space = SmallSpace(widths=(1.0,))
    result = search(space, model, mode="M1", population=9, generations=5, verbose=0)
    # Nine architectures: nothing new is left after the first generation.
    assert model.calls == 9 and len(result.history) == 1


def test_a_stopped_search_goes_on_to_the_same_front(tmp_path):
    path = tmp_path / "runs" / "search.json"
    whole = search(SmallSpace(), Model(), **SMALL)
    short = {**SMALL, "generations": 2}
    search(SmallSpace(), Model(), checkpoint=path, **short)
    model = Model()
    resumed = search(SmallSpace(), model, checkpoint=path, **SMALL)
    assert content(resumed) == content(whole)
    assert model.calls <= 48
    again = Model()
    same = search(SmallSpace(), again, checkpoint=path, **SMALL)
    assert content(same) == content(whole) and again.calls == 0
    assert [each.name for each in path.parent.iterdir()] == ["search.json"]


def killed(path, calls):
    """In a process of its own: a search that ends at a call."""
    search(SmallSpace(), Model(killed_at=calls), checkpoint=path, **SMALL)


def test_a_killed_search_goes_on_to_the_same_front(tmp_path):
    path = tmp_path / "search.json"
    context = fresh.forkserver()
    process = context.Process(target=killed, args=(path, 40))
    process.start()
    process.join(300)
    assert process.exitcode == 9
    assert 1 <= json.loads(path.read_text())["generation"] < 6
    resumed = search(SmallSpace(), Model(), checkpoint=path, **SMALL)
    assert content(resumed) == content(search(SmallSpace(), Model(), **SMALL))


def test_a_checkpoint_is_of_one_search(tmp_path):
    path = tmp_path / "search.json"
    search(SmallSpace(), Model(), checkpoint=path, **SMALL)
    few = {**SMALL, "generations": 3}
    with pytest.raises(ValueError, match="has 6 generations already.*at least 6"):
        search(SmallSpace(), Model(), checkpoint=path, **few)
    with pytest.raises(ValueError, match="of another search: seed was 0"):
        search(SmallSpace(), Model(), checkpoint=path, seed=1, **SMALL)
    with pytest.raises(ValueError, match='per was "layer"'):
        search(SmallSpace(), Model(), mode="M1", checkpoint=path, **SMALL)
    path.write_text("{}")
    with pytest.raises(ValueError, match="no checkpoint of a search"):
        search(SmallSpace(), Model(), checkpoint=path, **SMALL)


def test_two_threads_give_the_same_front_as_none():
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        found = search(SmallSpace(), Model(), executor=executor, **SMALL)
    assert content(found) == content(search(SmallSpace(), Model(), **SMALL))


def test_two_processes_give_the_same_front_as_none(tmp_path):
    context = fresh.forkserver()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        objective = CountProcess(str(tmp_path))
        found = search(SmallSpace(), objective, executor=executor, **SMALL)
    assert content(found) == content(search(SmallSpace(), Model(), **SMALL))
    workers = {int(path.name) for path in tmp_path.iterdir()}
    assert workers and os.getpid() not in workers


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_front_as_none():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client:
            executor = client.get_executor()
            found = search(SmallSpace(), Model(), executor=executor, **SMALL)
    assert content(found) == content(search(SmallSpace(), Model(), **SMALL))


def test_a_candidate_that_fails_is_named_and_left_behind(tmp_path):
    path = tmp_path / "search.json"
    with pytest.warns(UserWarning, match="'depth0': 2.*'accuracy': nan"):
        result = search(SmallSpace(), Model(failing=2), checkpoint=path, **SMALL)
    assert result.failures and result.history[-1]["failures"] == len(result.failures)
    assert {c.config["depth0"] for c in result.failures} == {2}
    assert 2 not in {s.candidate.config["depth0"] for s in result.front}
    with pytest.warns(UserWarning, match="The search goes on"):
        longer = search(
            SmallSpace(),
            Model(failing=2),
            checkpoint=path,
            **{**SMALL, "generations": 9},
        )
        whole = search(SmallSpace(), Model(failing=2), **{**SMALL, "generations": 9})
    assert content(longer) == content(whole)


def test_a_search_whose_candidates_all_fail_is_an_error():
    nan = Objective(lambda c: {"a": float("inf"), "b": 1.0}, {"a": "max", "b": "min"})
    with pytest.warns(UserWarning, match="gave"):
        with pytest.raises(ValueError, match="No candidate of the first generation"):
            search(SmallSpace(), nan, **SMALL)


def test_bad_arguments_are_refused():
    one = Objective(lambda c: {"a": 1.0}, {"a": "max"})
    with pytest.raises(ValueError, match="two or more. Received: a"):
        search(SmallSpace(), one, **SMALL)
    with pytest.raises(ValueError, match="`mode` of search must be one of 'M1'"):
        search(SmallSpace(), Model(), mode="M4")
    with pytest.raises(ValueError, match="`population` of search"):
        search(SmallSpace(), Model(), population=1)
    with pytest.raises(ValueError, match="`generations` of search"):
        search(SmallSpace(), Model(), generations=0)
    with pytest.raises(ValueError, match="must be 'written', 'published'"):
        search(SmallSpace(), Model(), mode="M3", coefficients=[0.0])
    candidate = Candidate(SmallSpace().decode([0] * 8), (1.0,) * 12)
    with pytest.raises(ValueError, match="`initial` has 3 candidates"):
        search(SmallSpace(), Model(), population=2, initial=[candidate] * 3)
    with pytest.raises(TypeError, match="has no choices"):
        search("resnet", Model())
    assert DesignSpace(SmallSpace()).ranges == 12


def test_without_pymoo_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "hwa_keras.search.nsga2", raising=False)
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'hwa_keras[search]'")):
        search(SmallSpace(), Model(), **SMALL)
