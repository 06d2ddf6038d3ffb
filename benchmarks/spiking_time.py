"""Time of a training step of spiking neurons, and how it grows with the sequence.

    python -m benchmarks.spiking_time [--part=step|compilation|memory]

The network is 13 → 64 → 2 over 125 steps of 8 ms, 16 examples a batch, with Adam.
Beside it: the same with quantized weights and mismatch of weights and leaks drawn anew
at each step, and a Keras RNN of `LIFCell`s, which has recurrent weights too.
"""

import subprocess
import sys

import keras
import numpy as np
from absl import app, flags
from keras import layers

import hwa_keras
from benchmarks import measure
from hwa_keras.noise import ProcessVariation
from hwa_keras.spiking import LIF, LIFCell

FLAGS = flags.FLAGS
flags.DEFINE_enum("part", None, ["step", "compilation", "memory"], "One part of it.")
flags.DEFINE_integer("repeats", 100, "Pairs of steps.", lower_bound=5)

BATCH, STEPS, CHANNELS = 16, 125, 13
TAUS = {"tau": 64e-3, "dt": 8e-3}
BOUNDS = {"tensorflow": 6.0, "jax": 4.0}  # ms


def plain(steps=STEPS, hidden=64):
    return keras.Sequential(
        [
            keras.Input((steps, CHANNELS)),
            layers.Dense(hidden, use_bias=False),
            LIF(**TAUS),
            layers.Dense(2, use_bias=False),
            LIF(**TAUS),
            layers.GlobalAveragePooling1D(),
        ]
    )


def on_hardware():
    """The same on a chip with 31 levels, where each step is another chip."""
    variation = ProcessVariation(0.04, hold=False)
    synapse = {
        "use_bias": False,
        "kernel_quantizer": hwa_keras.quantizers.Uniform(levels=16, scale=0.9),
        "kernel_noise": variation,
    }
    return keras.Sequential(
        [
            keras.Input((STEPS, CHANNELS)),
            hwa_keras.layers.HWADense(64, **synapse),
            LIF(**TAUS, tau_noise=variation),
            hwa_keras.layers.HWADense(2, **synapse),
            LIF(**TAUS, tau_noise=variation),
            layers.GlobalAveragePooling1D(),
        ]
    )


def of_cells():
    return keras.Sequential(
        [
            keras.Input((STEPS, CHANNELS)),
            layers.RNN(LIFCell(64, **TAUS, use_bias=False), return_sequences=True),
            layers.RNN(LIFCell(2, **TAUS, use_bias=False), return_sequences=True),
            layers.GlobalAveragePooling1D(),
        ]
    )


def stepper(model):
    """A function that takes one training step on a fixed batch."""
    rng = np.random.default_rng(0)
    shape = (BATCH, *model.input_shape[1:])
    x = keras.ops.convert_to_tensor(rng.normal(size=shape).astype("float32"))
    y = keras.ops.convert_to_tensor(rng.integers(0, 2, BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=True)
    return lambda: model.train_on_batch(x, y)


def step_rows():
    print(measure.HEADER)
    bound = BOUNDS[keras.backend.backend()]
    found = measure.side_by_side(
        stepper(plain()), stepper(on_hardware()), FLAGS.repeats
    )
    print(measure.row("LIF, and with quantizer and mismatch", *found, "1.3"))
    print(f"LIF: {1e3 * found[0]:.2f} ms a step (bound: {bound:g} ms)", flush=True)
    repeats = max(5, FLAGS.repeats // 5)
    found = measure.side_by_side(stepper(plain()), stepper(of_cells()), repeats)
    print(measure.row("LIF, and a Keras RNN of LIFCells", *found, "-"), flush=True)


def compilation_rows():
    """The first step, which compiles, at several lengths."""
    stepper(plain(STEPS))()  # What a process does only once.
    for steps in (STEPS, 1000):
        step = stepper(plain(steps))
        first = measure.seconds(step)
        again = min(measure.seconds(step) for _ in range(3))
        print(
            f"T = {steps}: {first - again:.2f} s to compile, {1e3 * again:.2f} ms a "
            "step",
            flush=True,
        )


MEMORY = """
import sys
from benchmarks import measure, spiking_time
step = spiking_time.stepper(spiking_time.plain(int(sys.argv[1]), 1024))
for _ in range(3):
    step()
print(measure.peak_memory())
"""


def memory_row():
    """Peak memory of processes of their own, over the length."""
    lengths = (1500, 2500, 3500)
    peaks = []
    for steps in lengths:
        command = [sys.executable, "-c", MEMORY, str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    grown = [
        (b - a) / (BATCH * 1024 * 1000)
        for a, b in zip(peaks[:-1], peaks[1:], strict=True)
    ]
    print(
        "peak memory of a step of 13 → 1024 → 2 at T = "
        + ", ".join(
            f"{steps}: {peak / 2**20:.0f} MiB"
            for steps, peak in zip(lengths, peaks, strict=True)
        )
        + f"; + {grown[0]:.1f} and {grown[1]:.1f} bytes a neuron and time step",
        flush=True,
    )


def main(_):
    print(measure.describe())
    parts = {"step": step_rows, "compilation": compilation_rows, "memory": memory_row}
    for name, part in parts.items():
        if FLAGS.part in (None, name):
            part()


if __name__ == "__main__":
    app.run(main)
