"""An LSTM language model on WikiText-2, from digital training to a year on chips.

    python examples/train_lstm.py --preset=small --device=simple_pcm

Presets are in configs/train_lstm.yaml; flags go before them.
"""

import dataclasses
from pathlib import Path

import keras
import keras_hub

from hwa_keras import datasets, models, recipes, training
from hwa_keras.core.checks import check_choice
from hwa_keras.recipes import task_runner

CONFIG = Path(__file__).parents[1] / "configs/train_lstm.yaml"


@dataclasses.dataclass(frozen=True)
class Settings(recipes.TwoPhaseSettings):
    train_split: str
    held_out: float
    train_tokens: int
    test_tokens: int
    chip_tokens: int
    embedding: int
    units: int
    dropout: float
    length: int
    gradient_norm: float

    def __post_init__(self):
        super().__post_init__()
        if self.distillation:
            raise ValueError("`distillation` must be 0: no teacher reads along here.")
        check_choice("a preset", ("train", "validation"), train_split=self.train_split)
        needed = self.train_split == "validation"
        if not 0 <= self.held_out < 1 or (needed and not self.held_out):
            raise ValueError(
                "`held_out` must be in [0, 1), and above 0 where train_split is "
                "validation: something must tell when the training stalls."
            )


def split_text(settings):
    """The text to train on, and the one that tells when the training stalls."""
    text = datasets.load("wikitext2", settings.train_split)[: settings.train_tokens]
    if not settings.held_out:
        return text, datasets.load("wikitext2", "validation")
    kept = round(len(text) * (1 - settings.held_out))
    return text[:kept], text[kept:]


class LanguageModel(recipes.Task):
    name = "lstm"
    metric = "perplexity"

    def __init__(self, settings):
        self.settings = settings
        read, validation = split_text(settings)
        test = datasets.load("wikitext2", "test")
        self.words = len(datasets.load("wikitext2").vocabulary)
        self.train = self.windows(read)
        self.validation = self.windows(validation)
        self.test = self.windows(test[: settings.test_tokens])
        self.chip_test = self.windows(test[: settings.chip_tokens])
        self.example = self.test[0][0]
        self.resets = (training.ResetStates(),)

    def windows(self, text):
        return datasets.Windows(text, self.settings.batch_size, self.settings.length)

    def digital(self, **hardware):
        names = ("embedding", "units", "dropout", "batch_size", "length")
        sizes = {name: getattr(self.settings, name) for name in names}
        return models.lstm_lm(self.words, **sizes, **hardware)

    def student(self, teacher):
        student = self.digital(**self.settings.hardware())
        pairs = zip(student.trainable_weights, teacher.trainable_weights, strict=True)
        for own, learned in pairs:
            own.assign(learned)
        return student

    def compile(self, model, learning_rate, epochs):
        norm = self.settings.gradient_norm
        model.compile(
            keras.optimizers.SGD(learning_rate, global_clipnorm=norm),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[keras_hub.metrics.Perplexity(from_logits=True)],
        )

    def callbacks(self, folder):
        return [recipes.BestEpoch(folder)]


if __name__ == "__main__":
    task_runner.main(LanguageModel, Settings, CONFIG)
