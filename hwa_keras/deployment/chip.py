"""A chip: a model whose kernels were written to devices once, and age."""

import keras
import numpy as np
from keras import ops

from hwa_keras import random
from hwa_keras.checkpoint import SavesSeeds
from hwa_keras.deployment.tile import COMPENSATIONS
from hwa_keras.devices.device import check_time
from hwa_keras.registry import PACKAGE
from hwa_keras.substitution import final_kernels, recurrent_states, stateless

__all__ = ["Chip"]

READ_NOISES = ("per_call", "frozen", "off")


class _Structure:
    """Holds a model without Keras tracking its variables: a chip has its own."""

    def __init__(self, model):
        self.model = model


@keras.saving.register_keras_serializable(package=PACKAGE)
class Chip(SavesSeeds, keras.Model):
    """One chip: a Keras model with its kernels programmed on devices.

    `hwa_keras.program` makes one. Every kernel was written once; at the time `t` it
    is read as c(t)·W(t), where c is the drift compensation: a scale on the layer's
    product of kernel and inputs that leaves the bias alone. All other weights are
    copies, so training the model further does not change the chip. A chip saves and
    loads as a `.keras` file, and evaluates like any Keras model.

    Args:
        model: The Keras model whose structure the chip runs.
        tiles: List of `Tile`s, one per programmed kernel.
        compensation: `"none"`, `"oracle"` or `"measured"`; see `program`.
        read_noise: `"per_call"`, `"frozen"` or `"off"`; see `program`.
        digital: List of pairs (layer path, reason): the layers that stay digital.
        seed: Integer, the seed the chip was programmed with.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: What the model takes.
        t: Scalar, seconds since the end of programming; None means the chip's `t`.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> chip = hwa_keras.program(model, "pcm", seed=1)
        >>> chip.t = 3600.0
        >>> chip.predict(np.ones((2, 8)), verbose=0).shape
        (2, 3)
        >>> chip(np.ones((2, 8)), t=31_536_000.0).shape == (2, 3)
        True
    """

    def __init__(
        self,
        model,
        tiles,
        compensation="measured",
        read_noise="per_call",
        digital=(),
        seed=0,
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(trainable=False, **kwargs)
        self.supports_masking = True
        self._structure = _Structure(model)
        self.tiles = list(tiles)
        self.digital = [tuple(entry) for entry in digital]
        self.seed = seed
        self.read_generator = keras.random.SeedGenerator(seed & 0x7FFFFFFF)
        on_tiles = {tile.index for tile in self.tiles}
        self._digital_indices = [
            i for i in range(len(model.weights)) if i not in on_tiles
        ]
        self.digital_weights = [
            self.add_weight(
                shape=w.shape,
                dtype=w.dtype,
                initializer="zeros",
                trainable=False,
                name=w.name,
            )
            for w in (model.weights[i] for i in self._digital_indices)
        ]
        self.clock = self.add_weight(
            shape=(), dtype="float32", initializer="zeros", trainable=False, name="t"
        )
        self._compensation = _choice("compensation", compensation, COMPENSATIONS)
        self._read_noise = _choice("read_noise", read_noise, READ_NOISES)
        self._frozen = None  # The frozen draws, kept from one time to the next.
        self.built = True

    @property
    def structure(self):
        """The Keras model that the chip runs, for its inputs and layers."""
        return self._structure.model

    def write(self, kernels, seed):
        """Program kernels onto the tiles, copy the digital weights, and set t = 0.

        Args:
            kernels: List of tensors, one per tile: the target weights.
            seed: Integer. The same seed writes the same chip.
        """
        self.copy_digital_weights()
        self.reset_states()
        base = random.seed_from(seed)
        for i, (tile, kernel) in enumerate(zip(self.tiles, kernels, strict=True)):
            if not np.all(np.isfinite(ops.convert_to_numpy(kernel))):
                raise ValueError(
                    f"The kernel '{tile.path_in_model}' holds NaN or infinite values "
                    "and cannot be programmed. Look for a diverged training run: a "
                    "smaller learning rate or gradient clipping helps."
                )
            tile.program(kernel, random.fold_in(base, i))
        self.seed = seed
        self._frozen = None
        self.read_generator.state.assign(random.fold_in(base, len(self.tiles)))
        self.t = 0.0

    def digital_pairs(self):
        """Pairs (weight of the model, the chip's copy of it), of the digital ones."""
        weights = self.structure.weights
        return [
            (weights[i], own)
            for i, own in zip(self._digital_indices, self.digital_weights, strict=True)
        ]

    def copy_digital_weights(self):
        """Take the digital weights of the model again, as they are now."""
        for weight, own in self.digital_pairs():
            own.assign(ops.copy(weight))  # JAX would share, and then donate, it.

    @property
    def t(self):
        """Seconds since the end of programming; set it to let the chip age."""
        return float(ops.convert_to_numpy(self.clock.value))

    @t.setter
    def t(self, value):
        self.clock.assign(check_time(value))
        self._refresh()

    @property
    def compensation(self):
        """How drift is compensated: "none", "oracle" or "measured"."""
        return self._compensation

    @compensation.setter
    def compensation(self, value):
        if value != self._compensation:
            self._compensation = _choice("compensation", value, COMPENSATIONS)
            self._refresh()

    @property
    def read_noise(self):
        """Whether reads are noisy: "per_call", "frozen" or "off"."""
        return self._read_noise

    @read_noise.setter
    def read_noise(self, value):
        self._read_noise = _choice("read_noise", value, READ_NOISES)
        # What was compiled reads its kernels the old way.
        self.predict_function = self.test_function = None
        self._refresh()

    def _refresh(self):
        """Compute what holds for one time: each tile's gain and kernel."""
        if self._frozen is None:
            self._frozen = [tile.frozen_draws() for tile in self.tiles]
        exact = [(None, None)] * len(self.tiles)
        draws = exact if self._read_noise == "off" else self._frozen
        t = self.clock.value
        for tile, (z, z_calibration) in zip(self.tiles, draws, strict=True):
            tile.settle(self._compensation, t, z, z_calibration)

    def _draws(self):
        """Per tile, the random numbers of one call's inference and calibration."""
        if self._read_noise == "off":
            return [(None, None)] * len(self.tiles)
        draws = [tile.frozen_draws() for tile in self.tiles]
        if self._read_noise == "frozen":
            return draws
        seed = random.next_seed(self.read_generator)
        return [
            (tile.draw(random.fold_in(seed, i)), z_calibration)
            for i, (tile, (_, z_calibration)) in enumerate(
                zip(self.tiles, draws, strict=True)
            )
        ]

    def kernels_at(self, t, draws):
        """The compensated kernels at a time, as a pure function of it.

        Args:
            t: Scalar tensor, seconds since the end of programming.
            draws: Per tile, a pair of random numbers for the inference read and the
                calibration read, None for exact reads.
        """
        return [
            tile.compensation_gain(self._compensation, t, z_calibration)
            * tile.read(t, z)
            for tile, (z, z_calibration) in zip(self.tiles, draws, strict=True)
        ]

    def call(self, inputs, t=None, training=None):
        if t is not None:
            kernels = self.kernels_at(_time_tensor(t), self._draws())
        elif self._read_noise == "per_call":
            kernels = [
                tile.gain.value * tile.read(self.clock.value, z)
                for tile, (z, _) in zip(self.tiles, self._draws(), strict=True)
            ]
        else:
            kernels = [tile.kernel.value for tile in self.tiles]
        live = self._read_noise == "per_call"
        seed = random.next_seed(self.read_generator) if live else None
        outputs, updates = self._run(kernels, inputs, seed)
        new = {id(variable): value for variable, value in updates}
        for state, own in self._recurrent_pairs():
            own.assign(new.get(id(state), own.value))
        return outputs

    def run(self, kernels, inputs):
        """Run the model with the given kernels, as a pure function of both.

        Stateful recurrent layers begin at zero, and the noise that layers draw at
        inference is the same at each call.
        """
        zeros = {
            id(state): ops.zeros(state.shape, state.dtype)
            for state, _ in self._recurrent_pairs()
        }
        return self._run(kernels, inputs, digital=zeros)[0]

    def reset_states(self):
        """Have stateful recurrent layers begin anew."""
        for _, own in self._recurrent_pairs():
            own.assign(ops.zeros(own.shape, own.dtype))

    def _recurrent_pairs(self):
        """Of `digital_pairs`, those of what recurrent layers carry between calls."""
        states = {id(state) for state in recurrent_states(self.structure)}
        return [pair for pair in self.digital_pairs() if id(pair[0]) in states]

    def _run(self, kernels, inputs, seed=None, digital=None):
        """Outputs, and what was assigned to the variables of the model.

        Args:
            kernels: List of tensors, one per tile.
            inputs: What the model takes.
            seed: Of noise that layers draw at inference; with None it is the same at
                each call.
            digital: {id of a weight of the model: tensor}, in place of the chip's own
                digital weights.
        """
        model, digital = self.structure, digital or {}
        weights = model.weights
        values = [
            (weights[tile.index], k)
            for tile, k in zip(self.tiles, kernels, strict=True)
        ]
        values += [
            (weight, digital.get(id(weight), own.value))
            for weight, own in self.digital_pairs()
        ]
        mapped = {id(variable) for variable, _ in values}
        # The states of seeds and metrics, which are not the chip's to keep or export.
        values += [
            (v, self._state(v, seed, i))
            for i, v in enumerate(model.variables)
            if id(v) not in mapped
        ]
        with final_kernels():
            outputs, updates, _ = stateless(
                model, values, lambda: model(inputs, training=False)
            )
        return outputs, updates

    @staticmethod
    def _state(variable, seed, i):
        is_seed = tuple(variable.shape) == (2,) and "int" in variable.dtype
        if seed is None or not is_seed:
            return ops.zeros(variable.shape, variable.dtype)
        return ops.cast(random.fold_in(seed, i), variable.dtype)

    def compute_mask(self, inputs, previous_mask=None):
        return None  # The model has put its own masks on its outputs.

    def get_config(self):
        return {
            "model": keras.saving.serialize_keras_object(self.structure),
            "tiles": [keras.saving.serialize_keras_object(t) for t in self.tiles],
            "compensation": self._compensation,
            "read_noise": self._read_noise,
            "digital": [list(entry) for entry in self.digital],
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model, tiles = (
            keras.saving.deserialize_keras_object(
                config.pop(key), custom_objects=custom_objects
            )
            for key in ("model", "tiles")
        )
        return cls(model, tiles, **config)


def _choice(name, value, known):
    if value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, known))}. Received: "
            f"{name}={value!r}."
        )
    return value


def _time_tensor(t):
    if isinstance(t, (int, float, np.number, np.ndarray)):
        t = check_time(t)
    return ops.cast(t, "float32")
