"""Evaluations of candidates per second: on the masked supernet, and extracted.

    python -m benchmarks.search_time [--repeats=10]

A candidate's accuracy (7 batches of 128 images, each on devices written anew) and its
power (one batch) on memristors, for networks of `search.spaces.cifar_resnet`. First
calls compile: their time beyond that of later ones is the time of compilation. Beside
it, what extracting each network, `array_energy` and `monte_carlo` take for the same.
"""

import statistics

import keras
import numpy as np
from absl import app, flags

import hwa_keras
from benchmarks import measure
from hwa_keras.profile import array_energy
from hwa_keras.search import Candidate, CrossbarAccuracyPower, Supernet, spaces

FLAGS = flags.FLAGS
flags.DEFINE_integer("repeats", 10, "Candidates on the supernet.", 2)
BATCHES, SIZE = 7, 128
EXTRACTED = 2  # Candidates that are extracted.


def candidates(space, count):
    """Random networks with random ranges."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        config = space.sample(rng)
        there = space.active(config)
        multipliers = np.where(there, rng.uniform(0.5, 1.5, len(there)), 0.0)
        yield Candidate(config, tuple(multipliers))


def extracted(objective, candidate, data):
    """Accuracy and power of the same network by the package's general functions."""
    model = objective.extract(candidate)
    crossbar = objective.crossbar(candidate)
    power = array_energy(model, data[0][:SIZE], crossbar)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    chips = hwa_keras.to_hwa(model, hardware=crossbar, verbose=0)
    return power, hwa_keras.monte_carlo(
        chips, None, data, chips=BATCHES, batch_size=SIZE, verbose=0
    )


def main(_):
    print(measure.describe())
    space = spaces.cifar_resnet()
    rng = np.random.default_rng(1)
    size = space.resolution[-1]
    data = (
        rng.normal(size=(BATCHES * SIZE, size, size, 3)).astype("float32"),
        rng.integers(0, 10, BATCHES * SIZE),
    )
    device = hwa_keras.devices.Memristor(sigma=0.5, g_max=25.0, g_u=16.0)
    objective = CrossbarAccuracyPower(
        Supernet(space), device, data, BATCHES, batch_size=SIZE
    )
    first, *later = candidates(space, FLAGS.repeats + 1)
    one = first.__class__(space.largest, (1.0,) * len(space.layers))
    begin = measure.seconds(lambda: objective(one))
    traced = objective.compilations
    times = [measure.seconds(lambda c=c: objective(c)) for c in later]
    again = [measure.seconds(lambda c=c: objective(c)) for c in later]
    new, known = statistics.median(times), statistics.median(again)
    print(f"first candidate: {begin:.2f} s, of which {begin - new:.2f} s to compile")
    print(f"a new network: {new:.3f} s, {1 / new:.2f} a second")
    print(f"a known network with other ranges: {known:.3f} s, {1 / known:.2f} a second")
    print(f"functions compiled after the first: {objective.compilations - traced}")
    found = [
        measure.seconds(lambda c=c: extracted(objective, c, data))
        for c in later[:EXTRACTED]
    ]
    slow = statistics.median(found)
    print(f"extract, array_energy, monte_carlo: {slow:.2f} s, {slow / new:.1f} times")


if __name__ == "__main__":
    app.run(main)
