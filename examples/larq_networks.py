"""The network of the study, in float, in few bits and on imperfect circuits."""

import math

import keras
import numpy as np

from hwa_keras.layers import HWADense
from hwa_keras.quantizers import DoReFa, SteSign, SteTern

# What quantizes kernels, and what the inputs of all layers but the first.
VARIANTS = {
    "float": (None, None),
    "binary weights": (SteSign(), None),
    "binary": (SteSign(), SteSign()),
    "ternary": (SteTern(ternary_weight_networks=True), SteTern(threshold_value=0.5)),
    "DoReFa-2": (DoReFa(2, mode="weights"), DoReFa(2)),
    "DoReFa-4": (DoReFa(4, mode="weights"), DoReFa(4)),
}


def network(
    data,
    hidden,
    name,
    kernel_quantizer=None,
    input_quantizer=None,
    behind=(),
    **hardware,
):
    """A multilayer perceptron of hardware layers with batch normalization.

    Args:
        data: A `hwa_keras.datasets` data set, for its shapes.
        hidden: List of units per hidden layer.
        name: String, the name of the model.
        kernel_quantizer: A quantizer for all kernels, or None.
        input_quantizer: A quantizer for the inputs of all layers but the first, in
            place of the ReLU; or None.
        behind: List of layers, each put behind one hidden layer's product.
        **hardware: Further arguments of all hardware layers.
    """
    if kernel_quantizer is not None:
        # A weight beyond the clip value gets no gradient and would stay there.
        hardware["kernel_constraint"] = "weight_clip"
    x = inputs = keras.Input(data.train[0].shape[1:])
    x = keras.layers.Flatten(name="flat")(x)
    for i, units in enumerate([*hidden, data.num_classes]):
        x = HWADense(
            units,
            use_bias=False,
            kernel_quantizer=kernel_quantizer,
            input_quantizer=input_quantizer if i > 0 else None,
            name=f"dense_{i}",
            **hardware,
        )(x)
        if i < len(behind):
            x = behind[i](x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{i}")(x)
        if i < len(hidden) and input_quantizer is None:
            x = keras.layers.ReLU(name=f"relu_{i}")(x)
    return keras.Model(inputs, x, name=name)


def fit(model, data, learning_rate, epochs, batch_size):
    """Compile and train with Adam; the accuracy on the test images."""
    x, y = data.train
    steps = epochs * math.ceil(len(x) / batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size, epochs, verbose=0)
    return accuracy(model, data)


def accuracy(model, data):
    return model.evaluate(*data.test, batch_size=500, verbose=0, return_dict=True)[
        "accuracy"
    ]


def start_from(model, other):
    """Copy the weights of the layers that two networks share."""
    for layer in other.layers:
        if layer.weights:
            own = model.get_layer(layer.name)
            # What a noise of one's own adds to the weights comes behind them.
            for mine, theirs in zip(own.weights, layer.weights, strict=False):
                mine.assign(theirs.value)
    return model


def output_stds(model, data, layers):
    """Standard deviation of what the products of some layers put out."""
    outputs = [model.get_layer(f"dense_{i}").output for i in range(layers)]
    found = keras.Model(model.input, outputs).predict(data.train[0][:2000], verbose=0)
    return [float(np.std(y)) for y in found]
