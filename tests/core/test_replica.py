"""replicate: copies that compute the same, and have nothing in common."""

import collections
import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.core.replica import replicate
from tests import zoo

X = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")


def outputs(model, x, **kwargs):
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, **kwargs))]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def move(obj):
    """Change every weight of an object."""
    for variable in obj.weights:
        if keras.backend.is_float_dtype(variable.dtype):
            variable.assign(0.5 * variable + 0.01)


def moved(before, after):
    return any(np.any(a != b) for a, b in zip(before, after, strict=True))


def assert_independent(obj, copy, x, **kwargs):
    """Of one class, of equal outputs, without a variable or layer in common."""
    assert type(copy) is type(obj) and copy is not obj
    assert [v.path for v in copy.variables] == [v.path for v in obj.variables]
    for part in ("variables", "trainable_variables", "metrics_variables"):
        ours, theirs = ({id(v) for v in getattr(o, part, ())} for o in (obj, copy))
        assert len(ours) == len(theirs) and not ours & theirs
    ours, theirs = ({id(la) for la in o._flatten_layers()} for o in (obj, copy))
    assert len(ours) == len(theirs) and not ours & theirs
    expected = outputs(obj, x, **kwargs)
    assert_equal(outputs(copy, x, **kwargs), expected)
    move(copy)
    assert_equal(outputs(obj, x, **kwargs), expected)
    changed = outputs(copy, x, **kwargs)
    assert moved(changed, expected)
    move(obj)
    assert_equal(outputs(obj, x, **kwargs), changed)
    move(obj)
    assert_equal(outputs(copy, x, **kwargs), changed)


def shared():
    """A functional model with outputs by name, and a layer that is called twice."""
    a, b = keras.Input((12,), name="a"), keras.Input((12,), name="b")
    dense = layers.Dense(5)
    both = layers.Concatenate()([dense(a), dense(b)])
    return keras.Model({"a": a, "b": b}, {"one": both, "two": layers.Dense(2)(both)})


class Holding(keras.Model):
    """A model that holds its layers in every way that Python has."""

    def __init__(self):
        super().__init__()
        self.rows = [layers.Dense(4), [layers.Dense(4), (layers.Dense(4),)]]
        self.by_name = {"a": layers.Dense(4), "b": {"c": layers.Dense(4)}}
        self.pair = collections.namedtuple("Pair", "left right")(
            layers.Dense(4), layers.Dense(4)
        )
        self.gate = layers.Dense(4)
        self.scaled = lambda x: 2.0 * self.gate(x)
        hidden = self.gate
        self.closed = lambda x: hidden(x)
        self.defaulted = lambda x, layer=hidden: layer(x)
        self.partial = functools.partial(self._apply, layer=hidden)
        self.method = hidden.__call__
        self.activations = [ops.tanh, keras.activations.relu]

    @staticmethod
    def _apply(x, layer):
        return layer(x)

    def call(self, x):
        found = [self.rows[0](x), self.rows[1][0](x), self.rows[1][1][0](x)]
        found += [self.by_name["a"](x), self.by_name["b"]["c"](x)]
        found += [self.pair.left(x), self.pair.right(x)]
        found += [self.scaled(x), self.closed(x), self.defaulted(x)]
        found += [self.partial(x), self.method(x)]
        return self.activations[0](sum(found))


def holding():
    model = Holding()
    model(X)
    return model


def stacked():
    cells = layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(4)])
    return keras.Sequential(
        [
            keras.Input((6, 5)),
            layers.RNN(cells, return_sequences=True),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(4, activation="relu")),
            layers.Bidirectional(layers.GRU(3), backward_layer=None),
        ]
    )


def llama():
    keras_hub = pytest.importorskip("keras_hub")
    return keras_hub.models.LlamaBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_query_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        num_key_value_heads=1,
    )


def tokens(model):
    found = np.random.default_rng(0).integers(0, 50, (3, 7))
    return {"token_ids": found, "padding_mask": np.ones_like(found)}


def large(build):
    return pytest.param(build, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "build",
    [*zoo.SMALL, stacked, holding, large(zoo.mobilenet), large(zoo.bert), large(llama)],
    ids=lambda f: f.__name__,
)
def test_a_copy_computes_the_same_with_layers_of_its_own(build):
    model = build()
    if build is llama:
        x = tokens(model)
    else:
        x = X if build is holding else zoo.inputs_for(model)
    assert_independent(model, replicate(model), x)


def test_what_is_shared_in_a_model_is_shared_in_its_copy():
    model = shared()
    copy = replicate(model)
    x = {"a": X, "b": 2 * X}
    assert set(copy(x)) == {"one", "two"} == set(copy.output)
    assert [layer.name for layer in copy.layers] == [la.name for la in model.layers]
    assert_independent(model, copy, x)
    both = replicate([model, model.layers[2]])
    assert both[1] is both[0].layers[2]
    again = keras.Model(copy.inputs, copy.outputs[0])  # Its graph is whole.
    np.testing.assert_array_equal(again(x), copy(x)["one"])


def test_a_recurrent_layer_keeps_the_states_of_its_own():
    model = keras.Sequential(
        [keras.Input((6, 5), batch_size=4), layers.LSTM(3, stateful=True)]
    )
    x = zoo.inputs_for(zoo.recurrent())
    model(x)
    copy = replicate(model)
    np.testing.assert_array_equal(copy(x), model(x))
    model(x)
    assert moved(outputs(model, x), outputs(copy, x))


def test_a_copy_draws_the_same_random_numbers_and_goes_on_alone():
    model = keras.Sequential([keras.Input((12,)), layers.Dropout(0.5)])
    model(X, training=True)
    copy = replicate(model)
    expected = [outputs(model, X, training=True) for _ in range(2)]
    found = [outputs(copy, X, training=True) for _ in range(2)]
    for a, b in zip(found, expected, strict=True):
        assert_equal(a, b)


@pytest.mark.tensorflow_only
def test_lookup_tables_are_shared_and_work():
    inputs = keras.Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    model = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    import tensorflow as tf

    x = tf.constant([["a"], ["b"], ["c"]])
    copy = replicate(model)
    np.testing.assert_array_equal(copy(x), model(x))
    move(copy)
    assert moved(outputs(model, x), outputs(copy, x))


def compiled(model, **kwargs):
    scale = 3.0

    def loss(y, found):
        return scale * ops.mean(ops.abs(y - found), -1)

    model.compile("adam", loss, metrics=["mae", keras.metrics.MeanSquaredError()])
    return model


def test_a_copy_is_compiled_with_its_losses_and_metrics_of_its_own():
    model = compiled(zoo.mlp())
    y = np.ones((4, 3), "float32")
    model.fit(X, y, verbose=0)
    copy = replicate(model)
    assert copy.optimizer is None
    options = {"verbose": 0, "return_dict": True}
    expected = model.evaluate(X, y, **options)
    found = copy.evaluate(X, y, **options)
    assert found == pytest.approx(expected) and len(found) == 3
    np.testing.assert_array_equal(
        copy.predict(X, verbose=0), model.predict(X, verbose=0)
    )
    copy.evaluate(2 * X, y, verbose=0)
    assert {m.name: float(m.result()) for m in model.metrics[:1]} == pytest.approx(
        {"loss": expected["loss"]}
    )
    # It trains once it is compiled again.
    before = [np.array(ops.convert_to_numpy(w)) for w in model.weights]
    copy.compile("adam", "mse")
    copy.fit(X, y, verbose=0)
    assert_equal([ops.convert_to_numpy(w) for w in model.weights], before)


def test_a_loss_that_holds_a_model_gets_a_copy_of_it():
    model, teacher = zoo.mlp(), zoo.mlp()

    def distance(y, found):
        return ops.mean(ops.square(found - ops.mean(teacher.layers[0].kernel)), -1)

    model.compile("adam", distance)
    copy = replicate(model)
    y = np.ones((4, 3), "float32")
    expected = copy.evaluate(X, y, verbose=0)
    assert expected == pytest.approx(model.evaluate(X, y, verbose=0))
    move(teacher)
    assert copy.evaluate(X, y, verbose=0) == pytest.approx(expected)


@pytest.mark.parametrize("build", [zoo.mlp, zoo.residual_cnn, zoo.subclassed, stacked])
def test_a_copy_is_saved_and_loaded(build, tmp_path):
    model = build()
    x = zoo.inputs_for(model)
    copy = replicate(model)
    copy.save(tmp_path / "copy.keras")
    loaded = keras.models.load_model(tmp_path / "copy.keras")
    assert_equal(outputs(loaded, x), outputs(model, x))
    copy.save_weights(tmp_path / "copy.weights.h5")
    move(model)
    model.load_weights(tmp_path / "copy.weights.h5")
    assert_equal(outputs(model, x), outputs(copy, x))


@pytest.mark.parametrize("build", [zoo.mlp, zoo.recurrent, holding])
def test_a_copy_around_the_same_variables_is_a_second_structure(build):
    model = build()
    x = X if build is holding else zoo.inputs_for(model)
    copy = replicate(model, share_variables=True)
    assert [id(v) for v in copy.variables] == [id(v) for v in model.variables]
    ours, theirs = ({id(la) for la in o._flatten_layers()} for o in (model, copy))
    assert not ours & theirs
    move(model)
    assert_equal(outputs(copy, x), outputs(model, x))


class Noise(hwa_keras.noise.Noise):
    def __init__(self, std, shift):
        super().__init__()
        self.std, self.shift = std, shift

    def perturb(self, w, seed, strength):
        noise = hwa_keras.random.normal(ops.shape(w), seed)
        return w + self.shift(self.std * strength * noise)


class Quantizer(hwa_keras.quantizers.Quantizer):
    def __init__(self, step):
        super().__init__()
        self.steps = {"one": self.add_weight((), lambda s, dtype: step, name="step")}

    def quantized(self, inputs):
        step = ops.convert_to_tensor(self.steps["one"].value)
        return ops.round(inputs / step) * step


def test_a_noise_of_ones_own_needs_no_configuration():
    noise = Noise(0.3, lambda x: 7.0 * x)
    seed = hwa_keras.random.seed_from(1)
    expected = noise(X, seed)  # Compiled already.
    copy = replicate(noise)
    np.testing.assert_array_equal(copy(X, seed), expected)
    copy.scale.assign(0.0)
    np.testing.assert_array_equal(copy(X, seed), X)
    np.testing.assert_array_equal(noise(X, seed), expected)


def test_a_quantizer_of_ones_own_needs_no_configuration():
    quantizer = Quantizer(0.25)
    copy = replicate(quantizer)
    np.testing.assert_array_equal(copy(X), quantizer(X))
    copy.steps["one"].assign(0.5)
    assert len(copy.weights) == 1 and copy.weights[0] is copy.steps["one"]
    np.testing.assert_allclose(copy(X), 0.5 * np.round(X / 0.5))
    np.testing.assert_allclose(quantizer(X), 0.25 * np.round(X / 0.25))


def test_a_copy_of_a_copy_is_a_copy():
    model = holding()
    assert_independent(model, replicate(replicate(model)), X)


def test_a_converted_model_is_copied_with_its_hardware():
    hwa = hwa_keras.to_hwa(
        zoo.residual_cnn(),
        hwa_keras.quantizers.Uniform(8, "learned", axis=-1),
        hwa_keras.noise.AdditiveGaussian(0.1),
        seed=3,
        verbose=0,
    )
    copy, x = replicate(hwa), zoo.inputs_for(hwa)
    ours, theirs = map(hwa_keras.hardware_kernels, (hwa, copy))
    assert [k.path for k in theirs] == [k.path for k in ours]
    for own, other in zip(ours, theirs, strict=True):
        assert other.owner() is not own.owner()
        assert other.variable is not own.variable
        assert other.quantizer.alpha is not own.quantizer.alpha
        assert other.noise is not own.noise
    assert copy.digital == hwa.digital
    # The same noise is drawn, and drawing goes on alone.
    assert_equal(outputs(copy, x, training=True), outputs(hwa, x, training=True))
    assert_independent(hwa, copy, x)


def test_data_and_functions_without_layers_are_not_copied():
    def plain(x):
        return x

    array, given = np.ones(3), object()
    for each in (plain, array, given, ops.tanh, keras.Model, None, 3, "a"):
        assert replicate(each) is each
    assert replicate({"a": (array, plain)})["a"] == (array, plain)


def test_a_copy_is_a_model_on_which_layers_can_be_stacked():
    copy = replicate(zoo.mlp())
    copy.pop()
    copy.add(layers.Dense(7))
    assert copy(X).shape == (4, 7)
    outer = keras.Sequential([keras.Input((12,)), replicate(zoo.nested())])
    assert outer(X).shape == (4, 3)
