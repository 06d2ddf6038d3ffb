"""summary: what a model costs, by the bits of its weights and inputs."""

import collections
import math
from typing import TextIO

import keras

from hwa_keras.core.kernels import find_kernels, kernels_of
from hwa_keras.core.types import Data
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import ConductanceDevice
from hwa_keras.noise import Noise
from hwa_keras.profile.array_energy import array_energy
from hwa_keras.profile.energy import check_model, memory_energy
from hwa_keras.profile.operations import calls_of, uses_per_weight
from hwa_keras.profile.result import LayerSummary, ModelSummary
from hwa_keras.profile.spiking_energy import is_spiking, spiking_energy
from hwa_keras.profile.spiking_result import EnergyModel
from hwa_keras.profile.stored_kernels import stored_kernels
from hwa_keras.quantizers import Quantizer

__all__ = ["summary"]


def summary(
    model: keras.Model,
    file: TextIO | None = None,
    verbose: int = 1,
    data: Data | None = None,
    crossbar: Crossbar | None = None,
    spiking_device: str | EnergyModel | None = None,
) -> ModelSummary:
    """Count parameters, memory and operations of a model, by their bits.

    A parameter has the bits of its quantizer's `precision`, and 32 without one. A
    multiply-accumulate operation (MAC) has the larger of the bits of the weight and of
    the DAC of its kernel, 32 without one. Biases add no operations. As in Larq,
    a batch normalization has two parameters a channel, as it does when fused; unlike
    there, a layer that is called twice does its operations twice. What cannot be
    counted (recurrent and attention layers, layers of other packages) is shown as "?",
    is None in the figures and is named beside their sum. In a subclassed model each
    layer is taken to be called once. Variables of noises do not count; learned scales
    of quantizers and ranges of converters do.

    Energies stand in columns by layer and in one table of their sums and sources: of
    the memory, if any kernel has a `BitFlip`, as in `memory_energy`, in which a kernel
    without quantizer has 16 bits; with data, of the arrays of kernels on crossbars, as
    in `array_energy`; and with data, of spikes, as in `spiking_energy`.

    Args:
        model: Any built Keras model, its layers on hardware or not, also with models
            inside.
        file: A text file to print to, or None for standard output, which gets colors
            and its own width if it is a terminal.
        verbose: 0 or 1. With 0, nothing is printed. Defaults to `1`.
        data: Inputs, as `calibrate` takes them, to have the energies of one example
            told too that depend on them; or None.
        crossbar: The `crossbar.Crossbar` of the arrays, or None for that of the layers.
        spiking_device: The chip of spiking layers, as `device` of `spiking_energy`, or
            None for `"loihi"`.

    Returns:
        A `ModelSummary`: `total_params`, `memory_bits`, `compression_ratio`, `macs`,
        `total_macs`, `low_precision_share`, `memory`, `arrays`, `spiking` and
        others, `layers`, `to_dict()`, `table()`.

    Raises:
        TypeError: If it is no Keras model, or a chip.
        ValueError: If the model is not built, a crossbar or a chip is given without
            data, a chip for a model without spiking layers; and what `array_energy` and
            `spiking_energy` raise.

    Example:
        >>> options = dict(kernel_quantizer="ste_sign", input_quantizer="ste_sign")
        >>> model = keras.Sequential([
        ...     keras.Input((64,)),
        ...     hwa_keras.layers.HWADense(32, kernel_quantizer="ste_sign"),
        ...     hwa_keras.layers.HWADense(10, use_bias=False, **options),
        ... ])
        >>> counted = hwa_keras.summary(model, verbose=0)
        >>> counted.params  # 1-bit kernels, a 32-bit bias
        {1: 2368, 32: 32}
        >>> counted.macs  # 320 = 32·10 of a bit by a bit
        {1: 320, 32: 2048}
    """
    check_model("summary", model)
    arrays, spiking = _of_data(model, data, crossbar, spiking_device)
    count = _Count(model, arrays, spiking)
    rows = tuple(count.rows())
    counted = ModelSummary(model.name, rows, count.memory, arrays, spiking)
    if verbose:
        counted.print(file)
    return counted


def _of_data(model, data, crossbar, spiking_device):
    """The `ArrayEnergy` and the `SpikingEnergy` of a model, None for what it lacks."""
    given = {"crossbar": crossbar, "spiking_device": spiking_device}
    missing = [name for name, value in given.items() if value is not None]
    if data is None and missing:
        raise ValueError(
            "The energy of arrays and of spikes depends on the inputs. Give `summary` "
            f"some: summary(model, data=x, {missing[0]}={missing[0]})."
        )
    if data is None:
        return None, None
    spiking = None
    if is_spiking(model) or spiking_device is not None:
        spiking = spiking_energy(model, data, spiking_device or "loihi")
    if spiking is None or crossbar is not None or _is_on_arrays(model):
        return array_energy(model, data, crossbar), spiking
    return None, spiking


def _is_on_arrays(model):
    described = [k.hardware.hardware for k in kernels_of(model) if k.hardware]
    return any(isinstance(h.device, ConductanceDevice) for h in described)


class _Count:
    """One count of a model; a weight that is shared counts where it is met first."""

    def __init__(self, model, arrays=None, spiking=None):
        self.model = model
        on_arrays = () if arrays is None else arrays.kernels
        self.arrays = {kernel.path: kernel.total for kernel in on_arrays}
        rows = () if spiking is None else spiking.layers
        self.spiking = {row.path: row.joules for row in rows}
        self.seen = set()
        self.kernels = {id(k.variable): k for k in find_kernels(model)[0]}
        self.of_noises, self.of_quantizers = set(), set()
        for owner in model._flatten_layers():
            if isinstance(owner, Noise):
                self.of_noises |= {id(w) for w in owner.weights}
            elif isinstance(owner, Quantizer):
                self.of_quantizers |= {id(w) for w in owner.weights}
        self._count_energy()

    def _count_energy(self):
        """Error rates and shares of the energy by kernel, if any has a `BitFlip`."""
        stored = stored_kernels(self.model)
        self.error_rates = {
            id(k.variable): k.error_rate for k in stored if k.noise is not None
        }
        self.energy_shares, self.memory = {}, None
        if self.error_rates:
            self.memory = memory_energy(self.model)
            ids = [id(k.variable) for k in stored]
            shares = [kernel.share for kernel in self.memory.kernels]
            self.energy_shares = dict(zip(ids, shares, strict=True))

    def rows(self):
        return self._rows(self.model, "", times=1)

    def _rows(self, model, prefix, times):
        for layer, shapes in calls_of(model):
            if isinstance(layer, keras.Model):
                inner = times * len(shapes)
                yield from self._rows(layer, f"{prefix}{layer.name}/", inner)
            else:
                yield self._row(layer, shapes, prefix, times)

    def _row(self, layer, shapes, prefix, times):
        new = self._new_weights(layer)
        shares = [self.energy_shares[id(w)] for w in new if id(w) in self.energy_shares]
        params: collections.Counter = collections.Counter()
        for w in new:
            params[self._bits(w)] += math.prod(w.shape)
        kernels = self._kernels_in(layer)
        return LayerSummary(
            name=f"{prefix}{layer.name}",
            layer_type=type(layer).__name__,
            input_precision=next(filter(None, map(_input_bits, kernels)), None),
            output_shape=_common_output(shapes),
            params=dict(sorted(params.items())),
            trainable_params=sum(math.prod(w.shape) for w in new if w.trainable),
            macs=self._macs(layer, kernels, shapes, times),
            noise=_noises(kernels),
            error_rates=self._error_rates(kernels),
            energy_share=sum(shares) if shares else None,
            array_energy=self._array_energy(new),
            spiking_energy=self._spiking_energy(f"{prefix}{layer.name}"),
        )

    def _array_energy(self, weights):
        paths = [self.kernels[id(w)].path for w in weights if id(w) in self.kernels]
        found = [self.arrays[path] for path in paths if path in self.arrays]
        return sum(found) if found else None

    def _spiking_energy(self, name):
        """That of a layer and of those inside of it, told once."""
        inside = [p for p in self.spiking if p == name or p.startswith(f"{name}/")]
        found = [self.spiking.pop(path) for path in inside]
        return sum(found) if found else None

    def _kernels_in(self, layer):
        """The `Kernel`s among the weights of a layer, wherever they are shared."""
        ids = [id(w) for w in getattr(layer, "weights", ())]
        return [self.kernels[key] for key in ids if key in self.kernels]

    def _new_weights(self, layer):
        """The weights of a layer that were not counted before, its quantizers' too."""
        weights = getattr(layer, "weights", ())
        fused = _fused(weights) if isinstance(layer, _BATCH_NORM) else set()
        new = []
        for w in weights:
            if id(w) in self.seen or id(w) in self.of_noises | fused:
                continue
            self.seen.add(id(w))
            if w.name not in _BOOKKEEPING:
                new.append(w)
        return new

    def _bits(self, w):
        kernel = self.kernels.get(id(w))
        return getattr(getattr(kernel, "quantizer", None), "precision", None) or 32

    def _macs(self, layer, kernels, shapes, times):
        uses = [uses_per_weight(layer, *pair) for pair in shapes]
        known = self.of_noises | self.of_quantizers | {id(k.variable) for k in kernels}
        others = [
            w
            for w in getattr(layer, "weights", ())
            if id(w) not in known and w.name != "bias"
        ]
        if None in uses or others:
            return {} if set(uses) == {0} else None
        macs: collections.Counter = collections.Counter()
        for kernel in kernels:
            bits = max(_input_bits(kernel) or 32, self._bits(kernel.variable))
            macs[bits] += math.prod(kernel.view.matrix_shape) * sum(uses) * times
        return dict(sorted(macs.items()))

    def _error_rates(self, kernels):
        ids = [id(kernel.variable) for kernel in kernels]
        return tuple(self.error_rates[key] for key in ids if key in self.error_rates)


# What a learned range of a converter keeps beside its value.
_BOOKKEEPING = {"input_range_start", "input_range_batches"}
_BATCH_NORM = keras.layers.BatchNormalization


def _fused(weights):
    """Ids of the weights that batch normalization at inference folds into others."""
    by_name = {w.name: w for w in weights}
    pairs = (("beta", "moving_mean"), ("gamma", "moving_variance"))
    return {id(by_name[a]) for a, b in pairs if a in by_name and b in by_name}


def _common_output(shapes):
    outputs = {tuple(output) for _, output in shapes if output is not None}
    if len(outputs) != 1:
        return None
    shape = outputs.pop()
    return (None, *shape[1:]) if shape else shape


def _input_bits(kernel):
    """The bits of the inputs of a kernel, or None without a converter of known bits."""
    dac = None if kernel.hardware is None else kernel.hardware.dac
    return getattr(dac, "precision", None)


def _noises(kernels):
    """The noises of the kernels of a layer and of their outputs, in words, or None."""
    outputs = [getattr(kernel.hardware, "output_noise", None) for kernel in kernels]
    labels = [_label(kernel.noise) for kernel in kernels if kernel.noise is not None]
    labels += [f"{_label(noise)} (output)" for noise in outputs if noise is not None]
    return ", ".join(dict.fromkeys(labels)) or None


def _label(noise):
    if isinstance(noise, Noise) and noise.leaves() != [noise]:
        return " + ".join(_label(leaf) for leaf in noise.leaves())
    return getattr(noise, "__name__", type(noise).__name__)
