"""What examples/lanmax_cifar10.py trains, and what it measures of it."""

import dataclasses
import time

import keras
import numpy as np

import hwa_keras
from hwa_keras.analysis import compare_spectra, layer_sensitivity
from hwa_keras.constraints import WeightClip
from hwa_keras.devices import SRAM
from hwa_keras.noise import BitFlip
from hwa_keras.quantizers import BinaryConnect
from hwa_keras.recipes import classifier
from hwa_keras.recipes.runner import console
from hwa_keras.training import ConstrainKernels, LaNMax

FEWEST_DRAWS = 10  # Before the interval of their mean is trusted.


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a curve of accuracy over energy: a training, and its memory.

    Args:
        curve: A key of `CURVES`.
        width: Widening factor of the network.
        p: Bit error rate that it is trained with, or that LaNMax begins with; None
            for floats.
        alpha: Weight of the energy, for LaNMax.
    """

    curve: str
    width: int
    p: float | None = None
    alpha: float | None = None

    @property
    def label(self):
        """What changes along the curve."""
        if self.curve == "lanmax":
            return f"α = {self.alpha:g}"
        return f"p = {self.p:g}" if self.curve == "uniform" else f"width {self.width}"

    @property
    def memory(self):
        """The memory that the kernels are read from."""
        return SRAM(0.0) if self.curve == "reliable" else SRAM()


CURVES = {
    "float": "16-bit floats, reliable",
    "reliable": "binary, reliable",
    "uniform": "binary, one p for all",
    "lanmax": "binary, LaNMax",
}


def points(settings):
    """The trainings of a run, without their seeds."""
    width = settings.widths[-1]
    return [
        *(Point("float", w) for w in settings.widths),
        # A little noise regularizes: the thesis trains at 1e-4 what it reads at 0.
        *(Point("reliable", w, 1e-4) for w in settings.widths),
        *(Point("uniform", width, p) for p in settings.rates),
        *(Point("lanmax", width, 0.01, alpha) for alpha in settings.alphas),
    ]


def convnet(width, input_shape, classes):
    """Three convolutions and two dense layers, small enough for a CPU."""
    inputs = x = keras.Input(input_shape)
    for i in range(3):
        x = keras.layers.Conv2D(
            4 * width * 2**i, 3, strides=2, padding="same", use_bias=False
        )(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(32 * width, use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(classes)(x), name="convnet")


def wide_resnet(width, input_shape, classes):
    """WideResNet-28, the thesis's network."""
    return hwa_keras.models.wide_resnet(28, width, input_shape, classes)


NETWORKS = {"convnet": convnet, "wide_resnet_28": wide_resnet}


def train(point, settings, data, seed):
    """A network trained for one point, from scratch.

    Returns:
        A pair: the model, compiled for evaluation, and the history of the fit.
    """
    keras.utils.clear_session()  # Kernels have the same names in each training.
    keras.utils.set_random_seed(seed)
    network = NETWORKS[settings.network]
    model = network(point.width, data.train[0].shape[1:], data.num_classes)
    callbacks = []
    if point.p is not None:
        model = hwa_keras.to_hwa(
            model,
            kernel_quantizer=BinaryConnect(),
            kernel_noise=BitFlip(point.p),
            seed=seed,
            verbose=0,
        )
        callbacks = [ConstrainKernels(WeightClip())]
    if point.alpha is not None:
        callbacks.append(
            LaNMax(
                point.alpha,
                p=point.p,
                h=settings.h,
                learning_rate=settings.p_learning_rate,
                seed=seed,
            )
        )
    history = classifier.fit(
        model, data, settings, callbacks, seed, augment=settings.augment
    )
    return model, {name: [float(v) for v in values] for name, values in history.items()}


def measure(model, point, settings, data, seed):
    """Energy and accuracy of a trained network, and its kernels' error rates.

    Returns:
        A dictionary that JSON can hold. The energy is in units of one reliable bit;
        the accuracies are of one draw of wrong bits each, as many as it took.
    """
    energy = hwa_keras.memory_energy(model)
    found = {"energy": energy.energy, "kernels": energy.to_dict()["kernels"]}
    if point.curve == "reliable":
        found["energy"] = sum(kernel.bits * kernel.weights for kernel in energy.kernels)
    if point.p is None:
        scores = model.evaluate(*data.test, batch_size=500, return_dict=True, verbose=0)
        return {**found, "accuracy": [scores["accuracy"]]}
    chips = 1 if point.curve == "reliable" else settings.draws
    samples = hwa_keras.monte_carlo(
        model,
        point.memory,
        data.test,
        chips=chips,
        seed=1000 * seed,
        batch_size=500,
        tolerance=settings.tolerance if chips > FEWEST_DRAWS else None,
        min_chips=FEWEST_DRAWS,
        verbose=0,
    )
    return {**found, "accuracy": samples.values(metric="accuracy").tolist()}


def read_at(model, rates, settings, data, seed):
    """Mean accuracy of a trained network in memories of other error rates."""
    return [
        float(
            np.mean(
                hwa_keras.monte_carlo(
                    model,
                    SRAM(p),
                    data.test,
                    chips=min(5, settings.draws) if p else 1,
                    seed=1000 * seed,
                    batch_size=500,
                    verbose=0,
                ).values(metric="accuracy")
            )
        )
        for p in rates
    ]


def measured(settings, data):
    """Train and measure all points.

    Returns:
        A list of records, one per training: what JSON can hold.
        A dictionary of the networks trained at one p for all: lists by p.
    """
    records, uniform = [], {p: [] for p in settings.rates}
    for point in points(settings):
        for seed in range(settings.seeds):
            start = time.monotonic()
            model, history = train(point, settings, data, seed)
            trained = time.monotonic()
            record = measure(model, point, settings, data, seed)
            record.update(dataclasses.asdict(point), label=point.label, seed=seed)
            record["history"] = history
            if point.curve == "uniform":
                uniform[point.p].append(model)
                record["read_at"] = read_at(
                    model, settings.read_rates, settings, data, seed
                )
            records.append(record)
            accuracy = sum(record["accuracy"]) / len(record["accuracy"])
            console.print(
                f"{point.curve}, {point.label}, seed {seed}: {record['energy']:,.0f} "
                f"bits' energy, accuracy {accuracy:.4f} (trained in "
                f"{trained - start:.0f} s, measured in "
                f"{time.monotonic() - trained:.0f} s)"
            )
    return records, uniform


def looks(uniform, settings, data):
    """Which layers bear noise, and what it does to the spectra of the weights."""
    p = min(settings.rates, key=lambda rate: abs(rate - 0.01))
    sensitivity = layer_sensitivity(
        uniform[p][0],
        data.test,
        p_base=p,
        chips=settings.sensitivity_chips,
        batch_size=500,
        verbose=0,
    )
    spectra = None
    if settings.seeds >= 2 and len(settings.rates) >= 2:
        # As in the thesis, the last layer but one: large, and robust.
        kernels = hwa_keras.memory_energy(uniform[p][0]).kernels
        layer = kernels[-2].path.rpartition("/")[0]
        spectra = compare_spectra(
            uniform[min(settings.rates)], uniform[max(settings.rates)], layer=layer
        )
    return sensitivity, spectra
