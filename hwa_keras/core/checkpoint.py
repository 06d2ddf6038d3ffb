"""Checkpoints that hold the state of the random numbers too."""

from typing import Any

from hwa_keras.core import random
from hwa_keras.core.types import Mixin


class SavesSeeds(Mixin):
    """Mixin for layers and models: seed generators are saved with the weights.

    Keras leaves the state of seed generators out of its files, so that a resumed
    training repeats noise and dropout masks already drawn. With this mixin, before the
    Keras class among the bases, training goes on as if it had not been interrupted.
    """

    _PREFIX = "seed_generator_state_"

    def _seed_states(self):
        states = [v for v in self.variables if random.is_seed_state(v)]
        return {f"{self._PREFIX}{i}": state for i, state in enumerate(states)}

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        for key, state in self._seed_states().items():
            store[key] = state.numpy()

    def load_own_variables(self, store: Any) -> None:
        own = {k: store[k] for k in store.keys() if not k.startswith(self._PREFIX)}
        super().load_own_variables(own)
        for key, state in self._seed_states().items():
            if key in store.keys():
                state.assign(store[key])
