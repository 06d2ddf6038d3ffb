"""Networks from other simulators: models of files of NIR."""

import math
from pathlib import Path

import keras
import numpy as np
from keras import layers

from hwa_keras.core.checks import check_positive
from hwa_keras.core.types import PathLike
from hwa_keras.spiking.frontend import Frontend
from hwa_keras.spiking.lif import LIF, SynapticLIF
from hwa_keras.spiking.nir import DELTA, require_nir

__all__ = ["from_nir"]


def from_nir(
    path: PathLike, dt: float = DELTA, timesteps: int | None = None
) -> keras.Model:
    """Make a Keras model of a file of NIR.

    The inverse of `export_nir`: β = 1 − δ/τ, and neurons with τ = −dt/ln β. What
    currents are scaled with, (δ/τ)·r, goes into the thresholds, θ/((δ/τ)·r): with a
    reset to zero the spikes are the same.

    Args:
        path: A file of NIR, one chain of `Affine`, `Linear`, `Scale`, `LIF`, `IF` and
            `CubaLIF`.
        dt: Float > 0, the step of time of the model, seconds: it tells in which unit τ
            is, and spikes do not depend on it. Defaults to `1e-4`.
        timesteps: Integer, or None for any number. Defaults to `None`.

    Returns:
        A `keras.Sequential` over [batch, time, channels], with the names of the nodes.

    Raises:
        ImportError: Without the package `nir`.
        ValueError: If a node is of another kind, the graph is no chain, or neurons
            leak or reset to another value than zero.

    Example:
        See `export_nir`.
    """
    nir = require_nir()
    check_positive("from_nir", dt=dt)
    graph = nir.read(Path(path))
    names = _order(nir, graph)
    first = graph.nodes[names[0]]
    [channels] = np.asarray(next(iter(first.input_type.values()))).tolist()
    made, weights = [], []
    for name in names:
        layer, values = _layer(nir, name, graph.nodes[name], dt)
        made.append(layer)
        weights.append(values)
    model = keras.Sequential([keras.Input((timesteps, channels)), *made])
    for layer, values in zip(made, weights, strict=True):
        if values:
            layer.set_weights(values)
    return model


def _order(nir, graph):
    """The names of a chain of nodes, without those of inputs and outputs."""
    after = dict(graph.edges)
    begins = [n for n, node in graph.nodes.items() if isinstance(node, nir.Input)]
    found, name = [], begins[0] if begins else None
    while name in after and len(found) <= len(graph.nodes):
        name = after[name]
        found.append(name)
    ends = found and isinstance(graph.nodes[found[-1]], nir.Output)
    whole = len(found) == len(graph.nodes) - 1 == len(graph.edges)
    if len(begins) != 1 or not ends or not whole or len(found) < 2:
        raise ValueError(
            "from_nir takes one chain of nodes from an Input to an Output. Received "
            f"the edges {graph.edges}."
        )
    return found[:-1]


def _layer(nir, name, node, dt):
    """A pair: the Keras layer of a node, and its weights."""
    if isinstance(node, (nir.Affine, nir.Linear)) and node.weight.ndim == 2:
        values = [node.weight.T]
        values += [node.bias] if isinstance(node, nir.Affine) else []
        units = node.weight.shape[0]
        return layers.Dense(units, use_bias=len(values) == 2, name=name), values
    if isinstance(node, nir.Scale) and node.scale.ndim == 1:
        return Frontend(name=name), [node.scale]
    if not isinstance(node, (nir.LIF, nir.IF, nir.CubaLIF)):
        raise ValueError(
            f"from_nir knows no layer for the node '{name}', of type "
            f"{type(node).__name__}. It takes Affine, Linear, Scale, LIF, IF, CubaLIF."
        )
    for what in ("v_leak", "v_reset"):
        if np.any(getattr(node, what, 0.0)):
            raise ValueError(
                f"The neurons of '{name}' have {what}={getattr(node, what)}. Those of "
                "this library leak and reset to zero."
            )
    return _neurons_of(nir, name, node, dt), None


def _neurons_of(nir, name, node, dt):
    if isinstance(node, nir.IF):
        threshold = _scaled(name, node.v_threshold, node.r)
        return LIF(math.inf, dt, threshold=threshold, name=name)
    if isinstance(node, nir.LIF):
        threshold = _scaled(name, node.v_threshold, node.r * (DELTA / node.tau))
        return LIF(_tau(name, node.tau, dt), dt, threshold=threshold, name=name)
    gain = node.r * (DELTA / node.tau_mem) * node.w_in * (DELTA / node.tau_syn)
    return SynapticLIF(
        _tau(name, node.tau_mem, dt),
        _tau(name, node.tau_syn, dt),
        dt,
        threshold=_scaled(name, node.v_threshold, gain),
        name=name,
    )


def _tau(name, tau, dt):
    """The time constants at which a step of dt keeps 1 − δ/τ."""
    if (tau <= DELTA).any():
        raise ValueError(
            f"Time constants of '{name}' must be longer than δ = {DELTA} s, with which "
            f"NIR is stepped. Received: {tau}."
        )
    return -dt / np.log1p(-DELTA / np.asarray(tau, "float64"))


def _scaled(name, threshold, gain):
    """θ/gain, with a gain that is one up to rounding taken for one."""
    gain = np.asarray(gain, "float64")
    if (gain <= 0).any():
        raise ValueError(
            f"What scales the currents of '{name}' (r, w_in) must be positive. "
            f"Received a scale of {gain}."
        )
    return threshold / np.where(np.abs(gain - 1) < 1e-6, 1.0, gain)
