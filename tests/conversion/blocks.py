"""Models whose layers are made inside of blocks, for files and fresh processes."""

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="blocks")
class Block(layers.Layer):
    """Makes its layers when it is built, with names that Keras numbers."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.inner = [layers.Dense(self.units), {"out": layers.Dense(shape[-1])}]
        self.inner[0].build(shape)
        self.inner[1]["out"].build((*shape[:-1], self.units))

    def call(self, x):
        return x + self.inner[1]["out"](self.inner[0](x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="blocks")
class Branching(keras.Model):
    """Has a branch that only some calls run: a loaded model has not built it."""

    def __init__(self, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.blocks = [Block(5) for _ in range(depth)]
        self.optional = Block(7)
        self.head = layers.Dense(3)

    def call(self, x, everything=False):
        for block in self.blocks:
            x = block(x)
        if everything:
            x = self.optional(x)
        return self.head(x)

    def get_config(self):
        return {**super().get_config(), "depth": self.depth}
