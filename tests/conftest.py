"""Fixtures that the tests share, and how TensorFlow computes for them."""

import os

import numpy as np
import pytest

# TensorFlow takes oneDNN on some processors only. Without it, its transposed
# convolutions on a CPU have no dilation, in plain Keras either.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_STARTS: dict = {}


@pytest.fixture(autouse=True)
def same_numbers(request):
    """Have each test find the `RNG` of its module as the import left it.

    What a test draws must not depend on which ones ran before it in the same worker.
    """
    rng = getattr(getattr(request, "module", None), "RNG", None)
    if isinstance(rng, np.random.Generator):
        state = rng.bit_generator.state
        rng.bit_generator.state = _STARTS.setdefault(request.module.__name__, state)


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
