"""A small network of spikes, and what it is trained on."""

import keras
import numpy as np
from keras import layers

import hwa_keras
from hwa_keras.spiking import LIF

TAUS = {"tau": 64e-3, "dt": 8e-3}
X = np.random.default_rng(5).normal(size=(4, 20, 5)).astype("float32")
LABELS = (X.sum(axis=(1, 2)) > 0).astype("int32")
MISMATCH = {"tau_noise": 0.4, "threshold_noise": 0.2}


def network(hidden=8, stateful=False, **arguments):
    batch = 4 if stateful else None
    inputs = keras.Input(batch_shape=(batch, 20, 5))
    options = {**TAUS, "stateful": stateful, **arguments}
    x = LIF(**options)(
        hwa_keras.layers.HWADense(hidden, kernel_quantizer="uniform")(inputs)
    )
    x = LIF(**options)(hwa_keras.layers.HWADense(2)(x))
    outputs = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    return model
