"""Export to other simulators and chips: the Neuromorphic Representation, NIR.

NIR describes neurons in continuous time, τ·v̇ = −v + R·I with a reset to v_reset. Its
readers step by δ = 0.1 ms after Euler, v ← (1 − δ/τ)·v + (δ/τ)·R·I, so that

    τ = δ/(1 − β),   R = τ/δ

have them compute β·v + I: the neurons of this library, step for step, whatever dt is.
"""

import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops

from hwa_keras.core.checks import check_choice
from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.types import PathLike
from hwa_keras.layers.product_families import product_of
from hwa_keras.layers.products import DenseProduct
from hwa_keras.spiking.chain import PASSED, chain_of
from hwa_keras.spiking.constants import decay
from hwa_keras.spiking.frontend import Frontend
from hwa_keras.spiking.lif import LIF, SynapticLIF
from hwa_keras.spiking.neurons import Neurons
from hwa_keras.spiking.readouts import FirstSpike, MembraneReadout, SpikeCount

__all__ = ["DELTA", "export_nir", "require_nir"]

DELTA = 1e-4
"""δ, the step of time with which NIR's readers solve its equations, seconds."""

_READOUTS = (FirstSpike, MembraneReadout, SpikeCount)


def export_nir(
    model: keras.Model, path: PathLike, allow_approximate: bool = False
) -> tuple[str, ...]:
    """Write a spiking network to a file of NIR, the format of other simulators.

    `Dense` becomes `Affine`, or `Linear` without a bias; `Frontend` `Scale`; `LIF`
    `LIF`, or `IF` where τ is infinite; `SynapticLIF` `CubaLIF`. Kernels are those that
    programming aims at, quantized where they are, and neurons nominal; of a chip they
    are what it holds at its time t, without read noise. Each parameter is an array with
    one value per neuron, and

        τ = δ/(1 − β),  r = τ/δ,  τ_syn = δ/(1 − α),  w_in = τ_syn/δ,  δ = 0.1 ms,

    of which readers that step by δ, snnTorch among them, make β and α again. `IF` has
    r = 1, as those readers take it. Neurons reset to zero.

    Args:
        model: A built Keras model of one chain of layers over [batch, time, channels],
            or a chip.
        path: The file to write, `.nir` by custom.
        allow_approximate: Bool. Whether to write a model of which NIR cannot say all:
            other resets become resets to zero, the floor of membranes, converters and
            readouts are left off, adaptation too. Defaults to `False`.

    Returns:
        A tuple of lines, what the file says otherwise than the model; empty for a file
        that says all. A warning tells them as well.

    Raises:
        ImportError: Without the package `nir`.
        TypeError: If it is no Keras model.
        ValueError: If NIR cannot say what the model computes; it names each layer.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([
        ...     keras.Input((20, 3)),
        ...     keras.layers.Dense(2),
        ...     hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3),
        ... ])
        >>> path = tempfile.mkdtemp() + "/network.nir"
        >>> hwa_keras.spiking.export_nir(model, path)
        ()
        >>> again = hwa_keras.spiking.from_nir(path, dt=5e-3)
        >>> x = np.ones((1, 20, 3), "float32")
        >>> bool(ops.all(model(x) == again(x)))
        True

    Reference:
        - J. Pedersen et al., "Neuromorphic intermediate representation", Nature
          Communications 15, 2024.
    """
    nir = require_nir()
    check_choice("export_nir", (False, True), allow_approximate=allow_approximate)
    chain = chain_of("export_nir", model)
    nodes, lost = {}, []
    mode = {}
    if getattr(model, "is_chip", False):
        mode = {"time": ops.cast(model.t, "float32"), "read_noise": "off"}
    with hardware_mode(**mode):
        for i, layer in enumerate(chain):
            node = _node(nir, layer, chain[i + 1 :], lost)
            if node is not None:
                nodes[_free_name(layer.name, nodes)] = node
    if not nodes:
        raise ValueError(f"The model '{model.name}' has no layers that NIR knows.")
    if lost and not allow_approximate:
        raise ValueError(
            f"NIR cannot say all of '{model.name}':\n- " + "\n- ".join(lost) + "\n"
            "With allow_approximate=True the file is written without it."
        )
    nir.write(Path(path), _graph(nir, nodes))
    if lost:
        warnings.warn(
            f"The file of '{model.name}' says otherwise than the model: "
            + "; ".join(lost),
            stacklevel=2,
        )
    return tuple(lost)


def require_nir():
    """The package `nir`, or an `ImportError` that says how to have it."""
    try:
        import nir
    except ImportError as error:
        raise ImportError(
            "Files of NIR need the package `nir`: pip install 'hwa_keras[nir]'."
        ) from error
    return nir


def _node(nir, layer, following, lost):
    """The node of a layer, or None for one that only passes on."""
    if isinstance(layer, PASSED):
        return None
    if isinstance(layer, _READOUTS):
        if all(isinstance(x, (*PASSED, *_READOUTS)) for x in following):
            lost.append(f"'{layer.name}': the readout is left off")
            return None
    if isinstance(layer, Frontend):
        _check_synapse(layer, lost)
        return nir.Scale(_kernel(layer))
    if isinstance(layer, Neurons):
        return _neurons(nir, layer, lost)
    products = product_of(layer)
    if products is not None and isinstance(products[0], DenseProduct):
        _check_synapse(layer, lost)
        weight = _kernel(layer).T
        if layer.bias is None:
            return nir.Linear(weight)
        return nir.Affine(weight, _kernel(layer, "bias"))
    raise ValueError(
        f"NIR has no node here for '{layer.name}' ({type(layer).__name__}). export_nir "
        "takes Dense, Frontend, LIF and SynapticLIF, with readouts at the end."
    )


def _check_synapse(layer, lost):
    activation = layer.activation
    if activation is not None and activation is not keras.activations.linear:
        raise ValueError(
            f"'{layer.name}' has the activation "
            f"'{keras.activations.serialize(activation)}', which no node of NIR has. "
            "Currents of neurons are linear: take it off."
        )
    kernels = getattr(layer, "hardware_kernels", ())
    if any(kernel.has_circuits for kernel in kernels):
        lost.append(f"'{layer.name}': converters and output noise are left off")
    if any(
        kernel.correction is not None
        or (kernel.tile is not None and kernel.gains_outputs)
        for kernel in kernels
    ):
        lost.append(f"'{layer.name}': the correction of its outputs is left off")


def _kernel(layer, name=None):
    """The kernel (or bias) that programming aims at, or what a chip holds."""
    kernels = find_kernels(layer)[0]
    if name is not None and not any(k.keys == (name,) for k in kernels):
        return _numbers(getattr(layer, name))  # On no hardware.
    [kernel] = [k for k in kernels if (k.keys == ("bias",)) == (name == "bias")]
    is_held = kernel.hardware is not None and kernel.hardware.tile is not None
    return _numbers(kernel.hardware.value() if is_held else kernel.target())


def _neurons(nir, layer, lost):
    if layer.firing.reset != "zero":
        lost.append(
            f"'{layer.name}': reset='{layer.firing.reset}' becomes a reset to zero"
        )
    if layer.firing.floor is not None:
        lost.append(f"'{layer.name}': floor={layer.firing.floor:g} is left off")
    if type(layer).__name__ == "ALIF":
        lost.append(f"'{layer.name}': the adaptation of its thresholds is left off")
    elif not isinstance(layer, (LIF, SynapticLIF)):
        raise ValueError(
            f"NIR has no node here for '{layer.name}' ({type(layer).__name__})."
        )
    if layer.initial_membrane:
        lost.append(f"'{layer.name}': begins at rest, not at initial_membrane")
    if layer.stateful:
        lost.append(f"'{layer.name}': begins at rest, not where a batch has ended")
    decays, threshold = _constants(layer)
    return _neuron_node(nir, layer, decays, threshold)


def _constants(layer):
    """The decays and the thresholds, an array with one per neuron each."""
    shape = layer._neurons
    if len(shape) != 1:
        raise ValueError(
            f"'{layer.name}' must have one axis of neurons. Received: {shape}."
        )
    found, threshold = layer.constants()
    decays = [_numbers(each, "float64") for each in found]
    if not (layer.learn_tau or layer.on_chip or layer.tau_levels is not None):
        taus = [layer.get_config()[name] for name in layer.time_constants]
        decays = [decay(tau, layer.dt) for tau in taus]
    threshold = _numbers(threshold, "float64")
    full = [np.broadcast_to(each, shape).copy() for each in (*decays, threshold)]
    return full[:-1], full[-1]


def _neuron_node(nir, layer, decays, threshold):
    rest = {"v_leak": np.zeros_like(threshold), "v_reset": np.zeros_like(threshold)}
    still = [(beta == 1).any() for beta in decays]
    if isinstance(layer, SynapticLIF):
        if any(still):
            raise ValueError(_forever(layer))
        tau, tau_synapse = (DELTA / (1 - each) for each in decays)
        return nir.CubaLIF(
            tau_syn=tau_synapse,
            tau_mem=tau,
            r=tau / DELTA,
            v_threshold=threshold,
            w_in=tau_synapse / DELTA,
            **rest,
        )
    beta = decays[0]
    if (beta == 1).all():
        return nir.IF(np.ones_like(beta), threshold, rest["v_reset"])
    if still[0]:
        raise ValueError(_forever(layer))
    tau = DELTA / (1 - beta)
    return nir.LIF(tau=tau, r=tau / DELTA, v_threshold=threshold, **rest)


def _forever(layer):
    return (
        f"Some neurons or synapses of '{layer.name}' do not leak: no node of NIR has "
        "both kinds, or synapses that keep their current. Make their time constants "
        "finite, or those of all neurons of a LIF infinite."
    )


def _free_name(name, nodes):
    taken = {*nodes, "input", "output"}
    return name if name not in taken else f"{name}_{len(nodes)}"


def _graph(nir, nodes):
    first, last = next(iter(nodes.values())), list(nodes.values())[-1]
    named = {
        "input": nir.Input({"input": np.asarray(first.input_type["input"])}),
        **nodes,
        "output": nir.Output({"output": np.asarray(last.output_type["output"])}),
    }
    names = list(named)
    return nir.NIRGraph(named, list(zip(names[:-1], names[1:], strict=True)))


def _numbers(x, dtype=None):
    return ops.convert_to_numpy(x).astype(dtype or "float32")
