"""What the studies share: images, batches, learning rates, tables."""

import sys

import keras
import tensorflow as tf  # for tf.data, which feeds both backends
from rich.console import Console
from rich.table import Table

from hwa_keras.datasets import Dataset
from hwa_keras.results import estimate, tabular

console = Console(width=None if sys.stdout.isatty() else 110)

# When the learning rate is divided by 10, as shares of a training.
STEPS = {"quarters": (0.25, 0.5, 0.75), "steps": (0.3, 0.6, 0.9)}
SCHEDULES = ("cosine", *STEPS)


def prepared(data, settings):
    """The images of a run, with the mean and deviation of each channel taken out."""
    x, y = (part[: settings.train_images] for part in data.train)
    x_test, y_test = (part[: settings.test_images] for part in data.test)
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
    return Dataset(
        data.name,
        ((x - mean) / std, y),
        ((x_test - mean) / std, y_test),
        data.num_classes,
    )


def learning_rate(settings, largest, steps):
    """The schedule of the learning rate over a whole training."""
    if settings.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(largest, steps)
    shares = STEPS[settings.schedule]
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(steps * share) for share in shares],
        [largest / 10**i for i in range(len(shares) + 1)],
    )


def sgd(settings, largest, steps):
    """SGD with Nesterov's momentum over a whole training."""
    return keras.optimizers.SGD(
        learning_rate(settings, largest, steps),
        momentum=0.9,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )


def adamw(settings, largest, steps):
    """AdamW over a whole training: a tenth of it to warm up, then a cosine."""
    warm = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=largest, warmup_steps=warm
    )
    optimizer = keras.optimizers.AdamW(rate, settings.weight_decay, global_clipnorm=1.0)
    # Neither norms nor biases nor what is learned of positions.
    optimizer.exclude_from_weight_decay(
        var_names=["bias", "gamma", "beta", "positions", "token", "embeddings"]
    )
    return optimizer


def batches(x, y, settings, seed):
    """Shuffled batches, shifted by up to 4 pixels and mirrored at random if asked."""
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=seed)
    dataset = dataset.batch(settings.batch_size, drop_remainder=True)
    if settings.augment:
        augment = keras.Sequential(
            [
                keras.layers.RandomTranslation(
                    0.125, 0.125, "constant", interpolation="nearest", seed=seed
                ),
                keras.layers.RandomFlip("horizontal", seed=seed + 1),
            ]
        )
        dataset = dataset.map(
            lambda x, y: (augment(x, training=True), y), tf.data.AUTOTUNE
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def check(settings, **known):
    """Raise `ValueError` for settings that no study can run with.

    Args:
        settings: The settings of a runner.
        **known: The values that other settings may have, by name.
    """
    for key, values in {"schedule": SCHEDULES, **known}.items():
        if getattr(settings, key) not in values:
            raise ValueError(f"`{key}` must be one of {', '.join(values)}.")
    if settings.batch_size > settings.train_images:
        raise ValueError("`batch_size` must not be above `train_images`.")


def of_classifier():
    """What a classifier that ends in logits is compiled with."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": loss, "metrics": ["accuracy"]}


def fit(model, data, settings, callbacks, seed, optimizer=sgd, **losses):
    """Compile a network, and train it.

    Args:
        model: A built Keras model.
        data: A data set with `train`.
        settings: The settings of a runner.
        callbacks: List of Keras callbacks.
        seed: Integer, of the order of the batches.
        optimizer: `sgd` or `adamw`.
        **losses: `loss` and `metrics`, where those of `of_classifier` will not do.

    Returns:
        The history of the fit.
    """
    x, y = data.train
    steps = len(y) // settings.batch_size * settings.epochs
    chosen = optimizer(settings, settings.learning_rate, steps)
    model.compile(chosen, **(losses or of_classifier()))
    return model.fit(
        batches(x, y, settings, seed),
        epochs=settings.epochs,
        callbacks=callbacks,
        shuffle=False,  # The data set shuffles.
        verbose=0,
    ).history


def cell(samples):
    """A mean, with half of its 95 % interval if there are several samples."""
    return tabular.cell(estimate(samples))


def show(section):
    """Print a part of the report."""
    table = Table(title=section.title)
    for i, column in enumerate(section.columns):
        table.add_column(column, justify="right" if i else "left")
    for row in section.rows:
        table.add_row(*map(str, row))
    console.print(table)
    console.print(section.text)
