"""How examples/search_crossbar.py trains a supernet."""

import keras

from hwa_keras.datasets import Batches, pad_crop_flip
from hwa_keras.results import write_whole
from hwa_keras.search import Supernet


def train_supernet(space, data, path, settings):
    """Train a supernet by the sandwich rule; a training that was stopped goes on.

    Args:
        space: An `ArchitectureSpace`.
        data: Pair of images and integer labels.
        path: Path of the `.keras` file that is written after each epoch, and read where
            it is there.
        settings: The settings of the run.

    Returns:
        The supernet, compiled.
    """
    batches = Batches(
        *data,
        settings.batch_size,
        seed=0,
        transform=pad_crop_flip if settings.augment else None,
        drop_remainder=True,
    )
    if path.exists():
        supernet = keras.models.load_model(path)
    else:
        supernet = Supernet(space, seed=0)
        schedule = keras.optimizers.schedules.CosineDecay(
            settings.learning_rate, settings.epochs * len(batches)
        )
        supernet.compile(
            keras.optimizers.SGD(
                schedule, 0.9, nesterov=True, weight_decay=settings.weight_decay
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=keras.backend.backend() == "jax",
        )
    first = int(supernet.optimizer.iterations) // len(batches)
    for epoch in range(first, settings.epochs):
        batches.epoch = epoch
        supernet.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0
        )
        write_whole(path, supernet.save)
    return supernet
