"""HWAModel: any Keras model, run with quantized and noisy kernels."""

from dataclasses import dataclass
from typing import Any

import keras

from hwa_keras import noise as noise_family
from hwa_keras import quantizers, random
from hwa_keras.kernels import equip
from hwa_keras.registry import PACKAGE
from hwa_keras.substitution import kernels_are_final, substitute
from hwa_keras.wrapper import ModelWrapper

__all__ = ["HWAModel", "Transformation", "to_digital"]


@dataclass(frozen=True)
class Transformation:
    """What happens to one kernel: W̃ = noise(quantizer(W)).

    Args:
        index: Position of the kernel in the `weights` of the model.
        path: Where the kernel stands, for people.
        quantizer: A quantizer, any callable or None.
        noise: A noise, any callable `noise(w, seed)` or None.
    """

    index: int
    path: str
    quantizer: Any = None
    noise: Any = None

    def get_config(self):
        return {
            "index": self.index,
            "path": self.path,
            "quantizer": quantizers.serialize(self.quantizer),
            "noise": noise_family.serialize(self.noise),
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            config["index"],
            config["path"],
            quantizers.deserialize(config["quantizer"]),
            noise_family.deserialize(config["noise"]),
        )


@keras.saving.register_keras_serializable(package=PACKAGE)
class HWAModel(ModelWrapper, keras.Model):
    """A Keras model whose kernels are quantized and, while training, noisy.

    `call` computes W̃ = noise(quantizer(W)) for every chosen kernel and runs the
    wrapped model with W̃ in place of W. The variables stay the wrapped model's own, in
    full precision; gradients reach them straight through. The noise is drawn once per
    call, with `training=True` only: how a network does on noisy hardware is asked
    with `hwa_keras.program`. `to_hwa` builds one from a model and rules.

    Args:
        model: A built Keras model, of any kind.
        transformations: List of `Transformation`s, one per kernel.
        digital: List of pairs (layer path, reason): the layers that stay digital.
        seed: Integer, the seed of the noise, or None for a random one.
        **kwargs: Arguments of `keras.Model`.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> hwa = hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
        >>> hwa.compile("adam", "mse")
        >>> history = hwa.fit(np.ones((4, 8)), np.ones((4, 3)), verbose=0)
        >>> hwa_keras.to_digital(hwa) is model
        True
    """

    def __init__(self, model, transformations, digital=(), seed=None, **kwargs):
        super().__init__(model, **kwargs)
        self.transformations = list(transformations)
        self.digital = [tuple(entry) for entry in digital]
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Tracked apart from the transformations, which Keras does not look into.
        self.kernel_quantizers = [t.quantizer for t in self.transformations]
        self.kernel_noises = [t.noise for t in self.transformations]
        equip(
            self.kernels,
            self.kernel_quantizers,
            self.kernel_noises,
            self.seed_generator,
        )
        self.built = True

    @property
    def kernels(self):
        """The variables that are transformed, in the order of `transformations`."""
        weights = self.model.weights
        return [weights[t.index] for t in self.transformations]

    def noises(self):
        """All elementary noises of the model, those inside a `Compose` included."""
        return noise_family.leaves(self.kernel_noises)

    def quantized_kernels(self):
        """Pairs (kernel variable, quantized kernel): what programming aims at."""
        return [
            (kernel, quantizers.apply(t.quantizer, kernel.value))
            for kernel, t in zip(self.kernels, self.transformations, strict=True)
        ]

    def perturbed(self, pairs):
        """Draw the noise of training on pairs that `quantized_kernels` returned."""
        if all(t.noise is None for t in self.transformations):
            return pairs
        seed = random.next_seed(self.seed_generator)
        return [
            (kernel, w if t.noise is None else t.noise(w, random.fold_in(seed, i)))
            for i, ((kernel, w), t) in enumerate(
                zip(pairs, self.transformations, strict=True)
            )
        ]

    def call(self, inputs, training=None):
        if kernels_are_final():
            return self.model(inputs, training=training)
        pairs = self.quantized_kernels()
        if training:
            pairs = self.perturbed(pairs)
        # Keras's JAX trainer calls `call` itself, so that nothing passes `training` on.
        return substitute(self, pairs, lambda: self.model(inputs, training=training))

    def get_config(self):
        return {
            **super().get_config(),
            "transformations": [t.get_config() for t in self.transformations],
            "digital": [list(entry) for entry in self.digital],
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects=custom_objects
        )
        transformations = [
            Transformation.from_config(t) for t in config.pop("transformations")
        ]
        return cls(model, transformations, **config)


def to_digital(model):
    """Give back the Keras model inside a hardware-aware one, its weights as trained.

    Args:
        model: An `HWAModel`, or a wrapper around one such as
            `SharpnessAwareModel.wrap` makes.

    Returns:
        The wrapped model itself, not a copy.

    Raises:
        TypeError: If the model is no `HWAModel`.
    """
    if isinstance(model, ModelWrapper) and not isinstance(model, HWAModel):
        return to_digital(model.model)
    if not isinstance(model, HWAModel):
        raise TypeError(
            "`to_digital` takes an HWAModel, as `to_hwa` makes them. Received: "
            f"{model!r} of type {type(model).__name__}."
        )
    return model.model
