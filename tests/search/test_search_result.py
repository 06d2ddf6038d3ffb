"""The front of a search: interpolation, hypervolume, files, tables, plots."""

import csv
import math

import numpy as np
import pytest

from hwa_keras.search import Candidate, SearchResult, Solution
from hwa_keras.search.search_result import pareto

POINTS = {1: (0.6, 1.0), 2: (0.8, 2.0), 3: (0.9, 4.0)}


@pytest.fixture
def result():
    front = [
        Solution(
            Candidate({"depth": d}, (1.0, 0.5 * (d > 1))), {"accuracy": a, "power": p}
        )
        for d, (a, p) in POINTS.items()
    ]
    return SearchResult(
        mode="M2",
        seed=4,
        directions={"accuracy": "max", "power": "min"},
        front=front,
        history=[
            {
                "generation": g,
                "evaluations": g,
                "failures": 0,
                "front": 1,
                "hypervolume": float(g),
            }
            for g in (1, 2)
        ],
        failures=[Candidate({"depth": 9}, (1.0, 1.0))],
        reference={"accuracy": 0.5, "power": 5.0},
    )


def test_power_is_interpolated_along_the_front(result):
    assert result.power_at(0.8) == pytest.approx(2.0)
    assert result.power_at(0.85) == pytest.approx(3.0)
    assert result.power_at(0.3) == pytest.approx(1.0)
    assert math.isnan(result.power_at(0.91))
    np.testing.assert_allclose(result.power_at(np.array([0.7, 0.9])), [1.5, 4.0])
    with pytest.raises(ValueError, match="'energy' was not measured. Known: accuracy"):
        result.least_at(0.8, cost="energy")


def test_the_hypervolume_is_that_of_rectangles(result):
    pytest.importorskip("pymoo")
    # Strips of power from each point to the next, and up to the reference.
    expected = (2 - 1) * 0.1 + (4 - 2) * 0.3 + (5 - 4) * 0.4
    assert result.hypervolume() == pytest.approx(expected)
    assert result.hypervolume({"accuracy": 0.7, "power": 4.0}) == pytest.approx(0.2)


def test_the_front_goes_through_files(result, tmp_path):
    result.to_json(tmp_path / "front.json")
    again = SearchResult.from_json(tmp_path / "front.json")
    assert again.to_dict() == result.to_dict()
    assert again.front == result.front and again.failures == result.failures
    result.to_csv(tmp_path / "front.csv")
    rows = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    assert [row["depth"] for row in rows] == ["1", "2", "3"]
    assert rows[1]["multipliers"] == "1 0.5" and rows[1]["mode"] == "M2"


def test_tables_and_plots_show_the_front(result, tmp_path):
    text = str(result)
    assert "M2, seed 4: 3 on the front, 1 failed" in text
    assert "depth=2" in text and "0.5 to 1" in text
    axes = result.plot()
    result.plot(tmp_path / "front.png", axes)
    assert len(axes.lines) == 2 and (tmp_path / "front.png").stat().st_size > 0
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1, 2, 4])
    assert result.plot_history().lines[0].get_ydata().tolist() == [1.0, 2.0]


def test_the_best_are_spread_over_the_upper_half(result):
    assert [s.candidate.config["depth"] for s in result.best(3)] == [3, 2]
    assert [s.candidate.config["depth"] for s in result.best(1)] == [3]


def test_pareto_keeps_what_no_other_beats():
    rng = np.random.default_rng(0)
    costs = np.round(rng.random((200, 2)), 1)
    kept = pareto(costs)
    for i, row in enumerate(costs):
        beaten = any((o <= row).all() and (o < row).any() for o in costs)
        if kept[i]:
            assert not beaten
    assert len(np.unique(costs[kept], axis=0)) == kept.sum()


def test_an_empty_front_is_refused():
    with pytest.raises(ValueError, match="`front` is empty"):
        SearchResult("M1", 0, {"a": "max"}, [])
