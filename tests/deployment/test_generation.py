"""Generation on chips: the cache of keys and values, samplers, times."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from tests import zoo

keras_hub = pytest.importorskip("keras_hub")

pytestmark = pytest.mark.slow

YEAR = 31_536_000.0
PROMPT = {
    "token_ids": np.array([[1, 5, 7] + [0] * 9, [1, 9, 2] + [0] * 9]),
    "padding_mask": np.array([[1] * 3 + [0] * 9] * 2),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
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
    model = keras_hub.models.LlamaCausalLM(backbone, preprocessor=None)
    model.compile(sampler="greedy")
    return model


@pytest.fixture(scope="module")
def chip(model):
    return hwa_keras.program(model, "pcm", seed=1, read_noise="frozen", verbose=0)


def generated(model):
    found = model.generate(PROMPT, stop_token_ids=None)["token_ids"]
    return ops.convert_to_numpy(found)


def decoded(model):
    """Greedy decoding without a cache: a whole forward pass for each token."""
    tokens = PROMPT["token_ids"].copy()
    for place in range(3, tokens.shape[1]):
        mask = np.ones_like(tokens)
        logits = model({"token_ids": tokens, "padding_mask": mask}, training=False)
        tokens[:, place] = np.argmax(logits[:, place - 1], axis=-1)
    return tokens


@pytest.mark.parametrize("t", [1.0, YEAR])
def test_greedy_tokens_are_those_of_decoding_without_a_cache(chip, t):
    chip.t = t
    np.testing.assert_array_equal(generated(chip), decoded(chip))


def test_what_is_generated_depends_on_the_time(model, chip):
    chip.t = 1.0
    compensation, chip.compensation = chip.compensation, "none"
    first = generated(chip)
    chip.t = YEAR
    assert np.any(generated(chip) != first)
    chip.t = 1.0
    np.testing.assert_array_equal(generated(chip), first)
    chip.compensation = compensation


def test_a_seeded_sampler_gives_the_same_tokens_again(model):
    def sampled():
        sampler = keras_hub.samplers.TopKSampler(k=5, seed=3)
        chip = hwa_keras.program(model, "pcm", seed=1, verbose=0)
        chip.compile(sampler=sampler)
        chip.t = YEAR
        return generated(chip), generated(chip)

    found, more = sampled()
    np.testing.assert_array_equal(sampled(), (found, more))
    assert np.any(more != found)
    np.testing.assert_array_equal(found[:, :3], PROMPT["token_ids"][:, :3])


def test_a_model_without_generate_says_so():
    chip = hwa_keras.program(zoo.mlp(), "pcm", seed=1)
    with pytest.raises(ValueError, match=r"has no `generate`.*such as a CausalLM"):
        chip.generate("a prompt")
