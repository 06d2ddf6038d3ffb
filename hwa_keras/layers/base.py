"""The base class of the hardware layers: op(x, n(q(W))) and what is at its ends."""

import keras

from hwa_keras import constraints, quantizers, random
from hwa_keras import noise as noise_family
from hwa_keras.checkpoint import SavesSeeds
from hwa_keras.kernels import equip, find_kernels
from hwa_keras.registry import Family, copy_of
from hwa_keras.substitution import in_full_precision, kernels_are_final, substitute

register = Family("layer").register


class HardwareLayer(SavesSeeds):
    """Mixin that makes a Keras layer compute with quantized and noisy kernels.

    It stands before the Keras layer among the bases of a class. Inputs pass through
    the DAC, the Keras layer runs with W̃ = noise(quantizer(W)) in place of each of its
    kernels, and its outputs get output noise and pass through the ADC. Noise, of
    kernels and of outputs, is drawn once per call, with `training=True` only.

    Args:
        *args: Positional arguments of the Keras layer.
        kernel_quantizer: A quantizer, its name, any callable, or None. Each kernel
            of the layer gets a copy.
        kernel_noise: A noise, its name, any callable `(w, seed) → tensor`, or None.
            Each kernel of the layer gets a copy.
        input_quantizer: A quantizer for the inputs (the DAC), or None.
        output_quantizer: A quantizer for the outputs (the ADC), or None.
        output_noise: A noise for the outputs, or None.
        noise_seed: Integer, the seed of the noise, or None for a random one.
        **kwargs: Keyword arguments of the Keras layer.
    """

    def __init__(
        self,
        *args,
        kernel_quantizer=None,
        kernel_noise=None,
        input_quantizer=None,
        output_quantizer=None,
        output_noise=None,
        noise_seed=None,
        **kwargs,
    ):
        super().__init__(*args, **constraints.resolve(kwargs))
        # One per kernel; how many kernels there are shows when the layer is built.
        self.kernel_quantizers = [copy_of(quantizers.get(kernel_quantizer))]
        self.kernel_noises = [copy_of(noise_family.get(kernel_noise))]
        self.input_quantizer = copy_of(quantizers.get(input_quantizer))
        self.output_quantizer = copy_of(quantizers.get(output_quantizer))
        self.output_noise = copy_of(noise_family.get(output_noise))
        self.noise_seed = noise_seed
        self.noise_seed_generator = None
        if self.kernel_noise is not None or self.output_noise is not None:
            self.noise_seed_generator = keras.random.SeedGenerator(noise_seed)

    @property
    def kernel_quantizer(self):
        return self.kernel_quantizers[0]

    @property
    def kernel_noise(self):
        return self.kernel_noises[0]

    @property
    def kernels(self):
        """The kernel variables of the layer."""
        return [kernel.variable for kernel in find_kernels(self)[0]]

    def noises(self):
        """All elementary noises of the layer, of kernels and of outputs."""
        return noise_family.leaves([*self.kernel_noises, self.output_noise])

    def build(self, input_shape):
        super().build(input_shape)
        self._equip_kernels()
        if isinstance(self.input_quantizer, quantizers.Quantizer):
            self.input_quantizer.build(input_shape)
        if isinstance(self.output_quantizer, quantizers.Quantizer):
            self.output_quantizer.build(self._converted_shape(input_shape))

    def _converted_shape(self, input_shape):
        """Shape of what the ADC converts."""
        return self.compute_output_shape(input_shape)

    def _equip_kernels(self):
        kernels = self.kernels
        for _ in kernels[1:]:
            self.kernel_quantizers.append(copy_of(self.kernel_quantizer))
            self.kernel_noises.append(copy_of(self.kernel_noise))
        equip(
            kernels,
            self.kernel_quantizers,
            self.kernel_noises,
            self.noise_seed_generator,
        )

    def quantized_kernels(self):
        """Pairs (kernel variable, quantized kernel): what programming aims at."""
        return [
            (kernel, quantizers.apply(quantizer, kernel.value))
            for kernel, quantizer in zip(
                self.kernels, self.kernel_quantizers, strict=True
            )
        ]

    def noisy_kernels(self):
        """Pairs (kernel variable, W̃), freshly drawn."""
        pairs = self.quantized_kernels()
        if self.kernel_noise is None:
            return pairs
        seed = random.next_seed(self.noise_seed_generator)
        return [
            (kernel, noise(w, random.fold_in(seed, i)))
            for i, ((kernel, w), noise) in enumerate(
                zip(pairs, self.kernel_noises, strict=True)
            )
        ]

    def run_on_hardware(self, function, training):
        """Call a function of the Keras layer with W̃ in place of its kernels."""
        if kernels_are_final():
            return function()
        transform = self.noisy_kernels if training else self.quantized_kernels
        return substitute(self, in_full_precision(transform), function)

    def convert_inputs(self, inputs):
        """Digital to analog: what the DAC makes of the inputs."""
        return quantizers.apply(self.input_quantizer, inputs)

    def convert_outputs(self, outputs, training):
        """Analog to digital: output noise, then what the ADC makes of the outputs."""
        always = getattr(self.output_noise, "always", False)
        if self.output_noise is not None and (training or always):
            seed = random.next_seed(self.noise_seed_generator)
            outputs = self.output_noise(outputs, seed)
        return quantizers.apply(self.output_quantizer, outputs)

    def call(self, inputs, training=None):
        inputs = self.convert_inputs(inputs)
        keras_call = super().call
        outputs = self.run_on_hardware(lambda: keras_call(inputs), training)
        return self.convert_outputs(outputs, training)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_quantizer": quantizers.serialize(self.kernel_quantizer),
            "kernel_noise": noise_family.serialize(self.kernel_noise),
            "input_quantizer": quantizers.serialize(self.input_quantizer),
            "output_quantizer": quantizers.serialize(self.output_quantizer),
            "output_noise": noise_family.serialize(self.output_noise),
            "noise_seed": self.noise_seed,
        }
