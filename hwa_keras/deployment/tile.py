"""A tile: the devices that hold one kernel of a chip."""

import functools
import math

import keras
import numpy as np
from keras import ops

from hwa_keras import backend, devices
from hwa_keras.core import modes, random
from hwa_keras.core.keras_private import full_precision, unlocked
from hwa_keras.deployment.compensation import Compensation, drift_gain, mean_magnitude
from hwa_keras.devices.device import weight_range

READ_NOISES = ("per_call", "frozen", "off")

_LARGE = 2**15  # Elements from which compiling a kernel's functions with XLA pays.


@functools.cache
def _compiled(function, static, large):
    """A pure function of tensors as one graph, its first arguments fixed.

    XLA makes one pass over memory of a hundred, but compiles for each shape, in
    about half a second: it is for large kernels. Small ones share a graph.
    """
    compiler = backend.fuse if large else backend.traced
    return compiler(functools.partial(function, *static))


def _written(device, verify, weights, seed):
    """The state of devices that were written, verified and written again.

    In each round, the weights that are read beyond the tolerance are written anew,
    with draws of their own, and the devices of all others are left alone.

    Args:
        device: A `Device`.
        verify: Triple: integer number of rounds; the tolerance, relative to the
            largest |target| of the tile; and the shape of the targets.
        weights: Tensor `[..., rows, columns]`, the targets.
        seed: `uint32` tensor of shape `(2,)`.
    """
    state = device.program(weights, random.fold_in(seed, 0))
    rounds, tolerance, shape = verify
    if rounds == 0:
        return state
    names = list(state)
    limit = tolerance * weight_range(weights, "layer")[0]

    def again(i, leaves):
        read = device.read(dict(zip(names, leaves, strict=True)), ops.zeros(()))
        fresh = device.program(weights, random.fold_in(random.fold_in(seed, 4), i))
        is_off = ops.abs(read - weights) > limit
        pairs = zip(leaves, (fresh[name] for name in names), strict=True)
        return [_replaced(leaf, new, is_off, shape) for leaf, new in pairs]

    leaves = ops.fori_loop(0, rounds, again, [state[name] for name in names])
    return dict(zip(names, leaves, strict=True))


def _replaced(leaf, new, is_off, shape):
    """A part of the state of devices, renewed for the weights that are off.

    What is no number of each weight, or of each of the devices that hold it, stays: the
    scale of a tile, or a column that all others are read against.
    """
    *outer, columns = shape
    rank = len(shape)
    found = tuple(leaf.shape)[-rank:]
    if found == (*outer, columns + 1):
        is_off = ops.pad(is_off, [[0, 0]] * (rank - 1) + [[0, 1]])
    elif found != tuple(shape):
        return leaf
    return ops.where(is_off, new, leaf)


def _program(device, used, verify, weights, seed):
    """The state of freshly written devices, and the mean |weight| right after."""
    state = _written(device, verify, weights, seed)
    return state, mean_magnitude(device.read(state, ops.zeros(())), used)


def _reference(device, used, verify, weights, seed):
    return _program(device, used, verify, weights, seed)[1]


def _draw(device, shape, seed):
    return device.draw_read_noise(shape, seed)


def _settle(device, used, compensation, state, targets, reference, t, z, z_calibration):
    """The gain and the weights, before compensation, of a time."""
    arguments = (state, targets, reference, t, z_calibration)
    return drift_gain(device, used, compensation, *arguments), device.read(state, t, z)


def _settle_again(
    device,
    used,
    compensation,
    shape,
    noisy,
    verify,
    targets,
    seed,
    reference,
    t,
    z_seed,
):
    """The same, of devices whose state is made again from what was written."""
    state = _written(device, verify, targets, seed)
    z = z_calibration = None
    if noisy:
        z = device.draw_read_noise(shape, z_seed)
        z_calibration = device.draw_read_noise(shape, random.fold_in(seed, 2))
    arguments = (state, targets, reference, t, z, z_calibration)
    return _settle(device, used, compensation, *arguments)


class Tile(keras.layers.Layer):
    """The devices of one kernel: written once, drifting, read and compensated.

    A kernel that is cut into tiles is held by a `Tile` as a whole, of shape
    `[K, M, rows, columns]`; its gain is one per tile, or one per column of each tile.
    Without converters around it, the gain is multiplied into the weights; with some, it
    acts after the ADC.

    Args:
        device: A `Device`, for this kernel.
        kernel: The `HardwareKernel` that it holds.
        keeps_state: Bool. Whether the state of the devices (several numbers a weight)
            and their frozen read noise are kept in memory, or made again, from what
            was written and the seed, each time they are read.
        state_shapes: Dictionary from the names of the state to shapes, if it is known.
        verify: Pair: the number of rounds in which weights that were written beyond the
            tolerance are written again, and that tolerance; see `program`.
        has_column_gains: Bool. Whether its gain is one per column.
    """

    def __init__(
        self,
        device,
        kernel,
        keeps_state=True,
        state_shapes=None,
        verify=(0, 0.0),
        has_column_gains=False,
    ):
        name = f"tile_{kernel.name}"
        super().__init__(autocast=False, dtype="float32", trainable=False, name=name)
        self.device = device
        self.kernel = lambda: kernel  # In a function: Keras would track it.
        self.keeps_state = keeps_state
        self.verify = tuple(verify)
        self.compensation = Compensation()
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
        self.has_column_gains = has_column_gains
        self.gain = self._zeros("gain", self._gain_shape)
        self.state = {}
        for key, size in (state_shapes or {}).items():
            self.state[key] = self._zeros(key, tuple(size))
        self._frozen = None
        self.built = True

    def _zeros(self, name, shape, dtype="float32"):
        return self.add_weight(
            shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name
        )

    @property
    def _gain_shape(self):
        return (*self.shape[:-2], *(self.shape[-1:] if self.has_column_gains else ()))

    @property
    def _verification(self):
        # With the shape: the graph is one for this shape then, and knows it.
        return (*self.verify, self.shape) if self.verify[0] else (0, 0.0, None)

    def compensate(self, compensation):
        """Scale outputs in another way, from the next time on that is settled.

        Args:
            compensation: A `Compensation`. The first per column gives the tile gains
                per column, and it keeps them.
        """
        self.compensation = compensation
        if compensation.per == "column" and not self.has_column_gains:
            self.has_column_gains = True
            self._untrack_variable(self.gain)
            with unlocked(self):
                self.gain = self._zeros("gain", self._gain_shape)

    def _compiled(self, function, *static):
        used = None
        if self._cut:
            mask = np.asarray(self.kernel().tiling.used(), "float32")
            used = (mask.tobytes(), mask.shape)
        large = math.prod(self.shape) >= _LARGE or self.device.needs_shapes
        return _compiled(function, (self.device, used, *static), large)

    def _drawn(self, seed):
        large = math.prod(self.shape) >= _LARGE or self.device.needs_shapes
        static = (self.device, self.shape)
        return _compiled(_draw, static, large)(seed)

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

    def written(self):
        """The kernel that was aimed at, as a digital copy of it would hold it."""
        with full_precision():
            return self._to_kernel(self.targets.value)

    def program(self, seed):
        """Write the targets to the devices, with a seed of their own."""
        self.seed.assign(seed)
        self.read_seed.assign(random.fold_in(seed, 3))
        self._frozen = None
        if self.keeps_state:
            program = self._compiled(_program, self._verification)
            state, reference = program(self.targets.value, seed)
            self._keep(state)
        else:
            program = self._compiled(_reference, self._verification)
            reference = program(self.targets.value, seed)
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
        gain, weights = self._settled(t, read_noise != "off", fresh)
        if len(gain.shape) < len(self._gain_shape):
            gain = ops.broadcast_to(ops.expand_dims(gain, -1), self._gain_shape)
        return gain, weights

    def _settled(self, t, noisy, fresh):
        reference = self.reference.value
        if not self.keeps_state:
            targets, seed = self.targets.value, self.seed.value
            z_seed = random.fold_in(seed, 1) if fresh is None else fresh
            static = self.compensation, self.shape, noisy, self._verification
            settle = self._compiled(_settle_again, *static)
            return settle(targets, seed, reference, t, z_seed)
        z, z_calibration = self.frozen_draws() if noisy else (None, None)
        if fresh is not None:
            z = self._drawn(fresh)
        settle = self._compiled(_settle, self.compensation)
        # An exported graph holds what it is given.
        is_ideal = self.compensation.reference == "ideal"
        targets = self.targets.value if is_ideal else None
        return settle(self._values(), targets, reference, t, z, z_calibration)

    def settle(self, t):
        """Compute and keep the gain and the kernel of a time."""
        self.clock.assign(ops.copy(t))  # JAX would share, and then donate, it.
        read_noise = "off" if self.read_noise == "off" else "frozen"
        gain, weights = self.at(self.clock.value, read_noise)
        self.gain.assign(gain)
        self.kernel().variable.assign(self._compensated(gain, weights))

    def _compensated(self, gain, weights):
        if not self.kernel().gains_outputs:
            gain = ops.expand_dims(gain, -2 if self.has_column_gains else -1)
            gain = gain if self.has_column_gains else ops.expand_dims(gain, -1)
            weights = weights * gain
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

    def without_read_noise(self):
        """The kernel as the mean of many reads finds it, compensated as it is now."""
        _, weights = self.at(self.clock.value, "off")
        return self._compensated(self.gain.value, weights)

    def current_gain(self):
        """The gain of each tile or column, where it acts after the ADC."""
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
        return self.device.read(self.state_now(), ops.cast(t, "float32"), z)

    def state_now(self):
        """The state of the devices, kept or made again from what was written."""
        if self.keeps_state:
            return self._values()
        program = self._compiled(_program, self._verification)
        return program(self.targets.value, self.seed.value)[0]

    def _values(self):
        return {name: variable.value for name, variable in self.state.items()}

    def description(self):
        """What makes this tile again, without what its variables hold."""
        return {
            "device": devices.serialize(self.device),
            "keeps_state": self.keeps_state,
            "state_shapes": {n: list(v.shape) for n, v in self.state.items()},
            "verify": list(self.verify),
            "has_column_gains": self.has_column_gains,
        }
