"""A tile: the devices that hold one kernel of a chip."""

import functools
import math

import keras
import numpy as np
from keras import ops

from hwa_keras import backend, devices
from hwa_keras.core import modes, random
from hwa_keras.core.keras_private import full_precision

COMPENSATIONS = ("none", "oracle", "measured")
READ_NOISES = ("per_call", "frozen", "off")

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


def _program(device, used, weights, seed):
    """The state of freshly written devices, and the mean |weight| right after."""
    state = device.program(weights, random.fold_in(seed, 0))
    return state, _mean_magnitude(device.read(state, ops.zeros(())), used)


def _reference(device, used, weights, seed):
    return _program(device, used, weights, seed)[1]


def _draw(device, shape, seed):
    return device.draw_read_noise(shape, seed)


def _gain(device, used, compensation, state, reference, t, z):
    """The factor on the output of each tile that compensates drift."""
    if compensation == "none" or not device.drifts:
        return ops.ones(ops.shape(reference))
    if compensation == "oracle":
        gain = ops.cast(device.oracle_gain(state, t), "float32")
        return ops.broadcast_to(gain, ops.shape(reference))
    now = _mean_magnitude(device.read(state, t, z), used)
    # A tile of zeros reads zero at every time.
    return ops.where(now > 0, reference / ops.where(now > 0, now, 1.0), 1.0)


def _settle(device, used, compensation, state, reference, t, z, z_calibration):
    """The gain and the weights, before compensation, of a time."""
    gain = _gain(device, used, compensation, state, reference, t, z_calibration)
    return gain, device.read(state, t, z)


def _settle_again(
    device, used, compensation, shape, noisy, weights, seed, reference, t, z_seed
):
    """The same, of devices whose state is made again from what was written."""
    state = device.program(weights, random.fold_in(seed, 0))
    z = z_calibration = None
    if noisy:
        z = device.draw_read_noise(shape, z_seed)
        z_calibration = device.draw_read_noise(shape, random.fold_in(seed, 2))
    return _settle(device, used, compensation, state, reference, t, z, z_calibration)


def _mean_magnitude(weights, used):
    """The mean |weight| of each tile `[..., rows, columns]` over what holds weights."""
    magnitude = ops.abs(weights)
    if used is not None:
        mask = ops.convert_to_tensor(np.frombuffer(used[0], "float32").reshape(used[1]))
        return ops.sum(magnitude * mask, axis=(-2, -1)) / ops.sum(mask, axis=(-2, -1))
    return ops.mean(magnitude, axis=(-2, -1))


class Tile(keras.layers.Layer):
    """The devices of one kernel: written once, drifting, read and compensated.

    A kernel that is cut into tiles is held by a `Tile` as a whole, of shape
    `[K, M, rows, columns]`; its gain is one per tile. Without converters around it, the
    gain is multiplied into the weights; with some, it acts after the ADC.

    Args:
        device: A `Device`, for this kernel.
        kernel: The `HardwareKernel` that it holds.
        keeps_state: Bool. Whether the state of the devices (several numbers a weight)
            and their frozen read noise are kept in memory, or made again, from what
            was written and the seed, each time they are read.
        state_shapes: Dictionary from the names of the state to shapes, if it is known.
    """

    def __init__(self, device, kernel, keeps_state=True, state_shapes=None):
        name = f"tile_{kernel.name}"
        super().__init__(autocast=False, dtype="float32", trainable=False, name=name)
        self.device = device
        self.kernel = lambda: kernel  # In a function: Keras would track it.
        self.keeps_state = keeps_state
        self.compensation = "measured"
        self.read_noise = "off"
        self._cut = device.is_array and not kernel.tiling.is_single
        shape = kernel.view.matrix_shape
        if self._cut:
            shape = (*kernel.tiling.grid, *kernel.tiling.tile_shape)
        self.shape = tuple(shape)
        self.targets = self._zeros("targets", self.shape)
        self.seed = self._zeros("seed", (2,), "uint32")
        self.read_seed = self._zeros("read_seed", (2,), "uint32")
        self.clock = self._zeros("t", ())
        # What a controller notes right after programming: the mean |weight|.
        self.reference = self._zeros("reference", self.shape[:-2])
        self.gain = self._zeros("gain", self.shape[:-2])
        self.state = {}
        for key, size in (state_shapes or {}).items():
            self.state[key] = self._zeros(key, tuple(size))
        self._frozen = None
        self.built = True

    def _zeros(self, name, shape, dtype="float32"):
        return self.add_weight(
            shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name
        )

    def _compiled(self, function, *static):
        used = None
        if self._cut:
            mask = np.asarray(self.kernel().tiling.used(), "float32")
            used = (mask.tobytes(), mask.shape)
        large = math.prod(self.shape) >= _LARGE
        return _compiled(function, (self.device, used, *static), len(self.shape), large)

    def _drawn(self, seed):
        large = math.prod(self.shape) >= _LARGE
        static = (self.device, self.shape)
        return _compiled(_draw, static, len(self.shape), large)(seed)

    def to_targets(self, kernel):
        """What is written to the devices for a kernel."""
        hardware = self.kernel()
        matrix = ops.cast(hardware.view.to_matrix(kernel), "float32")
        return hardware.tiling.cut(matrix) if self._cut else matrix

    def _to_kernel(self, weights):
        hardware = self.kernel()
        matrix = hardware.tiling.join(weights) if self._cut else weights
        dtype = hardware.variable._dtype
        return ops.cast(hardware.view.from_matrix(matrix), dtype)

    def program(self, seed):
        """Write the targets to the devices, with a seed of their own."""
        self.seed.assign(seed)
        self.read_seed.assign(random.fold_in(seed, 3))
        self._frozen = None
        if self.keeps_state:
            state, reference = self._compiled(_program)(self.targets.value, seed)
            self._keep(state)
        else:
            reference = self._compiled(_reference)(self.targets.value, seed)
        self.reference.assign(reference)

    def _keep(self, state):
        for name, value in state.items():
            if name not in self.state:
                self._tracker.unlock()
                self.state[name] = self._zeros(name, tuple(value.shape))
            self.state[name].assign(value)

    def frozen_draws(self):
        """The pair of draws, for inference and for calibration, that a chip keeps."""
        if self._frozen is not None:
            return self._frozen
        seeds = [random.fold_in(self.seed.value, i) for i in (1, 2)]
        draws = tuple(self._drawn(seed) for seed in seeds)
        if not any(map(backend.is_symbolic, keras.tree.flatten(draws))):
            self._frozen = draws
        return draws

    def at(self, t, read_noise, fresh=None):
        """The gains and the weights, before compensation, of a time.

        Args:
            t: Scalar tensor, seconds since the end of programming.
            read_noise: `"frozen"` or `"off"`.
            fresh: A seed of read noise in place of the frozen draw, or None.
        """
        noisy = read_noise != "off"
        if not self.keeps_state:
            seed = self.seed.value
            z_seed = random.fold_in(seed, 1) if fresh is None else fresh
            settle = self._compiled(_settle_again, self.compensation, self.shape, noisy)
            targets, reference = self.targets.value, self.reference.value
            return settle(targets, seed, reference, t, z_seed)
        z, z_calibration = self.frozen_draws() if noisy else (None, None)
        if fresh is not None:
            z = self._drawn(fresh)
        settle = self._compiled(_settle, self.compensation)
        return settle(self._values(), self.reference.value, t, z, z_calibration)

    def settle(self, t):
        """Compute and keep the gain and the kernel of a time."""
        self.clock.assign(ops.copy(t))  # JAX would share, and then donate, it.
        read_noise = "off" if self.read_noise == "off" else "frozen"
        gain, weights = self.at(self.clock.value, read_noise)
        self.gain.assign(gain)
        self.kernel().variable.assign(self._compensated(gain, weights))

    def _compensated(self, gain, weights):
        if not self.kernel().has_circuits:
            weights = weights * ops.expand_dims(ops.expand_dims(gain, -1), -1)
        return self._to_kernel(weights)

    def current(self):
        """The kernel that a call computes with."""
        mode = modes.current()
        with full_precision():
            if mode.time is not None:
                return self._compensated(*self._now(mode))
            if self.read_noise != "per_call":
                return ops.convert_to_tensor(self.kernel().variable.value)
            _, weights = self.at(self.clock.value, "frozen", self._next_seed())
            return self._compensated(self.gain.value, weights)

    def current_gain(self):
        """The gain of each tile, where it acts after the ADC."""
        mode = modes.current()
        with full_precision():
            if mode.time is None:
                return ops.convert_to_tensor(self.gain.value)
            read_noise = mode.read_noise or self.read_noise
            return self.at(mode.time, "off" if read_noise == "off" else "frozen")[0]

    def _now(self, mode):
        read_noise = mode.read_noise or self.read_noise
        fresh = self._next_seed() if read_noise == "per_call" else None
        return self.at(mode.time, read_noise, fresh)

    def _next_seed(self):
        seed = self.read_seed.value
        following = random.fold_in(seed, 0)
        self.read_seed.assign(following)
        return random.fold_in(seed, 1)

    def read(self, t, z=None):
        """The weights at a time, in seconds, before compensation."""
        return self.device.read(self._state_now(), ops.cast(t, "float32"), z)

    def _state_now(self):
        if self.keeps_state:
            return self._values()
        return self._compiled(_program)(self.targets.value, self.seed.value)[0]

    def _values(self):
        return {name: variable.value for name, variable in self.state.items()}

    def description(self):
        """What makes this tile again, without what its variables hold."""
        return {
            "device": devices.serialize(self.device),
            "keeps_state": self.keeps_state,
            "state_shapes": {n: list(v.shape) for n, v in self.state.items()},
        }
