"""calibrate_outputs: a gain and an offset for each column of a chip's arrays."""

import itertools
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.conversion.hardware_model import convert_layers
from hwa_keras.core.checks import check_count
from hwa_keras.core.keras_private import ReversibleEmbedding, forget_compiled
from hwa_keras.core.kernels import find_kernels
from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.replica import replicate
from hwa_keras.core.types import Data
from hwa_keras.deployment.batchnorm import calibration_batches
from hwa_keras.deployment.calibration import check_finite
from hwa_keras.deployment.chip import Chip
from hwa_keras.layers.head import head_of
from hwa_keras.layers.product_families import product_of

__all__ = ["OutputCalibration", "calibrate_outputs"]

_MOST_VALUES = 2**22  # Kept of each call of a kernel,
_MOST_OF_ALL = 2**27  # and of one call of all kernels: 512 MB.
_RIDGE = 1e-3  # Of the mean variance of the columns; see `fitted`.
_CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)


def calibrate_outputs(
    chip: Chip, data: Data, model: keras.Model, examples: int = 1000
) -> Chip:
    """Fit a gain and an offset for each column of a chip to its software model.

    Drift, noise of programming and wrong weights change what comes out of a column. A
    few unlabelled inputs run through the software model and the chip, and each column's
    product z, behind the ADC and before the bias, becomes a·z + o with

        a = (cov(z, y) + λ)/(var(z) + λ),   o = mean(y) − a·mean(z):

    the least-squares fit to the same product y in the software model. λ, a thousandth
    of the mean variance of the kernel's columns, draws a towards 1 where there is
    little signal; a column that is constant keeps a = 1.

    The layers are fitted in their order, each on what the chip's layers before it,
    corrected already, give it, while y is what the software model computes from its own
    inputs. So a layer makes up for what those before it could not. A kernel that is
    used several times in a pass, as in recurrent layers, is fitted on all its uses at
    once. The digital hardware multiplies and adds once per output; nothing is written.

    It does for networks without batch normalization what `adapt_batchnorm` does with
    one. It holds for the chip as it is, at its time `t`; where read noise is drawn per
    call, for the mean of many reads. `Chip.reset` and `Chip.write` take it back, a
    saved or exported chip has it, and calling this again fits anew.

    Args:
        chip: A `Chip`. It is changed in place.
        data: Inputs, as `adapt_batchnorm` takes them: arrays, or batches of inputs or
            of tuples `(inputs, targets)`.
        model: The Keras model that the chip was programmed from, or one of the same
            structure. It computes as at inference, and is not changed.
        examples: Integer ≥ 1, the largest number of inputs that are used. They run
            through both models as one batch. Defaults to `1000`.

    Returns:
        The chip.

    Raises:
        TypeError: If `data` holds no batches.
        ValueError: If `chip` is no chip, the model is another one, the data is empty or
            holds NaN or infinite values, or nothing of the chip has a product that is
            known.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> chip = hwa_keras.program(model, "pcm", seed=1, compensation="none")
        >>> chip.t = 31_536_000.0
        >>> x = np.random.default_rng(0).normal(size=(400, 8)).astype("float32")
        >>> def error():
        ...     difference = chip.predict(x, verbose=0) - model.predict(x, verbose=0)
        ...     return float(np.std(difference))
        >>> before = error()
        >>> chip = hwa_keras.calibrate_outputs(chip, x, model)
        >>> error() < before / 2
        True

    Reference:
        - Joshi et al., 2020, arXiv:1906.03138: adaptive batch normalization
          statistics, of which this is the form without batch normalization.
    """
    OutputCalibration(chip, data, model, examples).run()
    return chip


class OutputCalibration:
    """`calibrate_outputs` of one chip, to be run at several times.

    Args:
        chip, data, model, examples: As in `calibrate_outputs`.
    """

    def __init__(self, chip, data, model, examples=1000):
        check_count("calibrate_outputs", examples=examples)
        _check_models(chip, model)
        self.chip = chip
        self.inputs = _examples(data, examples)
        check_finite(self.inputs)
        software = replicate(model, share_variables=True)
        pairs = _matching(chip, software, model)
        _put_on_hardware(software, pairs)
        self._targets = _recorded(software, pairs, self.inputs)
        for i in self._targets:
            pairs[i][0].hardware.correct_outputs()
        forget_compiled(chip)
        self._twin: Any = None
        self._key: Any = None

    def run(self):
        """Fit the corrections to the chip as it is."""
        key = [id(w) for w in self.chip.weights]
        if self._key != key:
            self._twin, self._key = replicate(self.chip, share_variables=True), key
            _unroll(self._twin)
        kernels = [k.hardware for k in _products(self._twin)]
        fitting = _Fitting(kernels, self._targets, _most_rows(kernels, self._targets))
        own = {i: kernels[i].correction for i in self._targets}
        try:
            for i in self._targets:
                kernels[i].correction = _Probe(fitting, i)
            with hardware_mode(drawn=_mean_kernels(kernels)):
                while fitting.pending:
                    fitting.run(lambda: self._twin(self.inputs, training=False))
        finally:
            for i, correction in own.items():
                kernels[i].correction = correction
        for i, (gain, offset) in fitting.fits.items():
            own[i].gain.assign(gain)
            own[i].offset.assign(offset)
        self.chip.reset_states()


class _Probe:
    """Stands for the correction of a kernel, and tells someone its products."""

    def __init__(self, listener, i):
        self.listener, self.i = listener, i

    def corrected(self, z):
        return self.listener.corrected(self.i, z)


class _Recording:
    """Keeps the products of kernels: {number of the kernel: [rows of each call]}."""

    def __init__(self, kernels, most):
        self.kernels, self.most, self.rows = kernels, most, {}

    def corrected(self, i, z):
        self.rows.setdefault(i, []).append(_rows(self.kernels[i], z, self.most))
        return z


class _Fitting:
    """Fits kernel after kernel, in as few passes as their uses allow.

    A kernel that is used once is fitted as soon as its products are known, and the pass
    goes on with them corrected. One that is used several times takes a pass of its own.

    Args:
        kernels: List of `HardwareKernel`s.
        targets: {number of a kernel: [rows of each call]}, in the order of first calls.
        most: Integer, the number of rows of a call that are kept.

    Attributes:
        pending: List of the numbers of kernels that are not fitted yet.
        fits: {number of a kernel: (gain, offset)}.
    """

    def __init__(self, kernels, targets, most):
        self.kernels, self.targets, self.most = kernels, targets, most
        self.pending, self.fits = list(targets), {}
        self.rows = []

    def corrected(self, i, z):
        if self.pending and i == self.pending[0]:
            self.rows.append(_rows(self.kernels[i], z, self.most))
            if len(self.targets[i]) == 1:
                self._fit()
        if i not in self.fits:
            return z
        gain, offset = (ops.convert_to_tensor(v, z.dtype) for v in self.fits[i])
        return z * gain + offset

    def run(self, call):
        """One pass, in which at least one kernel is fitted."""
        before = len(self.pending)
        self.rows = []
        call()
        if self.rows:
            self._fit()
        if len(self.pending) == before:
            path = self.kernels[self.pending[0]].path
            raise ValueError(
                f"The chip does not use '{path}' where the software model does, so "
                "that the two do not match. Give the model that the chip was made from."
            )

    def _fit(self):
        i = self.pending[0]
        found, wanted = (np.concatenate(a) for a in (self.rows, self.targets[i]))
        if found.shape != wanted.shape:
            raise ValueError(
                f"'{self.kernels[i].path}' has {len(found)} products on the chip and "
                f"{len(wanted)} in the software model, so that the two do not match. "
                "Give the model that the chip was made from."
            )
        self.fits[self.pending.pop(0)] = fitted(found, wanted)
        self.rows = []


def fitted(found, wanted):
    """The gain and the offset of each column, by least squares.

    Args:
        found: NumPy array `[n, columns]`, what comes out of the columns.
        wanted: Array of the same shape, what should come out.

    Returns:
        A pair of float32 arrays `[columns]`.
    """
    found, wanted = (np.asarray(a, "float64") for a in (found, wanted))
    means = found.mean(axis=0), wanted.mean(axis=0)
    centred = found - means[0]
    variance = np.mean(centred**2, axis=0)
    covariance = np.mean(centred * (wanted - means[1]), axis=0)
    ridge = _RIDGE * variance.mean()
    total = variance + ridge
    gain = np.divide(covariance + ridge, total, np.ones_like(total), where=total > 0)
    return gain.astype("float32"), (means[1] - gain * means[0]).astype("float32")


def _most_rows(kernels, numbers):
    """How many products of a call are kept, so that all together fit in memory."""
    columns = sum(kernels[i].view.matrix_shape[1] for i in numbers)
    return max(1, _MOST_OF_ALL // max(columns, 1))


def _rows(kernel, z, most):
    """Products `[n, columns]`: evenly spaced ones of many, so that they fit in memory.

    Of two models with the same inputs these are the same ones.
    """
    try:
        rows = ops.convert_to_numpy(z).astype("float32").reshape(-1, z.shape[-1])
    except Exception as error:
        raise ValueError(
            f"'{kernel.path}' is called inside of a loop that is compiled (such as "
            "keras.layers.TimeDistributed), where no products can be recorded."
        ) from error
    if not np.all(np.isfinite(rows)):
        raise ValueError(
            f"Products of '{kernel.path}' are NaN or infinite, so that nothing can be "
            "fitted to them. Look for weights that are not finite."
        )
    return rows[:: max(1, rows.size // _MOST_VALUES, -(-len(rows) // most))]


def _check_models(chip, model):
    if not isinstance(chip, Chip):
        raise ValueError(
            "`chip` must be a chip, as `hwa_keras.program` makes it. Received: "
            f"{chip!r} of type {type(chip).__name__}."
        )
    if not isinstance(model, keras.Layer) or isinstance(model, Chip) or not model.built:
        raise ValueError(
            "`model` must be the built Keras model that the chip was programmed from. "
            f"Received: {model!r} of type {type(model).__name__}."
        )


def _examples(data, count):
    """Up to so many examples of what `calibration_batches` takes, as one batch."""
    is_arrays = isinstance(data, (list, tuple, dict)) or hasattr(data, "shape")
    if is_arrays or not hasattr(data, "__iter__"):
        [inputs] = calibration_batches(data, 1, count)
        return inputs
    batches, size = [], 0
    data = iter(data)
    while size < count and (batch := next(data, None)) is not None:
        batches += calibration_batches(itertools.repeat(batch), 1)
        size += keras.tree.flatten(batches[-1])[0].shape[0]
    if not batches:
        raise ValueError("`data` is empty: there are no inputs to run.")
    return keras.tree.map_structure(
        lambda *parts: ops.concatenate(parts, axis=0)[:count], *batches
    )


def _products(model, kernels=None):
    """The kernels of the products that are known, in the order of the layers."""
    found, _ = find_kernels(model, kernels)
    return [k for k in found if k.keys != ("bias",) and _is_known(k.owner)]


def _is_known(layer):
    is_product = product_of(layer) is not None or head_of(layer) is not None
    return is_product or isinstance(layer, _CELLS)


def _matching(chip, software, model):
    """Pairs of the same kernel of a chip and of its software model."""
    on_chip = _products(chip)
    # Tied heads are kernels of the software model if they are asked for.
    has_heads = any(isinstance(k.owner, ReversibleEmbedding) for k in on_chip)
    asked = ReversibleEmbedding if has_heads else None
    found = on_chip, _products(software, asked)
    shapes = [[tuple(k.variable.shape) for k in kernels] for kernels in found]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"'{chip.name}' has other kernels than the model '{model.name}': "
            f"{_shown(shapes[0])} and {_shown(shapes[1])}. Give the model that the "
            "chip was made from."
        )
    return list(zip(*found, strict=True))


def _shown(shapes):
    return f"{len(shapes)} of shapes {shapes[:5]}{' ...' if len(shapes) > 5 else ''}"


def _put_on_hardware(software, pairs):
    """Have the products of a plain model go through its kernels, unchanged."""
    biases = {
        id(own): "digital" if kernel.hardware is None else kernel.hardware.hardware.bias
        for kernel, own in pairs
        if own.hardware is None and not own.digital
    }
    plain = [own for _, own in pairs if id(own) in biases]
    convert_layers(plain, lambda kernel: Hardware(bias=biases[id(kernel)]))
    _unroll(software)


def _recorded(software, pairs, inputs):
    """{number of a kernel: [rows of each call]}, in the order of the first calls."""
    kernels = [own.hardware for _, own in pairs]
    programmed = [
        i
        for i, (on_chip, _) in enumerate(pairs)
        if getattr(on_chip.hardware, "tile", None) is not None
    ]
    recording = _Recording(kernels, _most_rows(kernels, programmed))
    for i in programmed:
        kernels[i].correction = _Probe(recording, i)
    software(inputs, training=False)
    if not recording.rows:
        raise ValueError(
            f"Nothing of '{software.name}' that is on the chip is a product of a known "
            "layer, so that there are no outputs to correct."
        )
    return recording.rows


def _unroll(model):
    for layer in model._flatten_layers():
        if isinstance(layer, layers.RNN):
            layer.unroll = True


def _mean_kernels(kernels):
    """{id: kernel} of those that are read anew at each call, as many reads find them.

    A controller that fits takes the mean of several reads.
    """
    return {
        id(kernel): kernel.tile.without_read_noise()
        for kernel in kernels
        if kernel is not None
        and kernel.tile is not None
        and kernel.tile.read_noise == "per_call"
    }
