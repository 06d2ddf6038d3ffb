"""Leaky integrate-and-fire neurons: plain, behind synapses, and with adaptation."""

from typing import Any

from hwa_keras.core.checks import check_not_negative
from hwa_keras.core.types import ArrayLike, Config, Tensor
from hwa_keras.spiking.membrane import adaptive_fire, exponential_filter, fire
from hwa_keras.spiking.neurons import Neurons, family

__all__ = ["ALIF", "LIF", "SynapticLIF"]


@family.register("lif")
class LIF(Neurons):
    """Leaky integrate-and-fire neurons over inputs `[batch, time, ..., channels]`.

    Currents I_t charge a membrane that leaks, and a neuron whose membrane is above its
    threshold fires and is reset, in one step of time:

        u_t = β·v_{t−1} + I_t,  β = exp(−dt/τ)
        z_t = 1 if u_t > θ, else 0
        v_t = u_t·(1 − z_t), or u_t − θ·z_t, or u_t; then max(v_t, floor)

    The layer has no weights: a `Dense` layer, or `HWADense` on hardware, makes its
    currents. Its state is local to a call, which begins with v_0. Membranes are
    computed in `float32` at least. The backward pass replaces the derivative of z by a
    surrogate. A mask passes through, and neurons run through masked steps.

    Mismatch: `tau_noise` and `threshold_noise` describe how neurons differ on a chip.
    Neuron i leaks with τ_i = τ/(1 + σz), where 1 + σz ≥ 0.01 and so β < 1, and fires at
    θ·(1 + σz). Training computes with such a draw, and inference with the nominal
    values; a chip (`program`, `monte_carlo`) draws all of its neurons from its seed.

    Args:
        tau: Float, or array with one per neuron: the time constant τ of the membrane,
            seconds. Infinity gives neurons that do not leak.
        dt: Float > 0, the step of time, seconds; shorter than 5·τ.
        threshold: Float > 0, or array with one per neuron: θ. Defaults to `1.0`.
        reset: `"zero"`, `"subtract"` or `"none"`. Defaults to `"zero"`.
        floor: Float below θ, the least that v can be, or None. Defaults to `None`.
        surrogate: A surrogate, its name (`"fast_sigmoid"`, `"atan"`, `"sigmoid"`,
            `"triangular"`), or a callable from u − θ to the derivative. Defaults to
            `"fast_sigmoid"`.
        reset_gradient: Bool. Whether gradients also pass through the z of the reset.
            Defaults to `False`.
        initial_membrane: Float below θ, v_0. At θ/2 the number of spikes of a neuron
            that does not leak is rounded, at 0 it is cut off. Defaults to `0.0`.
        tau_levels: List of the time constants, seconds, that the hardware has: each τ
            becomes the nearest of them. Or None for any. Defaults to `None`.
        tau_noise: Float ≥ 0, σ of the leak rates 1/τ relative to the nominal rate; or a
            noise, such as `noise.ProcessVariation(0.1, hold=False)`, which draws
            another chip at each call in training. Defaults to `None`.
        threshold_noise: The same for thresholds. Defaults to `None`.
        learn_tau: Bool. Whether τ is trained, one per channel, as its logarithm: it
            stays positive. Defaults to `False`.
        stateful: Bool. Whether a batch begins where the one before has ended, until
            `reset_state()`. Defaults to `False`.
        return_membrane: Bool. Whether to return u, the membrane before the reset, too.
            Defaults to `False`.
        return_state: Bool. Whether to return the last state, too. Defaults to `False`.
        mismatch_seed: Integer, the seed of the mismatch in training, or None for a
            random one. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `[batch, time, ..., channels]`, currents.
        initial_state: List of the tensor `[batch, ..., channels]` of v_0, or None.
        training: Bool, whether mismatch is drawn. Defaults to `False`.

    Returns:
        Spikes z, of the shape of the inputs; or a tuple of z, u where it is asked for,
        and the last states where they are.

    Raises:
        ValueError: If dt ≥ 5·τ, τ ≤ 0 or θ ≤ 0, a name is not known, or the inputs are
            integers.

    Example:
        >>> lif = hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3, return_membrane=True)
        >>> currents = np.full((1, 4, 1), 0.5, "float32")
        >>> spikes, membrane = lif(currents)
        >>> [float(z) for z in spikes[0, :, 0]]
        [0.0, 0.0, 1.0, 0.0]
        >>> [round(float(u), 3) for u in membrane[0, :, 0]]
        [0.5, 0.889, 1.193, 0.5]

    Reference:
        - Neftci, Mostafa and Zenke, "Surrogate gradient learning in spiking neural
          networks", IEEE Signal Processing Magazine 36(6), 2019.
    """

    def __init__(self, tau: ArrayLike, dt: float, **kwargs: Any) -> None:
        super().__init__(dt, tau=tau, **kwargs)

    def run(
        self,
        currents: Tensor,
        states: list[Tensor],
        decays: list[Tensor],
        threshold: Tensor,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        z, u, v = fire(currents, decays[0], threshold, states[0], self.firing)
        return z, u, [v]


@family.register("synaptic_lif")
class SynapticLIF(Neurons):
    """Leaky integrate-and-fire neurons behind synapses that filter.

    What comes in is a current that decays: i_t = α·i_{t−1} + x_t, α = exp(−dt/τ_s), and
    u_t = β·v_{t−1} + i_t. All else is as in `LIF`; mismatch and `learn_tau` are about
    both time constants.

    Args:
        tau: The time constant of the membrane, as in `LIF`.
        tau_synapse: Float, or array with one per neuron: τ_s, seconds.
        dt: The step of time, as in `LIF`; shorter than 5·τ and 5·τ_s.
        **kwargs: The other arguments of `LIF`. States are the membrane v and the
            current i.

    Example:
        >>> neurons = hwa_keras.spiking.SynapticLIF(
        ...     tau=20e-3, tau_synapse=5e-3, dt=5e-3, return_membrane=True
        ... )
        >>> _, membrane = neurons(np.array([[[0.5], [0.0], [0.0]]], "float32"))
        >>> [round(float(u), 3) for u in membrane[0, :, 0]]
        [0.5, 0.573, 0.514]
    """

    time_constants = ("tau", "tau_synapse")
    state_names = ("membrane", "current")

    def __init__(
        self, tau: ArrayLike, tau_synapse: ArrayLike, dt: float, **kwargs: Any
    ) -> None:
        super().__init__(dt, tau=tau, tau_synapse=tau_synapse, **kwargs)

    def run(
        self,
        currents: Tensor,
        states: list[Tensor],
        decays: list[Tensor],
        threshold: Tensor,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        beta, alpha = decays
        filtered = exponential_filter(currents, alpha, states[1])
        z, u, v = fire(filtered, beta, threshold, states[0], self.firing)
        return z, u, [v, filtered[-1]]


@family.register("alif")
class ALIF(Neurons):
    """Leaky integrate-and-fire neurons whose thresholds rise with each spike.

    The threshold is θ + b·a_t, with the adaptation a_t = ρ·a_{t−1} + z_{t−1} and
    ρ = exp(−dt/τ_a); subtraction takes off that threshold. All else is as in `LIF`;
    mismatch and `learn_tau` are about both time constants. Gradients pass through the z
    of the adaptation, whatever `reset_gradient`.

    Args:
        tau: The time constant of the membrane, as in `LIF`.
        tau_adaptation: Float, or array with one per neuron: τ_a, seconds.
        dt: The step of time, as in `LIF`; shorter than 5·τ and 5·τ_a.
        adaptation: Float ≥ 0, b: by how much a spike raises the threshold. Defaults to
            `0.1`.
        **kwargs: The other arguments of `LIF`. States are the membrane v and the
            adaptation a.

    Example:
        >>> neurons = hwa_keras.spiking.ALIF(
        ...     tau=20e-3, tau_adaptation=0.2, dt=5e-3, adaptation=1.0
        ... )
        >>> spikes = neurons(np.full((1, 6, 1), 1.2, "float32"))
        >>> [float(z) for z in spikes[0, :, 0]]
        [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]

    Reference:
        - Bellec et al., "A solution to the learning dilemma for recurrent networks of
          spiking neurons", Nature Communications 11, 2020.
    """

    time_constants = ("tau", "tau_adaptation")
    state_names = ("membrane", "adaptation")

    def __init__(
        self,
        tau: ArrayLike,
        tau_adaptation: ArrayLike,
        dt: float,
        adaptation: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(dt, tau=tau, tau_adaptation=tau_adaptation, **kwargs)
        check_not_negative("ALIF", adaptation=adaptation)
        self.adaptation = float(adaptation)

    def run(
        self,
        currents: Tensor,
        states: list[Tensor],
        decays: list[Tensor],
        threshold: Tensor,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        beta, rho = decays
        z, u, v, a = adaptive_fire(
            currents,
            beta,
            threshold,
            self.adaptation,
            rho,
            states[0],
            states[1],
            self.firing,
        )
        return z, u, [v, a]

    def get_config(self) -> Config:
        return {**super().get_config(), "adaptation": self.adaptation}
