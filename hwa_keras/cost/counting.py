"""summary: what a model costs, by the bits of its weights and inputs."""

import collections
import math

import keras

from hwa_keras.cost.checks import check_model
from hwa_keras.cost.energy import memory_energy, stored_kernels
from hwa_keras.cost.operations import calls_of, uses_per_weight
from hwa_keras.cost.result import LayerSummary, ModelSummary
from hwa_keras.kernels import equipment
from hwa_keras.noise import Noise
from hwa_keras.quantizers import Quantizer

__all__ = ["summary"]


def summary(model, file=None, verbose=1):
    """Count parameters, memory and operations of a model, by their bits.

    A parameter has the bits of its quantizer's `precision`, and 32 without one. A
    multiply-accumulate operation (MAC) has the larger of the bits of the weight and of
    the layer's input quantizer, 32 without one. Biases add no operations. As in Larq,
    a batch normalization has two parameters a channel, as it does when fused; unlike
    there, a layer that is called twice does its operations twice. What cannot be
    counted (recurrent and attention layers, layers of other packages) is shown as "?",
    is None in the figures and is named beside their sum. In a subclassed model each
    layer is taken to be called once. Variables of noises do not count. If any kernel
    has a `BitFlip`, each layer's error rates are told and its share of the energy of
    `memory_energy`, in which a kernel without quantizer has 16 bits.

    Args:
        model: Any built Keras model: plain, with hardware layers, an `HWAModel`, or
            with models inside.
        file: A text file to print to, or None for standard output, which gets colors
            and its own width if it is a terminal.
        verbose: 0 or 1. With 0, nothing is printed. Defaults to `1`.

    Returns:
        A `ModelSummary`: `total_params`, `memory_bits`, `compression_ratio`, `macs`,
        `total_macs`, `low_precision_share`, `relative_energy` and others, `layers`,
        `to_dict()`, `table()`.

    Raises:
        TypeError: If it is no Keras model, or a chip.
        ValueError: If the model is not built.

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
    count = _Count(model)
    counted = ModelSummary(model.name, tuple(count.rows()), count.relative_energy)
    if verbose:
        counted.print(file)
    return counted


class _Count:
    """One count of a model; a weight that is shared counts where it is met first."""

    def __init__(self, model):
        self.model = model
        self.seen = set()
        equipped = equipment(model)
        self.quantizers = {key: quantizer for key, (quantizer, _) in equipped.items()}
        self.noises = {key: noise for key, (_, noise) in equipped.items()}
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
        self.energy_shares, self.relative_energy = {}, None
        if self.error_rates:
            energy = memory_energy(self.model)
            ids = [id(k.variable) for k in stored]
            shares = [kernel.share for kernel in energy.kernels]
            self.energy_shares = dict(zip(ids, shares, strict=True))
            self.relative_energy = energy.relative

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
        quantizer = getattr(layer, "input_quantizer", None)
        input_bits = getattr(quantizer, "precision", None)
        new = self._new_weights(layer)
        shares = [self.energy_shares[id(w)] for w in new if id(w) in self.energy_shares]
        params: collections.Counter = collections.Counter()
        for w in new:
            params[self._bits(w)] += math.prod(w.shape)
        return LayerSummary(
            name=f"{prefix}{layer.name}",
            layer_type=type(layer).__name__,
            input_precision=input_bits,
            output_shape=_common_output(shapes),
            params=dict(sorted(params.items())),
            trainable_params=sum(math.prod(w.shape) for w in new if w.trainable),
            macs=self._macs(layer, shapes, input_bits or 32, times),
            noise=self._noise(layer),
            error_rates=self._error_rates(layer),
            energy_share=sum(shares) if shares else None,
        )

    def _new_weights(self, layer):
        """The weights of a layer that were not counted before, its quantizers' too."""
        weights = list(getattr(layer, "weights", ()))
        for w in tuple(weights):
            weights += getattr(self.quantizers.get(id(w)), "weights", ())
        fused = _fused(weights) if isinstance(layer, _BATCH_NORM) else set()
        new = []
        for w in weights:
            if id(w) in self.seen or id(w) in self.of_noises or id(w) in fused:
                continue
            self.seen.add(id(w))
            new.append(w)
        return new

    def _bits(self, w):
        return getattr(self.quantizers.get(id(w)), "precision", None) or 32

    def _macs(self, layer, shapes, input_bits, times):
        uses = [uses_per_weight(layer, *pair) for pair in shapes]
        factors = [
            w
            for w in getattr(layer, "weights", ())
            if id(w) not in self.of_noises | self.of_quantizers and w.name != "bias"
        ]
        if None in uses or not all(w.name.endswith("kernel") for w in factors):
            return {} if set(uses) == {0} else None
        macs: collections.Counter = collections.Counter()
        for w in factors:
            bits = max(input_bits, self._bits(w))
            macs[bits] += math.prod(w.shape) * sum(uses) * times
        return dict(sorted(macs.items()))

    def _error_rates(self, layer):
        ids = [id(w) for w in getattr(layer, "weights", ())]
        return tuple(self.error_rates[key] for key in ids if key in self.error_rates)

    def _noise(self, layer):
        weights = getattr(layer, "weights", ())
        kernels = [_label(self.noises.get(id(w))) for w in weights]
        output = _label(getattr(layer, "output_noise", None))
        found = [*dict.fromkeys(filter(None, kernels)), output and f"{output} (output)"]
        return ", ".join(filter(None, found)) or None


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


def _label(noise):
    if noise is None:
        return None
    if isinstance(noise, Noise) and noise.leaves() != [noise]:
        return " + ".join(_label(leaf) for leaf in noise.leaves())
    return getattr(noise, "__name__", type(noise).__name__)
