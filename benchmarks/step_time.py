"""Time and memory of a hardware-aware training step over a plain Keras step.

    python -m benchmarks.step_time [--only=mlp|sgd|wide_resnet|memory|import]

Plain and hardware-aware steps are measured in turn, in one run; the ratio is the
median over the pairs.
"""

import os
import subprocess
import sys

import keras
import numpy as np
from absl import app, flags

import hwa_keras
from benchmarks import measure

FLAGS = flags.FLAGS
PARTS = ["mlp", "sgd", "wide_resnet", "memory", "import"]
flags.DEFINE_enum("only", None, PARTS, "One part of it.")
flags.DEFINE_integer("repeats", 30, "Pairs of steps of the MLP.", lower_bound=5)
flags.DEFINE_integer("processes", 5, "Processes of each kind, for the memory.")
flags.DEFINE_integer("wide_repeats", 5, "Pairs of WideResNet steps.", lower_bound=5)

BATCH = 128


def mlp(width=512):
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def stepper(model, shape, jit_compile, optimizer="adam"):
    """A function that takes one training step on a fixed batch."""
    rng = np.random.default_rng(0)
    x = keras.ops.convert_to_tensor(rng.normal(size=(BATCH, *shape)).astype("float32"))
    y = keras.ops.convert_to_tensor(rng.integers(0, 10, BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return lambda: model.train_on_batch(x, y)


def hardware(model, noise="programming_noise"):
    return hwa_keras.to_hwa(model, kernel_noise=noise, seed=0, verbose=0)


def compare(build, shape, repeats, noise="programming_noise", **options):
    plain = stepper(build(), shape, **options)
    other = stepper(hardware(build(), noise), shape, **options)
    return measure.side_by_side(plain, other, repeats)


def mlp_rows():
    for jit_compile in (False, True):
        found = compare(mlp, (784,), FLAGS.repeats, jit_compile=jit_compile)
        what = f"MLP 784-512-512-10, PCM noise, jit_compile={jit_compile}"
        print(measure.row(what, *found, "1.4"), flush=True)


def sgd_rows():
    """The cheapest optimizer: what remains is the price of the random numbers."""
    noises = {
        "additive noise": (hwa_keras.noise.AdditiveGaussian(0.05), "1.4"),
        "PCM noise": ("programming_noise", "1.6"),
    }
    for name, (noise, bound) in noises.items():
        options = {"jit_compile": True, "optimizer": "sgd"}
        found = compare(mlp, (784,), FLAGS.repeats, noise, **options)
        print(measure.row(f"the same MLP, {name}, SGD", *found, bound), flush=True)


def wide_resnet_row():
    build, shape = hwa_keras.models.wide_resnet, (32, 32, 3)
    found = compare(build, shape, FLAGS.wide_repeats, jit_compile="auto")
    print(measure.row("WideResNet-16-4, PCM noise", *found, "1.10"), flush=True)


MEMORY = """
import sys
from benchmarks import measure, step_time
model = step_time.mlp(8192)
if sys.argv[1] == "hwa":
    model = step_time.hardware(model)
step = step_time.stepper(model, (784,), "auto")
for _ in range(4):
    step()
kernels = [w for w in model.weights if w.name == "kernel"]
print(measure.peak_memory(), sum(4 * int(w.numpy().size) for w in kernels))
"""


def peak_of(kind):
    """Peak memory of a process of its own, and the bytes of the kernels.

    Without oneDNN's pool, which takes memory by regions that double in size: what of
    them is touched differs from run to run by more than what is measured.
    """
    command = [sys.executable, "-c", MEMORY, kind]
    variables = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=variables
    )
    return [int(word) for word in done.stdout.split()[-2:]]


def memory_row():
    """Medians over processes: which buffers live together is up to their threads."""
    found = {}
    for kind in ("plain", "hwa"):
        peaks = [peak_of(kind) for _ in range(FLAGS.processes)]
        found[kind], kernels = np.median(peaks, axis=0)
    extra = (found["hwa"] - found["plain"]) / kernels
    print(
        f"peak memory, MLP 784-8192-8192-10 ({kernels / 2**20:.0f} MiB of kernels), "
        f"median of {FLAGS.processes}: {found['plain'] / 2**20:.0f} MiB plain, "
        f"{found['hwa'] / 2**20:.0f} MiB hardware-aware: + {extra:.2f} x the kernels "
        "(bound: + 2)",
        flush=True,
    )


def import_row():
    code = "import time, keras; t = time.perf_counter(); import hwa_keras; "
    code += "print(time.perf_counter() - t)"
    times = sorted(
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout.split()[-1]
        )
        for _ in range(5)
    )
    print(f"import hwa_keras beyond import keras: {times[2]:.2f} s (bound: 0.3 s)")


def main(_):
    print(measure.describe())
    print(measure.HEADER)
    parts = {
        "mlp": mlp_rows,
        "sgd": sgd_rows,
        "wide_resnet": wide_resnet_row,
        "memory": memory_row,
        "import": import_row,
    }
    for name, part in parts.items():
        if FLAGS.only in (None, name):
            part()


if __name__ == "__main__":
    app.run(main)
