"""What converters cost in accuracy: an MLP on MNIST with DAC, ADC and tiles.

    HWA_DATA_DIR=.data python -m benchmarks.circuits_accuracy
    python -m benchmarks.circuits_accuracy --dataset=digits --epochs=2 --chips=2

One digital network is tuned under PCM programming noise, without converters. Converters
of a few bits are then put around its tiles, calibrated; and a copy of the same start is
tuned with them, its input ranges learned. Each is evaluated in software and on chips.
"""

import argparse
import time

import keras
import numpy as np

import hwa_keras
from hwa_keras.circuits import ADC, DAC

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(units, shape, classes):
    """784-256-128-10 with dropout, in plain Keras."""
    layers = [keras.Input(shape), keras.layers.Flatten()]
    for n in units:
        layers += [keras.layers.Dense(n, activation="relu"), keras.layers.Dropout(0.2)]
    return keras.Sequential([*layers, keras.layers.Dense(classes)])


def hardware(bits, tile, dac_range):
    """PCM programming noise, behind converters of some bits or none."""
    noise = hwa_keras.noise.ProgrammingNoise("pcm")
    if bits is None:
        return hwa_keras.Hardware(kernel_noise=noise)
    return hwa_keras.Hardware(
        kernel_noise=noise,
        dac=DAC(bits, range=dac_range),
        adc=ADC(bits, range="calibrated", per="tile"),
        tile=tile,
    )


def fit(model, data, learning_rate, epochs):
    x, y = data.train
    steps = max(epochs, 1) * len(x) // 128
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(keras.optimizers.Adam(schedule), LOSS, metrics=["accuracy"])
    if epochs:
        model.fit(x, y, 128, epochs, verbose=0)
    return model


def measured(model, data, chips):
    """Accuracy in software, and on chips one second after programming, in percent."""
    software = model.evaluate(*data.test, 500, verbose=0, return_dict=True)["accuracy"]
    result = hwa_keras.drift_sweep(
        model,
        "pcm",
        data.test,
        times=[1.0],
        chips=chips,
        compensation="measured",
        verbose=0,
    )
    estimate = result.estimate("measured", "1 s")
    mean, half_width = 100 * estimate.mean, 100 * estimate.half_width
    return f"{100 * software:.2f}", f"{mean:.2f} ± {half_width:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hwa_epochs", type=int, default=5)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--tile", type=int, default=128, help="rows and columns")
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 6, 4])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.monotonic()
    keras.utils.set_random_seed(args.seed)
    data = hwa_keras.datasets.load(args.dataset)
    shape, tile = data.train[0].shape[1:], (args.tile, args.tile)
    digital = fit(network((256, 128), shape, data.num_classes), data, 1e-3, args.epochs)

    def start_from(other):
        model = network((256, 128), shape, data.num_classes)
        model.set_weights(other)
        return model

    weights = digital.get_weights()
    plain = hwa_keras.to_hwa(
        start_from(weights), hardware=hardware(None, None, None), seed=0, verbose=0
    )
    fit(plain, data, 5e-4, args.hwa_epochs)
    print("| converters | tuned with them | in software, % | on chips at 1 s, % |")
    print("|---|---|---|---|")
    print(
        "| none | – |", " | ".join(measured(plain, data, args.chips)), "|", flush=True
    )
    x = data.train[0][np.random.default_rng(0).permutation(len(data.train[0]))[:2000]]
    noisy = hwa_keras.to_digital(plain).get_weights()
    for bits in args.bits:
        for epochs in (0, args.hwa_epochs):
            model = hwa_keras.to_hwa(
                start_from(weights if epochs else noisy),
                hardware=hardware(bits, tile, "learned" if epochs else "calibrated"),
                seed=0,
                verbose=0,
            )
            hwa_keras.calibrate(model, x)
            fit(model, data, 5e-4, epochs)
            row = measured(model, data, args.chips)
            answer = "yes" if epochs else "no"
            print(f"| {bits} bits | {answer} |", " | ".join(row), "|", flush=True)
    print(f"\nSeed {args.seed}, tiles of {tile}, {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    main()
