"""Error and time of output_error's methods, beside 2,000 chips drawn.

python -m benchmarks.error_time
"""

import statistics

import keras
import numpy as np
from absl import app, flags
from keras import layers

import hwa_keras
from benchmarks import measure
from hwa_keras.analysis import output_error

FLAGS = flags.FLAGS
flags.DEFINE_integer("draws", 2_000, "Chips that Monte Carlo draws.", 2)
flags.DEFINE_integer("error_repeats", 5, "Runs of each other method, timed warm.", 1)

HEADER = (
    f"{'what':<34} {'method':<8} {'noise/signal':>12} {'MSE of chips':>22} {'MSE':>10} "
    f"{'off by':>7} {'draws s':>8} {'first s':>8} {'warm s':>8} "
    f"{'times':>6}  bounds"
)


def mlp():
    """784-256-128-10."""
    hidden = [layers.Dense(n, activation="relu") for n in (256, 128)]
    return keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10)])


def convolution(x, filters, strides=1, size=3):
    options = dict(padding="same", use_bias=False, kernel_initializer="he_normal")
    x = layers.Conv2D(filters, size, strides, **options)(x)
    return layers.BatchNormalization()(x)


def block(x, filters, strides=1):
    y = layers.ReLU()(convolution(x, filters, strides))
    y = convolution(y, filters)
    if strides != 1:
        x = convolution(x, filters, strides, size=1)
    return layers.ReLU()(layers.Add()([x, y]))


def cnn():
    """A strided convolution, a residual block and a dense layer, 16 × 16 images."""
    inputs = keras.Input((16, 16, 3))
    x = block(layers.ReLU()(convolution(inputs, 8, 2)), 8)
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def resnet():
    """A stem and three residual blocks of 8, 16 and 32 channels, 16 × 16 images."""
    inputs = keras.Input((16, 16, 3))
    x = layers.ReLU()(convolution(inputs, 8))
    for filters, strides in ((8, 1), (16, 2), (32, 2)):
        x = block(x, filters, strides)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def compare(what, model, method, sigma, examples, bounds):
    """Print the row of one model and method."""
    shape = model.input_shape[1:]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, *shape)).astype("float32")
    if any(isinstance(a, layers.BatchNormalization) for a in model.layers):
        others = rng.normal(size=(256, *shape)).astype("float32")
        model = hwa_keras.fold_batchnorm(
            hwa_keras.adapt_batchnorm(model, others), verbose=0
        )
    device = hwa_keras.devices.Memristor(sigma=sigma, g_max=25.0)
    drawn = output_error(model, device, x, "monte_carlo", draws=FLAGS.draws)
    runs = [
        output_error(model, device, x, method) for _ in range(FLAGS.error_repeats + 1)
    ]
    seconds = statistics.median(run.seconds for run in runs[1:])
    low, high = drawn.interval
    chips = f"{drawn.mse:.4g} ({low:.4g}–{high:.4g})"
    print(
        f"{f'{what}, {examples} examples':<34} {method:<8} "
        f"{drawn.noise_to_signal:>12.3f} {chips:>22} {runs[0].mse:>10.4g} "
        f"{100 * (runs[0].mse / drawn.mse - 1):>+6.1f}% {drawn.seconds:>8.2f} "
        f"{runs[0].seconds:>8.3f} {seconds:>8.3f} {drawn.seconds / seconds:>6.0f}  "
        f"{bounds}",
        flush=True,
    )


def main(_):
    keras.utils.set_random_seed(0)
    print(measure.describe())
    print(f"{FLAGS.draws} draws, 95 % interval. Others: first run, median of the next.")
    print(HEADER, flush=True)
    compare("MLP 784-256-128-10", mlp(), "moments", 0.5, 16, "2 %, 100 times")
    compare("CNN, a skip, folded BN", cnn(), "moments", 0.3, 8, "2 %, 100 times")
    compare("ResNet, folded BN", resnet(), "delta", 0.2, 8, "8 %")


if __name__ == "__main__":
    app.run(main)
