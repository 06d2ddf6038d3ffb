"""What hwa_keras uses of Keras's insides is as it was in Keras 3.15.1.

Where one of these fails, a release of Keras differs: hwa_keras/core/keras_private.py
is the file to look at.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

from hwa_keras.core import keras_private as private

X = np.ones((2, 4), "float32")


def test_full_state_can_be_added_while_a_built_layer_is_unlocked():
    """Seen in Keras 3.15.1: `Layer._tracker.locked`, `unlock`, `Layer._lock_state`."""
    layer = layers.Dense(3)
    layer.build((None, 4))
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.extra = layers.Dense(2)
    with private.unlocked(layer):
        layer.extra = layers.Dense(2)
        layer.extra.build((None, 3))
        layer.more = layer.add_weight((2,), name="more")
    assert [w.name for w in layer.weights] == ["kernel", "bias", "more"] + [
        "kernel",
        "bias",
    ]
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.another = layers.Dense(2)


def test_unlocked_leaves_a_layer_that_is_not_built_open():
    """Seen in Keras 3.15.1."""
    layer = layers.Dense(3)
    with private.unlocked(layer):
        pass
    layer.extra = layers.Dense(2)  # Not locked.
    with pytest.raises(RuntimeError), private.unlocked(layer):
        raise RuntimeError


class Doubled(layers.Dense):
    """Takes `training`, which the `call` of some layers does not."""

    def build(self, input_shape):
        super().build(input_shape)
        self.doubles = True

    def call(self, inputs, training=False):
        return (4.0 if training else 2.0) * super().call(inputs)

    def quantize(self, *args, **kwargs):
        raise ValueError("not this one")


class Plain(layers.Layer):
    def call(self, inputs):
        return inputs


class Trained(Plain):
    def call(self, inputs, training=None, mask=None):
        return 2 * inputs if training else inputs


def test_a_built_layer_becomes_another_class_and_back():
    """Seen in Keras 3.15.1: a layer computes by the class it has."""
    layer = layers.Dense(3)
    y = layer(X)
    private.become(layer, Doubled)
    np.testing.assert_allclose(layer(X), 2 * y)
    np.testing.assert_allclose(layer(X, training=True), 4 * y)
    private.become(layer, layers.Dense)
    np.testing.assert_array_equal(layer(X), y)


def test_become_rewraps_the_build_of_a_layer_that_is_not_built():
    """Seen in Keras 3.15.1: `Layer.__new__` wraps `build` on each layer."""
    layer = layers.Dense(3)
    wrapper = vars(layer)["build"]
    assert wrapper.__code__.co_freevars == ("obj", "original_build_method")
    private.become(layer, Doubled)
    layer(X)
    assert layer.doubles and layer.built
    assert layer.get_build_config() == {"input_shape": (2, 4)}
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.extra = layers.Dense(2)
    assert list(inspect.signature(layer.build).parameters) == ["input_shape"]


def test_become_rewraps_quantize():
    """Seen in Keras 3.15.1: `Layer.__new__` wraps `quantize` on each layer."""
    layer = layers.Dense(3)
    layer(X)
    wrapper = vars(layer)["quantize"]
    assert wrapper.__code__.co_freevars == ("obj", "original_quantize_method")
    private.become(layer, Doubled)
    with pytest.raises(ValueError, match="not this one"):
        layer.quantize("int8")
    private.become(layer, layers.Dense)
    layer.quantize("int8")
    assert layer.quantization_mode == "int8"


def test_become_reads_the_arguments_of_call_off_the_new_class():
    """Seen in Keras 3.15.1: `_call_signature`, `_call_has_training_arg` and others."""
    layer = Plain()
    np.testing.assert_array_equal(layer(X), X)
    private.become(layer, Trained)
    np.testing.assert_array_equal(layer(X, training=True), 2 * X)
    assert layer.call_signature_parameters == ["inputs", "training", "mask"]
    assert layer._call_has_training_arg and layer._call_has_mask_arg
    if hasattr(layer, "_call_context_args"):  # Not in Keras 3.9.
        assert layer._call_has_context_arg == {"training": True}
    model = keras.Sequential([keras.Input((4,)), layer])
    np.testing.assert_array_equal(model(X, training=True), 2 * X)
    private.become(layer, Plain)
    np.testing.assert_array_equal(layer(X), X)
    assert not layer._call_has_training_arg


@pytest.mark.parametrize("build", [True, False])
def test_a_model_becomes_another_class(build):
    """Seen in Keras 3.15.1: for sequential, functional and subclassed models."""

    class Mixin:
        def extra(self):
            return "extra"

    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, inputs, training=False):
            return self.dense(inputs)

    inputs = keras.Input((4,))
    functional = keras.Model(inputs, layers.Dense(3)(inputs))
    sequential = keras.Sequential([inputs, layers.Dense(3)])
    for model in (functional, sequential, Mine()):
        if build:
            model(X)
        cls = type("Made", (Mixin, type(model)), {})
        private.become(model, cls)
        assert model.extra() == "extra"
        model.compile("sgd", "mse")
        model.fit(X, np.ones((2, 3)), verbose=0)


class Spy(layers.Layer):
    """Has no `training` in its call, and asks for it."""

    def call(self, inputs):
        Spy.seen.append(private.call_training())
        return inputs


def test_attributes_are_those_that_a_layer_was_given():
    """Seen in Keras 3.15.1: `_layers` and others list them, `_self_` on TensorFlow."""
    layer = Plain()
    layer.dense, layer.rows = layers.Dense(3), [layers.Dense(2)]
    layer.weight = layer.add_weight((2,), name="weight")
    found = private.attributes(layer)
    assert {"dense", "rows", "weight"} <= set(found)
    for each in (layer.dense, layer.rows[0], layer.weight):
        places = [
            name
            for name, value in found.items()
            if any(x is each for x in keras.tree.flatten(value))
        ]
        assert len(places) == 1


@pytest.mark.parametrize("training", [True, False, None])
def test_call_training_is_that_of_the_outermost_call(training):
    """Seen in Keras 3.15.1: the global attribute `current_call_ctx`."""
    Spy.seen = []
    model = keras.Sequential([keras.Input((4,)), Spy()])
    Spy.seen.clear()
    model(X, training=training)
    assert Spy.seen == [bool(training)]
    assert private.call_training() is False


def test_call_training_in_fit_and_in_predict():
    """Seen in Keras 3.15.1."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2), Spy()])
    model.compile("sgd", "mse", run_eagerly=keras.backend.backend() != "jax")
    Spy.seen = []
    model.fit(X, np.ones((2, 2)), verbose=0)
    assert Spy.seen[-1] is True  # On JAX the model is built symbolically before.
    Spy.seen = []
    model.predict(X, verbose=0)
    assert set(Spy.seen) == {False}


def test_variables_are_read_in_their_own_dtype_in_full_precision():
    """Seen in Keras 3.15.1: `AutocastScope(None)` inside a layer of a mixed policy."""
    seen = {}

    class Reading(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight((3,), name="w")

        def call(self, inputs):
            seen["mixed"] = keras.backend.standardize_dtype((1 * self.w).dtype)
            with private.full_precision():
                seen["full"] = keras.backend.standardize_dtype((1 * self.w).dtype)
            seen["after"] = keras.backend.standardize_dtype((1 * self.w).dtype)
            return inputs

    Reading(dtype="mixed_bfloat16")(X)
    assert seen == {"mixed": "bfloat16", "full": "float32", "after": "bfloat16"}


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(3)])
    for each in (inner, model):
        each.compile("sgd", "mse")
        each.predict(X, verbose=0)
    model.fit(X, np.ones((2, 3)), verbose=0)
    model.evaluate(X, np.ones((2, 3)), verbose=0)
    return model, inner


STEPS = ("train_function", "test_function", "predict_function")


def test_compiled_steps_are_forgotten_in_every_model_inside():
    """Seen in Keras 3.15.1: the steps are attributes of a model, None until needed."""
    model, inner = nested()
    assert all(getattr(model, name) is not None for name in STEPS)
    assert inner.predict_function is not None
    private.forget_compiled(model)
    assert all(getattr(m, name) is None for m in (model, inner) for name in STEPS)
    np.testing.assert_allclose(model.predict(X, verbose=0), model(X), rtol=1e-6)


def test_steps_compiled_apart_are_gone_after_and_those_of_before_are_back():
    """Seen in Keras 3.15.1."""
    model, inner = nested()
    kept = [(m, n, getattr(m, n)) for m in (model, inner) for n in STEPS]
    with private.compiled_apart(model):
        assert model.predict_function is None
        model.predict(X, verbose=0)
        assert model.predict_function is not None
    for owner, name, function in kept:
        assert getattr(owner, name) is function


def test_an_object_is_serialized_as_one_of_another_class():
    """Seen in Keras 3.15.1: a configuration names the class of the object."""
    layer = Doubled(3)
    layer(X)
    with private.serialized_as(layer, layers.Dense):
        config = keras.saving.serialize_keras_object(layer)
    assert config["class_name"] == "Dense" and config["module"] == "keras.layers"
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is layers.Dense and again.built
    assert type(layer) is Doubled
    with pytest.raises(RuntimeError), private.serialized_as(layer, layers.Dense):
        raise RuntimeError
    assert type(layer) is Doubled


def test_a_tracker_holds_what_replicate_copies():
    """Seen in Keras 3.15.1: `Tracker.config`, `stored_ids`; `KerasSaveable`."""
    layer = layers.Dense(3)
    layer(X)
    tracker = layer._tracker
    assert isinstance(tracker, private.Tracker)
    assert set(tracker.config) == set(tracker.stored_ids)
    for name, (is_kind, store) in tracker.config.items():
        assert callable(is_kind) and isinstance(store, list)
        assert tracker.stored_ids[name] == {id(value) for value in store}
    for each in (layer, keras.losses.MeanSquaredError(), keras.optimizers.SGD()):
        assert isinstance(each, private.KerasSaveable)
    assert isinstance(keras.metrics.Mean(), private.KerasSaveable)


def test_a_functional_model_names_its_nodes_by_the_ids_of_its_layers():
    """Seen in Keras 3.15.1: `Function._nodes`, which replicate names anew."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    ids = {str(id(operation)) for operation in model._operations}
    assert {key.partition("_")[0] for key in model._nodes} == ids
