"""Flat minima and weights that are off: an encoder–decoder Transformer.

Its task is to restore the case and the punctuation of pieces of WikiText-2, character
by character. AdamW, SAM, ASAM and SAMSON train it; then it is put on chips whose
conductances vary. The metric is the share of characters predicted right, each from
those before it.

    python examples/sharpness_translation.py --preset=small --methods=adamw,sam
    KERAS_BACKEND=jax python examples/sharpness_translation.py --preset=paper

Presets and methods are in configs/sharpness_translation; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import functools
import time
from pathlib import Path

import keras
import presets
from absl import app, flags, logging
from keras import ops
from sharpness_report import write
from sharpness_training import define_flags, read_recipes, run
from study import check, console

from hwa_keras import datasets, models

FLAGS = flags.FLAGS
OVERRIDES = define_flags("sharpness_translation")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say.

    Args:
        length: Characters of the longest piece of text.
        dim, depth, heads, mlp_dim, dropout: Of the Transformer.
        train_pieces, test_pieces: How many pieces of text.
        batch_size, epochs, learning_rate, schedule, weight_decay: Of the training.
        sigmas: Conductance variations at evaluation, 0.0 first.
        chips: Chips per level.
        seeds: Trainings of each method.
    """

    length: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    dropout: float
    train_pieces: int
    test_pieces: int
    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    weight_decay: float
    sigmas: list
    chips: int
    seeds: int

    # What the studies of images have beside.
    augment, shifts, bits = False, False, ()
    calibration_images = sharpness_images = 0

    @property
    def train_images(self):
        return self.train_pieces

    def __post_init__(self):
        check(self)
        if self.sigmas[:1] != [0.0] or len(self.sigmas) < 2:
            raise ValueError("`sigmas` must begin with 0.0 and go on.")


@keras.saving.register_keras_serializable("examples")
def characters(y, logits):
    """The share of characters of each piece that are predicted right."""
    real = ops.cast(ops.not_equal(y, 0), "float32")
    right = ops.equal(ops.argmax(logits, axis=-1), ops.cast(y, "int64"))
    return ops.sum(ops.cast(right, "float32") * real, -1) / ops.sum(real, -1)


def shortened(data, settings):
    """As many pieces as the settings say, the same ones each time."""
    counts = {"train": settings.train_pieces, "test": settings.test_pieces}
    parts = {
        name: keras.tree.map_structure(lambda x, n=count: x[:n], getattr(data, name))
        for name, count in counts.items()
    }
    return data._replace(**parts)


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    file = Path(FLAGS.config, "presets.yaml")
    settings, recipes, text, out = presets.begin(
        "sharpness_translation",
        "wikitext2",
        FLAGS.out,
        lambda: presets.read(file, FLAGS.preset, Settings, overrides),
        lambda: read_recipes(FLAGS.config, FLAGS.methods),
    )
    part = "validation" if text.train is None else "train"
    data = datasets.restoration(text, settings.length, part, "test")
    lengths = settings.length, settings.length + 1
    sizes = {k: getattr(settings, k) for k in ("dim", "depth", "heads", "mlp_dim")}
    build = functools.partial(
        models.transformer_translation,
        *data.vocabularies,
        *lengths,
        **sizes,
        dropout=settings.dropout,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    data = shortened(data, settings)
    found = run(recipes, settings, data, build, out, loss=loss, metrics=[characters])
    title = "WikiText-2, case and punctuation: sharpness-aware training"
    write(title, recipes, settings, found, out, FLAGS.preset)
    console.print(f"Written to {out}. Done in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    app.run(main)
