"""recipes.BestEpoch: slower after each epoch that is not the best, which is kept."""

import csv

import keras
import numpy as np
import pytest

from hwa_keras import recipes

X = np.ones((4, 1), "float32")


class Validation(keras.callbacks.Callback):
    """Sets the validation loss of each epoch, and the weight to its number."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.losses[epoch]
        self.model.layers[0].kernel.assign([[float(epoch)]])


def train(folder, losses, epochs, initial_epoch=0, rate=0.25):
    """Train a model of one weight; return it."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    log = keras.callbacks.CSVLogger(folder / "log.csv", append=initial_epoch > 0)
    callbacks = [Validation(losses), recipes.BestEpoch(folder), log]
    more = {"initial_epoch": initial_epoch, "callbacks": callbacks, "verbose": 0}
    model.fit(X, X, epochs=epochs, **more)
    return model


def rates(folder):
    rows = csv.DictReader((folder / "log.csv").read_text().splitlines())
    return [float(row["learning_rate"]) for row in rows]


def test_the_rate_falls_after_a_stall_and_the_best_weights_come_back(tmp_path):
    model = train(tmp_path, [3.0, 2.0, float("nan"), 2.0, 1.0, 1.5], epochs=6)
    assert rates(tmp_path) == [0.25, 0.25, 0.25, 1 / 16, 1 / 64, 1 / 64]
    assert float(np.ravel(model.layers[0].kernel)[0]) == 4


@pytest.mark.parametrize("cut", [1, 3])
def test_a_training_that_goes_on_knows_its_best_epoch(tmp_path, cut):
    losses = [3.0, 1.0, 2.0, 1.5]
    train(tmp_path, losses, epochs=cut)
    rate = 0.25 if cut == 1 else 1 / 16
    model = train(tmp_path, losses, epochs=4, initial_epoch=cut, rate=rate)
    assert rates(tmp_path) == [0.25, 0.25, 0.25, 1 / 16]
    assert float(np.ravel(model.layers[0].kernel)[0]) == 1


def test_without_a_validation_loss_it_says_what_to_give(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="validation_data"):
        model.fit(X, X, callbacks=[recipes.BestEpoch(tmp_path)], verbose=0)
