import json

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras import devices, hardware_kernels, noise, program
from hwa_keras.recipes import LanguageModelRecipe, tokens_of, tune_language_model
from hwa_keras.recipes.language_model import Checkpoints, as_inputs, shuffled_windows

keras_hub = pytest.importorskip("keras_hub")

TEXT = np.tile(np.arange(16, dtype="int32"), 40)  # What comes next is plain.
SMALL = {"steps": 30, "batch": 4, "length": 8, "learning_rate": 1e-2, "clip": 2.5}


def causal_lm():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=16,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
    )
    return keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None)


def loss_of(model):
    x, y = shuffled_windows(TEXT, 8, 8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(y, model(as_inputs(x), training=False)))


@pytest.fixture(scope="module")
def tuned():
    """A model that has learned on hardware, and what `fit` told."""
    model = causal_lm()
    recipe = LanguageModelRecipe(**SMALL)
    return model, tune_language_model(model, TEXT, recipe, verbose=0).history


def test_it_learns_on_hardware_and_stays_there(tuned):
    model, history = tuned
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["noise_scale"] == [1.0, 1.0, 1.0]
    assert all(isinstance(k.noise, noise.DriftNoise) for k in hardware_kernels(model))


def test_columns_are_clipped(tuned):
    for kernel in hardware_kernels(tuned[0]):
        matrix = ops.convert_to_numpy(kernel.view.to_matrix(kernel.variable.value))
        assert np.all(np.abs(matrix).max(0) <= 2.5 * matrix.std(0) * 1.05)


def test_a_chip_of_it_is_made_of_its_device(tuned):
    chip = program(tuned[0], None, seed=0, verbose=0)
    assert chip.tiles[0].device == devices.PCM(per="column")
    chip.t = 3600.0
    assert np.isfinite(loss_of(chip))


@pytest.fixture(scope="module")
def plainly_tuned():
    """A model that has learned without hardware."""
    model = causal_lm()
    recipe = LanguageModelRecipe(**{**SMALL, "clip": None}, hardware=None)
    tune_language_model(model, TEXT, recipe, verbose=0)
    return model


def test_without_hardware_it_is_plain_tuning(plainly_tuned):
    assert loss_of(plainly_tuned) < 0.8 * loss_of(causal_lm())
    assert not hardware_kernels(plainly_tuned)


@pytest.mark.slow
@pytest.mark.usefixtures("built_optimizers")
@pytest.mark.parametrize("tune", ["lora", "vectors"])
def test_few_weights_can_be_tuned(tune):
    model = causal_lm()
    kernel = model.backbone.get_layer("transformer_layer_0")._feedforward_gate_dense
    before = ops.convert_to_numpy(kernel.kernel)
    recipe = LanguageModelRecipe(
        **{**SMALL, "steps": 1, "clip": None}, tune=tune, rank=2
    )
    history = tune_language_model(model, TEXT, recipe, verbose=0).history
    np.testing.assert_array_equal(ops.convert_to_numpy(kernel.kernel), before)
    assert np.isfinite(history["loss"][-1])
    names = {v.path.rsplit("/", 1)[-1] for v in model.trainable_variables}
    assert "lora_kernel_a" in names if tune == "lora" else names == {"scale"}


@pytest.mark.usefixtures("built_optimizers")
def test_a_teacher_keeps_a_model_where_it_was(plainly_tuned):
    away, kept = plainly_tuned, causal_lm()
    x = as_inputs(TEXT[None, :8])
    before = ops.softmax(kept(x))
    plain = {**SMALL, "hardware": None, "clip": None}
    recipe = LanguageModelRecipe(**plain, distill=1.0, top_k=16)
    tune_language_model(kept, TEXT, recipe, verbose=0)

    def moved(model):
        return float(ops.mean(ops.abs(ops.softmax(model(x)) - before)))

    assert moved(kept) < 0.2 * moved(away)


@pytest.mark.slow
@pytest.mark.usefixtures("built_optimizers")
def test_a_tuning_that_was_cut_short_goes_on(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr("hwa_keras.recipes.language_model._MINUTES", 0.0)
    recipe = LanguageModelRecipe(**SMALL)

    class Cut(Exception):
        pass

    def cut(self, epoch, logs=None):
        original(self, epoch, logs)
        raise Cut

    original = Checkpoints.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_epoch_end", cut)
        with pytest.raises(Cut):
            tune_language_model(causal_lm(), TEXT, recipe, tmp_path / "cut", verbose=0)
    resumed = causal_lm()
    tune_language_model(resumed, TEXT, recipe, tmp_path / "cut", verbose=0)
    for a, b in zip(tuned[0].get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert json.loads((tmp_path / "cut/tuning.json").read_text())["steps"] == 30
    assert len(list((tmp_path / "cut").glob("*.h5"))) == 1
    other = LanguageModelRecipe(**{**SMALL, "learning_rate": 0.1})
    with pytest.raises(ValueError, match="another tuning"):
        tune_language_model(causal_lm(), TEXT, other, tmp_path / "cut", verbose=0)


def test_windows_pass_over_the_text_in_other_cuts():
    tokens = np.arange(100)
    x, y = shuffled_windows(tokens, 40, 8)
    assert x.shape == y.shape == (40, 8)
    np.testing.assert_array_equal(x + 1, y)
    assert len({int(row[0]) % 8 for row in x}) > 1
    assert len({int(row[0]) for row in x[:11]}) == 11


def test_a_text_shorter_than_a_window_is_told():
    with pytest.raises(ValueError, match="need a text of 257"):
        tune_language_model(causal_lm(), TEXT[:100], verbose=0)


def test_a_model_without_a_tokenizer_is_told():
    with pytest.raises(ValueError, match="no preprocessor"):
        tokens_of(causal_lm(), "a text")


@pytest.mark.parametrize(
    "arguments",
    [{"clip": 0.0}, {"steps": 0}, {"tune": "some"}, {"distill": 2.0}, {"minutes": -1}],
)
def test_bad_recipes_are_told(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LanguageModelRecipe(**arguments)
