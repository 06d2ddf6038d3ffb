"""What searches take at equal gain, relative to one of them."""

import numpy as np
import pytest

from hwa_keras.results import estimate
from hwa_keras.search import Candidate, Comparison, SearchResult, Solution, compare


def front(powers, accuracies=(0.6, 0.8, 0.9)):
    return SearchResult(
        "M1",
        0,
        {"accuracy": "max", "power": "min"},
        [
            Solution(Candidate({}, (1.0,)), {"accuracy": a, "power": p})
            for a, p in zip(accuracies, powers, strict=True)
        ],
    )


@pytest.fixture
def comparison():
    return compare(
        {
            "M1": [front([1.0, 2.0, 4.0]), front([1.0, 2.0, 4.0])],
            "M2": [front([0.5, 1.0, 3.0]), front([0.5, 1.2], (0.6, 0.8))],
        },
        levels=[0.7, 0.8, 0.9],
    )


def test_ratios_are_seed_by_seed(comparison):
    np.testing.assert_allclose(
        comparison.ratios["M2"], [[0.5, 0.5, 0.75], [0.85 / 1.5, 0.6, np.nan]]
    )
    assert comparison.estimate("M2", 1) == estimate([0.5, 0.6])
    assert comparison.estimate("M2", 2).count == 1
    level, found = comparison.least("M2")
    assert level == 0.7 and found.mean == pytest.approx((0.5 + 0.85 / 1.5) / 2)


def test_levels_are_the_upper_half_of_the_baseline():
    found = compare({"M1": [front([1, 2, 4])], "M2": [front([1, 2, 4])]})
    np.testing.assert_allclose(found.levels, np.linspace(0.75, 0.9, 10))
    np.testing.assert_allclose(found.ratios["M2"], 1.0)


def test_files_tables_and_plots_tell_the_ratios(comparison, tmp_path):
    comparison.to_csv(tmp_path / "ratios.csv")
    assert "power / M1" in (tmp_path / "ratios.csv").read_text()
    comparison.to_json(tmp_path / "ratios.json")
    again = Comparison.from_json(tmp_path / "ratios.json")
    np.testing.assert_equal(again.ratios, comparison.ratios)
    assert np.isnan(again.ratios["M2"][1][2])
    assert "0.5500 ±" in str(comparison)
    axes = comparison.plot(tmp_path / "ratios.png")
    assert axes.get_ylabel() == "power / power of M1"


def test_what_cannot_be_compared_is_refused():
    one = front([1, 2, 4])
    with pytest.raises(ValueError, match="no 'M1' to compare with. It has: 'M2'"):
        compare({"M2": [one]})
    with pytest.raises(ValueError, match="one result for each seed"):
        compare({"M1": [one], "M2": [one, one]})
    unreached = compare({"M1": [one], "M2": [one]}, levels=[0.95])
    with pytest.raises(ValueError, match="No level is reached by all seeds of M2"):
        unreached.least("M2")
    assert "—" in str(unreached)
