"""A runner of the recipe for a network that trains in seconds, for the tests."""

import keras

from hwa_keras import datasets, recipes
from hwa_keras.recipes import task_runner


class Perceptron(recipes.Task):
    name = "perceptron"

    def __init__(self, settings):
        self.settings = settings
        data = datasets.load("digits")
        x, y = data.train
        size = settings.batch_size
        self.train = datasets.Batches(x, y, size, seed=1, drop_remainder=True)
        self.test = self.chip_test = tuple(part[:100] for part in data.test)
        self.example = data.test[0][:8]

    def digital(self):
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(16, activation="relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(10),
            ]
        )

    def compile(self, model, learning_rate, epochs):
        model.compile(
            keras.optimizers.SGD(learning_rate, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )


if __name__ == "__main__":
    task_runner.main(Perceptron, recipes.TwoPhaseSettings, "perceptron.yaml")
