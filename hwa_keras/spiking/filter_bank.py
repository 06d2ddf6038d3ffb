"""FilterBank: the analog audio front end of neuromorphic chips."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras.core import random
from hwa_keras.core.checks import check_count, check_not_negative, check_positive
from hwa_keras.core.registry import PACKAGE
from hwa_keras.core.types import ArrayLike, Config, Seed, Shape, Tensor
from hwa_keras.spiking.band_pass import band_edges, block_form, sections

__all__ = ["XYLO_FREQUENCIES", "FilterBank"]

XYLO_FREQUENCIES = (
    40, 54, 77, 137, 203, 290, 428, 674, 1177, 1700, 2226, 3418, 5154, 7884, 11630,
    16940,
)  # fmt: skip
"""The centre frequencies of the sixteen filters of XyloAudio 2, in Hz."""

_LEAST = 0.1  # Of its nominal value, what mismatch leaves of a frequency or a Q.
_LEAST_Q = 0.51  # Below ½ the lower edge of a band is not positive.
_MARGIN = 0.999  # Of Nyquist's frequency, where mismatch may put the edge of a band.
_NEGLIGIBLE = 1e-9  # What is left of a state when it counts as forgotten.
_NARROWED = 4.0  # The factor by which mismatch may narrow a band, at most.


@keras.saving.register_keras_serializable(package=PACKAGE)
class FilterBank(keras.layers.Layer):
    r"""Filters audio in bands, rectifies it, and takes the mean over bins of time.

    Channel c of bin k is the mean of |h_c ∗ x| over the k-th stretch of `dt` seconds,
    with h_c a Butterworth band-pass filter between f_c·(1 − 1/2Q) and f_c·(1 + 1/2Q),
    at rest before the first sample. A filter whose band reaches beyond half the sample
    rate has no channel; `left_out` lists those. Samples at the end that fill no bin are
    left out.

    On a chip filters differ from their design: f_c·(1 + σ_f·z) and Q·(1 + σ_Q·z), drawn
    once and held, saved and loaded with the layer. A frequency stays where its band is
    below half the sample rate, and neither falls below a tenth of its nominal value.

    The filters run as blocks of a bin each: what the samples of a block do within it is
    a matrix product, and what they leave for later a sum of decaying modes. The results
    are those of the recursion, up to `float32`.

    Args:
        sample_rate: Float > 0, samples a second of the audio, in Hz.
        dt: Float > 0, the length of a bin in seconds, a whole number of samples.
            Defaults to `8e-3`.
        frequencies: List of the centre frequencies in Hz, ascending. Defaults to those
            of XyloAudio 2, from 40 to 16,940 Hz.
        order: Integer ≥ 1, the order of the Butterworth filter, as in
            `scipy.signal.butter`: it has 2·order poles. Defaults to `2`.
        q: Float > ½, the centre frequency over the bandwidth. Defaults to `4.0`.
        frequency_mismatch: Float ≥ 0, σ_f, relative. Defaults to `0.0`.
        q_mismatch: Float ≥ 0, σ_Q, relative. Defaults to `0.0`.
        chip_seed: Integer in [0, 2**64), the seed of the chip's draw, or None for a
            random one. Defaults to `None`.

    Call arguments:
        inputs: Tensor `[batch, samples]`.
        sample_rate: The sample rate of these inputs in Hz where it is known, to have it
            checked.

    Returns:
        Tensor `[batch, bins, channels]`.

    Attributes:
        centre_frequencies: Tuple of the nominal frequencies of the channels, in Hz.
        left_out: Tuple of the frequencies that the sample rate is too low for.

    Raises:
        ValueError: If an argument is out of its range, no filter fits the sample rate,
            or audio of another rate comes.

    Example:
        >>> bank = hwa_keras.spiking.FilterBank(16000)
        >>> bank(np.ones((2, 16000), "float32")).shape == (2, 125, 13)
        True
        >>> bank.left_out
        (7884.0, 11630.0, 16940.0)

    Reference:
        - The centre frequencies, Q and rectification are those of the audio front end
          of SynSense's XyloAudio 2.
    """

    def __init__(
        self,
        sample_rate: float,
        dt: float = 8e-3,
        frequencies: Sequence[float] = XYLO_FREQUENCIES,
        order: int = 2,
        q: float = 4.0,
        frequency_mismatch: float = 0.0,
        q_mismatch: float = 0.0,
        chip_seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        check_positive("FilterBank", sample_rate=sample_rate, dt=dt, q=q)
        check_not_negative(
            "FilterBank", frequency_mismatch=frequency_mismatch, q_mismatch=q_mismatch
        )
        if q <= 0.5:
            raise ValueError(
                "`q` of FilterBank must be above 0.5: the lower edge of a band, "
                f"f·(1 - 1/2Q), must be positive. Received: q={q!r}."
            )
        self.sample_rate = float(sample_rate)
        self.dt = float(dt)
        self.bin_samples = _whole_bin(self.sample_rate, self.dt)
        self.frequencies = _ascending(frequencies)
        self.order = check_count("FilterBank", order=order)
        self.q = float(q)
        self.frequency_mismatch = float(frequency_mismatch)
        self.q_mismatch = float(q_mismatch)
        self.chip_seed = chip_seed
        self.centre_frequencies, self.left_out = self._split_by_rate()
        self._add_design()
        self._design(None)
        if self._differs:
            self.draw_chip(_first_seed(chip_seed))
        self.built = True

    @property
    def _differs(self):
        """Whether chips differ."""
        return bool(self.frequency_mismatch or self.q_mismatch)

    def _split_by_rate(self):
        upper = band_edges(self.frequencies, self.q)[1]
        fits = upper < self.sample_rate / 2
        if not fits.any():
            raise ValueError(
                f"No filter of FilterBank fits: the lowest band reaches "
                f"{upper[0]:.6g} Hz, and audio of sample_rate={self.sample_rate:.6g} "
                f"Hz has frequencies below {self.sample_rate / 2:.6g} Hz alone."
            )
        pairs = list(zip(self.frequencies, fits, strict=True))
        return (
            tuple(f for f, fit in pairs if fit),
            tuple(f for f, fit in pairs if not fit),
        )

    def _add_design(self):
        dtype = "float64" if self.variable_dtype == "float64" else "float32"
        channels, length = len(self.centre_frequencies), self.bin_samples
        modes = (2, channels, self.order)  # Real and imaginary parts.
        shapes = {
            "frequency": (channels,),
            "quality": (channels,),
            "response": (channels, length),
            "input": (*modes, length),
            "output": (*modes, length),
            "decay": modes,
        }
        self._design_weights = {
            name: self.add_weight(
                shape=shape,
                initializer="zeros",
                trainable=False,
                dtype=dtype,
                autocast=False,
                name=name,
            )
            for name, shape in shapes.items()
        }

    def draw_chip(self, seed: Seed) -> None:
        """Hold the mismatch of another chip; without any, all chips are alike.

        `program` and `monte_carlo` call it, with a seed made of the chip's.

        Args:
            seed: `uint32` tensor of shape `(2,)`: `hwa_keras.random.seed_from(7)`.
        """
        if self._differs:
            shape = (2, len(self.centre_frequencies))
            self._design(ops.convert_to_numpy(random.normal(shape, seed)))

    def _design(self, z):
        """Compute the filters with SciPy, of nominal values if `z` is None."""
        f = np.array(self.centre_frequencies)
        q = np.full(len(f), self.q)
        if z is not None:
            f = f * np.maximum(1 + self.frequency_mismatch * z[0], _LEAST)
            q = q * np.maximum(1 + self.q_mismatch * z[1], _LEAST)
            q = np.maximum(q, _LEAST_Q)
            f = np.minimum(f, _MARGIN * self.sample_rate / 2 / (1 + 0.5 / q))
        # What is held is what is designed, to the last digit that is held.
        dtype = self._design_weights["frequency"].dtype
        f, q = f.astype(dtype), q.astype(dtype)
        blocks = block_form(
            band_edges(f, q), self.order, self.sample_rate, self.bin_samples
        )
        values = {"frequency": f, "quality": q, "response": blocks.response}
        for name in ("input", "output", "decay"):
            value = getattr(blocks, name)
            values[name] = np.stack([value.real, value.imag])
        for name, value in values.items():
            self._design_weights[name].assign(value)

    def features(self, audio: ArrayLike, sample_rate: float) -> np.ndarray:
        """What the layer computes, with SciPy: for data sets that fit no device.

        Args:
            audio: Array `[..., samples]`.
            sample_rate: Float, the sample rate of the audio in Hz.

        Returns:
            A `float32` array `[..., bins, channels]`.

        Raises:
            ValueError: If the sample rate is not that of the filters.

        Example:
            >>> bank = hwa_keras.spiking.FilterBank(8000)
            >>> bank.features(np.ones((2, 8000)), sample_rate=8000).shape
            (2, 125, 12)
        """
        import scipy.signal

        self._check_rate(sample_rate)
        audio = np.asarray(audio, "float64")
        bins = self._bins(audio.shape[-1])
        audio = audio[..., : bins * self.bin_samples]
        edges = band_edges(
            *(
                ops.convert_to_numpy(self._design_weights[name])
                for name in ("frequency", "quality")
            )
        )
        channels = []
        for pair in zip(*edges, strict=True):
            filtered = scipy.signal.sosfilt(
                sections(pair, self.order, self.sample_rate), audio
            )
            binned = filtered.reshape(*audio.shape[:-1], bins, self.bin_samples)
            channels.append(np.abs(binned).mean(-1))
        return np.stack(channels, -1).astype("float32")

    def call(self, inputs: Tensor, sample_rate: float | None = None) -> Tensor:
        if sample_rate is not None:
            self._check_rate(sample_rate)
        design = self._design_weights
        x = ops.cast(inputs, design["response"].dtype)
        if len(x.shape) != 2:
            raise ValueError(
                f"'{self.name}' takes audio [batch, samples]. Received inputs of shape "
                f"{tuple(x.shape)}."
            )
        bins = self._bins(x.shape[1])
        if bins is None:
            bins = ops.shape(x)[1] // self.bin_samples
        x = x[:, : bins * self.bin_samples]
        x = ops.reshape(x, (-1, bins, self.bin_samples))
        y = ops.einsum("bki,cij->bkcj", x, self._within_a_block())
        real, imaginary = self._states(x)
        y = y + ops.einsum("bkcp,cpj->bkcj", real, design["output"][0])
        y = y - ops.einsum("bkcp,cpj->bkcj", imaginary, design["output"][1])
        return ops.cast(ops.mean(ops.abs(y), axis=-1), self.compute_dtype)

    def _within_a_block(self):
        """Matrices `[channels, L, L]` from the samples of a block to its outputs."""
        n = np.arange(self.bin_samples)
        response = ops.pad(
            self._design_weights["response"], ((0, 0), (self.bin_samples - 1, 0))
        )
        return ops.take(response, n[None] - n[:, None] + self.bin_samples - 1, axis=1)

    def _states(self, x):
        """Real and imaginary parts of the states `[batch, bins, channels, poles]`.

        s_{k+1} = d·s_k + u_k from s_0 = 0 by doubling: after i rounds a state holds
        what the 2^i blocks before it have left.
        """
        design = self._design_weights
        real, imaginary = (
            _later(ops.einsum("bki,cpi->bkcp", x, design["input"][i]), 1)
            for i in range(2)
        )
        d_real, d_imaginary = design["decay"][0], design["decay"][1]
        for i in range(self._rounds(x.shape[1])):
            step = 2**i
            before = _later(real, step), _later(imaginary, step)
            real = real + d_real * before[0] - d_imaginary * before[1]
            imaginary = imaginary + d_real * before[1] + d_imaginary * before[0]
            squared = d_real * d_real - d_imaginary * d_imaginary
            d_real, d_imaginary = squared, 2 * d_real * d_imaginary
        return real, imaginary

    def _rounds(self, bins):
        """Doublings until a state holds all that was before, or what is not forgotten.

        The slowest mode of a Butterworth filter of bandwidth B decays by a factor
        exp(−π·B·sin(π/2N)) a second.
        """
        if bins is None:
            narrowest = self.centre_frequencies[0] / self.q / _NARROWED
            rate = np.pi * narrowest * np.sin(np.pi / 2 / self.order)
            bins = -np.log(_NEGLIGIBLE) / rate / self.dt
        return int(np.ceil(np.log2(max(bins, 1))))

    def _bins(self, samples):
        """How many bins so many samples fill; None of None."""
        if samples is None:
            return None
        bins = samples // self.bin_samples
        if not bins:
            raise ValueError(
                f"'{self.name}' takes audio of at least a bin, {self.bin_samples} "
                f"samples. Received {samples}."
            )
        return bins

    def _check_rate(self, sample_rate):
        if float(sample_rate) != self.sample_rate:
            raise ValueError(
                f"'{self.name}' filters audio of {self.sample_rate:.6g} Hz. Received "
                f"audio of {float(sample_rate):.6g} Hz. Resample the audio, or make a "
                f"FilterBank(sample_rate={float(sample_rate):.6g})."
            )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = len(self.centre_frequencies)
        return (input_shape[0], self._bins(input_shape[1]), channels)

    def compute_output_spec(
        self, inputs: Tensor, sample_rate: float | None = None
    ) -> Any:
        if sample_rate is not None:
            self._check_rate(sample_rate)
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_build_config(self) -> Config | None:
        return None

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "sample_rate": self.sample_rate,
            "dt": self.dt,
            "frequencies": list(self.frequencies),
            "order": self.order,
            "q": self.q,
            "frequency_mismatch": self.frequency_mismatch,
            "q_mismatch": self.q_mismatch,
            "chip_seed": self.chip_seed,
        }


def _later(x, steps):
    """A tensor `[batch, bins, ...]`, so many bins later, zeros before."""
    bins = x.shape[1] if x.shape[1] is not None else ops.shape(x)[1]
    return ops.pad(x, ((0, 0), (steps, 0), (0, 0), (0, 0)))[:, :bins]


def _whole_bin(sample_rate, dt):
    """The number of samples in a bin."""
    samples = sample_rate * dt
    if round(samples) < 1 or abs(samples - round(samples)) > 1e-6 * samples:
        raise ValueError(
            "`dt` of FilterBank must be a whole number of samples. Received: "
            f"dt={dt!r}, which is {samples:.6g} samples at {sample_rate:.6g} Hz."
        )
    return round(samples)


def _ascending(frequencies):
    frequencies = tuple(float(f) for f in frequencies)
    for frequency in frequencies:
        check_positive("FilterBank", frequencies=frequency)
    if not frequencies or frequencies != tuple(sorted(set(frequencies))):
        raise ValueError(
            "`frequencies` of FilterBank must be a list of ascending frequencies in "
            f"Hz. Received: frequencies={frequencies}."
        )
    return frequencies


def _first_seed(chip_seed):
    if chip_seed is not None:
        return random.seed_from(chip_seed)
    return ops.cast(keras.random.SeedGenerator().state, "uint32")
