"""Training-time perturbations: W_q → W̃, with straight-through gradients.

A noise is called as `noise(w, seed)` and returns the perturbed tensor; the gradient
passes as if nothing had happened, dW̃/dW = 1. How strong it is stands in its `scale`
variable, so that a callback may ramp it without retracing. The same objects perturb
layer outputs.
"""

import keras
from keras import ops

from hwa_keras import backend, devices, random
from hwa_keras.devices.device import check_not_negative
from hwa_keras.registry import Family

__all__ = [
    "AdditiveGaussian",
    "Compose",
    "DropConnect",
    "MultiplicativeGaussian",
    "Noise",
    "ProgrammingNoise",
    "deserialize",
    "get",
    "serialize",
]

_family = Family("noise", takes_callables=True)
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize


@ops.custom_gradient
def _straight_through(x, perturbed):
    """`perturbed` in the forward pass, the identity of `x` in the backward pass."""

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream, ops.zeros_like(upstream)

    return perturbed, gradient


class Noise(keras.layers.Layer):
    """Base class of the noises: called as `noise(w, seed)`.

    A subclass writes `perturb`, a pure function of tensors, which is compiled with
    XLA as one kernel, random numbers included.

    Args:
        scale: Float ≥ 0, the initial value of the `scale` variable, a factor on the
            strength of the noise; 0 is the identity to the bit. Defaults to `1.0`.

    Call arguments:
        inputs: Float tensor.
        seed: `uint32` tensor of shape `(2,)`: `hwa_keras.random.seed_from(7)`.
    """

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        check_not_negative(type(self).__name__, scale=scale)
        self._initial_scale = float(scale)
        self.scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self._initial_scale),
            trainable=False,
            dtype="float32",
            name="scale",
        )
        self._fused = None
        self.built = True

    def perturb(self, w, seed, scale):
        """Return the perturbed tensor.

        Args:
            w: `float32` (or `float64`) tensor.
            seed: `uint32` tensor of shape `(2,)`.
            scale: What `scales()` returned.
        """
        raise NotImplementedError

    def scales(self):
        """The values of the scale variables that `perturb` needs."""
        return self.scale.value

    def leaves(self):
        """The elementary noises in this one, itself included."""
        return [self]

    def call(self, inputs, seed):
        inputs = ops.convert_to_tensor(inputs)
        if self._fused is None:
            self._fused = backend.fuse(self._perturb_any_dtype)
        perturbed = self._fused(ops.stop_gradient(inputs), seed, self.scales())
        return _straight_through(inputs, ops.stop_gradient(perturbed))

    def _perturb_any_dtype(self, w, seed, scales):
        dtype = w.dtype
        if dtype != "float64":
            w = ops.cast(w, "float32")
        return ops.cast(self.perturb(w, seed, scales), dtype)

    def compute_output_spec(self, inputs, seed):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_build_config(self):
        return None

    def get_config(self):
        return {**super().get_config(), "scale": self._initial_scale}


@_family.register("additive_gaussian")
class AdditiveGaussian(Noise):
    """Adds Gaussian noise of one standard deviation to every weight.

    W̃ = W + scale·σ·z with σ = std·max|W| (`relative_to="max"`) or σ = std
    (`relative_to="absolute"`). With std = σ_g/g_u this is additive conductance noise
    of σ_g µS on a crossbar whose devices reach g_u µS.

    Args:
        std: Float ≥ 0.
        relative_to: `"max"` or `"absolute"`. Defaults to `"max"`.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.AdditiveGaussian(std=0.94 / 25)
        >>> w = np.ones((2, 3), "float32")
        >>> noise(w, hwa_keras.random.seed_from(7)).shape == (2, 3)
        True

    Reference:
        - Joshi et al., 2020, arXiv:1906.03138.
    """

    def __init__(self, std, relative_to="max", scale=1.0, **kwargs):
        super().__init__(scale=scale, **kwargs)
        check_not_negative("AdditiveGaussian", std=std)
        if relative_to not in ("max", "absolute"):
            raise ValueError(
                "`relative_to` must be 'max' or 'absolute'. Received: "
                f"relative_to={relative_to!r}."
            )
        self.std = float(std)
        self.relative_to = relative_to

    def perturb(self, w, seed, scale):
        std = self.std * ops.cast(scale, w.dtype)
        if self.relative_to == "max":
            std = std * ops.max(ops.abs(w))
        return w + std * ops.cast(random.normal(ops.shape(w), seed), w.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "std": self.std,
            "relative_to": self.relative_to,
        }


@_family.register("multiplicative_gaussian")
class MultiplicativeGaussian(Noise):
    """Multiplies every weight by a Gaussian number of mean 1: W̃ = W·(1 + scale·std·z).

    The conductance variation whose signal-to-noise ratio no larger conductance helps.

    Args:
        std: Float ≥ 0.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.MultiplicativeGaussian(std=0.1)
        >>> w = np.zeros(3, "float32")
        >>> [float(v) for v in noise(w, hwa_keras.random.seed_from(7))]
        [0.0, 0.0, 0.0]

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equation 3.38.
    """

    def __init__(self, std, scale=1.0, **kwargs):
        super().__init__(scale=scale, **kwargs)
        check_not_negative("MultiplicativeGaussian", std=std)
        self.std = float(std)

    def perturb(self, w, seed, scale):
        z = ops.cast(random.normal(ops.shape(w), seed), w.dtype)
        return w + w * (self.std * ops.cast(scale, w.dtype) * z)

    def get_config(self):
        return {**super().get_config(), "std": self.std}


@_family.register("programming_noise")
class ProgrammingNoise(Noise):
    """The noise that writing weights to a device leaves in them.

    The weights as `device.program` would write them, drawn anew at each call, the
    standard deviation multiplied by `scale`.

    Args:
        device: A device or its name. Defaults to `"pcm"`.
        scale: Initial value of the `scale` variable. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.ProgrammingNoise(hwa_keras.devices.PCM())
        >>> w = np.random.normal(size=(8, 4)).astype("float32")
        >>> noise(w, hwa_keras.random.seed_from(7)).shape == (8, 4)
        True

    Reference:
        - Rasch et al., 2023, arXiv:2302.08469.
    """

    def __init__(self, device="pcm", scale=1.0, **kwargs):
        super().__init__(scale=scale, **kwargs)
        self.device = devices.get(device)
        if self.device is None:
            raise ValueError("`device` must be a device or its name. Received: None.")

    def perturb(self, w, seed, scale):
        return self.device.perturb(w, seed, ops.cast(scale, w.dtype))

    def get_config(self):
        return {
            **super().get_config(),
            "device": devices.serialize(self.device),
        }


@_family.register("drop_connect")
class DropConnect(Noise):
    """Sets each weight to zero with a probability: cells that conduct nothing.

    The weights that stay are not rescaled.

    Args:
        rate: Float in [0, 1], the probability at scale 1.
        scale: Initial value of the `scale` variable; the probability is
            scale·rate. Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.DropConnect(rate=1.0)
        >>> w = np.ones(3, "float32")
        >>> [float(v) for v in noise(w, hwa_keras.random.seed_from(7))]
        [0.0, 0.0, 0.0]

    Reference:
        - Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.
    """

    def __init__(self, rate, scale=1.0, **kwargs):
        super().__init__(scale=scale, **kwargs)
        check_not_negative("DropConnect", rate=rate)
        if rate > 1:
            raise ValueError(
                f"`rate` is a probability, from 0 to 1. Received: rate={rate}."
            )
        self.rate = float(rate)

    def perturb(self, w, seed, scale):
        dropped = random.uniform(ops.shape(w), seed) < self.rate * scale
        return ops.where(dropped, ops.zeros_like(w), w)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@_family.register("compose")
class Compose(Noise):
    """Applies noises one after the other, each with random numbers of its own.

    Args:
        noises: List of noises or their names, the first applied first.
        scale: Initial value of the `scale` variable, a factor on the scales of all.
            Defaults to `1.0`.

    Example:
        >>> noise = hwa_keras.noise.Compose([
        ...     hwa_keras.noise.ProgrammingNoise("pcm"),
        ...     hwa_keras.noise.DropConnect(0.01),
        ... ])
        >>> w = np.ones((4, 4), "float32")
        >>> noise(w, hwa_keras.random.seed_from(7)).shape == (4, 4)
        True
    """

    def __init__(self, noises, scale=1.0, **kwargs):
        super().__init__(scale=scale, **kwargs)
        if not isinstance(noises, (list, tuple)):
            raise TypeError(
                "`noises` must be a list of hwa_keras noises or their names. "
                f"Received: {noises!r}."
            )
        self.noises = [get(noise) for noise in noises]
        for noise in self.noises:
            if not isinstance(noise, Noise):
                raise TypeError(
                    "`noises` must be a list of hwa_keras noises or their names. "
                    f"Received in it: {noise!r}."
                )

    def scales(self):
        common = self.scale.value
        return keras.tree.map_structure(
            lambda own: common * own, [noise.scales() for noise in self.noises]
        )

    def leaves(self):
        return [leaf for noise in self.noises for leaf in noise.leaves()]

    def perturb(self, w, seed, scale):
        for i, (noise, own) in enumerate(zip(self.noises, scale, strict=True)):
            w = noise.perturb(w, random.fold_in(seed, i), own)
        return w

    def get_config(self):
        return {
            **super().get_config(),
            "noises": [serialize(noise) for noise in self.noises],
        }

    @classmethod
    def from_config(cls, config):
        noises = [deserialize(noise) for noise in config.pop("noises")]
        return cls(noises, **config)


def leaves(noises):
    """The elementary noises in a list that may hold None and other callables."""
    known = [noise for noise in noises if isinstance(noise, Noise)]
    return [leaf for noise in known for leaf in noise.leaves()]
