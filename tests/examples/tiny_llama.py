"""A tiny Llama with a tiny tokenizer, and a text that it knows all letters of."""

import keras
import keras_hub

SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
TEXT = "the chips drift and the words stay " * 12


def llama(vocabulary_size=40, hidden_dim=8, num_layers=1):
    keras.utils.set_random_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the"]
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *letters))}
    tokenizer = keras_hub.tokenizers.Llama3Tokenizer(vocabulary, ["t h", "th e"])
    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=vocabulary_size,
        num_layers=num_layers,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=hidden_dim,
        intermediate_dim=16,
    )
    for weight in backbone.weights:  # Larger, so that tokens depend on them.
        weight.assign(3 * weight)
    preprocessor = keras_hub.models.Llama3CausalLMPreprocessor(tokenizer)
    return keras_hub.models.Llama3CausalLM(backbone, preprocessor)
