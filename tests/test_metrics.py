"""Perplexity, against NumPy in float64. FlipRatio is in tests/quantizers."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.metrics import Perplexity

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5, 7)) * 3
TOKENS = RNG.integers(0, 7, size=(6, 5))
WEIGHTS = (RNG.random((6, 5)) < 0.7).astype("float32")


def expected(weights=None):
    shifted = LOGITS - LOGITS.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(log_p, TOKENS[..., None], axis=-1)[..., 0]
    return np.exp(np.average(losses, weights=weights))


def test_it_is_the_exponential_of_the_mean_loss_of_all_tokens():
    metric = Perplexity(from_logits=True)
    for part in (slice(0, 1), slice(1, 6)):  # Of unequal size.
        metric.update_state(TOKENS[part], LOGITS[part].astype("float32"))
    np.testing.assert_allclose(float(metric.result()), expected(), rtol=1e-5)
    metric.reset_state()
    probabilities = ops.softmax(LOGITS.astype("float32"))
    metric = Perplexity()
    metric.update_state(TOKENS, probabilities)
    np.testing.assert_allclose(float(metric.result()), expected(), rtol=1e-5)


def test_tokens_of_weight_zero_do_not_count():
    metric = Perplexity(from_logits=True)
    metric.update_state(TOKENS, LOGITS.astype("float32"), WEIGHTS)
    np.testing.assert_allclose(float(metric.result()), expected(WEIGHTS), rtol=1e-5)


def test_it_computes_in_float32_for_a_model_in_half_precision():
    metric = Perplexity(from_logits=True)
    metric.update_state(TOKENS, ops.cast(LOGITS, "bfloat16"))
    np.testing.assert_allclose(float(metric.result()), expected(), rtol=1e-2)
    exact = Perplexity(from_logits=True)
    exact.update_state(TOKENS, ops.cast(ops.cast(LOGITS, "bfloat16"), "float32"))
    assert float(metric.result()) == float(exact.result())


def test_it_is_made_again_from_its_configuration():
    metric = Perplexity(from_logits=True, name="ppl")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert copy.get_config() == metric.get_config()
    for each in (metric, copy):
        each.update_state(TOKENS, LOGITS.astype("float32"))
    assert float(copy.result()) == float(metric.result())


@pytest.mark.slow
def test_a_sweep_of_a_model_with_named_inputs_measures_it(tmp_path):
    inputs = {
        "token_ids": keras.Input((5,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((5,), dtype="int32", name="padding_mask"),
    }
    x = keras.layers.Embedding(7, 8)(inputs["token_ids"])
    x = x * ops.cast(ops.expand_dims(inputs["padding_mask"], -1), "float32")
    model = keras.Model(inputs, keras.layers.Dense(7)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, weighted_metrics=[Perplexity(from_logits=True)])
    x = {"token_ids": TOKENS, "padding_mask": np.ones_like(TOKENS)}
    result = hwa_keras.drift_sweep(
        model, "pcm", (x, TOKENS), times=[1.0], chips=2, batch_size=4, verbose=0
    )
    assert result.metric == "perplexity"
    for i in range(2):
        chip = hwa_keras.program(model, "pcm", seed=i, read_noise="frozen", verbose=0)
        chip.t = 1.0
        loss = chip.evaluate(x, TOKENS, verbose=0, return_dict=True)["loss"]
        found = result.values("measured", "1 s")[i]
        np.testing.assert_allclose(found, np.exp(loss), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    values = [
        m.evaluate(x, TOKENS, verbose=0, return_dict=True) for m in (model, again)
    ]
    assert values[0]["perplexity"] == pytest.approx(values[1]["perplexity"])
