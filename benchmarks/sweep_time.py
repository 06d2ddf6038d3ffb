"""Time of one (chip, time) of a drift sweep over one plain `evaluate`.

python -m benchmarks.sweep_time
"""

import keras
import numpy as np
from absl import app, flags

import hwa_keras
from benchmarks import measure, step_time
from hwa_keras import backend

FLAGS = flags.FLAGS
flags.DEFINE_integer("sweep_repeats", 5, "Pairs of sweeps and evaluations.", 5)
flags.DEFINE_integer("examples", 10_000, "Examples to evaluate on (MLP).", 1)

TIMES = [1.0, 3600.0, 86_400.0, 2_592_000.0, 31_536_000.0]


def compare(model, shape, examples, chips=10):
    """Sweep chips over five times, beside as many plain evaluations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, *shape)).astype("float32")
    y = rng.integers(0, 10, examples)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    batches = backend.batched((x, y), 256)
    count = chips * len(TIMES)

    def plain():
        for _ in range(count):
            model.evaluate(**batches, verbose=0)

    def sweep():
        hwa_keras.drift_sweep(
            model,
            "pcm",
            (x, y),
            times=TIMES,
            chips=chips,
            compensation="measured",
            verbose=0,
        )

    a, b, ratio = measure.side_by_side(plain, sweep, FLAGS.sweep_repeats, warmup=1)
    return a / count, b / count, ratio


def main(_):
    print(measure.describe())
    print(measure.HEADER)
    found = compare(step_time.mlp(), (784,), FLAGS.examples)
    what = f"MLP 784-512-512-10, {FLAGS.examples} examples"
    print(measure.row(what, *found, "1.15"), flush=True)
    found = compare(hwa_keras.models.wide_resnet(), (32, 32, 3), 1_000, chips=2)
    print(measure.row("WideResNet-16-4, 1,000 examples", *found, "1.15"), flush=True)


if __name__ == "__main__":
    app.run(main)
