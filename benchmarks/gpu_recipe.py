"""Teacher and student of the recipe, each trained for as long as it may take."""

import math
import os
import time

import keras

import hwa_keras
from benchmarks import gpu_data
from benchmarks.gpu_steps import Clock
from hwa_keras import noise, quantizers, training

__all__ = ["Pace", "compile_for_evaluation", "train_student", "train_teacher"]

WORKERS = max(1, min(8, (os.cpu_count() or 1) // 2))  # Threads that augment images.
RAMP = 10  # Epochs from no noise to all of it, if the training is long enough.
SAVE_EVERY = 20  # Seconds between checkpoints.


class Pace(keras.callbacks.Callback):
    """Anneals the learning rate over the epochs that fit into the time that is left.

    In epoch e of E the learning rate is rate·(1 + cos(π·e/E))/2. E is estimated anew
    before each epoch, from the time that the last one took; the training ends when no
    other epoch fits. At least one epoch is trained, if the deadline allows for a batch.

    Args:
        rate: Float, the largest learning rate.
        deadline: When to end, in seconds of `time.perf_counter()`.
        epoch_seconds: Float, what an epoch is thought to take.
        most: Integer, the largest number of epochs.
        tell: Function that gets a dictionary at the end of each epoch.
    """

    def __init__(self, rate, deadline, epoch_seconds, most, tell):
        super().__init__()
        self.rate = rate
        self.deadline = deadline
        self.epoch_seconds = epoch_seconds
        self.most = most
        self.tell = tell
        self.cut_short = False

    def total(self, done):
        """How many epochs there will be, given how many are done."""
        fit_in = int((self.deadline - time.perf_counter()) / self.epoch_seconds)
        return min(self.most, done + max(fit_in, 0))

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()
        total = max(self.total(epoch), epoch + 1)
        factor = (1 + math.cos(math.pi * epoch / total)) / 2
        self.model.optimizer.learning_rate = self.rate * factor

    def on_train_batch_end(self, batch, logs=None):
        if time.perf_counter() > self.deadline:
            self.cut_short = True
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_seconds = time.perf_counter() - self.begun
        if self.cut_short or self.total(epoch + 1) <= epoch + 1:
            self.model.stop_training = True
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.tell({"epoch": epoch, "seconds": self.epoch_seconds, **values})


class Checkpoint(keras.callbacks.Callback):
    """Saves a model at the end of an epoch, unless it has just done so."""

    def __init__(self, saved, path):
        super().__init__()
        self.saved, self.path = saved, path
        self.last = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if time.perf_counter() - self.last > SAVE_EVERY:
            self.save()

    def save(self):
        part = self.path.with_name(f"part_{self.path.name}")
        self.saved.save(part)
        os.replace(part, self.path)
        self.last = time.perf_counter()


def train_teacher(size, data, deadline, path, tell):
    """Train the digital network.

    Args:
        size: A `benchmarks.gpu.Size`.
        data: What `gpu_data.normalized` returned.
        deadline: When to end, in seconds of `time.perf_counter()`.
        path: Where to save it.
        tell: Function that gets a dictionary at the end of each epoch.

    Returns:
        The network, and a dictionary of what the training took.
    """
    shape = data.train[0].shape[1:]
    model = hwa_keras.models.wide_resnet(
        size.depth, size.width, shape, data.num_classes
    )
    return model, _train(model, model, size, data, 0.1, deadline, path, tell, 0)


def train_student(teacher, size, data, deadline, path, tell):
    """Tune a copy of the teacher under noise, with the teacher's soft labels.

    Args and returns: as of `train_teacher`.
    """
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    student = hwa_keras.to_hwa(
        student,
        quantizers.Uniform(256, "max"),
        noise.Compose([noise.DropConnect(0.01), noise.ProgrammingNoise("pcm")]),
        seed=0,
        verbose=0,
    )
    distiller = training.Distiller(student, teacher, weight=0.5, temperature=4.0)
    return student, _train(
        distiller, student, size, data, 0.01, deadline, path, tell, 1
    )


def compile_for_evaluation(model):
    """Compile a network with the loss and the metric that tables show."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    return model


def _train(model, result, size, data, rate, deadline, path, tell, seed):
    """Compile, measure a step, plan, train and save.

    Args:
        model: What is trained: the network, or the distiller around it.
        result: The network, which is saved.
        rate: The largest learning rate.
        seed: Integer, the seed of the order of the data and of all noise.
    """
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.005),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x, y = data.train
    batches = gpu_data.batches(x, y, size.batch, seed, WORKERS)
    clock = _measure(model, size, data)
    epoch_seconds = clock.step * len(batches)
    pace = Pace(rate, deadline, epoch_seconds, size.most_epochs, tell)
    planned = max(1, pace.total(0))
    checkpoint = Checkpoint(result, path)
    callbacks = [training.SeedEpochs(seed, batches), pace, checkpoint]
    if model is not result:
        ramp = min(RAMP, planned // 8)
        callbacks.append(
            training.NoiseRamp(stop=3.0, epochs=ramp, only=noise.ProgrammingNoise)
        )
    history = model.fit(
        batches, epochs=size.most_epochs, callbacks=callbacks, shuffle=False, verbose=0
    )
    checkpoint.save()
    return {
        "first_step_s": clock.first,
        "step_ms": 1e3 * clock.step,
        "epochs_planned": planned,
        "epochs": len(history.epoch),
        "cut_short": pace.cut_short,
    }


def _measure(model, size, data):
    """Compile the training step, and time it on real batches, with nothing learned."""
    x, y = (part[: (size.steps + 1) * size.batch] for part in data.train)
    model.optimizer.learning_rate = 0.0
    clock = Clock()
    batches = gpu_data.batches(x, y, size.batch, workers=WORKERS)
    model.fit(batches, shuffle=False, verbose=0, callbacks=[clock])
    return clock
