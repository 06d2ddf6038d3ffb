"""Time of a hardware-aware step over a plain one, as `fit` takes them."""

import statistics
import time

import keras
import numpy as np

import hwa_keras

__all__ = ["Clock", "POLICIES", "compare"]

# What design.md's rows are measured in.
POLICIES = ("float32", "mixed_bfloat16")
BOUND = 1.05


class Clock(keras.callbacks.Callback):
    """Times the steps of one epoch.

    Steps run behind the host that starts them, so that the clock waits for the loss of
    the first step, in which the step is compiled, and for that of the last.

    Attributes:
        first: Seconds from the start of the fit to the end of the first step.
        step: Seconds of one of the steps that follow.
    """

    def on_train_begin(self, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        steps = self.params["steps"]
        if batch not in (0, steps - 1):
            return
        float(logs["loss"])
        now = time.perf_counter()
        if batch == 0:
            self.first, self.begun = now - self.begun, now
        if batch == steps - 1:
            self.step = (now - self.begun) / max(1, steps - 1)


def compare(policy, size):
    """Measure both steps in turn, on a network of a size.

    Args:
        policy: The dtype policy of both networks.
        size: A `benchmarks.gpu.Size`.

    Returns:
        A dictionary: medians in milliseconds, the median of the ratios, seconds until
        each first step was compiled and done.
    """
    rng = np.random.default_rng(0)
    samples = (size.steps + 1) * size.batch
    x = rng.normal(size=(samples, size.side, size.side, 3)).astype("float32")
    y = rng.integers(0, 10, samples, "int32")
    plain = _network(policy, size)
    hardware = hwa_keras.to_hwa(
        _network(policy, size), kernel_noise="programming_noise", seed=0, verbose=0
    )
    first = []
    for model in (plain, hardware):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        first.append(_fit(model, x, y, size.batch).first)
    pairs = [
        [_fit(model, x, y, size.batch).step for model in (plain, hardware)]
        for _ in range(size.pairs)
    ]
    medians = [1e3 * statistics.median(column) for column in zip(*pairs, strict=True)]
    return {
        "network": plain.name,
        "policy": policy,
        "batch": size.batch,
        "plain_ms": medians[0],
        "hwa_ms": medians[1],
        "ratio": statistics.median(b / a for a, b in pairs),
        "bound": BOUND,
        "ratios": [b / a for a, b in pairs],
        "steps_per_measurement": size.steps,
        "first_step_s": first,
    }


def _network(policy, size):
    shape = (size.side, size.side, 3)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return hwa_keras.models.wide_resnet(size.depth, size.width, shape)
    finally:
        keras.config.set_dtype_policy(before)


def _fit(model, x, y, batch_size):
    clock = Clock()
    model.fit(x, y, batch_size, shuffle=False, verbose=0, callbacks=[clock])
    return clock
