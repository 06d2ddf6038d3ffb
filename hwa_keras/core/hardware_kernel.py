"""HardwareKernel: all that hardware does to one kernel, in one place."""

import weakref
from typing import Any

import keras
from keras import ops

from hwa_keras.core import modes, random
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.keras_private import full_precision, unlocked
from hwa_keras.core.output_correction import OutputCorrection
from hwa_keras.core.registry import PACKAGE

__all__ = ["HardwareKernel", "variable_at"]


def variable_at(owner, keys):
    """The variable at the end of attribute names, keys and positions, from a layer."""
    found = owner
    for key in keys:
        if isinstance(found, (list, tuple)):
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found[key]
        else:
            found = getattr(found, key)
    return found


@keras.saving.register_keras_serializable(package=PACKAGE)
class HardwareKernel(SavesSeeds, keras.layers.Layer):
    """A kernel on hardware: its quantizer and noise, its converters, its tiles.

    In training the kernel is W̃ = noise(quantizer(W)), otherwise quantizer(W), and on a
    chip what the devices hold. Noises see the kernel as the matrix that its view
    tells, devices see that matrix cut into tiles where the hardware has a tile size.

    A hardware layer makes one for each of its kernels when it is built.

    Args:
        owner: The layer that has the kernel.
        keys: Tuple of attribute names, keys and positions that lead from the layer to
            the variable, such as `("_kernel",)`.
        view: The `MatrixView` of the kernel.
        tiling: The `Tiling` of that matrix.
        hardware: A `Hardware` description, of which this is one copy.
        seed: Integer, the seed of what is drawn, or None for a random one.

    Attributes:
        path: Where the kernel stands, for messages.
        quantizer, noise, dac, adc, output_noise: Its own copies, or None.
        tile: On a chip, the `Tile` that holds it; else None.
        correction: An `OutputCorrection` of its products, or None.
    """

    def __init__(self, owner, keys, view, tiling, hardware, seed=None):
        super().__init__(autocast=False, dtype="float32", name=str(keys[-1]).strip("_"))
        self._owner = weakref.ref(owner)
        self.keys = tuple(keys)
        self.view = view
        self.tiling = tiling
        self.hardware = hardware
        self._kernel_path = None
        self.tile: Any = None
        self.correction: Any = None
        parts = hardware.copies()
        self.quantizer, self.noise = parts["kernel_quantizer"], parts["kernel_noise"]
        self.dac, self.adc = parts["dac"], parts["adc"]
        self.output_noise = parts["output_noise"]
        self.seed_generator: Any = None
        if self.noise is not None or self.output_noise is not None:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.bind()
        self.built = True

    def bind(self):
        """Have all parts belong to this kernel."""
        converters = [part for part in (self.dac, self.adc) if hasattr(part, "convert")]
        for part in (self.quantizer, *converters):
            if hasattr(part, "bind"):
                part.bind(self)
        if hasattr(self.noise, "bind"):
            state = ops.cast(self.seed_generator.state, "uint32")
            self.noise.bind(self, random.fold_in(state, 0))

    @property
    def unbuilt(self):
        """What stands for a DAC or an ADC and is not built: it belongs to no kernel."""
        parts = (self.dac, self.adc)
        return [p for p in parts if isinstance(p, keras.Layer) and not p.built]

    def build_converters(self, inputs, sums):
        """Build the quantizers that stand for a DAC and an ADC.

        Args:
            inputs: Tuple, the shape of what the DAC converts.
            sums: Tuple, the shape of what the ADC converts.
        """
        for part, shape in ((self.dac, inputs), (self.adc, sums)):
            if part in self.unbuilt:
                part.build(shape)

    @property
    def path(self):
        """Where the kernel stands, for messages."""
        return self._kernel_path or self.variable.path

    @path.setter
    def path(self, value):
        self._kernel_path = value

    def owner(self):
        """The layer that has the kernel. (As a property Keras would save it.)"""
        return self._owner()

    @property
    def variable(self):
        """The Keras variable of the kernel."""
        return variable_at(self.owner(), self.keys)

    @property
    def has_circuits(self):
        """Whether something stands between the inputs, the tiles and the sum."""
        parts = (self.dac, self.adc, self.output_noise)
        return any(part is not None for part in parts)

    @property
    def gains_outputs(self):
        """Whether drift is compensated in what comes out of the array.

        Otherwise in the kernel. The row of an analog bias has no gain of its own: what
        comes out of its array holds it.
        """
        is_row = self.keys == ("bias",)
        has_row = self.hardware.bias == "analog" and self.owner().bias is not None
        return self.has_circuits or is_row or has_row

    @property
    def is_ideal(self):
        """Whether the layer computes as Keras's own."""
        own = (self.quantizer, self.noise, self.tile, self.correction)
        return not self.has_circuits and all(part is None for part in own)

    def correct_outputs(self):
        """Have the products go through an `OutputCorrection`, one that does nothing."""
        if self.correction is None:
            with unlocked(self):
                self.correction = OutputCorrection(self.view.matrix_shape[1])

    def noises(self):
        """All elementary noises, of the kernel and of the outputs."""
        own = (self.noise, self.output_noise)
        return [
            leaf for noise in own if hasattr(noise, "leaves") for leaf in noise.leaves()
        ]

    def next_seed(self):
        """Advance the seed of this kernel, and return the one it stood at."""
        return random.next_seed(self.seed_generator)

    def to_tiles(self, kernel):
        """A kernel as a matrix `[rows, columns]`, or `[K, M, rows, columns]` if cut."""
        matrix = self.view.to_matrix(kernel)
        return matrix if self.tiling.is_single else self.tiling.cut(matrix)

    def quantized(self):
        """The quantized kernel: what programming aims at."""
        with full_precision():
            w = ops.convert_to_tensor(self.variable.value)
            if self.quantizer is None:
                return w
            quantized = self.quantizer(w)
        if tuple(quantized.shape) != tuple(w.shape):
            raise ValueError(
                f"The quantizer {self.quantizer!r} of '{self.path}' must keep the "
                f"shape of its input. It made {tuple(quantized.shape)} of "
                f"{tuple(w.shape)}."
            )
        return quantized

    def perturbed(self, w, seed=None):
        """Draw the noise of training on a quantized kernel."""
        if self.noise is None:
            return w
        seed = self.next_seed() if seed is None else seed
        with full_precision():
            return self.view.from_matrix(self.noise(self.view.to_matrix(w), seed))

    def value(self, training=False):
        """The kernel that a call computes with, in the dtype of the variable.

        Args:
            training: Bool. Whether the call trains; see `hwa_keras.core.modes`.
        """
        mode = modes.current()
        if id(self) in mode.drawn:
            return mode.drawn[id(self)]
        if mode.kernels == "final":
            with full_precision():
                return ops.convert_to_tensor(self.variable.value)
        if self.tile is not None:
            return self.tile.current()
        w = self.quantized()
        return self.perturbed(w) if mode.is_noisy(training) else w
