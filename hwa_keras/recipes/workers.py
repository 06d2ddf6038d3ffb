"""Training on several devices or machines.

`start` finds them, `scope` is where models are made and compiled, `fit` trains on all
of them. Workers are the processes that the environment variable TF_CONFIG names.
"""

import contextlib
import json
import os
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hwa_keras.core.types import Data
from hwa_keras.results import write_json

__all__ = ["find", "fit", "own_folder", "scope", "shared", "start"]

_strategy: Any = None  # The strategy of this process, once there is one.


def find() -> tuple[int, int]:
    """The place of this process among the workers: its number, and how many."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}")
    workers = cluster.get("cluster", {}).get("worker", [None])
    return cluster.get("task", {}).get("index", 0), len(workers)


def own_folder(folder: Path) -> Path:
    """The folder itself for the first worker, one inside it for each other."""
    number, _ = find()
    return folder / f"worker_{number}" if number else folder


def shared(name: str, content: Any, folder: Path) -> list[Any]:
    """Hand JSON content to the first worker, which gets a list of all workers'.

    The workers share a file system, on which they leave a file each.

    Args:
        name: String, the same on all workers, another for each content.
        content: What JSON can hold.
        folder: The folder that `own_folder` gave.
    """
    number, count = find()
    own = folder / name
    write_json(own, content)
    if number:
        return []
    others = [folder / f"worker_{i}" / name for i in range(1, count)]
    contents = []
    for path in [own, *others]:
        while not path.is_file():
            time.sleep(0.5)
        contents.append(json.loads(path.read_text(encoding="utf-8")))
        path.unlink()
    return contents


def start(kind: str) -> None:
    """Find the devices or workers to train on, before anything is computed.

    Args:
        kind: `"none"`, `"mirrored"` for all devices of this machine, or
            `"multiworker"` for the workers of TF_CONFIG.

    Raises:
        ValueError: If there are no workers, or the backend cannot train on them.
    """
    global _strategy
    if kind == "multiworker" and find()[1] == 1:
        raise ValueError(
            "'multiworker' needs TF_CONFIG, which names the workers (docs/recipe.md). "
            "On one machine, 'mirrored' takes all its devices."
        )
    if kind == "none":
        return
    if keras.backend.backend() == "jax":
        if kind == "multiworker":
            raise ValueError(
                "'multiworker' needs KERAS_BACKEND=tensorflow. On JAX, 'mirrored' "
                "takes all devices that JAX sees."
            )
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        return
    import tensorflow as tf

    if kind == "mirrored":
        _strategy = tf.distribute.MirroredStrategy()
    else:
        _strategy = tf.distribute.MultiWorkerMirroredStrategy()


def scope() -> AbstractContextManager[Any]:
    """The context to make and compile models in."""
    return contextlib.nullcontext() if _strategy is None else _strategy.scope()


def fit(
    model: keras.Model,
    data: Data,
    epochs: int,
    callbacks: list[Any],
    validation: Data | None = None,
) -> None:
    """`model.fit`, also where there are several workers."""
    with scope():  # Before the first step is traced, or Keras traces it twice.
        model.optimizer.build(model.trainable_variables)
    if find()[1] > 1 and _strategy is not None:
        _fit_on_workers(model, data, epochs, callbacks)
        return
    verbose = 1 if sys.stdout.isatty() else 2
    model.fit(
        data,
        epochs=epochs,
        callbacks=callbacks,
        validation_data=validation,
        shuffle=False,  # The data decide their order, by the epoch.
        verbose=verbose,
    )


def _fit_on_workers(model, data, epochs, callbacks):
    """What Keras 3's `fit` does, which does not run on several workers.

    Each worker takes its share of every batch (keras-team/keras#20585).
    """
    import tensorflow as tf

    number, count = find()
    callbacks = keras.callbacks.CallbackList(
        callbacks, add_history=True, add_progbar=False, model=model, epochs=epochs
    )

    @tf.function
    def step(batch):
        logs = _strategy.run(model.train_step, args=(batch,))
        return {
            name: _strategy.reduce("MEAN", value, axis=None)
            for name, value in logs.items()
        }

    def shares():
        for i in range(len(data)):
            yield keras.tree.map_structure(lambda a: a[number::count], data[i])

    signature = keras.tree.map_structure(
        lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), data[0]
    )
    callbacks.on_train_begin()
    for epoch in range(model._initial_epoch or 0, epochs):
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        batches = _strategy.distribute_datasets_from_function(
            lambda _: tf.data.Dataset.from_generator(shares, output_signature=signature)
        )
        for i, batch in enumerate(batches):
            callbacks.on_train_batch_begin(i)
            logs = {name: float(v) for name, v in step(batch).items()}
            callbacks.on_train_batch_end(i, logs)
        print(
            f"epoch {epoch + 1}/{epochs}:",
            *(f"{k} {np.round(v, 4)}" for k, v in logs.items()),
        )
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end(logs)
