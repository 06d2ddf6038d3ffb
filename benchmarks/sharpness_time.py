"""Time and memory of a sharpness-aware training step over a plain Keras step.

    python -m benchmarks.sharpness_time [--part=mlp|wide_resnet|memory]

Plain and sharpness-aware steps are measured in turn, in one run; the ratio is the
median over the pairs. Peak memory is that of a process each.
"""

import subprocess
import sys

from absl import app, flags

import hwa_keras
from benchmarks import measure, step_time
from hwa_keras.training import SharpnessAwareModel

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "part", None, ["mlp", "wide_resnet", "memory"], "One part of it. Default: all."
)
flags.DEFINE_integer("mlp_repeats", 30, "Pairs of steps of the MLP.", lower_bound=5)
flags.DEFINE_integer("pairs", 5, "Pairs of WideResNet steps.", lower_bound=5)

METHODS = {
    "SAM": {"method": "sam"},
    "ASAM": {"method": "asam"},
    "SAMSON, 2": {"method": "samson", "norm": 2},
    "SAMSON, inf": {"method": "samson", "norm": "inf"},
}


def rows(what, build, shape, repeats):
    """One line per method, each beside a plain step of its own."""
    for name, arguments in METHODS.items():
        plain = step_time.stepper(build(), shape, "auto")
        sharp = SharpnessAwareModel.wrap(build(), **arguments)
        found = measure.side_by_side(
            plain, step_time.stepper(sharp, shape, "auto"), repeats
        )
        print(measure.row(f"{what}, {name}", *found, "2.1"), flush=True)


MEMORY = """
import sys
from benchmarks import measure, sharpness_time, step_time
model = step_time.mlp(8192)
size = 4 * model.count_params()
if sys.argv[1] in sharpness_time.METHODS:
    arguments = sharpness_time.METHODS[sys.argv[1]]
    model = sharpness_time.SharpnessAwareModel.wrap(model, **arguments)
step = step_time.stepper(model, (784,), "auto")
for _ in range(4):
    step()
print(measure.peak_memory(), size)
"""


def memory_rows():
    """Peak memory, on weights large enough to be seen."""
    plain = None
    for kind in ("plain", *METHODS):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, kind],
            capture_output=True,
            text=True,
            check=True,
        )
        peak, size = map(int, done.stdout.split()[-2:])
        plain = plain or peak
        print(
            f"peak memory, MLP 784-8192-8192-10 ({size / 2**20:.0f} MiB of weights), "
            f"{kind}: {peak / 2**20:.0f} MiB, + {(peak - plain) / size:.2f} x the "
            "weights (bound: + 2)",
            flush=True,
        )


def main(_):
    print(measure.describe())
    print(measure.HEADER)
    if FLAGS.part in (None, "mlp"):
        rows("MLP 784-512-512-10", step_time.mlp, (784,), FLAGS.mlp_repeats)
    if FLAGS.part in (None, "wide_resnet"):
        build = hwa_keras.models.wide_resnet
        rows("WideResNet-16-4", build, (32, 32, 3), FLAGS.pairs)
    if FLAGS.part in (None, "memory"):
        memory_rows()


if __name__ == "__main__":
    app.run(main)
