"""A model whose kernels drive the rows of crossbars with their inputs."""

import keras
import numpy as np
from keras import ops

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.conversion.hardware_model import convert_layers
from hwa_keras.core.kernels import kernels_of
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.replica import replicate
from hwa_keras.core.substitution import recurrent_states
from hwa_keras.crossbar import Wired
from hwa_keras.devices import BitSlices, ConductanceDevice
from hwa_keras.devices.device import for_kernels
from hwa_keras.layers.product_families import product_of
from hwa_keras.layers.products import DenseProduct
from hwa_keras.profile.driven_array import DrivenArray, Recorder

__all__ = ["CELLS", "ArrayRun"]

CELLS = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)
"""Cells of recurrent layers, two products of known families a time step."""


class ArrayRun:
    """A model whose kernels drive the rows of their arrays with what they are fed.

    Args:
        model: A built Keras model or a chip. It is not changed.
        crossbar: A `Crossbar`, or None for that of each layer.

    Attributes:
        driven: Dictionary from `Kernel`s of a second structure around the model's
            variables to `DrivenArray`s.
        digital: Tuple of the paths of kernels that are on no array.
        v_read, t_read: Voltage and time of a read, or None and None.
    """

    def __init__(self, model, crossbar):
        self.crossbar = crossbar
        self.is_chip = getattr(model, "is_chip", False)
        self.t = model.t if self.is_chip else None
        self.twin = replicate(model, share_variables=True)
        self._unroll()
        found = kernels_of(self.twin)
        self.is_plain = all(kernel.hardware is None for kernel in found)
        if self.is_plain:
            found = self._converted(found)
        on_arrays = [kernel for kernel in found if self._is_on_array(kernel)]
        if not on_arrays:
            raise TypeError(
                f"No kernel of '{self.twin.name}' is on devices that hold "
                "conductances, such as devices.PCM() or devices.Memristor(). Give "
                "array_energy a Crossbar, or put layers on one: "
                "to_hwa(model, hardware=crossbar)."
            )
        paths = {kernel.path for kernel in on_arrays}
        self.digital = tuple(k.path for k in found if k.path not in paths)
        self.devices = dict(zip(on_arrays, self._devices(on_arrays), strict=True))
        self.biases = {k.owner: k for k in on_arrays if k.keys == ("bias",)}
        self.v_read, self.t_read = self._read_settings(on_arrays)
        self.driven = {
            kernel: self._array(kernel)
            for kernel in on_arrays
            if kernel.keys != ("bias",)
        }

    def _unroll(self):
        for layer in self.twin._flatten_layers():
            if isinstance(layer, keras.layers.RNN):
                layer.unroll = True

    def _converted(self, found):
        """The kernels of a plain model, its twin put on the crossbar's tiles."""
        if self.crossbar is None:
            raise ValueError(
                f"'{self.twin.name}' is on no hardware, so that its devices are not "
                "known. Give a crossbar: Crossbar(devices.Memristor(), 256, 256)."
            )
        chosen = [kernel for kernel in found if not kernel.digital]
        for kernel in chosen:
            _product(kernel)
        own = Hardware(tile=self.crossbar.tile, bias=self.crossbar.bias)
        convert_layers(chosen, lambda kernel: own)
        return kernels_of(self.twin)

    def _is_on_array(self, kernel):
        hardware = kernel.hardware
        if self.is_chip:
            return hardware is not None and hardware.tile is not None
        if hardware is None or self.crossbar is not None:
            return hardware is not None
        return self._described(kernel).device is not None

    def _described(self, kernel):
        """The crossbar of a kernel: that given, or its own."""
        return self.crossbar or kernel.hardware.hardware

    def _devices(self, kernels):
        if self.is_chip:
            found = [kernel.hardware.tile.device for kernel in kernels]
        else:
            found = [self._described(kernel).device for kernel in kernels]
        for kernel, device in zip(kernels, found, strict=True):
            if not isinstance(device, ConductanceDevice):
                raise TypeError(
                    f"The device of '{kernel.path}' must hold conductances, such as "
                    f"devices.PCM() or devices.Memristor(). Received: {device!r}. Give "
                    "array_energy a Crossbar, or program the chip on such devices."
                )
        if self.is_chip:
            return found
        chosen = for_kernels(found, [kernel.target() for kernel in kernels])
        return [d.for_kernel(k.hardware) for k, d in zip(kernels, chosen, strict=True)]

    def _read_settings(self, kernels):
        found = {
            (getattr(d, "v_read", None), getattr(d, "t_read", None))
            for d in map(self._described, kernels)
        }
        if len(found) > 1:
            raise ValueError(
                f"The layers of '{self.twin.name}' are read at different (v_read, "
                f"t_read): {sorted(map(str, found))}. Give array_energy one Crossbar."
            )
        v_read, t_read = found.pop()
        if (v_read is None) != (t_read is None):
            raise ValueError(
                "A power in watts and an energy in joules need both the voltage of the "
                "largest input and the time of a product. Received: "
                f"v_read={v_read}, t_read={t_read}. Give the Crossbar both, or neither "
                "for unit-free power."
            )
        return v_read, t_read

    def converters(self, kernel):
        """The DAC and the ADC of a kernel."""
        owner = self.crossbar if self.is_plain else kernel.hardware
        return owner.dac, owner.adc

    def _array(self, kernel):
        """The `DrivenArray` of a kernel."""
        product = _product(kernel)
        held, effective, largest = self._conductances(kernel)
        dac = self.converters(kernel)[0]
        if self.is_plain and getattr(dac, "range", None) in ("learned", "calibrated"):
            dac = None  # A plain model has no range: the largest input is that of data.
        return DrivenArray(
            path=kernel.path,
            layer=kernel.owner,
            product=product,
            tiling=kernel.hardware.tiling,
            held=held,
            effective=effective,
            dac=dac,
            converters=self.converters(kernel),
            is_sliced=isinstance(self.devices[kernel].mapping, BitSlices),
            relative=self.v_read is not None,
            wire=self._wire_of(kernel),
            g_max=self.devices[kernel].g_max,
            bias=self._bias_of(kernel, product, largest),
        )

    def _wire_of(self, kernel):
        """The resistances of a kernel's wires, or None."""
        described = getattr(self._described(kernel), "wire", None)
        return described or getattr(self.devices[kernel], "wire", None)

    def _conductances(self, kernel):
        """Conductances of the devices and behind the wires, and the weight range."""
        device, hardware = self.devices[kernel], kernel.hardware
        bare = device.device if isinstance(device, Wired) else device
        if self.is_chip:
            tile = hardware.tile
            _, largest = bare.targets(ops.convert_to_tensor(tile.targets.value))
            held = bare.conductances(tile.state_now(), ops.cast(self.t, "float32"))
        else:
            weights = hardware.to_tiles(ops.cast(kernel.target(), "float32"))
            held, largest = bare.targets(weights)
        effective = device.effective(held) if bare is not device else held
        # A matrix that is not cut is one tile.
        held, effective = (_with_axes(part, 1, 5) for part in (held, effective))
        return held, effective, _with_axes(largest, 0, 4)

    def _bias_of(self, kernel, product, largest):
        """Conductances of the row of an analog bias and its input, or None."""
        bias = self.biases.get(kernel.owner)
        if bias is None or product is not product_of(kernel.owner)[-1]:
            return None
        held, _, own = self._conductances(bias)
        largest = np.broadcast_to(largest[-1:], (1, *largest.shape[1:]))
        ratio = np.divide(own, largest, out=np.zeros_like(own), where=largest > 0)
        d, _, m, _, c = held.shape
        kept = kernel.hardware.tiling.columns
        ratio = np.broadcast_to(ratio[0], (m, 1, c)).reshape(-1)[:kept]
        return held.reshape(d, m * c)[:, :kept].astype("float64"), ratio

    def drive(self, batches):
        """Run batches of inputs through the model."""
        for kernel in self.driven:
            if not kernel.hardware.has_circuits:
                kernel.hardware.adc = _tap
        recorder = Recorder({k.hardware: d for k, d in self.driven.items()})
        mode = {"kernels": "quantized", "recorder": recorder}
        if self.is_chip:
            mode |= {"time": ops.cast(self.t, "float32"), "read_noise": "off"}
        states = recurrent_states(self.twin)
        values = [ops.convert_to_numpy(state) for state in states]
        with hardware_mode(**mode):
            for batch in batches:
                self.twin(batch, training=False)
        for state, value in zip(states, values, strict=True):
            state.assign(value)


def _tap(z):
    """An ADC that does nothing, of kernels whose inputs would not be seen else."""
    return z


def _with_axes(x, axis, rank):
    """An array of this rank, with axes of size 1 put in."""
    x = ops.convert_to_numpy(x)
    return x.reshape(*x.shape[:axis], *(1,) * (rank - x.ndim), *x.shape[axis:])


def _product(kernel):
    """The `Product` of a kernel's layer that multiplies with it."""
    known = product_of(kernel.owner)
    if known is None and isinstance(kernel.owner, CELLS):
        known = [DenseProduct("kernel"), DenseProduct("recurrent_kernel")]
    found = next((p for p in known or () if p.attribute == kernel.keys[0]), None)
    if found is None:
        raise ValueError(
            f"'{kernel.path}' belongs to a {type(kernel.owner).__name__}, a layer of "
            "no known family: what drives the rows of its array is not known. Leave it "
            f"digital: to_hwa(model, skip=('{kernel.owner.name}',), hardware=crossbar)."
        )
    return found
