"""Time of wrong bits: in a training step, in drawing them, and of learning their rate.

    python -m benchmarks.bit_flip_time [--part=draws|mlp|wide_resnet]

Each row compares two things measured in turn, in one run; the ratio is the median over
the pairs.
"""

import keras
import numpy as np
from absl import app, flags
from keras import ops

import hwa_keras
from benchmarks import measure
from benchmarks.step_time import BATCH, mlp, stepper
from hwa_keras import backend, random
from hwa_keras.noise import BitFlip
from hwa_keras.quantizers import BinaryConnect, Uniform

FLAGS = flags.FLAGS
flags.DEFINE_enum("part", None, ["draws", "mlp", "wide_resnet"], "One part of it.")

COUNT = 2_700_000  # Weights of WideResNet-16-4.


def quantized(model, quantizer, noise=None):
    return hwa_keras.to_hwa(model, quantizer, noise, seed=0, verbose=0)


def draw_rows():
    """Wrong bits from random words, and from uniform floats."""
    seed = random.seed_from(0)
    p = ops.convert_to_tensor(0.01)

    def words(bits):
        return lambda seed, p: random.bernoulli_bits((COUNT,), seed, [p] * bits)

    def floats(bits):
        return lambda seed, p: sum(
            ops.cast(random.uniform((COUNT,), random.fold_in(seed, i)) < p, "int32")
            * 2**i
            for i in range(bits)
        )

    for bits in (1, 4, 8):
        compared = [
            (lambda f: lambda: np.asarray(f(seed, p)))(backend.fuse(draw(bits)))
            for draw in (floats, words)
        ]
        found = measure.side_by_side(*compared, FLAGS.repeats)
        what = f"{COUNT / 1e6} million codes of {bits} bits: floats, words"
        print(measure.row(what, *found, ""), flush=True)


def step_rows(build, shape, name, repeats, bound):
    """A step with wrong bits over one with quantized weights alone."""
    for what, quantizer, p in (
        ("1 bit, p = 0.01", BinaryConnect(), 0.01),
        ("1 bit, p = 0", BinaryConnect(), 0.0),
        ("4 bits, p = 0.01", Uniform(8, "max"), 0.01),
    ):
        exact = stepper(quantized(build(), quantizer), shape, "auto")
        wrong = stepper(quantized(build(), quantizer, BitFlip(p)), shape, "auto")
        found = measure.side_by_side(exact, wrong, repeats)
        print(measure.row(f"{name}, {what}", *found, bound), flush=True)


def lanmax_row():
    """An epoch in which LaNMax tries rates in each batch, over one without."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50 * BATCH, 784)).astype("float32")
    y = rng.integers(0, 10, len(x))

    def epoch(callbacks):
        model = quantized(mlp(), BinaryConnect(), BitFlip(0.01))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        return lambda: model.fit(
            x, y, batch_size=BATCH, verbose=0, callbacks=callbacks()
        )

    found = measure.side_by_side(
        epoch(list), epoch(lambda: [hwa_keras.training.LaNMax(until=1.0)]), 5
    )
    what = "MLP 784-512-512-10, 50 steps of fit, LaNMax"
    print(measure.row(what, *found, ""), flush=True)


def main(_):
    print(measure.describe())
    print(measure.HEADER)
    if FLAGS.part in (None, "draws"):
        draw_rows()
    if FLAGS.part in (None, "mlp"):
        step_rows(mlp, (784,), "MLP 784-512-512-10", FLAGS.repeats, "")
        lanmax_row()
    if FLAGS.part in (None, "wide_resnet"):
        wide_resnet = hwa_keras.models.wide_resnet
        shape = (32, 32, 3)
        step_rows(wide_resnet, shape, "WideResNet-16-4", FLAGS.wide_repeats, "1.10")


if __name__ == "__main__":
    app.run(main)
