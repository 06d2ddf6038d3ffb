"""Networks of a supernet as plain Keras models."""

import keras
from keras import ops

from hwa_keras.search.supernets.blocks import walk

__all__ = ["extract", "make_layer"]


def extract(supernet, config):
    """A plain Keras model of one configuration, with copies of the supernet's weights.

    Args:
        supernet: A `Supernet`.
        config: Dictionary from the names of choices to options.

    Returns:
        A functional Keras model for images in the largest resolution.
    """
    space = supernet.space
    space.encode(config)
    largest, size = space.resolution[-1], space.image_size.at(config)
    inputs = x = keras.Input((largest, largest, space.channels))
    if size != largest:
        # No keras.layers.Resizing: it has the layers behind it called as in training.
        x = ops.image.resize(x, (size, size), data_format="channels_last")
    model = keras.Model(inputs, walk(space, Plain(config), x), name="subnet")
    for kernel in space.kernels:
        if kernel.is_active(config):
            _copy_weights(supernet, model, kernel, config)
    return model


def _copy_weights(supernet, model, kernel, config):
    inputs, outputs = kernel.inputs.at(config), kernel.outputs.at(config)
    layer, normalization = supernet.layers_of(kernel.name)
    own = model.get_layer(kernel.name)
    weights = ops.convert_to_numpy(layer.kernel)
    if kernel.kind == "dense":
        own.kernel.assign(weights[:inputs, :outputs])
        own.bias.assign(ops.convert_to_numpy(layer.bias)[:outputs])
        return
    size = kernel.size.at(config)
    start = (kernel.size.largest - size) // 2
    middle = slice(start, start + size)
    outputs_kept = slice(1 if kernel.kind == "depthwise" else outputs)
    own.kernel.assign(weights[middle, middle, :inputs, outputs_kept])
    own = model.get_layer(normalization.name)
    for old, new in zip(normalization.weights, own.weights, strict=True):
        new.assign(ops.convert_to_numpy(old)[:outputs])


class Plain:
    """A builder that makes a plain Keras model of one configuration.

    Args:
        config: Dictionary from the names of choices to options.
    """

    def __init__(self, config):
        self.config = config

    def conv(self, kernel, x, activate=True):
        x = make_layer(kernel, kernel.outputs.at(self.config), self._size(kernel))(x)
        name = f"{kernel.name}_bn"
        x = keras.layers.BatchNormalization(name=name)(x)
        return keras.layers.ReLU(name=f"{kernel.name}_relu")(x) if activate else x

    def _size(self, kernel):
        return kernel.size.at(self.config)

    def add(self, y, x, activate):
        y = keras.layers.Add()([y, x])
        return keras.layers.ReLU()(y) if activate else y

    def pool(self, x):
        return keras.layers.MaxPooling2D(3, 2, padding="same")(x)

    def optional(self, gate, function, x):
        depth, place = gate
        return function(x) if depth.at(self.config) > place else x

    def classify(self, kernel, x):
        x = keras.layers.GlobalAveragePooling2D()(x)
        return make_layer(kernel, kernel.outputs.at(self.config))(x)


def make_layer(kernel, outputs, size=1, seed=None, dtype=None):
    """The Keras layer of a `Kernel`.

    Args:
        kernel: A `Kernel`.
        outputs: Integer, its channels.
        size: Integer, height and width of the kernel.
        seed: Integer, the seed of its weights, or None.
        dtype: Dtype or policy of the layer, or None.
    """
    initializer = keras.initializers.HeNormal(seed=seed)
    if kernel.kind == "dense":
        return keras.layers.Dense(
            outputs, kernel_initializer=initializer, name=kernel.name, dtype=dtype
        )
    options = {
        "padding": "same",
        "use_bias": False,
        "data_format": "channels_last",
        "name": kernel.name,
        "dtype": dtype,
    }
    if kernel.kind == "depthwise":
        return keras.layers.DepthwiseConv2D(
            size,
            kernel.strides,
            depthwise_initializer=initializer,
            **options,
        )
    return keras.layers.Conv2D(
        outputs,
        size,
        kernel.strides,
        kernel_initializer=initializer,
        **options,
    )
