"""ChipBench: a chip that is written anew for each seed, calibrated and evaluated."""

import functools
from typing import TYPE_CHECKING

from hwa_keras import backend
from hwa_keras.analysis.points import Bench
from hwa_keras.deployment.batchnorm import calibration_batches, reestimate
from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.output_calibration import OutputCalibration

if TYPE_CHECKING:
    from hwa_keras.analysis.study import ChipStudy

__all__ = ["ChipBench", "devices_of", "evaluate_in_one_call"]


class ChipBench(Bench):
    """A chip that is written anew for each seed.

    Args:
        chip: A `Chip`, not written yet.
        study: A `ChipStudy`.
        calibrate: `"batchnorm"` or `"outputs"`.
        read_noise: That of the chip.
    """

    def __init__(
        self,
        chip: Chip,
        study: "ChipStudy",
        calibrate: str = "batchnorm",
        read_noise: str = "off",
    ) -> None:
        super().__init__(chip, study.evaluable(), _calibration(chip, study, calibrate))
        self.settings = {"device": devices_of(chip), "read_noise": read_noise}

    def write(self, seed: int) -> None:
        self.model.write(seed)

    def put(self, point: tuple) -> None:
        self.model.reset()  # What a point gives depends on no point before.


def _calibration(chip, study, calibrate):
    """What calibrates a chip as it is then, or None."""
    inputs = study.calibration
    if inputs is None:
        if calibrate == "outputs":
            raise ValueError(
                "`calibrate` is 'outputs', and `calibration` is missing. Give inputs, "
                "without labels, to calibrate on."
            )
        return None
    if calibrate == "outputs":
        run = OutputCalibration(chip, inputs, study.model).run
    else:
        run = functools.partial(reestimate, chip, calibration_batches(inputs))

    def calibrated():
        run()
        chip.reset_states()

    return calibrated


def evaluate_in_one_call(model):
    """Have a copy of a model evaluate all batches in one compiled call."""
    if not model.run_eagerly:
        steps = max(model.steps_per_execution, backend.STEPS_PER_EVALUATION)
        model.steps_per_execution = steps


def devices_of(chip):
    """The devices of a chip, in words."""
    return ", ".join(dict.fromkeys(repr(tile.device) for tile in chip.tiles))
