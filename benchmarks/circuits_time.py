"""Time of a training step through converters over a plain Keras step.

    python -m benchmarks.circuits_time [--part=mlp|wide_resnet] [--tile=ROWSxCOLUMNS]

Inputs go through 8-bit DACs with learned ranges, outputs through 8-bit ADCs, and the
kernels have PCM programming noise. The ranges start with the first step, which is not
measured. Plain and hardware-aware steps are measured in turn,
in one run; the ratio is the median over the pairs.
"""

import re

from absl import app, flags

import hwa_keras
from benchmarks import measure, step_time
from hwa_keras.circuits import ADC, DAC

FLAGS = flags.FLAGS
flags.DEFINE_enum("part", None, ["mlp", "wide_resnet"], "One part of it. Default: all.")
flags.DEFINE_string("tile", None, "Largest tile, ROWSxCOLUMNS, such as 256x256.")

ADCS = {
    "fixed": lambda: ADC(8, range=8.0),
    "relative": lambda: ADC(8, range=0.1, relative_to="full_column"),
}


def tile_of(text):
    """The pair (rows, columns) of a text such as "256x128", or None."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise app.UsageError(f"--tile is ROWSxCOLUMNS, such as 256x256, not {text!r}.")
    return tuple(map(int, found.groups()))


def on_hardware(model, adc, tile=None):
    """A model with converters and noise, converted in place."""
    hardware = hwa_keras.Hardware(
        kernel_noise="programming_noise",
        dac=DAC(8, range="learned", start_batches=1),
        adc=ADCS[adc](),
        tile=tile,
    )
    return hwa_keras.to_hwa(model, hardware=hardware, seed=0, verbose=0)


def rows(what, build, shape, repeats, tile):
    """One line per ADC, each beside a plain step of its own."""
    cut = "" if tile is None else f", tiles {tile[0]}x{tile[1]}"
    for adc in ADCS:
        plain = step_time.stepper(build(), shape, "auto")
        other = step_time.stepper(on_hardware(build(), adc, tile), shape, "auto")
        found = measure.side_by_side(plain, other, repeats)
        print(measure.row(f"{what}, {adc} ADC{cut}", *found, ""), flush=True)


def main(_):
    tile = tile_of(FLAGS.tile)
    print(measure.describe())
    print(measure.HEADER)
    if FLAGS.part in (None, "mlp"):
        shape = (784,)
        rows("MLP 784-512-512-10", step_time.mlp, shape, FLAGS.repeats, tile)
    if FLAGS.part in (None, "wide_resnet"):
        build, shape = hwa_keras.models.wide_resnet, (32, 32, 3)
        rows("WideResNet-16-4", build, shape, FLAGS.wide_repeats, tile)


if __name__ == "__main__":
    app.run(main)
