"""What the package measures of networks, as objectives of a search."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hwa_keras.analysis import TIMES, drift_sweep
from hwa_keras.analysis.output_error import output_error
from hwa_keras.circuits.hardware import Hardware
from hwa_keras.core.checks import check_choice, check_count, check_positive
from hwa_keras.core.types import Data
from hwa_keras.crossbar import Crossbar, Wired
from hwa_keras.deployment.batchnorm import adapt_batchnorm
from hwa_keras.deployment.compensation import Compensation
from hwa_keras.deployment.export import export_tflite
from hwa_keras.devices import Memristor
from hwa_keras.noise.noise_device import DeviceLike
from hwa_keras.profile import EnergyModel, memory_energy, spiking_energy
from hwa_keras.search.design_space import Candidate

__all__ = [
    "DriftObjective",
    "MemoryObjective",
    "ErrorObjective",
    "SpikingObjective",
    "SubnetObjective",
    "LatencyObjective",
]


class SubnetObjective:
    """Base class of objectives that are measured on the extracted network.

    A subclass has `directions` and `measure(model, candidate)`, which returns a
    dictionary from their names to numbers.

    Args:
        supernet: A `Supernet`, or another object with `space` and `extract(config)`.
        calibration: Inputs that batch-norm statistics are estimated from, as
            `adapt_batchnorm` takes them, or None to keep the supernet's.
        convert: Function of the extracted model that returns the one to measure, such
            as `to_hwa` with quantizers; or None.

    Example:
        >>> class Weights(hwa_keras.search.SubnetObjective):
        ...     directions = {"weights": "min"}
        ...     def measure(self, model, candidate):
        ...         return {"weights": model.count_params()}
    """

    directions: dict[str, str] = {}

    def __init__(
        self,
        supernet: Any,
        calibration: Data | None = None,
        convert: Callable[[keras.Model], keras.Model] | None = None,
    ) -> None:
        for name in ("space", "extract"):
            if not hasattr(supernet, name):
                raise TypeError(
                    f"`supernet` of {type(self).__name__} needs `space` and "
                    f"`extract(config)`. Received: {supernet!r}."
                )
        self.supernet = supernet
        self.calibration = calibration
        self.convert = convert

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        model = self.supernet.extract(candidate.config)
        if self.calibration is not None:
            adapt_batchnorm(model, self.calibration, momentum=0.0, batches=1)
        if self.convert is not None:
            model = self.convert(model)
        return self.measure(model, candidate)

    def measure(self, model: keras.Model, candidate: Candidate) -> dict[str, float]:
        """The values of a candidate, whose network the model is."""
        raise NotImplementedError


class MemoryObjective(SubnetObjective):
    """The energy of reading all weights once, in units of one reliable bit.

    Args:
        supernet, calibration, convert: As of `SubnetObjective`; `convert` tells bits
            and error rates, with quantizers and `noise.BitFlip`.
        float_bits: Bits of a weight without a quantizer. Defaults to `16`.
    """

    directions = {"memory_energy": "min"}

    def __init__(
        self,
        supernet: Any,
        calibration: Data | None = None,
        convert: Callable[[keras.Model], keras.Model] | None = None,
        float_bits: int = 16,
    ) -> None:
        super().__init__(supernet, calibration, convert)
        check_count("MemoryObjective", float_bits=float_bits)
        self.float_bits = float_bits

    def measure(self, model: keras.Model, candidate: Candidate) -> dict[str, float]:
        found = memory_energy(model, float_bits=self.float_bits)
        return {"memory_energy": found.energy}


class SpikingObjective(SubnetObjective):
    """The energy of one example on a neuromorphic chip, J.

    For supernets of spiking networks, or with a `convert` that makes one.

    Args:
        supernet, calibration, convert: As of `SubnetObjective`.
        data: Inputs, as `spiking_energy` takes them.
        device: As in `spiking_energy`. Defaults to `"loihi"`.
    """

    directions = {"spiking_joules": "min"}

    def __init__(
        self,
        supernet: Any,
        data: Data,
        device: str | EnergyModel = "loihi",
        calibration: Data | None = None,
        convert: Callable[[keras.Model], keras.Model] | None = None,
    ) -> None:
        super().__init__(supernet, calibration, convert)
        self.data, self.device = data, device

    def measure(self, model: keras.Model, candidate: Candidate) -> dict[str, float]:
        found = spiking_energy(model, self.data, self.device)
        return {"spiking_joules": found.joules}


class ErrorObjective(SubnetObjective):
    """The predicted mean squared error of the outputs on crossbars.

    Args:
        supernet, calibration, convert: As of `SubnetObjective`.
        crossbar: A `crossbar.Crossbar` of `devices.Memristor`s, or such a device. Its
            one g_u is what multipliers are in units of.
        data: Inputs.
        method: `"moments"`, `"delta"` or `"monte_carlo"`. Defaults to `"delta"`.
        **options: More arguments of `analysis.output_error`.
    """

    directions = {"output_mse": "min"}

    def __init__(
        self,
        supernet: Any,
        crossbar: Crossbar | Memristor | Wired,
        data: Data,
        method: str = "delta",
        calibration: Data | None = None,
        convert: Callable[[keras.Model], keras.Model] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(supernet, calibration, convert)
        check_choice(
            "ErrorObjective", ("moments", "delta", "monte_carlo"), method=method
        )
        device = crossbar.device if isinstance(crossbar, Hardware) else crossbar
        memristor = device.device if isinstance(device, Wired) else device
        if not isinstance(memristor, Memristor) or isinstance(memristor.g_u, tuple):
            raise TypeError(
                "`crossbar` of ErrorObjective must be a crossbar.Crossbar of "
                "devices.Memristor with one range g_u, or such a device. Received: "
                f"{crossbar!r}."
            )
        own = memristor.g_u
        self.default = memristor.g_max if own is None else own
        self.crossbar, self.device = crossbar, device
        self.data, self.method, self.options = data, method, options

    def measure(self, model: keras.Model, candidate: Candidate) -> dict[str, float]:
        ranges = tuple(m * self.default for m in candidate.multipliers if m > 0)
        crossbar = self.device.with_range(ranges)
        if isinstance(self.crossbar, Hardware):
            crossbar = self.crossbar.with_settings(device=crossbar)
        found = output_error(model, crossbar, self.data, self.method, **self.options)
        return {"output_mse": found.mse}


class DriftObjective(SubnetObjective):
    """The accuracy of chips some time after programming, the mean of several.

    Args:
        supernet, calibration, convert: As of `SubnetObjective`.
        data: Pair `(images, labels)`, integer labels; the networks end in logits.
        device: As in `drift_sweep`. Defaults to `"pcm"`.
        seconds: Float > 0, since the end of programming. Defaults to a year.
        chips: Integer ≥ 1. Defaults to `3`.
        compensation: As in `drift_sweep`. Defaults to `"measured"`.
        seed: Integer. Defaults to `0`.
    """

    directions = {"drift_accuracy": "max"}

    def __init__(
        self,
        supernet: Any,
        data: Data,
        device: DeviceLike = "pcm",
        seconds: float = TIMES["1 year"],
        chips: int = 3,
        compensation: str | Compensation = "measured",
        seed: int = 0,
        calibration: Data | None = None,
        convert: Callable[[keras.Model], keras.Model] | None = None,
    ) -> None:
        super().__init__(supernet, calibration, convert)
        check_positive("DriftObjective", seconds=seconds)
        check_count("DriftObjective", chips=chips)
        self.data, self.device, self.seconds = data, device, seconds
        self.chips, self.compensation, self.seed = chips, compensation, seed

    def measure(self, model: keras.Model, candidate: Candidate) -> dict[str, float]:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, metrics=["accuracy"])
        found = drift_sweep(
            model,
            self.device,
            self.data,
            times={"later": self.seconds},
            chips=self.chips,
            compensation=self.compensation,
            seed=self.seed,
            verbose=0,
        )
        [(name,)] = found.series
        return {"drift_accuracy": found.estimate(name, "later", metric="accuracy").mean}


class LatencyObjective(SubnetObjective):
    """The time of one example on this machine as a `.tflite`, s: the median of runs.

    A time is never the same twice: a search that is resumed need not find the same
    front.

    Args:
        supernet, calibration, convert: As of `SubnetObjective`.
        repeats: Integer ≥ 1, runs that the median is of. Defaults to `30`.
        threads: Integer ≥ 1. Defaults to `1`.

    Raises:
        ImportError: If `ai_edge_litert` is not installed.
    """

    directions = {"latency": "min"}

    def __init__(
        self,
        supernet: Any,
        repeats: int = 30,
        threads: int = 1,
        calibration: Data | None = None,
        convert: Callable[[keras.Model], keras.Model] | None = None,
    ) -> None:
        super().__init__(supernet, calibration, convert)
        check_count("LatencyObjective", repeats=repeats, threads=threads)
        _interpreter()
        self.repeats, self.threads = repeats, threads

    def measure(self, model: keras.Model, candidate: Candidate) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.tflite")
            export_tflite(model, path, verbose=0)
            content = path.read_bytes()
        runner = _interpreter()(model_content=content, num_threads=self.threads)
        runner.allocate_tensors()
        for details in runner.get_input_details():
            zeros = np.zeros(details["shape"], details["dtype"])
            runner.set_tensor(details["index"], zeros)
        runner.invoke()  # The first one takes longer.
        times = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            runner.invoke()
            times.append(time.perf_counter() - start)
        return {"latency": float(np.median(times))}


def _interpreter():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "LatencyObjective needs ai_edge_litert: `pip install ai-edge-litert`."
        ) from error
    return Interpreter
