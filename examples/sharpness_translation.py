"""Flat minima and weights that are off: an encoder–decoder Transformer.

Its task is to restore the case and the punctuation of pieces of WikiText-2, character
by character. AdamW, SAM, ASAM and SAMSON train it; then it is put on chips whose
conductances vary. The metric is the share of characters predicted right, each from
those before it.

    python examples/sharpness_translation.py --preset=small --methods=adamw,sam
    KERAS_BACKEND=jax python examples/sharpness_translation.py --preset=paper

Presets and methods are in configs/sharpness_translation; flags go before them.
"""

import dataclasses
import functools
from pathlib import Path

import keras
from keras import ops
from sharpness_report import write
from sharpness_training import check_sigmas, compared, read_recipes

from hwa_keras import datasets, models
from hwa_keras.recipes import classifier, runner

CONFIG = Path(__file__).parents[1] / "configs/sharpness_translation"


@dataclasses.dataclass(frozen=True)
class Settings(classifier.TrainingSettings):
    """What a preset must say; the file explains each key."""

    length: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    dropout: float
    train_pieces: int
    test_pieces: int
    sigmas: list[float]
    chips: int
    seeds: int
    methods: list[str] | None = None  # All.

    # What the studies of images have beside.
    augment, shifts, bits = False, False, ()
    calibration_images = sharpness_images = 0

    def __post_init__(self):
        super().__post_init__()
        check_sigmas(self)


@keras.saving.register_keras_serializable("examples")
def characters(y, logits):
    """The share of characters of each piece that are predicted right."""
    real = ops.cast(ops.not_equal(y, 0), "float32")
    right = ops.equal(ops.argmax(logits, axis=-1), ops.cast(y, "int64"))
    return ops.sum(ops.cast(right, "float32") * real, -1) / ops.sum(real, -1)


def pieces(settings):
    """Pieces of WikiText-2, as many as the settings say, the same ones each time."""
    text = datasets.load("wikitext2")
    part = "validation" if text.train is None else "train"
    data = datasets.restoration(text, settings.length, part, "test")
    counts = {"train": settings.train_pieces, "test": settings.test_pieces}
    parts = {
        name: keras.tree.map_structure(lambda x, n=count: x[:n], getattr(data, name))
        for name, count in counts.items()
    }
    return data._replace(**parts)


def study(run):
    settings = run.settings
    with runner.reading(CONFIG.stem):
        recipes = read_recipes(run.config, settings.methods)
        data = pieces(settings)
    sizes = ("dim", "depth", "heads", "mlp_dim", "dropout")
    build = functools.partial(
        models.transformer_translation,
        *data.vocabularies,
        settings.length,
        settings.length + 1,
        **{name: getattr(settings, name) for name in sizes},
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    found = compared(recipes, run, data, build, loss=loss, metrics=[characters])
    title = "WikiText-2, case and punctuation: sharpness-aware training"
    write(title, recipes, found, run)


if __name__ == "__main__":
    runner.main(study, Settings, CONFIG)
