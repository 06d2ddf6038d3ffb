"""The membrane: leaky integration, firing and reset of a whole sequence.

One step of a neuron is u_t = β·v_{t−1} + I_t, z_t = [u_t > θ] and the reset of u_t to
v_t, at once. A sequence is one `ops.scan` that keeps u, with one custom gradient around
it: at fixed z all of it is linear, and the backward pass is the recurrence

    d_t = g_t·σ′(u_t − θ) + β·m_t·d_{t+1},   dI_t = d_t,   dβ = Σ d_t·v_{t−1},

with g the gradient of the spikes, σ′ the surrogate and m_t = ∂v_t/∂u_t. Compilers see
two loops whatever the length. What is kept for the backward pass is u, in `float32`: 4
bytes a neuron and time step; at the peak of a training step they are some 20, for the
currents, the terms of the recurrence and their gradients.
"""

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from keras import ops, tree

from hwa_keras import backend
from hwa_keras.core import modes
from hwa_keras.core.checks import check_choice, is_number
from hwa_keras.spiking import surrogates
from hwa_keras.spiking.surrogates import slope

__all__ = [
    "Firing",
    "adaptive_fire",
    "exponential_filter",
    "fire",
    "reset_membrane",
    "scan",
]

RESETS = ("zero", "subtract", "none")


def _as_graph(run):
    """A function of a sequence that runs as one graph, also where it is not in one."""
    traced = backend.traced(run)

    def call(currents, *others):
        # A graph for all sizes knows no shapes, and exports need them.
        in_graph = backend.is_symbolic(currents)
        return (run if in_graph else traced)(currents, *others)

    return call


@dataclass(frozen=True)
class Firing:
    """How neurons fire and reset: what is the same for all neurons of a layer.

    Args:
        reset: What a spike leaves of the membrane, at once: `"zero"`, v = u·(1 − z);
            `"subtract"`, v = u − θ·z; `"none"`, v = u. Defaults to `"zero"`.
        floor: Float, what v is clamped to from below after the reset; or None.
        surrogate: A surrogate, its name, or a callable from u − θ to the derivative.
            Defaults to `"fast_sigmoid"`.
        reset_gradient: Bool. Whether gradients also pass through the z of the reset.
            If not, z is a constant there, which trains more steadily. Defaults to
            `False`.
    """

    reset: str = "zero"
    floor: float | None = None
    surrogate: Callable | str = "fast_sigmoid"
    reset_gradient: bool = False

    def __post_init__(self):
        check_choice("a neuron", RESETS, reset=self.reset)
        check_choice("a neuron", (False, True), reset_gradient=self.reset_gradient)
        floor = self.floor
        if floor is not None and not (is_number(floor) and math.isfinite(floor)):
            raise ValueError(
                "`floor` of a neuron must be a finite number, the least that its "
                f"membrane can be, or None. Received: floor={floor!r}."
            )
        surrogate = surrogates.get(self.surrogate)
        if surrogate is None:
            raise ValueError(
                "`surrogate` must not be None: spikes have no derivative of their own. "
                f"Known names: {', '.join(surrogates.aliases())}."
            )
        if not isinstance(surrogate, Hashable):
            raise TypeError(
                "`surrogate` must be hashable, as functions are: what was compiled for "
                f"one is found again by it. Received: {surrogate!r}."
            )
        object.__setattr__(self, "surrogate", surrogate)


def reset_membrane(u, z, threshold, firing):
    """What a spike leaves of a membrane.

    Args:
        u: Tensor, the membrane before the reset.
        z: Tensor, spikes of 0 and 1.
        threshold: Tensor or float, θ.
        firing: A `Firing`.

    Returns:
        v, clamped to `firing.floor`. At the floor itself a gradient passes.
    """
    if firing.reset == "zero":
        v = u * (1.0 - z)
    elif firing.reset == "subtract":
        v = u - threshold * z
    else:
        v = u
    if firing.floor is None:
        return v
    return ops.where(v >= firing.floor, v, ops.full_like(v, firing.floor))


def fire(currents, beta, threshold, v0, firing):
    """Leaky integrate-and-fire neurons over a sequence.

    Args:
        currents: Float tensor `[time, batch, ...]`, I.
        beta: Tensor that broadcasts with `[...]`, β = exp(−dt/τ).
        threshold: Tensor that broadcasts with `[...]`, θ.
        v0: Tensor `[batch, ...]`, the membrane before the first step.
        firing: A `Firing`.

    Returns:
        A triple: spikes z and membranes u before the reset, of the shape of
        `currents`, and the membrane v after the last step. Gradients reach all four
        tensors.

    Example:
        >>> from hwa_keras.spiking.membrane import Firing, fire
        >>> currents = np.full((3, 1, 1), 0.6, "float32")
        >>> z, u, v = fire(currents, 0.5, 1.0, np.zeros((1, 1), "float32"), Firing())
        >>> [round(float(value), 3) for value in ops.reshape(u, (-1,))]
        [0.6, 0.9, 1.05]
        >>> float(z[2, 0, 0]), float(v[0, 0])
        (1.0, 0.0)
    """

    values = _alike(currents, (beta, threshold), (v0,))
    return _fire(firing)(*values)


@functools.lru_cache(maxsize=256)
def _fire(firing):
    @ops.custom_gradient
    def run(currents, beta, threshold, v0):
        def step(v, current):
            u = beta * v + current
            z = ops.cast(u > threshold, u.dtype)
            return reset_membrane(u, z, threshold, firing), u

        last, u = scan(step, v0, currents)
        z = ops.cast(u > threshold, u.dtype)

        def gradient(*args, upstream=None):
            given = _upstream(args, upstream)
            return _fire_backward(u, z, beta, threshold, v0, given, firing)

        return (z, u, last), gradient

    return _as_graph(run)


def _fire_backward(u, z, beta, threshold, v0, upstream, firing):
    """The gradients of `fire` with respect to its four tensors."""
    g_z, g_u, g_last = upstream
    sigma = slope(firing.surrogate, u - threshold)
    by_u, by_z, by_threshold = _reset_derivatives(u, z, threshold, firing)
    total = by_u if by_z is None else by_u + by_z * sigma

    def step(after, terms):
        d = terms[0] + terms[1] * after
        return beta * d, d

    # One tensor: of several, `ops.scan` on TensorFlow must know the length.
    terms = ops.stack([sigma * g_z + g_u, total], axis=1)
    first, d = ops.scan(step, g_last, terms, reverse=True)
    after = ops.concatenate([beta * d[1:], g_last[None]], axis=0)
    g_fire = g_z if by_z is None else g_z + by_z * after
    g_threshold = -sigma * g_fire
    if by_threshold is not None:
        g_threshold = g_threshold + by_threshold * after
    g_beta = d * _before(u, z, threshold, v0, firing)
    return d, _by_neuron(g_beta), _by_neuron(g_threshold), first


def adaptive_fire(currents, beta, threshold, strength, rho, v0, a0, firing):
    """As `fire`, with thresholds θ + b·a_t that rise with each spike.

    The adaptation is a_t = ρ·a_{t−1} + z_{t−1}. Gradients always pass through the z of
    the adaptation; `firing.reset_gradient` is about that of the reset.

    Args:
        currents, beta, threshold, v0, firing: As in `fire`.
        strength: Tensor that broadcasts with `[...]`, b: by how much a spike raises
            the threshold.
        rho: Tensor that broadcasts with `[...]`, ρ = exp(−dt/τ_a).
        a0: Tensor `[batch, ...]`, the adaptation at the first step.

    Returns:
        A quadruple: z, u and the last v as in `fire`, and the adaptation for the step
        after the last.
    """

    values = _alike(currents, (beta, threshold, strength, rho), (v0, a0))
    return _adaptive_fire(firing)(*values)


@functools.lru_cache(maxsize=256)
def _adaptive_fire(firing):
    @ops.custom_gradient
    def run(currents, beta, threshold, strength, rho, v0, a0):
        def step(state, current):
            v, a = state
            u = beta * v + current
            level = threshold + strength * a
            z = ops.cast(u > level, u.dtype)
            # What is kept is of the structure of the state, as the backends ask for.
            return (reset_membrane(u, z, level, firing), rho * a + z), (u, a)

        (v, a), (u, adaptation) = scan(step, (v0, a0), currents)
        level = threshold + strength * adaptation
        z = ops.cast(u > level, u.dtype)

        def gradient(*args, upstream=None):
            kept = u, z, level, adaptation
            values = beta, threshold, strength, rho, v0
            return _adaptive_backward(kept, values, _upstream(args, upstream), firing)

        return (z, u, v, a), gradient

    return _as_graph(run)


def _adaptive_backward(kept, values, upstream, firing):
    """The gradients of `adaptive_fire` with respect to its seven tensors."""
    u, z, level, adaptation = kept
    beta, threshold, strength, rho, v0 = values
    g_z, g_u, g_v, g_a = upstream
    sigma = slope(firing.surrogate, u - level)
    by_u, by_z, by_level = _reset_derivatives(u, z, level, firing)
    zero = ops.zeros_like(u)
    by_z = zero if by_z is None else by_z
    by_level = zero if by_level is None else by_level

    def level_and_membrane(g_z, sigma, by_z, by_level, after, a_after):
        fired = sigma * (g_z + a_after + by_z * after)
        return by_level * after - fired, fired

    def step(state, terms):
        after, a_after = state
        g_z, g_u, sigma, by_u, by_z, by_level = (terms[i] for i in range(6))
        g_level, fired = level_and_membrane(g_z, sigma, by_z, by_level, after, a_after)
        d = fired + g_u + by_u * after
        g_a = rho * a_after + strength * g_level
        return (beta * d, g_a), (d, g_a)

    terms = ops.stack([g_z, g_u, sigma, by_u, by_z, by_level], axis=1)
    (first, first_a), (d, d_a) = ops.scan(step, (g_v, g_a), terms, reverse=True)
    after = ops.concatenate([beta * d[1:], g_v[None]], axis=0)
    a_after = ops.concatenate([d_a[1:], g_a[None]], axis=0)
    g_level, _ = level_and_membrane(g_z, sigma, by_z, by_level, after, a_after)
    return (
        d,
        _by_neuron(d * _before(u, z, level, v0, firing)),
        _by_neuron(g_level),
        _by_neuron(g_level * adaptation),
        _by_neuron(a_after * adaptation),
        first,
        first_a,
    )


def exponential_filter(inputs, alpha, i0):
    """The current of synapses: i_t = α·i_{t−1} + x_t.

    Args:
        inputs: Float tensor `[time, batch, ...]`, x.
        alpha: Tensor that broadcasts with `[...]`, α = exp(−dt/τ_s).
        i0: Tensor `[batch, ...]`, the current before the first step.

    Returns:
        i, of the shape of `inputs`. Gradients reach all three tensors.
    """

    return _filter(*_alike(inputs, (alpha,), (i0,)))


@_as_graph
@ops.custom_gradient
def _filter(inputs, alpha, i0):
    def step(i, x):
        i = alpha * i + x
        return i, i

    _, currents = scan(step, i0, inputs)

    def gradient(*args, upstream=None):
        def back(after, g):
            d = g + after
            return alpha * d, d

        g = args[0] if upstream is None else upstream
        first, d = ops.scan(back, ops.zeros_like(i0), g, reverse=True)
        before = ops.concatenate([i0[None], currents[:-1]], axis=0)
        return d, _by_neuron(d * before), first

    return currents, gradient


def scan(step, state, inputs):
    """`ops.scan` over the first axis; written out in a mode that unrolls.

    Args:
        step: Function of a state and a slice of the inputs to the next state and an
            output.
        state: Tensor, or tuple of some.
        inputs: Tensor `[time, ...]`.

    Returns:
        The last state, and the outputs with a first axis of time.

    Raises:
        ValueError: If the number of steps to write out is not known.
    """
    if not modes.current().unroll:
        return ops.scan(step, state, inputs)
    if inputs.shape[0] is None:
        raise ValueError(
            "TensorFlow Lite does not run the loop over time of spiking neurons "
            "(TensorListReserve does not convert). It is written out step by step "
            "instead, and so the number of steps must be known, as in "
            f"keras.Input((125, channels)). Received inputs [time, batch, ...] of "
            f"shape {tuple(inputs.shape)}."
        )
    outputs = []
    for x in ops.unstack(inputs):
        state, output = step(state, x)
        outputs.append(output)
    return state, tree.map_structure(lambda *steps: ops.stack(steps), *outputs)


def _reset_derivatives(u, z, threshold, firing):
    """∂v/∂u at fixed z, ∂v/∂z and ∂v/∂θ; None for what is zero or not wanted."""
    by_u, by_z, by_threshold = ops.ones_like(u), None, None
    if firing.reset == "zero":
        by_u, by_z = 1.0 - z, -u
    elif firing.reset == "subtract":
        by_z, by_threshold = -threshold * ops.ones_like(u), -z
    if not firing.reset_gradient:
        by_z = None
    if firing.floor is not None:
        unclamped = reset_membrane(u, z, threshold, _without_floor(firing))
        passed = ops.cast(unclamped >= firing.floor, u.dtype)
        by_u, by_z, by_threshold = (
            None if each is None else each * passed
            for each in (by_u, by_z, by_threshold)
        )
    return by_u, by_z, by_threshold


def _without_floor(firing):
    return Firing(firing.reset, None, firing.surrogate, firing.reset_gradient)


def _before(u, z, threshold, v0, firing):
    """v_{t−1}, from the membranes that the scan has kept."""
    v = reset_membrane(u, z, threshold, firing)
    return ops.concatenate([v0[None], v[:-1]], axis=0)


def _alike(currents, parameters, states):
    """Tensors of one dtype, the parameters with a value for each neuron."""
    currents = ops.convert_to_tensor(currents)
    neurons = ops.shape(currents)[2:]
    dtype = currents.dtype
    parameters = [
        ops.broadcast_to(ops.cast(ops.convert_to_tensor(p), dtype), neurons)
        for p in parameters
    ]
    return currents, *parameters, *(ops.cast(state, dtype) for state in states)


def _upstream(args, upstream):
    """The gradients of several results: TensorFlow gives one by one, JAX a tuple."""
    given = args if upstream is None else upstream
    return given[0] if isinstance(given[0], (tuple, list)) else given


def _by_neuron(gradient):
    """The sum over time and batch."""
    return ops.sum(gradient, axis=(0, 1))
