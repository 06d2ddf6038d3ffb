"""A fit that was cut short and goes on ends where one that was not does."""

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras.core import random
from hwa_keras.datasets import Batches
from hwa_keras.training import Distiller, EpochBackup, SeedEpochs
from tests import zoo


def network(hardware):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4),
        ]
    )
    if hardware:
        model = hwa_keras.to_hwa(
            model, kernel_noise="programming_noise", seed=1, verbose=0
        )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def fit(model, backup, seeded=True, interrupted=False):
    x, y = zoo.digits_like(40)
    data = Batches(x, y % 4, 8, seed=5)
    callbacks = [SeedEpochs(7, data)] if seeded else []
    callbacks += [EpochBackup(backup)]
    callbacks += [Interrupt()] if interrupted else []
    history = model.fit(data, epochs=3, shuffle=False, callbacks=callbacks, verbose=0)
    return [np.array(w) for w in model.get_weights()], history.epoch


def test_resumed_is_uninterrupted_to_the_bit(tmp_path):
    expected, _ = fit(network(hardware=True), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(network(hardware=True), tmp_path / "part", interrupted=True)
    found, epochs = fit(network(hardware=True), tmp_path / "part")
    assert epochs == [2]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_backup_that_was_being_written_is_not_one(tmp_path, monkeypatch):
    x, y = np.ones((8, 12), "float32"), np.zeros(8, int)
    model = network(False)
    backup = EpochBackup(tmp_path / "backup")
    model.fit(x, y, epochs=1, callbacks=[backup], verbose=0)
    kept = [path.name for path in (tmp_path / "backup").iterdir()]
    assert kept == ["epoch_1.weights.h5"]
    after_one = [np.array(w) for w in model.get_weights()]

    def cut_short(path):
        path.write_bytes(b"half a file")
        raise OSError("No space left on device")

    backup.set_model(model)
    monkeypatch.setattr(model, "save_weights", cut_short)
    with pytest.raises(OSError, match="No space"):
        backup.on_epoch_end(1)
    # What a killed process leaves, which cleans nothing up.
    (tmp_path / "backup/part_00ff_epoch_2.weights.h5").write_bytes(b"half a file")
    other = network(False)
    keras.utils.set_random_seed(9)
    other.set_weights([w + 1.0 for w in other.get_weights()])
    backup = EpochBackup(tmp_path / "backup")
    assert other.fit(x, y, epochs=1, callbacks=[backup], verbose=0).epoch == []
    for a, b in zip(other.get_weights(), after_one, strict=True):
        np.testing.assert_array_equal(a, b)
    # The next fit of this model is a fit of its own.
    assert other.fit(x, y, epochs=2, verbose=0).epoch == [0, 1]


def test_a_backup_needs_a_built_model(tmp_path):
    backup = EpochBackup(tmp_path)
    backup.set_model(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match="needs a built model"):
        backup.on_train_begin()


@pytest.mark.slow
def test_without_it_the_masks_differ(tmp_path):
    expected, _ = fit(network(False), tmp_path / "whole", seeded=False)
    with pytest.raises(KeyboardInterrupt):
        fit(network(False), tmp_path / "part", seeded=False, interrupted=True)
    found, _ = fit(network(False), tmp_path / "part", seeded=False)
    assert any(not np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_epochs_and_seeds_differ(tmp_path):
    runs = {}
    for seed in (7, 8):
        model = network(False)
        model.optimizer.learning_rate = 0.0
        data = Batches(np.ones((8, 12), "float32"), np.zeros(8, int), 8)
        seeds = SeedEpochs(seed, data)
        runs[seed] = model.fit(
            data, epochs=3, shuffle=False, callbacks=[seeds], verbose=0
        ).history["loss"]
    # Same weights and data: only the dropout masks can tell the losses apart.
    assert len({*runs[7], *runs[8]}) == 6


def test_seeds_what_trains_and_leaves_a_teacher():
    student, teacher = network(True), network(False)
    distiller = Distiller(student, teacher)

    def states(model):
        states = [v for v in model.variables if random.is_seed_state(v)]
        return [np.array(v).tolist() for v in states]

    before = states(teacher)
    callback = SeedEpochs(3)
    callback.set_model(distiller)
    seen = []
    for epoch in (0, 1, 0):
        callback.on_epoch_begin(epoch)
        seen.append(states(student))
    # A dropout, and a hardware kernel for each of two layers: three streams.
    assert len({tuple(s) for s in seen[0] + seen[1]}) == 6
    assert seen[0] == seen[2]
    assert states(teacher) == before


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match="seed"):
        SeedEpochs(-1)
    with pytest.raises(TypeError, match="epoch"):
        SeedEpochs(0, data=[1, 2])
