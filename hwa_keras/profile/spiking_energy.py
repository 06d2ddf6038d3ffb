"""What a spiking network takes on a neuromorphic chip: spikes and synaptic operations.

Spikes are counted, of real data, at the outputs of neurons and at the inputs of
products, so that whatever stands between them (pooling, delays, encoders) counts as it
is.
"""

import functools
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.core.checks import check_count, check_positive
from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Data
from hwa_keras.deployment.batchnorm import calibration_batches
from hwa_keras.layers.product_families import product_of
from hwa_keras.profile.spiking_result import (
    PJ_PER_ACCUMULATE,
    PJ_PER_MAC,
    EnergyModel,
    SpikingEnergy,
    SpikingLayerEnergy,
)
from hwa_keras.spiking.cells import LIFCell
from hwa_keras.spiking.neurons import Neurons

__all__ = ["SPIKING_DEVICES", "is_spiking", "spiking_energy"]

_SATURATED = 0.95  # Spikes a neuron and step.
_TANG = "as compared by Tang et al., Frontiers in Neuroscience 17, 2023, table 3"

SPIKING_DEVICES = {
    "loihi": EnergyModel(
        pj_per_synop=23.6,
        name="loihi",
        source=f"Davies et al., IEEE Micro 38(1), 2018; {_TANG}",
    ),
    "truenorth": EnergyModel(
        pj_per_synop=2.5,
        name="truenorth",
        source=f"Akopyan et al., IEEE TCAD 34(10), 2015; {_TANG}",
    ),
    "seneca": EnergyModel(pj_per_synop=2.8, name="seneca", source=_TANG),
    "reckon": EnergyModel(
        pj_per_synop=5.3,
        name="reckon",
        source=f"Frenkel and Indiveri, ISSCC 2022; {_TANG}",
    ),
    "nwave_bound": EnergyModel(
        pj_per_spike=4.05,
        name="nwave_bound",
        source="an upper bound, not a measurement: the NWAVE tutorial on keyword "
        "spotting tells 13.37 nJ for an inference of some 3,301 spikes, all of it "
        "divided among the spikes",
    ),
}
"""Dictionary from a name to the `EnergyModel` of a chip, with its source."""


def spiking_energy(
    model: keras.Model,
    data: Data,
    device: str | EnergyModel = "loihi",
    seconds: float | None = None,
    batches: int = 13,
    batch_size: int = 200,
) -> SpikingEnergy:
    """The energy of a spiking network on a neuromorphic chip, for one example.

    Runs the data through the model as at inference and counts: spikes of neurons
    (`LIF`, `SynapticLIF`, `ALIF`, `LIFCell`), and at each layer with weights synaptic
    operations, one for each spike that comes in and each neuron that it reaches (spikes
    times fan-out). A `LIFCell` passes on inputs and its own spikes. Then

        E = spikes·e_spike + operations·e_synop + P·seconds.

    Inputs are spikes where each value of the data is 0 or 1. Those of other products
    are analog: they are told as multiply-accumulates, and no spike energy is put on
    them. Beside it stands the arithmetic of the same network in frames, in which each
    step multiplies in full.

    Warns of layers that are silent (no spike in all of the data) or saturated (more
    than 0.95 spikes a neuron and step).

    Args:
        model: A built Keras model with spiking layers; or a chip, with its own neurons
            and what its devices hold at its time t, without read noise. It is not
            changed.
        data: Inputs, as `calibrate` takes them.
        device: `"loihi"` (23.6 pJ a synaptic operation), `"truenorth"` (2.5),
            `"seneca"` (2.8), `"reckon"` (5.3), `"nwave_bound"` (at most 4.05 pJ a
            spike), or an `EnergyModel`. Defaults to `"loihi"`.
        seconds: Float > 0, the time of one inference, s. None for real time, as many
            steps of dt as the neurons have. Defaults to `None`.
        batches: Integer ≥ 1, the largest number of batches. Defaults to `13`.
        batch_size: Integer ≥ 1, for arrays. Defaults to `200`.

    Returns:
        A `SpikingEnergy`: `layers`, `spikes`, `synops`, `joules`, `watts`,
        `frame_joules`, `table()`, `print()`, `to_dict()`.

    Raises:
        TypeError: If it is no Keras model, or `device` neither a name nor a model.
        ValueError: If the model is not built or has no spiking layers, a name is not
            known, a layer makes two products at once, or inputs are not finite.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((4, 1)),
        ...     hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3, name="hidden"),
        ...     keras.layers.Dense(3, name="dense"),
        ...     hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3, threshold=9.0, name="out"),
        ... ])
        >>> currents = np.full((1, 4, 1), 0.5, "float32")
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # "out" is silent.
        ...     found = hwa_keras.spiking_energy(model, currents, device="seneca")
        >>> found.spikes, found.synops
        (1.0, 3.0)
        >>> round(found.joules * 1e12, 3), round(found.seconds, 3)  # pJ, s
        (8.4, 0.02)

    Reference:
        - M. Davies et al., IEEE Micro 38(1), 2018 (Loihi); G. Tang et al., Frontiers in
          Neuroscience 17, 2023 (SENECA, and a table of others); M. Horowitz, ISSCC 2014
          (arithmetic in 45 nm).
    """
    _check(model)
    chip = _device(device)
    check_count("spiking_energy", batches=batches, batch_size=batch_size)
    if seconds is not None:
        check_positive("spiking_energy", seconds=seconds)
    inputs = calibration_batches(data, batches, batch_size)
    twin = replicate(model)
    counts = _tapped(twin)
    mode = {}
    if getattr(model, "is_chip", False):
        mode = {"time": ops.cast(model.t, "float32"), "read_noise": "off"}
    with hardware_mode(**mode):
        for batch in inputs:
            for count in counts:
                count.steps = 0
            twin(batch, training=False)
    examples = sum(int(keras.tree.flatten(batch)[0].shape[0]) for batch in inputs)
    reached = [count for count in counts if count.calls]
    missed = {k.layer_path for k in find_kernels(twin)[0]}
    missed |= {count.path for count in counts}
    missed -= {count.path for count in reached}
    rows = tuple(count.row(examples, chip) for count in reached)
    _warn_of_rates(model, rows)
    assumed = _assumptions(chip, rows, missed, seconds)
    if seconds is None:
        seconds = max(count.seconds for count in reached)
    return SpikingEnergy(model.name, rows, chip, float(seconds), assumed)


def is_spiking(model):
    """Whether a model has spiking neurons."""
    return any(isinstance(x, (Neurons, LIFCell)) for x in model._flatten_layers())


def _check(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`spiking_energy` takes a built Keras model or a chip. Received: "
            f"{model!r} of type {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it has no weights yet. Call it "
            "once on a batch of inputs, or begin it with keras.Input(shape)."
        )
    if not is_spiking(model):
        raise ValueError(
            f"The model '{model.name}' has no spiking layers: LIF, SynapticLIF, ALIF "
            "or LIFCell of hwa_keras.spiking. For other networks see memory_energy and "
            "array_energy."
        )


def _device(device):
    if isinstance(device, EnergyModel):
        return device
    if isinstance(device, str) and device in SPIKING_DEVICES:
        return SPIKING_DEVICES[device]
    error = ValueError if isinstance(device, str) else TypeError
    raise error(
        "`device` of spiking_energy must be one of "
        f"{', '.join(map(repr, SPIKING_DEVICES))}, or a profile.EnergyModel. Received: "
        f"device={device!r} of type {type(device).__name__}."
    )


class _Count:
    """What a layer of a run did, in sums over all examples and steps."""

    def __init__(self, path, layer):
        self.path, self.layer = path, layer
        self.calls, self.steps, self.seconds = 0, 0, 0.0
        self.fires = isinstance(layer, (Neurons, LIFCell))
        self.spikes = self.places = 0.0
        self.streams: dict[str, list] = {}  # [are spikes, operations, MACs]

    def ran(self, steps):
        """Note that time went on."""
        self.calls += 1
        self.steps += steps
        self.seconds = max(self.seconds, self.steps * getattr(self.layer, "dt", 0.0))

    def fired(self, spikes):
        """Add the spikes of the neurons."""
        spikes = _array(spikes)
        self.spikes += float(spikes.sum())
        self.places += spikes.size

    def passed(self, rows, fan_out, name="inputs"):
        """Add a product: its inputs by row, each of which reaches `fan_out` neurons."""
        rows = self.finite(rows)
        stream = self.streams.setdefault(name, [True, 0.0, 0.0])
        stream[0] = stream[0] and bool(((rows == 0) | (rows == 1)).all())
        stream[1] += float(np.count_nonzero(rows)) * fan_out
        stream[2] += float(rows.size) * fan_out

    def finite(self, inputs):
        """Inputs of the layer as an array, or a `ValueError` if they are not finite."""
        inputs = _array(inputs)
        if not np.isfinite(inputs).all():
            raise ValueError(
                f"The inputs of '{self.path}' are not finite: a neuron that is fed NaN "
                "is silent, and its energy would say nothing. Clean the data first."
            )
        return inputs

    def row(self, examples, device):
        """The `SpikingLayerEnergy`, for one example."""
        streams = self.streams.values()
        synops = sum(count for binary, count, _ in streams if binary) / examples
        spikes = self.spikes / examples
        return SpikingLayerEnergy(
            path=self.path,
            layer_type=type(self.layer).__name__,
            spikes=spikes if self.fires else None,
            rate=self.spikes / self.places if self.fires else None,
            synops=synops,
            macs=sum(macs for _, _, macs in streams) / examples,
            analog_macs=sum(m for binary, _, m in streams if not binary) / examples,
            joules=device.joules(spikes, synops),
        )


def _array(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def _tapped(model):
    """The `_Count`s of the layers of a model, which count from here on."""
    found = []
    for path, layer in _layers_of(model):
        tap = _tap_of(layer)
        if isinstance(layer, keras.layers.RNN):
            layer.unroll = True  # A cell that is traced would show no values.
        if tap is not None:
            found.append(_Count(path, layer))
            layer.call = tap(found[-1], layer.call)
    return found


def _layers_of(layer, path="", seen=None):
    """Pairs of a path and a layer, each layer once, in the order of the model."""
    seen = set() if seen is None else seen
    for child in layer._flatten_layers(include_self=False, recursive=False):
        if id(child) in seen:
            continue
        seen.add(id(child))
        name = f"{path}/{child.name}" if path else child.name
        yield name, child
        yield from _layers_of(child, name, seen)


def _tap_of(layer):
    """What counts around the `call` of a layer, or None for one that only passes on."""
    if isinstance(layer, Neurons):
        return _tap_neurons
    if isinstance(layer, LIFCell):
        return _tap_cell
    products = product_of(layer)
    if products is None:
        return None
    if len(products) > 1:
        raise ValueError(
            f"'{layer.name}' ({type(layer).__name__}) makes two products in one layer, "
            "so that what comes into the second is not known. Make it two layers: a "
            "depthwise and a pointwise convolution."
        )
    return functools.partial(_tap_product, products[0])


def _tap_neurons(count, call):
    @functools.wraps(call)
    def counted(inputs, *args, **kwargs):
        count.finite(inputs)
        outputs: Any = call(inputs, *args, **kwargs)
        count.ran(int(inputs.shape[1]))
        count.fired(outputs[0] if isinstance(outputs, tuple) else outputs)
        return outputs

    return counted


def _tap_cell(count, call):
    units = count.layer.units

    @functools.wraps(call)
    def counted(inputs, states, *args, **kwargs):
        count.passed(inputs, units)
        count.passed(states[0], units, "recurrent")
        outputs, states = call(inputs, states, *args, **kwargs)
        count.ran(1)
        count.fired(outputs)
        return outputs, states

    return counted


def _tap_product(product, count, call):
    layer = count.layer

    @functools.wraps(call)
    def counted(inputs, *args, **kwargs):
        outputs_of_group = product.view(layer).matrix_shape[1] // product.groups(layer)
        count.passed(product.unfold(layer, inputs), outputs_of_group)
        count.ran(0)
        return call(inputs, *args, **kwargs)

    return counted


def _warn_of_rates(model, rows):
    rates = {row.path: row.rate for row in rows if row.rate is not None}
    for what, names in (
        ("silent: no neuron fires", [p for p, rate in rates.items() if rate == 0]),
        (
            f"saturated: more than {_SATURATED} spikes a neuron and step",
            [p for p, rate in rates.items() if rate > _SATURATED],
        ),
    ):
        if names:
            warnings.warn(
                f"Layers of '{model.name}' are {what}: {', '.join(names)}. Their "
                "energy is not that of a network which computes.",
                stacklevel=3,
            )


def _assumptions(device, rows, missed, seconds):
    """What was assumed, a tuple of lines."""
    lines = [
        str(device),
        "time of an inference: " + ("steps of dt" if seconds is None else "as given"),
        f"in frames: {PJ_PER_MAC} pJ a multiply-accumulate, {PJ_PER_ACCUMULATE} pJ an "
        "addition of 32-bit floats in 45 nm (Horowitz, ISSCC 2014), without memory",
    ]
    if analog := [row.path for row in rows if row.analog_macs]:
        lines.append(
            "inputs are no spikes, so that they take no energy here: "
            + ", ".join(analog)
        )
    if missed:
        lines.append(
            f"not reached, or of another kind, and not counted: "
            f"{', '.join(sorted(missed))}"
        )
    lines.append("not counted: what makes the inputs, biases, control, data movement")
    return tuple(lines)
