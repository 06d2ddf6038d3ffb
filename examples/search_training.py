"""How examples/search_crossbar.py trains a supernet, and measures its networks."""

import time
from pathlib import Path

import keras
import numpy as np

import hwa_keras
from hwa_keras.datasets import Batches, pad_crop_flip
from hwa_keras.results import write_whole
from hwa_keras.search import Supernet


def train_supernet(
    space,
    data,
    path,
    epochs,
    batch_size=128,
    learning_rate=0.05,
    weight_decay=1e-4,
    augment=True,
    seed=0,
    seconds=float("inf"),
    after_epoch=None,
):
    """Train a supernet by the sandwich rule; a training that was stopped goes on.

    Args:
        space: An `ArchitectureSpace`.
        data: Pair of images and integer labels.
        path: Path of the `.keras` file that is written after each epoch, and read where
            it is there.
        epochs: Integer, epochs of the whole training.
        batch_size: Integer.
        learning_rate: Float, the largest of a cosine schedule, for SGD with Nesterov's
            momentum.
        weight_decay: Float.
        augment: Bool. Whether images are shifted and mirrored at random.
        seed: Integer.
        seconds: No epoch begins later than this.
        after_epoch: Function of the supernet and the number of epochs so far, or None.

    Returns:
        The supernet, compiled.
    """
    begin, path = time.monotonic(), Path(path)
    transform = pad_crop_flip if augment else None
    batches = Batches(
        *data, batch_size, seed=seed, transform=transform, drop_remainder=True
    )
    if path.exists():
        supernet = keras.models.load_model(path)
    else:
        supernet = Supernet(space, seed=seed)
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate, epochs * len(batches)
        )
        supernet.compile(
            keras.optimizers.SGD(
                schedule, 0.9, nesterov=True, weight_decay=weight_decay
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=keras.backend.backend() == "jax",
        )
    first = int(supernet.optimizer.iterations) // len(batches)
    for epoch in range(first, epochs):
        if time.monotonic() - begin > seconds:
            break
        batches.epoch = epoch
        supernet.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0
        )
        write_whole(path, supernet.save)
        if after_epoch is not None:
            after_epoch(supernet, epoch + 1)
    return supernet


def accuracies(supernet, configs, data, calibration):
    """The accuracy of some networks of a supernet, their batch norm re-estimated.

    Args:
        supernet: A compiled `Supernet`. It computes the largest network afterwards.
        configs: List of configurations.
        data: Pair of images and labels.
        calibration: Images for the batch-norm statistics.

    Returns:
        Array of floats.
    """
    found = []
    for config in [*configs, supernet.space.largest]:
        supernet.configure(config)
        hwa_keras.adapt_batchnorm(supernet, calibration, 0.0, 1, len(calibration))
        if len(found) < len(configs):
            logs = supernet.evaluate(*data, batch_size=500, verbose=0, return_dict=True)
            found.append(logs["accuracy"])
    return np.array(found)
