"""Supernet: one network that holds all networks of an architecture space."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.core import random
from hwa_keras.core.checkpoint import SavesSeeds
from hwa_keras.core.checks import check_count, is_number
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.substitution import stateless
from hwa_keras.core.types import Config, Self, Tensor
from hwa_keras.search.supernets.architecture import ArchitectureSpace
from hwa_keras.search.supernets.blocks import walk
from hwa_keras.search.supernets.extraction import extract, make_layer
from hwa_keras.search.supernets.masked import Masked

if keras.backend.backend() == "tensorflow":
    from hwa_keras.search.supernets.sandwich_tensorflow import SandwichStep
else:
    from hwa_keras.search.supernets.sandwich_jax import SandwichStep

__all__ = ["Supernet"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class Supernet(SavesSeeds, SandwichStep, keras.Model):
    """One network whose parts are the networks of an architecture space.

    It has the weights of the largest network. A smaller one uses the first channels,
    the middle of kernels and the first blocks of a stage: it is computed with masks,
    after normalization and activation, from a variable that holds the configuration. So
    one graph, compiled once, computes them all; with several resolutions it has a
    branch for each.

    `fit` trains with the sandwich rule: each step adds up the gradients of the largest
    network, with the loss of `compile`, and of the smallest one and `students` random
    ones, with the cross-entropy to the outputs of the largest, which are logits. The
    moving statistics of batch normalization are those of the largest; for another
    configuration estimate them from data: `adapt_batchnorm(supernet, x)`.

    Args:
        space: An `ArchitectureSpace`.
        seed: Integer, the seed of the weights and of the random networks. Defaults to
            `0`.
        students: Integer ≥ 0, random networks in each step. Defaults to `2`.
        distillation: Float from 0 to 1, the weight of the cross-entropy to the largest
            network against the loss of `compile`. Defaults to `1.0`.
        **kwargs: `name` and `dtype` of a `keras.Model`.

    Raises:
        TypeError: If `space` is no `ArchitectureSpace`.
        ValueError: If an argument is out of its range.

    Example:
        >>> space = hwa_keras.search.spaces.small_cnn(resolution=(16,))
        >>> supernet = hwa_keras.search.Supernet(space, seed=1)
        >>> x = np.random.default_rng(0).normal(size=(8, 16, 16, 1)).astype("float32")
        >>> config = supernet.sample(np.random.default_rng(1))
        >>> supernet.configure(config)
        >>> subnet = supernet.extract(config)
        >>> bool(np.allclose(supernet(x), subnet(x), atol=1e-6))
        True

    Reference:
        - J. Yu and T. Huang, "Universally slimmable networks and improved training
          techniques", ICCV 2019, arXiv:1903.05134 (sandwich rule, in-place
          distillation).
        - H. Cai et al., 2020, arXiv:1908.09791 (Once-for-all).
    """

    def __init__(
        self,
        space: ArchitectureSpace,
        seed: int = 0,
        students: int = 2,
        distillation: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check(space, seed, students, distillation)
        self.space = space
        self.seed = seed
        self.students = students
        self.distillation = distillation
        self.places = {choice.name: i for i, choice in enumerate(space.choices)}
        self.genes = self.add_weight(
            shape=(len(self.places),),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            name="genes",
        )
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.products, self.normalizations = {}, {}
        for i, kernel in enumerate(space.kernels):
            self._add(kernel, (seed + 0x9E3779B9 * i) & 0x7FFFFFFF)
        self.built = True
        self.configure(space.largest)

    def _add(self, kernel, seed):
        inputs, outputs = kernel.inputs.largest, kernel.outputs.largest
        layer = make_layer(
            kernel, outputs, kernel.size.largest, seed=seed, dtype=self.dtype_policy
        )
        if kernel.kind == "dense":
            layer.build((None, inputs))
        else:
            layer.build((None, None, None, inputs))
            name = f"{kernel.name}_bn"
            normalization = keras.layers.BatchNormalization(
                name=name, dtype=self.dtype_policy
            )
            normalization.build((None, None, None, outputs))
            self.normalizations[kernel.name] = normalization
        self.products[kernel.name] = layer

    def layers_of(self, name: str) -> tuple[Any, Any]:
        """The layer of a name in `space.layers`, and its normalization or None."""
        return self.products[name], self.normalizations.get(name)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the supernet computes."""
        return self.space.decode(ops.convert_to_numpy(self.genes))

    def configure(self, config: dict[str, Any]) -> None:
        """Have the supernet compute the network of a configuration.

        Args:
            config: Dictionary from the names of choices to options.
        """
        self.genes.assign(self.space.encode(config).astype("int32"))

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A configuration at random, as `ArchitectureSpace.sample` draws it."""
        return self.space.sample(rng)

    def extract(self, config: dict[str, Any]) -> keras.Model:
        """A plain Keras model of a configuration, with copies of the weights.

        Args:
            config: Dictionary from the names of choices to options.

        Returns:
            A functional model, not compiled, for images in the largest resolution. Its
            batch-norm statistics are the supernet's of now: where they were those of
            another configuration, call `adapt_batchnorm(model, x)`.
        """
        return extract(self, config)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return self.subnet(x, ops.convert_to_tensor(self.genes), bool(training))

    def subnet(self, x: Tensor, genes: Tensor, training: bool = False) -> Tensor:
        """The logits of a network.

        Args:
            x: Images `[batch, height, width, channels]`.
            genes: Integer tensor, the index of each choice's option.
            training: Bool.
        """

        def logits(images):
            return walk(self.space, Masked(self, genes, training), images)

        if len(self.space.resolution) == 1:
            return self.at_resolution(x, genes, logits)
        moving = []

        def with_statistics(images):
            # What a branch assigns must leave it as a value.
            outputs, updates, _ = stateless(self, [], lambda: logits(images))
            moving[:] = [variable for variable, _ in updates]
            return [outputs, *(new for _, new in updates)]

        outputs, *new = self.at_resolution(x, genes, with_statistics)
        for variable, value in zip(moving, new, strict=True):
            variable.assign(value)
        return outputs

    def at_resolution(
        self, x: Tensor, genes: Tensor, function: Callable[[Tensor], Any]
    ) -> Any:
        """What a function of images gives in the resolution that the genes say.

        Args:
            x: Images in the largest resolution.
            genes: Integer tensor, the index of each choice's option.
            function: From images to nested tensors. It must assign no variables.
        """
        sizes = self.space.resolution
        if len(sizes) == 1:
            return function(_resized(x, sizes[0]))
        branches = [lambda size=size: function(_resized(x, size)) for size in sizes]
        index = genes[self.places["resolution"]]
        return ops.switch(index, branches)

    def draw_students(self) -> Tensor:
        """Genes of the smallest network and random ones, `[1 + students, choices]`."""
        seed = random.next_seed(self.seed_generator)
        limits = np.array([len(c.options) for c in self.space.choices], "float32")
        drawn = random.uniform((self.students, len(limits)), seed) * limits
        smallest = ops.zeros((1, len(limits)), "int32")
        return ops.concatenate([smallest, ops.cast(ops.floor(drawn), "int32")], axis=0)

    def get_config(self) -> Config:
        own = {
            "space": keras.saving.serialize_keras_object(self.space),
            "seed": self.seed,
            "students": self.students,
            "distillation": self.distillation,
        }
        return {"name": self.name, "dtype": _policy(self), **own}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        config = dict(config)
        for name in ("space", "dtype"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)


def _policy(model):
    return keras.dtype_policies.serialize(model.dtype_policy)


def _resized(x, size):
    if tuple(x.shape[1:3]) == (size, size):
        return x
    return ops.image.resize(x, (size, size), data_format="channels_last")


def _check(space, seed, students, distillation):
    if not isinstance(space, ArchitectureSpace):
        raise TypeError(
            "`space` of Supernet must be an ArchitectureSpace, such as "
            f"search.spaces.cifar_resnet(). Received: {space!r}."
        )
    check_count("Supernet", least=0, seed=seed, students=students)
    if not (is_number(distillation) and 0 <= distillation <= 1):
        raise ValueError(
            "`distillation` of Supernet must be a number from 0 to 1. Received: "
            f"distillation={distillation!r}."
        )
