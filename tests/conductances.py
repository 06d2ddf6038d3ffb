"""Devices written and read as arrays of conductances, compiled once for each."""

from functools import cache

import numpy as np
from keras import ops

from hwa_keras import random
from tests.modes import in_mode

DEVICES = 1_000_000


def tensor(values):
    return ops.convert_to_tensor(values, dtype="float32")


@cache
def _writer(device):
    return in_mode("xla", device.program)


@cache
def _reader(device):
    def read(state, t, seed):
        shape = state["g"].shape[1:]
        z = device.draw_read_noise(shape, seed)
        return device.conductances(state, t), device.conductances(state, t, z)

    return in_mode("xla", read)


def written(device, relative, seed=7, count=DEVICES):
    """The state of pairs that hold relative weights, `count` of each in a row."""
    w = np.repeat(np.array(relative, "float32")[:, None], count, axis=1)
    return _writer(device)(tensor(w), random.seed_from(seed))


def read(device, state, t, seed=8):
    """Conductances `[2, rows, count]` at a time, exact and noisy, µS."""
    found = _reader(device)(state, tensor(t), random.seed_from(seed))
    return [ops.convert_to_numpy(g) for g in found]
