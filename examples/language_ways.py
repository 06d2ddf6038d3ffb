"""Ways to run a language model on phase-change memory: the rows of the table."""

from dataclasses import dataclass, field

import numpy as np
from keras import ops

import hwa_keras
from hwa_keras.circuits import ADC, DAC
from hwa_keras.deployment.compensation import as_compensation
from hwa_keras.deployment.output_calibration import OutputCalibration
from hwa_keras.deployment.programming import blank_chip
from hwa_keras.devices import PCM, Pairs

__all__ = ["ChipDesign", "Programmed", "Way", "ways_of"]

_COLUMNS = PCM(per="column")


@dataclass(frozen=True)
class ChipDesign:
    """How a model is written to a chip.

    Args:
        device: A device.
        rules: Tuple of rules of `program`.
        clip: Float, the number of root mean squares of a column at which its weights
            are clipped before they are written, or None.
        digital: What stays digital of each kernel, beside what is on devices:
            `"columns"`, the hundredth of its columns with the largest weights;
            `"rows"`, the same of its rows; `"weights"`, the hundredth of the weights of
            each column that is largest; or None.
        converters: Bool. Whether tiles of 512 × 512 have 8-bit DACs, that scale each
            token by its largest input, and 8-bit ADCs, calibrated column by column.
    """

    device: PCM = _COLUMNS
    rules: tuple = ()
    clip: float | None = None
    digital: str | None = None
    converters: bool = False


@dataclass(frozen=True)
class Way:
    """One way to run a model on a chip.

    Args:
        chip: A `ChipDesign`.
        compensation: What `program` takes.
        is_fitted: Bool. Whether `calibrate_outputs` fits a gain and an offset to each
            output, at each time, from unlabelled text.
    """

    chip: ChipDesign = field(default_factory=ChipDesign)
    compensation: str = "measured"
    is_fitted: bool = False


def ways_of(model):
    """{name: `Way`} for a `CausalLM`, the most important first."""
    blocks = [layer.name for layer in model.backbone.transformer_layers]
    first, last = (blocks[0], None), (blocks[-1], None)
    two = ChipDesign(PCM(per="column", mapping=Pairs((1.0, 1.0))))
    converters = ChipDesign(converters=True)
    two_converted = ChipDesign(two.device, converters=True)
    quiet = ChipDesign(PCM(per="column", read_scale=0.0))
    ends = ChipDesign(rules=(first, last))
    ways = {
        "none": Way(compensation="none"),
        "measured": Way(),
        "least_squares": Way(is_fitted=True),
        "measured_columns": Way(compensation="measured_columns"),
        "measured_ideal": Way(compensation="measured_ideal"),
        "measured_columns_ideal": Way(compensation="measured_columns_ideal"),
        "two_pairs": Way(two),
        "two_pairs_least_squares": Way(two, is_fitted=True),
        "converters": Way(converters),
        "converters_least_squares": Way(converters, is_fitted=True),
        "two_pairs_converters": Way(two_converted),
        "without_read_noise": Way(quiet, "measured_columns"),
        "without_read_noise_least_squares": Way(quiet, is_fitted=True),
        "range_per_layer": Way(ChipDesign(PCM())),
        "first_digital": Way(ChipDesign(rules=(first,))),
        "last_digital": Way(ChipDesign(rules=(last,))),
        "ends_digital": Way(ends),
        "ends_digital_least_squares": Way(ends, is_fitted=True),
    }
    for clip in (2.5, 3.0, 4.0):
        design = ChipDesign(clip=clip)
        ways[f"clip_{clip:g}"] = Way(design)
        ways[f"clip_{clip:g}_least_squares"] = Way(design, is_fitted=True)
    for kind in ("columns", "rows", "weights"):
        ways[f"digital_{kind}"] = Way(ChipDesign(digital=kind))
    design = ChipDesign(two.device, (first, last), digital="weights")
    ways["all_together"] = Way(design, is_fitted=True)
    return {**ways, **_sources()}


def _sources():
    """One source of error at a time."""
    off = {"programming_scale": 0.0, "drift_scale": 0.0, "read_scale": 0.0}
    alone = {
        "only_programming": {"programming_scale": 1.0},
        "only_mean_drift": {"drift_scale": 1.0, "drift_spread": 0.0},
        "only_drift": {"drift_scale": 1.0},
        "only_reading": {"read_scale": 1.0},
    }
    return {
        name: Way(ChipDesign(PCM(per="column", **{**off, **scales})))
        for name, scales in alone.items()
    }


class Programmed:
    """A model on a chip of a design, within a `with` block.

    With converters the model itself is on hardware inside the block; it leaves the
    block as it was.

    Args:
        model: A compiled `CausalLM`.
        design: A `ChipDesign`.
        calibration: `Windows` to calibrate with.
    """

    def __init__(self, model, design, calibration):
        self.model, self.design, self.calibration = model, design, calibration
        self.chip = self._fitting = self._stands_at = None
        self._digital = []

    def __enter__(self):
        if self.design.converters:
            hardware = hwa_keras.Hardware(
                dac=DAC(8, range="vector_max"),
                adc=ADC(8, "calibrated", per="column", relative_to="full_column"),
                tile=(512, 512),
            )
            hwa_keras.to_hwa(self.model, hardware=hardware, verbose=0)
            inputs = self.calibration.inputs
            hwa_keras.calibrate(self.model, inputs, "max", batches=2, batch_size=4)
        # With gains per column from the start, whatever compensations come later.
        self.chip = blank_chip(
            self.model,
            self.design.device,
            "measured_columns",
            read_noise="frozen",
            rules=list(self.design.rules),
            verbose=0,
        )
        if self.design.clip or self.design.digital:
            self._divide()
        return self

    def __exit__(self, *_):
        self.chip = self._fitting = None
        if self.design.converters:
            hwa_keras.to_digital(self.model)

    def _divide(self):
        """Keep on the devices what the design puts there, and the digital rest."""
        for kernel in self.chip.programmed_kernels():
            tile = kernel.hardware.tile
            whole = ops.convert_to_numpy(tile.targets)
            analog = whole
            if self.design.clip:
                analog = clipped(analog, self.design.clip)
            if self.design.digital:
                analog = np.where(is_outlier(analog, self.design.digital), 0.0, analog)
                rest = kernel.hardware.view.from_matrix(whole - analog)
                self._digital.append((kernel.variable, ops.convert_to_numpy(rest)))
            tile.targets.assign(analog)

    def write(self, seed):
        """Make it the chip of a seed."""
        self.chip.write(seed)
        self._stands_at = None

    def settle(self, t, way):
        """Have the chip stand at a time, in seconds, in one way to run it."""
        self.chip.reset()
        if self._stands_at != (t, way.compensation):
            if self.chip.t == t:
                self.chip.compensation = way.compensation
            else:  # Settled once.
                for tile in self.chip.tiles:
                    tile.compensate(as_compensation(way.compensation))
                self.chip.t = t
            for variable, rest in self._digital:
                variable.assign_add(rest)
            self._stands_at = t, way.compensation
        if way.is_fitted:
            if self._fitting is None:
                inputs = self.calibration.inputs
                self._fitting = OutputCalibration(self.chip, inputs, self.model)
            self._fitting.run()


def clipped(matrix, stds):
    """A matrix `[rows, columns]` clipped at so many root mean squares of a column."""
    limit = stds * np.sqrt(np.mean(np.square(matrix), axis=0, keepdims=True))
    return np.clip(matrix, -limit, limit)


def is_outlier(matrix, kind, share=0.01):
    """Which weights of a matrix `[rows, columns]` stay digital; see `ChipDesign`."""
    magnitude = np.abs(matrix)
    if kind == "weights":
        count = max(1, round(share * len(matrix)))
        return magnitude >= np.partition(magnitude, -count, axis=0)[[-count]]
    axis = {"columns": 0, "rows": 1}[kind]
    largest = magnitude.max(axis=axis, keepdims=True)
    count = max(1, round(share * largest.size))
    limit = np.partition(largest.reshape(-1), -count)[-count]
    return np.broadcast_to(largest >= limit, matrix.shape)
