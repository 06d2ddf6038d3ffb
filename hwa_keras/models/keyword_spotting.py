"""Keyword spotting with spikes: a front end, two layers of synapses, a readout."""

from collections.abc import Sequence

import keras

from hwa_keras import spiking
from hwa_keras.core.checks import check_choice, check_count, check_not_negative
from hwa_keras.layers import HWADense
from hwa_keras.noise import ProcessVariation, SynapticMismatch
from hwa_keras.quantizers import Uniform
from hwa_keras.spiking import (
    FastSigmoid,
    Frontend,
    MembraneReadout,
    SpikeCount,
    WeightMagnitude,
)

LARGEST = 0.9  # The largest magnitude of a weight on the chip.
LEVELS = 16  # Of a weight's magnitude, zero included: 31 with the sign.
SHARPNESS = 10.0  # Logits for a mean membrane of 1; means are small.


def keyword_spotting(
    channels: int,
    classes: int,
    hidden: int = 64,
    bins: int | None = None,
    quantized: bool = True,
    synaptic_std: float = 0.0,
    tau_std: float = 0.0,
    hold: bool = False,
    readout: str = "membrane",
    gain: float | Sequence[float] = 130.0,
    dt: float = 8e-3,
    taus: Sequence[float] = (20e-3, 64e-3, 128e-3),
    slope: float = 2.0,
    neuron: str = "lif",
) -> keras.Model:
    """A spiking network that tells words by what a filter bank makes of them.

    Features are scaled, weighted channel by channel (`spiking.Frontend`) and turned to
    spikes; then come dense synapses, `hidden` neurons, dense synapses, and a neuron for
    each word. Weights beyond ±0.9, which a synapse cannot hold, cost a
    `WeightMagnitude`. Three sets of arguments are the models of the tutorial:

    | model         | `quantized` | `synaptic_std`, `tau_std`       |
    |---------------|-------------|---------------------------------|
    | ideal         | `False`     | 0                               |
    | quantized     | `True`      | 0                               |
    | full hardware | `True`      | as on chips, such as 0.04, 0.1  |

    The front end has no mismatch: its weights are small beside it. Trainable variables
    are the same in all three, in the same order.

    Args:
        channels: Integer, features of a bin.
        classes: Integer, number of words.
        hidden: Integer, number of hidden neurons. Defaults to `64`.
        bins: Integer, bins of a clip, or None for any. Defaults to `None`.
        quantized: Bool. Whether weights are on 31 levels in ±0.9: 5 bits. Defaults to
            `True`.
        synaptic_std: Float ≥ 0, the standard deviation of `noise.SynapticMismatch` as a
            part of the largest weight. Defaults to `0.0`.
        tau_std: Float ≥ 0, the standard deviation of the leak rates of hidden neurons
            and of those of words. Defaults to `0.0`.
        hold: Bool. Whether mismatch in training is that of one chip; if not, each step
            is another chip. Defaults to `False`.
        readout: `"membrane"`, the mean membrane of neurons that do not spike, or
            `"count"`, the number of spikes. Defaults to `"membrane"`.
        gain: Float, or sequence of one for each channel: what features are multiplied
            by, to be about 1. Defaults to `130.0`.
        dt: Float > 0, the length of a bin, seconds. Defaults to `8e-3`.
        taus: Three floats, seconds: time constants of the neurons of the front end, of
            hidden ones and of those of words. Defaults to `(20e-3, 64e-3, 128e-3)`.
        slope: Float > 0, k of `spiking.FastSigmoid`. The customary 25 trains far
            worse with mismatch. Defaults to `2.0`.
        neuron: String, the name of the neurons, of whichever class has no arguments
            without default but `tau` and `dt`. Defaults to `"lif"`.

    Returns:
        A functional Keras model from features `[batch, bins, channels]` to logits
        `[batch, classes]`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> model = hwa_keras.models.keyword_spotting(12, 10, tau_std=0.1)
        >>> model(np.ones((2, 125, 12), "float32")).shape == (2, 10)
        True

    Reference:
        - Gentile and Rasetto, "NWAVE tutorial 3: hardware-aware training with frontend
          and non-idealities", Neuronova, 2026.
    """
    owner = "keyword_spotting"
    check_count(owner, channels=channels, classes=classes, hidden=hidden)
    check_not_negative(owner, synaptic_std=synaptic_std, tau_std=tau_std)
    check_choice(owner, ("membrane", "count"), readout=readout)
    if len(taus) != 3:
        raise ValueError(
            f"`taus` of {owner} must be three time constants in seconds: of the front "
            f"end, hidden neurons and neurons of words. Received: taus={taus!r}."
        )
    quantizer = Uniform(levels=LEVELS, scale=LARGEST) if quantized else None
    mismatch = SynapticMismatch(synaptic_std, LARGEST, hold) if synaptic_std else None
    leak = ProcessVariation(tau_std, hold=hold) if tau_std else None

    def synapses(units, name):
        return HWADense(
            units,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(0.0, 0.3),
            kernel_regularizer=WeightMagnitude(LARGEST),
            kernel_quantizer=quantizer,
            kernel_noise=mismatch,
            name=name,
        )

    def neurons(tau, name, **options):
        options["surrogate"] = FastSigmoid(slope)
        name = f"{name}_neurons"
        return spiking.get(neuron, tau=tau, dt=dt, name=name, **options)

    features = keras.Input((bins, channels))
    x = keras.layers.Rescaling(gain)(features)
    x = Frontend(kernel_quantizer=quantizer, name="frontend")(x)
    x = neurons(taus[0], "frontend")(x)
    x = synapses(hidden, "hidden")(x)
    x = neurons(taus[1], "hidden", tau_noise=leak)(x)
    x = synapses(classes, "word")(x)
    if readout == "count":
        logits = SpikeCount()(neurons(taus[2], "word", tau_noise=leak)(x))
    else:
        options = {"reset": "none", "return_membrane": True, "tau_noise": leak}
        _, membrane = neurons(taus[2], "word", **options)(x)
        mean = MembraneReadout("mean")(membrane)
        logits = keras.layers.Rescaling(SHARPNESS)(mean)
    return keras.Model(features, logits, name="keyword_spotting")
