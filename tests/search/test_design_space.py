"""Candidates, genes and Latin hypercube samples."""

import json

import numpy as np
import pytest

from hwa_keras.search import Candidate, DesignSpace
from tests.search.small_space import Option, SmallSpace


@pytest.fixture
def space():
    return DesignSpace(SmallSpace())


def test_a_candidate_goes_through_json():
    candidate = Candidate({"size": np.int64(3), "kernel": [3, 5]}, np.array([0.1, 0.0]))
    again = Candidate.from_dict(json.loads(json.dumps(candidate.to_dict())))
    assert again == candidate and hash(again) == hash(candidate)
    assert candidate.config == {"size": 3, "kernel": (3, 5)}
    assert type(candidate.config["size"]) is int
    assert candidate.mask == (True, False)
    assert candidate.scaled(0.5).multipliers == (0.05, 0.0)


@pytest.mark.parametrize("per", ["layer", "network", None])
def test_genes_and_candidates_are_each_other_s_inverse(per):
    space = DesignSpace(SmallSpace(), per=per)
    genes = space.sample(50, np.random.default_rng(0))
    assert genes.shape == (50, 8 + {"layer": 12, "network": 1, None: 0}[per])
    for row in genes:
        candidate = space.candidate(row)
        np.testing.assert_array_equal(space.genes(candidate), row)
        mask = SmallSpace().active(candidate.config)
        assert candidate.mask == tuple(mask)
        used = np.array(candidate.multipliers)[mask]
        assert (used >= 0.5).all() and (used <= 1.5).all()
        if per != "layer":
            assert len(set(used)) == 1
        if per is None:
            assert set(used) == {1.0}


def test_a_latin_hypercube_has_one_range_in_each_stratum(space):
    found = space.latin_hypercube(5, 10, seed=1)
    assert len(found) == 50
    for i in range(5):
        several = found[10 * i : 10 * i + 10]
        assert len({json.dumps(c.config) for c in several}) == 1
        ranges = np.array([c.multipliers for c in several])
        mask = np.array(several[0].mask)
        assert (ranges[:, ~mask] == 0).all()
        strata = np.sort(np.floor((ranges[:, mask] - 0.5) * 10), axis=0)
        np.testing.assert_array_equal(strata, np.arange(10)[:, None] + 0 * strata[:1])
    assert len({json.dumps(c.config) for c in found}) == 5
    assert space.latin_hypercube(5, 10, seed=1) == found
    assert space.latin_hypercube(5, 10, seed=2) != found


def test_samples_are_distinct_and_end_where_there_are_no_more():
    space = DesignSpace(SmallSpace(stages=1, blocks=2, widths=(1.0,)), per=None)
    assert len(space.sample(10, np.random.default_rng(0))) == 2


def test_the_default_range_lies_within_the_bounds():
    assert DesignSpace(SmallSpace()).default == 1.0
    assert DesignSpace(SmallSpace(), (0.2, 0.8)).default == 0.8


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (1.5, 0.5), (0.5,), 1.0, ("a", "b")])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="pair .low, high."):
        DesignSpace(SmallSpace(), bounds)


def test_bad_arguments_are_refused(space):
    with pytest.raises(TypeError, match="object has no choices"):
        DesignSpace(object())
    with pytest.raises(ValueError, match="`per` of DesignSpace must be one of"):
        DesignSpace(SmallSpace(), per="column")
    empty = SmallSpace()
    empty.choices = (Option("depth0", ()),)
    with pytest.raises(ValueError, match="'depth0' has no options"):
        DesignSpace(empty)
    with pytest.raises(ValueError, match="3 multipliers, and the space 12 layers"):
        space.genes(Candidate({}, (1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="finite and not negative"):
        Candidate({}, (float("nan"),))
    with pytest.raises(ValueError, match="`architectures` of latin_hypercube"):
        space.latin_hypercube(0)
