"""Time of a training step with the voltage drop of wires, over one without.

    python -m benchmarks.crossbar_time [--part=mlp|wide_resnet]

Both steps have the programming noise of PCM on tiles of 128 × 128 devices; one of them
computes, in closed form, what wires of 0.35 Ω a segment leave of the conductances.
"""

from absl import app, flags

import hwa_keras
from benchmarks import measure, step_time
from hwa_keras.crossbar import Crossbar

FLAGS = flags.FLAGS
flags.DEFINE_enum("part", None, ["mlp", "wide_resnet"], "One part of it. Default: all.")


def on_crossbar(model, ir_drop):
    crossbar = Crossbar("pcm", rows=128, columns=128, wire=0.35, ir_drop=ir_drop)
    return hwa_keras.to_hwa(model, hardware=crossbar, seed=0, verbose=0)


def row(what, build, shape, repeats):
    """One line: a step with the drop beside one without, in turn."""
    off, on = (
        step_time.stepper(on_crossbar(build(), ir_drop), shape, "auto")
        for ir_drop in ("off", "closed_form")
    )
    found = measure.side_by_side(off, on, repeats)
    print(measure.row(what, *found, "1.15"), flush=True)


def main(_):
    print(measure.describe())
    print(measure.HEADER.replace("plain ms", "off ms").replace("other ms", "drop ms"))
    if FLAGS.part in (None, "mlp"):
        row("MLP 784-512-512-10", step_time.mlp, (784,), FLAGS.repeats)
    if FLAGS.part in (None, "wide_resnet"):
        build, shape = hwa_keras.models.wide_resnet, (32, 32, 3)
        row("WideResNet-16-4", build, shape, FLAGS.wide_repeats)


if __name__ == "__main__":
    app.run(main)
