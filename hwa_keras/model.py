"""HWAModel: any Keras model, run with quantized and noisy kernels."""

from dataclasses import dataclass
from typing import Any

import keras

from hwa_keras import noise as noise_family
from hwa_keras import quantizers, random
from hwa_keras.checkpoint import SavesSeeds
from hwa_keras.kernels import equip
from hwa_keras.registry import PACKAGE
from hwa_keras.substitution import kernels_are_final, substitute

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
class HWAModel(SavesSeeds, keras.Model):
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
        # Quantizers and noise see the variables' own dtype; the wrapped model casts
        # W̃ to its compute dtype itself.
        kwargs.setdefault("dtype", model.variable_dtype)
        super().__init__(**kwargs)
        self.supports_masking = True
        self.model = model
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

    def _perturbed(self, pairs):
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
            pairs = self._perturbed(pairs)
        # Keras's JAX trainer calls `call` itself, so that nothing passes `training` on.
        return substitute(self, pairs, lambda: self.model(inputs, training=training))

    def compute_mask(self, inputs, previous_mask=None):
        return None  # The wrapped model has put its own masks on its outputs.

    def compile(self, optimizer="rmsprop", *args, auto_scale_loss=True, **kwargs):
        # Keras scales the loss by itself where the policy of the model that is
        # compiled is mixed_float16; here it is the wrapped model's that counts.
        optimizer = keras.optimizers.get(optimizer)
        mixed = self.model.dtype_policy.name == "mixed_float16"
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if auto_scale_loss and mixed and not scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, name="loss_scale_optimizer"
            )
        super().compile(optimizer, *args, auto_scale_loss=auto_scale_loss, **kwargs)

    def compile_from_config(self, config):
        # Keras does not call a `compile` of one's own when it loads a model.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def get_config(self):
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "transformations": [t.get_config() for t in self.transformations],
            "digital": [list(entry) for entry in self.digital],
            "seed": self.seed,
            "name": self.name,
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
        model: An `HWAModel`.

    Returns:
        The wrapped model itself, not a copy.

    Raises:
        TypeError: If the model is no `HWAModel`.
    """
    if not isinstance(model, HWAModel):
        raise TypeError(
            "`to_digital` takes an HWAModel, as `to_hwa` makes them. Received: "
            f"{model!r} of type {type(model).__name__}."
        )
    return model.model
