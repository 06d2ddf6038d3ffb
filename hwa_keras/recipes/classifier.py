"""Training classifiers of small images: settings, batches, optimizers, one call."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from hwa_keras.core.checks import check_choice, check_count
from hwa_keras.datasets import Dataset

__all__ = [
    "ImageSettings",
    "TrainingSettings",
    "adamw",
    "batches",
    "classification",
    "fit",
    "sgd",
    "standardized",
]

# When the learning rate is divided by 10, as shares of a training.
_STEPS = {"quarters": (0.25, 0.5, 0.75), "steps": (0.3, 0.6, 0.9)}


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Args:
        batch_size: Integer, examples of a step.
        epochs: Integer.
        learning_rate: Float, the largest.
        schedule: `"cosine"`; `"quarters"` or `"steps"`, a tenth after each quarter, or
            after 30 %, 60 % and 90 % of the training.
        weight_decay: Float.

    Raises:
        ValueError: If one of them is out of its range.
    """

    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    weight_decay: float

    def __post_init__(self) -> None:
        check_choice("a preset", ("cosine", *_STEPS), schedule=self.schedule)
        check_count("a preset", batch_size=self.batch_size, epochs=self.epochs)


@dataclasses.dataclass(frozen=True)
class ImageSettings(TrainingSettings):
    """How a classifier of images is trained; see `TrainingSettings` for the rest.

    Args:
        train_images: Integer, images to train on.
        test_images: Integer, images to evaluate on.
        augment: Bool. Whether images are shifted and mirrored at random.

    Raises:
        ValueError: If one of them is out of its range.
    """

    train_images: int
    test_images: int
    augment: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size > self.train_images:
            raise ValueError("`batch_size` must not be above `train_images`.")


def standardized(data: Dataset, train_images: int, test_images: int) -> Dataset:
    """The first images, with mean and deviation of each channel taken out.

    Args:
        data: A `datasets.Dataset` of images, whose training images tell both.
        train_images: Integer, how many to train on.
        test_images: Integer, how many to test on.

    Example:
        >>> from hwa_keras.recipes import classifier
        >>> digits = hwa_keras.datasets.load("digits")
        >>> data = classifier.standardized(digits, 100, 50)
        >>> data.train[0].shape, bool(abs(data.train[0].mean()) < 1e-5)
        ((100, 8, 8, 1), True)
    """
    x, y = (part[:train_images] for part in data.train)
    x_test, y_test = (part[:test_images] for part in data.test)
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
    train, test = ((x - mean) / std, y), ((x_test - mean) / std, y_test)
    return Dataset(data.name, train, test, data.num_classes)


def sgd(
    settings: TrainingSettings, learning_rate: float, steps: int
) -> keras.optimizers.Optimizer:
    """SGD with Nesterov's momentum of 0.9, its learning rate on the schedule.

    Args:
        settings: `TrainingSettings`, for schedule and weight decay.
        learning_rate: Float, the largest.
        steps: Integer, of the whole training.
    """
    schedules = keras.optimizers.schedules
    if settings.schedule == "cosine":
        rate = schedules.CosineDecay(learning_rate, steps)
    else:
        shares = _STEPS[settings.schedule]
        rate = schedules.PiecewiseConstantDecay(
            [round(steps * share) for share in shares],
            [learning_rate / 10**i for i in range(len(shares) + 1)],
        )
    return keras.optimizers.SGD(
        rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
    )


def adamw(
    settings: TrainingSettings, learning_rate: float, steps: int
) -> keras.optimizers.Optimizer:
    """AdamW: a tenth of the training to warm up, then a cosine.

    Neither biases and norms decay nor what is learned of positions and tokens.

    Args:
        settings: `TrainingSettings`, for the weight decay.
        learning_rate: Float, the largest.
        steps: Integer, of the whole training.
    """
    warm = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=learning_rate, warmup_steps=warm
    )
    optimizer = keras.optimizers.AdamW(rate, settings.weight_decay, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(
        var_names=["bias", "gamma", "beta", "positions", "token", "embeddings"]
    )
    return optimizer


def batches(
    x: Any, y: np.ndarray, batch_size: int, seed: int = 0, augment: bool = False
) -> Any:
    """Shuffled batches, another order in each epoch; a rest is left out.

    Args:
        x: Nested arrays of examples.
        y: Array of labels.
        batch_size: Integer.
        seed: Integer. Defaults to `0`.
        augment: Bool. Whether images are shifted by up to an eighth and mirrored at
            random. Defaults to `False`.

    Returns:
        A `tf.data.Dataset`, which feeds both backends.
    """
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=seed)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    if augment:
        change = keras.Sequential(
            [
                keras.layers.RandomTranslation(
                    0.125, 0.125, "constant", interpolation="nearest", seed=seed
                ),
                keras.layers.RandomFlip("horizontal", seed=seed + 1),
            ]
        )
        dataset = dataset.map(
            lambda x, y: (change(x, training=True), y), tf.data.AUTOTUNE
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def classification() -> dict[str, Any]:
    """What a classifier that ends in logits is compiled with: loss and metrics."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": loss, "metrics": ["accuracy"]}


def fit(
    model: keras.Model,
    data: Any,
    settings: TrainingSettings,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    *,
    optimizer: Callable[..., keras.optimizers.Optimizer] = sgd,
    augment: bool = False,
    **losses: Any,
) -> dict[str, list[float]]:
    """Compile a network, and train it.

    Args:
        model: A built Keras model.
        data: A data set with `train`.
        settings: `TrainingSettings`.
        callbacks: Keras callbacks. Defaults to none.
        seed: Integer, of the order of the batches. Defaults to `0`.
        optimizer: `sgd` or `adamw`. Defaults to `sgd`.
        augment: Bool, as in `batches`. Defaults to `False`.
        **losses: `loss` and `metrics`, where those of `classification` will not do.

    Returns:
        The history of the fit: lists over epochs, by name.

    Example:
        >>> from hwa_keras.recipes import classifier
        >>> digits = hwa_keras.datasets.load("digits")
        >>> settings = classifier.TrainingSettings(64, 2, 0.05, "cosine", 0.0)
        >>> model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
        >>> model.build((None, 8, 8, 1))
        >>> sorted(classifier.fit(model, digits, settings))
        ['accuracy', 'loss']
    """
    x, y = data.train
    steps = len(y) // settings.batch_size * settings.epochs
    chosen = optimizer(settings, settings.learning_rate, steps)
    model.compile(chosen, **(losses or classification()))
    return model.fit(
        batches(x, y, settings.batch_size, seed, augment),
        epochs=settings.epochs,
        callbacks=list(callbacks),
        shuffle=False,  # The data set shuffles.
        verbose=0,
    ).history
