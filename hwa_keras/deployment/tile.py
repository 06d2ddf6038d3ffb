"""A tile: the devices that hold one kernel of a chip."""

import functools
import math

import keras
from keras import ops

from hwa_keras import backend, devices, random
from hwa_keras.registry import PACKAGE

COMPENSATIONS = ("none", "oracle", "measured")


_LARGE = 2**15  # Elements from which compiling a kernel's functions with XLA pays.


@functools.cache
def _compiled(function, static, rank, large):
    """A pure function of tensors as one graph, its first arguments fixed.

    XLA makes one pass over memory of a hundred, but compiles for each shape, in
    about half a second: it is for large kernels. Small ones share a graph for each
    rank, which is why it is an argument.
    """
    compiler = backend.fuse if large else backend.traced
    return compiler(functools.partial(function, *static))


def _program(device, weights, seed):
    """The state of freshly written devices, and the mean |weight| right after."""
    state = device.program(weights, random.fold_in(seed, 0))
    return state, _mean_magnitude(device.read(state, ops.zeros(())))


def _draw(device, shape, seed):
    return device.draw_read_noise(shape, seed)


def _frozen_draws(device, shape, seed):
    return tuple(_draw(device, shape, random.fold_in(seed, i)) for i in (1, 2))


def _gain(device, compensation, state, reference, t, z):
    if compensation == "none" or not device.drifts:
        return ops.ones(())
    if compensation == "oracle":
        return ops.cast(device.oracle_gain(state, t), "float32")
    now = _mean_magnitude(device.read(state, t, z))
    # A tile of zeros reads zero at every time.
    return ops.where(now > 0, reference / ops.where(now > 0, now, 1.0), 1.0)


def _settle(device, compensation, state, reference, t, z, z_calibration):
    """The gain, and the compensated kernel, of a time."""
    gain = _gain(device, compensation, state, reference, t, z_calibration)
    return gain, gain * device.read(state, t, z)


def _mean_magnitude(weights):
    return ops.mean(ops.abs(weights))


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
            blank = ops.zeros(self.kernel_shape)
            state, _ = self._compiled(_program)(blank, random.seed_from(0))
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

    def _compiled(self, function, *static):
        large = math.prod(self.kernel_shape) >= _LARGE
        return _compiled(
            function, (self.device, *static), len(self.kernel_shape), large
        )

    def program(self, weights, seed):
        """Write weights to the devices, with a seed of their own."""
        program = self._compiled(_program)
        state, reference = program(ops.cast(weights, "float32"), seed)
        for name, value in state.items():
            self.state[name].assign(value)
        self.seed.assign(seed)
        self.reference.assign(reference)

    def draw(self, seed):
        """The random numbers of one read, or None for a device that reads exactly."""
        return self._compiled(_draw, self.kernel_shape)(seed)

    def frozen_draws(self):
        """The pair of draws, for inference and for calibration, that a chip keeps."""
        return self._compiled(_frozen_draws, self.kernel_shape)(self.seed.value)

    def settle(self, compensation, t, z=None, z_calibration=None):
        """Compute and keep the gain, and the compensated kernel, of a time."""
        settle = self._compiled(_settle, compensation)
        gain, kernel = settle(self._values(), self.reference.value, t, z, z_calibration)
        self.gain.assign(gain)
        self.kernel.assign(kernel)

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
        reference = self.reference.value
        return _gain(self.device, compensation, self._values(), reference, t, z)

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
