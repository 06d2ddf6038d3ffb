"""Fixtures that the tests share."""

import pytest


@pytest.fixture
def built_optimizers(monkeypatch):
    """Build optimizers before a step is traced.

    On TensorFlow, Keras has the first trace of a step build the optimizer, and traces
    the step once more for that. Tests without this fixture see to it that this works.
    """
    import keras

    make_train_function = keras.Model.make_train_function

    def build_first(self, force=False):
        if self.built and self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return make_train_function(self, force)

    monkeypatch.setattr(keras.Model, "make_train_function", build_first)
