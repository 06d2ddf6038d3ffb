"""A chip evaluates as its model would: own losses, steps, names, metrics, methods."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.devices import PCM
from tests import zoo

pytestmark = pytest.mark.usefixtures("built_optimizers")

PERFECT = PCM(programming_scale=0, drift_scale=0, read_scale=0)
X = np.random.default_rng(0).normal(size=(20, 12)).astype("float32")
Y = np.random.default_rng(1).normal(size=(20, 3)).astype("float32")


@keras.saving.register_keras_serializable("test_chip_as_model")
class Own(keras.Model):
    """A model with a step, a loss and an attribute of its own."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(8, activation="relu")
        self.heads = {"a": layers.Dense(3), "b": layers.Dense(3)}
        self.weighting = 0.25
        self.errors = keras.metrics.Mean(name="largest_error")

    def call(self, inputs):
        x = self.hidden(inputs)
        return self.heads["a"](x) + self.weighting * self.heads["b"](x)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight, training) + 10.0

    def test_step(self, *args):
        *state, (x, y) = args
        if state:  # JAX: a step is a function of all variables.
            return self._jax_test_step(state[0], x, y)
        return self._measured(x, y)

    def _measured(self, x, y):
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred)
        self.errors.update_state(ops.max(ops.abs(y - y_pred), axis=-1))
        return {"own_loss": loss, "largest_error": self.errors.result()}

    def _jax_test_step(self, state, x, y):
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.metrics_variables,
        )
        pairs = [
            pair
            for group, values in zip(groups, state, strict=True)
            for pair in zip(group, values, strict=True)
        ]
        with keras.StatelessScope(pairs) as scope:
            logs = self._measured(x, y)
        after = [[scope.get_current_value(v) for v in group] for group in groups]
        return logs, tuple(after)


def own():
    model = Own()
    model(X)
    return model


def two_headed():
    inputs = keras.Input((12,))
    x = layers.Dense(8, activation="tanh")(inputs)
    return keras.Model(inputs, [layers.Dense(3, name=name)(x) for name in ("a", "b")])


def plain(model):
    return model


def converted(model):
    return hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)


def evaluated(model, *data):
    return model.evaluate(*data, return_dict=True, verbose=0)


def assert_evaluates_alike(model, *data):
    expected = evaluated(model, *data)
    chip = hwa_keras.program(model, PERFECT, seed=1)
    assert type(chip).__name__ == type(model).__name__
    found = evaluated(chip, *data)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    return chip, expected


@pytest.mark.parametrize(
    ("put", "build"),
    [(plain, zoo.mlp), (converted, zoo.subclassed)],
    ids=lambda f: f.__name__,
)
def test_losses_that_are_closures(put, build):
    model = put(build())
    scale = 3.0

    def loss(y, y_pred):
        return scale * ops.mean(ops.abs(y - y_pred), axis=-1)

    def error(y, y_pred):
        return ops.max(ops.abs(y - y_pred), axis=-1)

    model.compile("sgd", loss, metrics=[error])
    _, expected = assert_evaluates_alike(model, X, Y)
    y_pred = ops.convert_to_numpy(model(X))
    assert expected["loss"] == pytest.approx(3 * np.mean(np.abs(Y - y_pred)), rel=1e-4)


@pytest.mark.parametrize("put", [plain, converted], ids=lambda f: f.__name__)
def test_steps_losses_and_attributes_of_one_s_own(put):
    model = put(own())
    model.compile("sgd", "mse")
    chip, expected = assert_evaluates_alike(model, X, Y)
    assert set(expected) == {"own_loss", "largest_error"} and expected["own_loss"] > 10
    assert isinstance(chip, Own) and chip.weighting == 0.25
    assert [tile.kernel().path for tile in chip.tiles] == [
        kernel.path for kernel in hwa_keras.hardware_kernels(chip)
    ]
    assert len(chip.tiles) == 3


def test_losses_by_the_names_of_outputs():
    model = converted(two_headed())
    model.compile("sgd", {"a": "mse", "b": "mae"}, metrics={"b": ["mse"]})
    chip, expected = assert_evaluates_alike(model, X, {"a": Y, "b": 2 * Y})
    assert {"a_loss", "b_loss", "b_mse"} <= set(expected)
    assert chip.output_names == ["a", "b"]


def test_metrics_with_a_state_are_the_chip_s_own():
    x, y = zoo.digits_like(40)
    y = keras.utils.to_categorical(y, 3)
    model = zoo.mlp()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.AUC(from_logits=True, multi_label=True, name="auc")]
    metrics += [keras.metrics.F1Score(average="macro", name="f1")]
    model.compile("sgd", loss, metrics=metrics)
    assert_evaluates_alike(model, x, y)


def test_an_evaluation_leaves_the_metrics_of_the_model_alone():
    model = converted(zoo.mlp())
    model.compile("sgd", "mse", metrics=["mae"])
    before = evaluated(model, X, Y)
    held = [ops.convert_to_numpy(v) for v in model.metrics_variables]
    chip = hwa_keras.program(model, "pcm", seed=1)
    assert evaluated(chip, X, Y) != before
    for variable, value in zip(model.metrics_variables, held, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    after = {name: float(v) for name, v in model.get_metrics_result().items()}
    assert after == pytest.approx(before)


def test_a_chip_is_not_programmed_again():
    chip = hwa_keras.program(zoo.mlp(), "pcm", seed=1)
    with pytest.raises(ValueError, match=r"is a chip already.*chip.write\(seed\)"):
        hwa_keras.program(chip, "pcm", seed=2)
    with pytest.raises(ValueError, match="does not train"):
        chip.fit(X, Y)


@pytest.mark.slow
def test_a_language_model_generates_on_its_chip():
    import keras_hub

    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
    )
    for weight in backbone.weights:  # Larger, so that tokens depend on them.
        weight.assign(3 * weight)
    model = converted(keras_hub.models.LlamaCausalLM(backbone, preprocessor=None))
    model.compile(sampler="greedy")
    prompt = {
        "token_ids": np.array([[1, 5, 7, 0, 0, 0, 0, 0], [1, 9, 2, 3, 0, 0, 0, 0]]),
        "padding_mask": np.array([[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]),
    }
    expected = model.generate(prompt, stop_token_ids=None)["token_ids"]
    chip = hwa_keras.program(model, PERFECT, seed=1, verbose=0)
    found = chip.generate(prompt, stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(found, expected)
    assert np.all(np.asarray(found)[:, :3] == prompt["token_ids"][:, :3])
