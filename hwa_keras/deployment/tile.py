"""A tile: the devices that hold one kernel of a chip."""

import functools

import keras
from keras import ops

from hwa_keras import backend, devices, random
from hwa_keras.registry import PACKAGE

COMPENSATIONS = ("none", "oracle", "measured")


@functools.cache
def _program(device, rank):
    """One graph for all kernels of a rank: hundreds of small operations at once."""
    return backend.traced(device.program)


@keras.saving.register_keras_serializable(package=PACKAGE)
class Tile(keras.layers.Layer):
    """The devices of one kernel: written once, drifting, read and compensated.

    Args:
        device: A `Device`.
        path: Where the kernel stands in the model.
        index: Position of the kernel in the `weights` of the model.
        shape: Shape of the kernel.
        state_shapes: Dictionary from the names of the device's state to shapes, or
            None to ask the device.
    """

    def __init__(self, device, path, index, shape, state_shapes=None, **kwargs):
        super().__init__(autocast=False, dtype="float32", trainable=False, **kwargs)
        self.device = device
        self.path_in_model = path
        self.index = index
        self.kernel_shape = tuple(shape)
        if state_shapes is None:
            state = device.program(ops.zeros(self.kernel_shape), random.seed_from(0))
            state_shapes = {name: tuple(value.shape) for name, value in state.items()}
        self.state_shapes = {name: tuple(s) for name, s in state_shapes.items()}
        self.state = {
            name: self._zeros(name, shape) for name, shape in self.state_shapes.items()
        }
        self.seed = self._zeros("seed", (2,), "uint32")
        # What a controller notes right after programming: the mean |weight|.
        self.reference = self._zeros("reference", ())
        self.gain = self._zeros("gain", ())
        self.kernel = self._zeros("kernel", self.kernel_shape)
        self.built = True

    def _zeros(self, name, shape, dtype="float32"):
        return self.add_weight(
            shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name
        )

    def program(self, weights, seed):
        """Write weights to the devices, with a seed of their own."""
        # A copy is a tensor, where a TensorFlow variable would be traced anew.
        weights = ops.copy(ops.cast(weights, "float32"))
        program = _program(self.device, len(self.kernel_shape))
        state = program(weights, random.fold_in(seed, 0))
        for name, value in state.items():
            self.state[name].assign(value)
        self.seed.assign(seed)
        self.reference.assign(ops.mean(ops.abs(self.read(ops.zeros(())))))

    def draw(self, seed):
        """The random numbers of one read, or None for a device that reads exactly."""
        return self.device.draw_read_noise(self.kernel_shape, seed)

    def frozen_draws(self):
        """The pair of draws, for inference and for calibration, that a chip keeps."""
        return (
            self.draw(random.fold_in(self.seed.value, 1)),
            self.draw(random.fold_in(self.seed.value, 2)),
        )

    def read(self, t, z=None):
        """The weights at a time, in seconds, before compensation."""
        return self.device.read(self._values(), t, z)

    def compensation_gain(self, compensation, t, z=None):
        """The factor on the tile's output that compensates drift.

        Args:
            compensation: `"none"` gives 1; `"oracle"` knows the drift exponents;
                `"measured"` is global drift compensation: the mean |weight| read
                right after programming over the mean |weight| read at the time.
            t: Scalar, seconds since the end of programming.
            z: Random numbers of the calibration read, or None.
        """
        if compensation == "none":
            return ops.ones(())
        if compensation == "oracle":
            return ops.cast(self.device.oracle_gain(self._values(), t), "float32")
        now = ops.mean(ops.abs(self.read(t, z)))
        # A tile of zeros reads zero at every time.
        return ops.where(now > 0, self.reference / ops.where(now > 0, now, 1.0), 1.0)

    def _values(self):
        return {name: variable.value for name, variable in self.state.items()}

    def get_config(self):
        return {
            "device": devices.serialize(self.device),
            "path": self.path_in_model,
            "index": self.index,
            "shape": list(self.kernel_shape),
            "state_shapes": {n: list(s) for n, s in self.state_shapes.items()},
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls(devices.deserialize(config.pop("device")), **config)
