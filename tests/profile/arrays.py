"""What the arrays of a kernel take, in NumPy and float64."""

import keras
import numpy as np

from hwa_keras.devices import Memristor

CLOSE = {"rtol": 2e-5}
DEVICE = Memristor(g_min=1.0, g_max=25.0, g_u=10.0)
SI = {"v_read": 0.2, "t_read": 1e-7}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def sequential(shape, *stack):
    model = keras.Sequential([keras.Input(shape), *stack])
    for i, variable in enumerate(model.trainable_variables):
        variable.assign(numbers(*variable.shape, seed=i + 1))
    return model


def pair(w, device=DEVICE):
    """Equations 3.34 and 3.35, in float64."""
    w = np.asarray(w, "float64")
    unit = (device.g_u - device.g_min) / np.abs(w).max()
    return [device.g_min + unit * np.maximum(side, 0) for side in (w, -w)]


def power(product, x, w):
    """Equations 3.42 to 3.44 with both arrays and the square: a pair."""
    arrays, count = pair(w), len(x)
    memory = product(np.square(x, dtype="float64"), sum(arrays)).sum() / count
    tias = sum(np.square(product(x, g)).sum() for g in arrays) / count
    return memory, tias
