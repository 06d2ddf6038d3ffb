"""OutputNoise: the noise of the circuits that read a layer's outputs."""

from typing import Any

import keras

from hwa_keras.core import modes, random
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.types import Config, Seed, Tensor
from hwa_keras.noise.base import family
from hwa_keras.noise.gaussian import AdditiveGaussian

__all__ = ["OutputNoise"]


@family.register("output_noise")
class OutputNoise(SavesSeeds, AdditiveGaussian):
    """Adds Gaussian noise to the outputs of a layer, as its circuits do.

    y + scale·σ·z with σ as in `AdditiveGaussian`: std, or std times the largest
    magnitude or the standard deviation of the batch of outputs. As a layer of its own
    it draws from a seed of its own at each call, with `training=True` only unless
    `always` is set.

    Args:
        std: Float ≥ 0.
        relative_to: `"absolute"`, `"max"` or `"std"`. Defaults to `"absolute"`.
        always: Bool. Whether there is noise at inference, too. Defaults to `False`.
        seed: Integer, the seed as a layer of its own, or None for a random one.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> layer = hwa_keras.circuits.OutputNoise(0.1, relative_to="std", always=True)
        >>> layer(np.ones((2, 3), "float32")).shape == (2, 3)
        True
    """

    def __init__(
        self,
        std: float,
        relative_to: str = "absolute",
        always: bool = False,
        seed: int | None = None,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(std, relative_to=relative_to, scale=scale, **kwargs)
        self.always = bool(always)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(
        self, inputs: Tensor, seed: Seed | None = None, training: bool | None = None
    ) -> Tensor:
        if seed is None:
            if not (modes.current().is_noisy(training) or self.always):
                return inputs
            seed = random.next_seed(self.seed_generator)
        return super().call(inputs, seed)

    def compute_output_spec(
        self, inputs: Tensor, seed: Seed | None = None, training: bool | None = None
    ) -> Any:
        return super().compute_output_spec(inputs)

    def get_config(self) -> Config:
        return {**super().get_config(), "always": self.always, "seed": self.seed}
