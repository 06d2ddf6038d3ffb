"""recipes.classifier: settings, schedules, batches and the fit of a classifier."""

import keras
import numpy as np
import pytest

from hwa_keras import datasets
from hwa_keras.recipes import classifier

GOOD = {
    "batch_size": 4,
    "epochs": 2,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "weight_decay": 0.0,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "`schedule` of a preset must be one of 'cosine'"),
        ({"epochs": 0}, "`epochs` of a preset must be an integer ≥ 1"),
        ({"batch_size": 9}, "`batch_size` must not be above `train_images`"),
    ],
)
def test_settings_that_no_training_can_have(changes, message):
    images = {"train_images": 8, "test_images": 4, "augment": False}
    with pytest.raises(ValueError, match=message):
        classifier.ImageSettings(**{**GOOD, **images, **changes})


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", 0.1 * (1 + np.cos(np.pi * np.arange(101) / 100)) / 2),
        ("quarters", np.repeat([0.1, 0.01, 0.001, 1e-4], [26, 25, 25, 25])),
        ("steps", np.repeat([0.1, 0.01, 0.001, 1e-4], [31, 30, 30, 10])),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, expected):
    settings = classifier.TrainingSettings(**{**GOOD, "schedule": schedule})
    rate = classifier.sgd(settings, 0.1, 100)._learning_rate
    found = [float(rate(step)) for step in range(101)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_adamw_warms_up_and_spares_biases():
    settings = classifier.TrainingSettings(**{**GOOD, "weight_decay": 0.01})
    optimizer = classifier.adamw(settings, 0.1, 100)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 5, 10, 100)]
    np.testing.assert_allclose(rates, [0.0, 0.05, 0.1, 0.0], atol=1e-7)
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    decays = [optimizer._use_weight_decay(weight) for weight in layer.weights]
    assert decays == [True, False]


def test_images_are_standardized_by_those_of_the_training():
    rng = np.random.default_rng(0)
    x = rng.normal([3.0, -1.0], [2.0, 0.5], size=(20, 4, 4, 2))
    data = datasets.Dataset("noise", (x, np.arange(20)), (x[:9], np.arange(9)), 20)
    found = classifier.standardized(data, 10, 5)
    images, labels = found.train
    assert images.shape == (10, 4, 4, 2) and list(labels) == list(range(10))
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1)
    np.testing.assert_allclose(found.test[0], images[:5])


@pytest.mark.parametrize("augment", [False, True])
def test_batches_are_shuffled_by_the_seed_and_whole(augment):
    x = np.random.default_rng(0).normal(size=(10, 8, 8, 1)).astype("float32")
    order = {}
    for seed in (0, 1):
        found = list(classifier.batches(x, np.arange(10), 4, seed, augment))
        assert [len(labels) for _, labels in found] == [4, 4]
        order[seed] = np.concatenate([labels for _, labels in found]).tolist()
        images = np.concatenate([images for images, _ in found])
        assert np.array_equal(images, x[order[seed]]) != augment
    assert order[0] != order[1] and len(set(order[0])) == 8
