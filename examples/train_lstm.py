"""An LSTM language model on WikiText-2, from digital training to a year on chips.

    python examples/train_lstm.py --preset=smoke
    python examples/train_lstm.py --preset=small --device=simple_pcm
    python examples/train_lstm.py --preset=paper

Presets are in configs/train_lstm.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import csv
import dataclasses

import keras
import keras_hub
import recipe
from absl import flags

from hwa_keras import datasets, models, recipes, training
from hwa_keras.results import write_whole

FLAGS = flags.FLAGS


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
        if self.train_split not in ("train", "validation"):
            raise ValueError("`train_split` must be train or validation.")
        if not 0 <= self.held_out < 1 or (
            self.train_split == "validation" and not self.held_out
        ):
            raise ValueError(
                "`held_out` must be in [0, 1), and above 0 where train_split is "
                "validation: something must tell when the training stalls."
            )


class QuarterOnStall(keras.callbacks.ReduceLROnPlateau):
    """Divides the learning rate by 4 after each epoch whose loss is not the best yet.

    Which was the best is read from the log of `CSVLogger`, so that a resumed training
    knows it.
    """

    def __init__(self, log):
        super().__init__("val_loss", factor=0.25, patience=1, min_delta=0.0)
        self.log = log

    def on_epoch_begin(self, epoch, logs=None):
        self.best = best_before(self.log, epoch)


def best_before(log, epoch):
    """The smallest validation loss in a log before an epoch."""
    if not log.is_file():
        return float("inf")
    with log.open(encoding="utf-8") as file:
        losses = [
            float(row["val_loss"])
            for row in csv.DictReader(file)
            if int(row["epoch"]) < epoch
        ]
    return min(losses, default=float("inf"))


class Best(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the smallest validation loss."""

    def __init__(self, folder):
        super().__init__()
        self.log = folder / "log.csv"
        self.path = folder / "best.weights.h5"

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_loss"] < best_before(self.log, epoch):
            write_whole(self.path, self.model.save_weights)


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
        if FLAGS.distribute != "none" and not FLAGS.eval_only:
            raise ValueError(
                "The text is read in order by one device: train with "
                "--distribute=none. With --eval_only, workers share the chips."
            )
        read, validation = split_text(settings)
        test = datasets.load("wikitext2", "test")
        self.words = len(datasets.load("wikitext2").vocabulary)
        print(
            f"WikiText-2, {self.words:,} words: training on {len(read):,} tokens of "
            f"its {settings.train_split} text, evaluation on its test text."
        )
        self.train = self.windows(read)
        self.validation = self.windows(validation)
        self.test = self.windows(test[: settings.test_tokens])
        self.chip_test = self.windows(test[: settings.chip_tokens])
        self.example = self.test[0][0]
        self.resets = (training.ResetStates(),)

    def windows(self, text):
        return datasets.Windows(text, self.settings.batch_size, self.settings.length)

    def digital(self, **hardware):
        settings = self.settings
        return models.lstm_lm(
            self.words,
            settings.embedding,
            settings.units,
            dropout=settings.dropout,
            batch_size=settings.batch_size,
            length=settings.length,
            **hardware,
        )

    def student(self, teacher):
        student = self.digital(**self.settings.hardware())
        pairs = zip(student.trainable_weights, teacher.trainable_weights, strict=True)
        for own, learned in pairs:
            own.assign(learned)
        return student

    def compile(self, model, learning_rate, epochs):
        model.compile(
            keras.optimizers.SGD(
                learning_rate, global_clipnorm=self.settings.gradient_norm
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[keras_hub.metrics.Perplexity(from_logits=True)],
        )

    def callbacks(self, folder):
        return [Best(folder), QuarterOnStall(folder / "log.csv")]

    def finish(self, model, folder):
        model.load_weights(folder / "best.weights.h5")


if __name__ == "__main__":
    recipe.main("train_lstm", Settings, LanguageModel)
