"""Heads that lie in embedding layers: which product, which weights, which noise."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.circuits import ADC, DAC
from hwa_keras.core.kernels import find_kernels
from hwa_keras.noise import Noise
from hwa_keras.quantizers import Uniform

if not hasattr(keras.layers, "ReversibleEmbedding"):
    pytest.skip("needs Keras 3.13", allow_module_level=True)

HEADS = keras.layers.ReversibleEmbedding
IDS = np.array([[3, 1, 4], [1, 5, 9]], "int32")


@keras.saving.register_keras_serializable("tests_head")
class Doubling(Noise):
    def perturb(self, w, seed, strength):
        return 2 * w


@keras.saving.register_keras_serializable("tests_head")
class Language(keras.Model):
    """An embedding, a hidden layer and a head in one layer with the embedding."""

    def __init__(self, tie_weights=True, **kwargs):
        super().__init__(**kwargs)
        self.tie_weights = tie_weights
        self.embedding = HEADS(12, 6, tie_weights=tie_weights, logit_soft_cap=3.0)
        self.hidden = keras.layers.Dense(6, name="hidden")

    def build(self, input_shape):
        self.embedding.build(input_shape)
        self.hidden.build((*input_shape, 6))

    def call(self, ids):
        return self.embedding(self.hidden(self.embedding(ids)), reverse=True)

    def get_config(self):
        return {**super().get_config(), "tie_weights": self.tie_weights}


def language(tie_weights=True):
    keras.utils.set_random_seed(1)
    model = Language(tie_weights)
    model(IDS)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def expected(model, table, head, hidden=None):
    """The logits by hand, from a table and a head `[6, 12]`, in float64."""
    hidden = np.array(model.hidden.kernel, "float64") if hidden is None else hidden
    x = np.asarray(table, "float64")[IDS] @ hidden + np.array(model.hidden.bias)
    return 3 * np.tanh(x @ np.asarray(head, "float64") / 3)


def run(model, **kwargs):
    return ops.convert_to_numpy(model(IDS, **kwargs))


def table_of(model):
    return np.array(model.embedding._embeddings)


def test_a_head_of_its_own_is_a_kernel_a_tied_one_on_request():
    own, tied = language(tie_weights=False), language()
    paths = [k.path.rpartition("/")[2] for k in find_kernels(own)[0]]
    assert paths == ["kernel", "reverse_embeddings"]
    assert [k.view.matrix_shape for k in find_kernels(own, HEADS)[0]] == [
        (6, 6), (6, 12),
    ]  # fmt: skip
    assert len(find_kernels(tied)[0]) == 1
    for asked in (HEADS, "*/embeddings", [HEADS], ["nothing", HEADS]):
        [hidden, head] = find_kernels(tied, asked)[0]
        assert hidden.owner.name == "hidden" and head.view.matrix_shape == (6, 12)
    hwa = hwa_keras.to_hwa(tied, kernels=HEADS, skip="last", verbose=0)
    assert [k.owner().name for k in hwa_keras.hardware_kernels(hwa)] == ["hidden"]


@pytest.mark.parametrize("tie_weights", [True, False])
def test_noise_is_on_the_head_and_not_on_the_table(tie_weights):
    model = language(tie_weights)
    rules = [("hidden", None)]
    plain = run(model)
    hwa_keras.to_hwa(
        model, kernel_noise=Doubling(), rules=rules, kernels=HEADS, verbose=0
    )
    np.testing.assert_array_equal(run(model), plain)
    table = table_of(model)
    head = table.T if tie_weights else np.array(model.embedding.reverse_embeddings)
    np.testing.assert_allclose(
        run(model, training=True), expected(model, table, 2 * head), atol=1e-5
    )
    np.testing.assert_allclose(plain, expected(model, table, head), atol=1e-5)
    hwa_keras.to_digital(model)
    assert type(model.embedding) is HEADS
    np.testing.assert_array_equal(run(model), plain)


def test_table_and_head_hold_quantized_weights():
    model = language()
    quantizer = Uniform(levels=8, scale="max")
    rules = [("hidden", None)]
    hwa_keras.to_hwa(model, quantizer, rules=rules, kernels=HEADS, verbose=0)
    [kernel] = hwa_keras.hardware_kernels(model)
    w = ops.convert_to_numpy(kernel.quantized())
    assert len(np.unique(w)) < 16 < len(np.unique(table_of(model)))
    np.testing.assert_allclose(run(model), expected(model, w, w.T), atol=1e-5)


def test_converters_are_around_the_product_before_the_cap():
    model = language(tie_weights=False)
    hardware = hwa_keras.Hardware(dac=DAC(16, 64.0), adc=ADC(3, 2.0))
    rules = [("hidden", None)]
    hwa_keras.to_hwa(model, hardware=hardware, rules=rules, verbose=0)
    levels = np.unique(np.arctanh(run(model).astype("float64") / 3).round(3))
    assert 2 < len(levels) <= 8 and np.abs(levels).max() * 3 < 2.01


@pytest.mark.parametrize("quantizer", [None, "uniform"])
def test_a_chip_ages_in_its_head_and_its_table_does_not(quantizer, tmp_path):
    model = language()
    rules = [("hidden", None)]
    hwa_keras.to_hwa(model, quantizer, rules=rules, kernels=HEADS, verbose=0)
    table = ops.convert_to_numpy(hwa_keras.hardware_kernels(model)[0].quantized())
    options = {"seed": 1, "read_noise": "off", "compensation": "none", "verbose": 0}
    chip = hwa_keras.program(model, "pcm", **options)
    found = []
    for t in (0.0, 3e7):
        chip.t = t
        head = ops.convert_to_numpy(chip.tiles[0].current()).T
        np.testing.assert_allclose(run(chip), expected(chip, table, head), atol=1e-5)
        found.append(head)
    assert np.abs(found[1]).mean() < 0.9 * np.abs(found[0]).mean()
    for name, saved in {"chip": chip, "model": model}.items():
        saved.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        np.testing.assert_array_equal(run(loaded), run(saved))


def test_outputs_of_a_chip_with_a_tied_head_are_calibrated():
    model = language()
    plain = run(model)
    chip = hwa_keras.program(
        model, "pcm", seed=1, read_noise="off", kernels=HEADS, verbose=0
    )
    chip.t = 3e7
    before = np.abs(run(chip) - plain).mean()
    hwa_keras.calibrate_outputs(chip, IDS, model)
    assert np.abs(run(chip) - plain).mean() < before


def test_gradients_reach_the_weights_through_table_and_head():
    model = language()
    hwa_keras.to_hwa(model, kernel_noise=Doubling(), kernels=HEADS, verbose=0)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = table_of(model)
    model.train_on_batch(IDS[:1], np.ones((1, 3, 12), "float32"))
    assert np.all(np.any(table_of(model) != before, axis=-1))  # All rows, by the head.


@pytest.mark.parametrize("wrong", [3, [3], int])
def test_what_else_is_a_kernel_must_be_pattern_class_or_function(wrong):
    with pytest.raises(TypeError, match="must be a pattern of paths.*a layer class"):
        hwa_keras.to_hwa(language(), kernels=wrong, verbose=0)


def test_a_class_means_all_matrices_of_layers_that_are_not_known():
    @keras.saving.register_keras_serializable("tests_head")
    class Product(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight((shape[-1], 3), name="w")
            self.b = self.add_weight((3,), name="b")

        def call(self, x):
            return x @ self.w + self.b

    model = keras.Sequential([keras.Input((4,)), Product(name="own")])
    hwa = hwa_keras.to_hwa(model, kernels=Product, verbose=0)
    assert [k.path for k in hwa_keras.hardware_kernels(hwa)] == ["own/w"]
