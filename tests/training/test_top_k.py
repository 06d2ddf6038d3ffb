import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from hwa_keras.training import TopKDistillation, with_top_k

rng = np.random.default_rng(0)
TEACHER = rng.normal(size=(3, 4, 10)).astype("float32")
STUDENT = rng.normal(size=(3, 4, 10)).astype("float32")
LABELS = rng.integers(0, 10, (3, 4))


def divergence(k):
    """KL of the k likeliest classes and the rest, position by position, in float64."""
    theirs, mine = (log_softmax(x.astype("float64"), -1) for x in (TEACHER, STUDENT))
    total = 0.0
    for p, s in zip(theirs.reshape(-1, 10), mine.reshape(-1, 10), strict=True):
        best = np.argsort(p)[-k:]
        total += np.sum(np.exp(p[best]) * (p[best] - s[best]))
        rest, own = 1 - np.exp(p[best]).sum(), 1 - np.exp(s[best]).sum()
        if k < 10:
            total += rest * np.log(rest / own)
    return total / 12


@pytest.mark.parametrize("k", [1, 4, 10])
def test_it_is_the_divergence_of_the_likeliest_classes_and_the_rest(k):
    found = TopKDistillation(1.0)(with_top_k(LABELS, TEACHER, k), STUDENT)
    assert float(found) == pytest.approx(divergence(k), rel=2e-5)


def test_labels_and_teacher_share_the_loss():
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    y = with_top_k(LABELS, TEACHER, 4)
    expected = float(own(LABELS, STUDENT))
    assert float(TopKDistillation(0.0)(y, STUDENT)) == pytest.approx(expected, rel=1e-6)
    mixed = 0.75 * expected + 0.25 * divergence(4)
    assert float(TopKDistillation(0.25)(y, STUDENT)) == pytest.approx(mixed, rel=2e-5)


def test_targets_are_small():
    assert with_top_k(LABELS, TEACHER, 2).shape == (3, 4, 5)


def test_it_comes_back_from_its_configuration():
    copy = keras.losses.deserialize(keras.losses.serialize(TopKDistillation(0.3)))
    assert copy.get_config() == TopKDistillation(0.3).get_config()


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan"), True])
def test_bad_weights_are_told(weight):
    with pytest.raises(ValueError, match="weight"):
        TopKDistillation(weight)


@pytest.mark.parametrize("k", [0, 11])
def test_bad_numbers_of_classes_are_told(k):
    with pytest.raises(ValueError, match="k"):
        with_top_k(LABELS, TEACHER, k)
