"""What spiking neurons share: layers over time with a state, and no weights."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from hwa_keras.core.checks import check_choice, is_number
from hwa_keras.core.registry import Family
from hwa_keras.core.types import Config, Shape, Tensor
from hwa_keras.spiking import surrogates
from hwa_keras.spiking.constants import NeuronConstants
from hwa_keras.spiking.membrane import Firing

__all__ = ["Neurons", "check_float", "family", "firing_of"]

family = Family("neuron")

_CONSTANTS = (
    "threshold",
    "tau_levels",
    "tau_noise",
    "threshold_noise",
    "learn_tau",
    "mismatch_seed",
)


def check_float(owner, inputs):
    """Raise `ValueError` for currents that are no floating-point numbers."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"{owner} takes currents, of a floating-point type. Received inputs of "
            f"{dtype}: cast them first, such as with keras.ops.cast(x, 'float32')."
        )


def firing_of(layer, reset, floor, surrogate, reset_gradient):
    """The `Firing` of a layer whose thresholds are known."""
    if is_number(floor) and floor >= layer.threshold.min():
        raise ValueError(
            f"`floor` of {type(layer).__name__} must be below the threshold, or "
            f"neurons fire without inputs. Received: floor={floor!r}."
        )
    return Firing(reset, floor, surrogate, reset_gradient)


def _checked_membrane(layer, value):
    """The membrane before the first step, if no neuron fires of it alone."""
    if not (
        is_number(value) and math.isfinite(value) and value < layer.threshold.min()
    ):
        raise ValueError(
            f"`initial_membrane` of {type(layer).__name__} must be a number below the "
            f"threshold. Received: initial_membrane={value!r}."
        )
    return float(value)


class Neurons(NeuronConstants, keras.layers.Layer):
    """Base class of the layers of neurons over `[batch, time, ..., channels]`.

    A subclass runs a sequence; where it has more than a membrane and its time constant,
    it names them, and takes the time constants as arguments. See `LIF` for the others.

    Attributes:
        time_constants: Tuple of strings, the arguments that are time constants.
        state_names: Tuple of strings, one per state, `"membrane"` among them.
    """

    state_names: tuple = ("membrane",)

    def __init__(
        self,
        dt: float,
        reset: str = "zero",
        floor: float | None = None,
        surrogate: str | Callable[[Tensor], Tensor] = "fast_sigmoid",
        reset_gradient: bool = False,
        initial_membrane: float = 0.0,
        stateful: bool = False,
        return_membrane: bool = False,
        return_state: bool = False,
        **kwargs: Any,
    ) -> None:
        own = {name: kwargs.pop(name) for name in _CONSTANTS if name in kwargs}
        taus = {name: kwargs.pop(name) for name in self.time_constants}
        super().__init__(**kwargs)
        owner = type(self).__name__
        self._set_constants(dt, **own, **taus)
        self.firing = firing_of(self, reset, floor, surrogate, reset_gradient)
        self.initial_membrane = _checked_membrane(self, initial_membrane)
        for name, value in {
            "stateful": stateful,
            "return_membrane": return_membrane,
            "return_state": return_state,
        }.items():
            check_choice(owner, (False, True), **{name: value})
            setattr(self, name, value)
        self.states: Any = None
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 3 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} takes inputs [batch, time, ..., channels] with "
                f"a known number of channels. Received inputs of shape {input_shape}."
            )
        self._build_constants(input_shape[2:])
        if self.stateful:
            self._build_states(input_shape)
        if self.on_chip:
            self._add_factors()  # After all else, as on the chip that was saved.
        self.built = True

    def _build_states(self, input_shape):
        shape = (input_shape[0], *input_shape[2:])
        if None in shape:
            raise ValueError(
                f"`stateful` of '{self.name}' keeps a state for each example of a "
                "batch, so that all sizes but that of time must be known: "
                f"keras.Input(batch_shape=...). Received inputs of shape {input_shape}."
            )
        self.states = [
            self.add_weight(
                shape=shape,
                initializer=keras.initializers.Constant(value),
                trainable=False,
                dtype=self.state_dtype,
                autocast=False,
                name=name,
            )
            for name, value in self._rest().items()
        ]

    def _rest(self):
        """{state: its value before the first step}."""
        return {
            **dict.fromkeys(self.state_names, 0.0),
            "membrane": self.initial_membrane,
        }

    def reset_state(self) -> None:
        """Have a stateful layer begin anew."""
        for state, value in zip(self.states or (), self._rest().values(), strict=False):
            state.assign(ops.full_like(state.value, value))

    def call(
        self, inputs: Tensor, initial_state: Any = None, training: bool = False
    ) -> Any:
        check_float(type(self).__name__, inputs)
        order = (1, 0, *range(2, len(inputs.shape)))
        currents = ops.cast(ops.transpose(inputs, order), self.state_dtype)
        states = self._first_states(currents, initial_state)
        decays, threshold = self.constants(training)
        spikes, membrane, last = self.run(currents, states, decays, threshold)
        if self.stateful:
            for variable, value in zip(self.states, last, strict=True):
                variable.assign(value)
        found = [ops.transpose(spikes, order)]
        found += [ops.transpose(membrane, order)] if self.return_membrane else []
        found += last if self.return_state else []
        found = [ops.cast(each, self.compute_dtype) for each in found]
        return found[0] if len(found) == 1 else tuple(found)

    def _first_states(self, currents, initial_state):
        if initial_state is None and self.stateful:
            if currents.shape[1] not in (None, self.states[0].shape[0]):
                raise ValueError(
                    f"'{self.name}' is stateful and keeps the states of a batch of "
                    f"{self.states[0].shape[0]} examples. Received a batch of "
                    f"{currents.shape[1]}."
                )
            return [ops.convert_to_tensor(state.value) for state in self.states]
        if initial_state is None:
            return [ops.full_like(currents[0], x) for x in self._rest().values()]
        given = initial_state
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(given) != len(self.state_names):
            raise ValueError(
                f"`initial_state` of '{self.name}' must be a list of tensors [batch, "
                f"..., channels]: {', '.join(self.state_names)}. Received {len(given)}."
            )
        return [ops.cast(state, self.state_dtype) for state in given]

    def run(
        self,
        currents: Tensor,
        states: list[Tensor],
        decays: list[Tensor],
        threshold: Tensor,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Run a sequence.

        Args:
            currents: Tensor `[time, batch, ..., channels]`, in `state_dtype`.
            states: List of tensors `[batch, ..., channels]`, one per `state_names`.
            decays: List of tensors exp(−dt/τ), one per `time_constants`.
            threshold: Tensor θ.

        Returns:
            A triple: spikes and membranes before the reset, of the shape of the
            currents, and the list of the states after the last step.
        """
        raise NotImplementedError

    def compute_output_spec(
        self, inputs: Tensor, initial_state: Any = None, training: bool = False
    ) -> Any:
        check_float(type(self).__name__, inputs)
        shape = tuple(inputs.shape)
        count = 1 + self.return_membrane
        shapes = [shape] * count
        if self.return_state:
            shapes += [(shape[0], *shape[2:])] * len(self.state_names)
        specs = [keras.KerasTensor(s, dtype=self.compute_dtype) for s in shapes]
        return specs[0] if len(specs) == 1 else tuple(specs)

    def compute_mask(self, inputs: Tensor, mask: Any = None) -> Any:
        states = len(self.state_names) if self.return_state else 0
        masks = [mask] * (1 + self.return_membrane) + [None] * states
        return masks[0] if len(masks) == 1 else masks

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            **self._constants_config(),
            "reset": self.firing.reset,
            "floor": self.firing.floor,
            "surrogate": surrogates.serialize(self.firing.surrogate),
            "reset_gradient": self.firing.reset_gradient,
            "initial_membrane": self.initial_membrane,
            "stateful": self.stateful,
            "return_membrane": self.return_membrane,
            "return_state": self.return_state,
        }


family.base = Neurons
