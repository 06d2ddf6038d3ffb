"""What examples/crossbar_power.py trains and puts on memristor crossbars."""

import keras
import numpy as np
from matplotlib.figure import Figure

import hwa_keras
from hwa_keras import analysis, deployment, search
from hwa_keras.circuits import ADC, DAC
from hwa_keras.core.replica import replicate
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import Memristor
from hwa_keras.profile import array_energy
from hwa_keras.recipes import classifier
from hwa_keras.recipes.runner import cell, console
from hwa_keras.results import Section


def convnet(input_shape=(32, 32, 3), classes=10):
    """Three strided convolutions with batch normalization: every layer has moments."""
    inputs = x = keras.Input(input_shape)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(
            filters, 3, 2, padding="same", kernel_initializer="he_normal"
        )(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x), name="convnet")


NETWORKS = {"convnet": convnet, "vgg13": hwa_keras.models.vgg13}


def trained(data, settings, seed):
    """A trained network, its batch normalization folded, and its accuracy."""
    keras.utils.set_random_seed(seed)
    network = NETWORKS[settings.network]
    model = network(data.train[0].shape[1:], classes=data.num_classes)
    classifier.fit(model, data, settings, seed=seed, augment=settings.augment)
    folded = hwa_keras.fold_batchnorm(model)
    accuracy = folded.evaluate(*data.test, verbose=0, return_dict=True)["accuracy"]
    console.print(f"Trained, seed {seed}: accuracy {accuracy:.4f} in software.")
    return folded, accuracy


def crossbar_of(settings, tile=None, ir_drop="off", g_u=None, **converters):
    """The crossbars of a run."""
    device = Memristor(
        settings.sigma, g_min=settings.g_min, g_max=settings.g_max, g_u=g_u
    )
    return Crossbar(
        device,
        rows=tile,
        columns=tile,
        wire=settings.wire,
        ir_drop=ir_drop,
        v_read=settings.v_read,
        t_read=settings.t_read,
        **converters,
    )


def on_chips(model, crossbar, data, settings, seed):
    """Accuracies of chips, and J for an image.

    With converters, their ranges are calibrated on the first images.
    """
    images = data.train[0][: settings.energy_images]
    converted = hwa_keras.to_hwa(replicate(model), hardware=crossbar, verbose=0)
    if crossbar.adc is not None:
        deployment.calibrate(converted, images)
    found = hwa_keras.monte_carlo(
        converted, None, data.test, chips=settings.chips, seed=1000 * seed, verbose=0
    )
    energy = array_energy(converted, images, crossbar)
    return found.values(metric="accuracy"), energy.joules


def ranges(models, data, settings):
    """Ranges per layer and one range for all: fronts, and accuracies along them."""
    fronts, rows = [], []
    for seed, model in enumerate(models):
        front = search.optimize_ranges(
            model,
            crossbar_of(settings),
            data.test,
            steps=settings.range_steps,
            examples=settings.gradient_examples,
        )
        places = np.linspace(0, settings.range_steps - 1, settings.range_points + 2)
        for one in (front.uniform[round(place)] for place in places[1:-1]):
            row = {"seed": seed, "error": one.error}
            kept = [p for p in front.points if p.error <= one.error * 1.0001]
            layer = min(kept, key=lambda p: p.energy)
            for name, point in (("layer", layer), ("one", one)):
                crossbar = crossbar_of(settings, g_u=point.g_u)
                values, _ = on_chips(model, crossbar, data, settings, seed)
                row[name] = {
                    "energy": point.energy,
                    "g_u": point.g_u,
                    "accuracy": values.tolist(),
                }
            rows.append(row)
        fronts.append(front)
    return fronts, rows


def ranges_section(fronts, rows):
    """Energies and accuracies at equal predicted errors."""
    table = []
    levels = len(rows) // len(fronts)
    for i in range(levels):
        same = rows[i::levels]
        saved = [1 - r["layer"]["energy"] / r["one"]["energy"] for r in same]
        energy = {n: [1e9 * r[n]["energy"] for r in same] for n in ("layer", "one")}
        accuracy = {
            n: [np.mean(r[n]["accuracy"]) for r in same] for n in ("layer", "one")
        }
        table.append(
            [f"{np.mean([r['error'] for r in same]):.3g}"]
            + [cell(np.array(energy[name])) for name in ("one", "layer")]
            + [cell(np.array(saved))]
            + [cell(np.array(accuracy[name])) for name in ("one", "layer")]
        )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, label, style in (
        ("one", "one range for all", "o"),
        ("layer", "a range for each layer", "s"),
    ):
        axes.plot(
            [1e9 * r[name]["energy"] for r in rows],
            [np.mean(r[name]["accuracy"]) for r in rows],
            style,
            label=label,
        )
    axes.set_xlabel("energy of the arrays, nJ for an image")
    axes.set_ylabel("accuracy, mean of chips")
    axes.grid(alpha=0.3)
    axes.legend()
    text = (
        "At each predicted error of the outputs, the least energy of devices and "
        "amplifiers with one g_u for all layers and with a g_u for each, and the "
        "accuracy that chips then have; ± is half of the 95 % interval over "
        f"{len(fronts)} trainings."
    )
    columns = ["error", "nJ, one", "nJ, layer", "saved", "one", "layer"]
    return Section("Conductance ranges", text, columns, table, figure)


def tiles(model, data, settings):
    """Accuracy and energy over tile sizes, with the drop of wires and without."""
    found = []
    for tile in settings.tiles:
        for ir_drop in ("off", "exact"):
            crossbar = crossbar_of(settings, tile, ir_drop)
            values, energy = on_chips(model, crossbar, data, settings, seed=0)
            found.append((tile, ir_drop, values.tolist(), energy))
    rows = [
        [f"{tile} × {tile}, drop {drop}", cell(np.array(values)), f"{1e9 * joules:.3g}"]
        for tile, drop, values, joules in found
    ]
    text = f"Wires of {settings.wire} Ω a segment; drift of no kind, ideal converters."
    section = Section("Tiles and wires", text, ["", "accuracy", "nJ"], rows)
    return section, found


def converters(model, data, settings):
    """Accuracy and energy over the bits of the ADCs."""
    found = []
    for bits in settings.adc_bits:
        crossbar = crossbar_of(
            settings,
            settings.tiles[0],
            dac=DAC(8, range="calibrated"),
            adc=ADC(bits, range="calibrated"),
        )
        values, energy = on_chips(model, crossbar, data, settings, seed=0)
        found.append((bits, values.tolist(), energy))
    rows = [
        [f"{bits} bits", cell(np.array(values)), f"{1e9 * joules:.3g}"]
        for bits, values, joules in found
    ]
    text = f"Tiles of {settings.tiles[0]} rows and columns, 8-bit DACs."
    section = Section("Bits of the ADCs", text, ["", "accuracy", "nJ"], rows)
    return section, found


def errors(model, data, settings):
    """The error of the outputs by each method, with its time."""
    crossbar = crossbar_of(settings)
    images = data.test[0][: settings.error_images]
    found = [
        analysis.output_error(
            model, crossbar, images, method=method, draws=settings.draws
        )
        for method in ("monte_carlo", "moments", "delta")
    ]
    drawn = found[0]
    rows = [
        [
            each.method,
            f"{each.mse:.4g}",
            f"{each.mse / drawn.mse - 1:+.1%}",
            f"{each.seconds:.3g} s",
        ]
        for each in found
    ]
    low, high = drawn.interval
    text = (
        f"Mean squared error of the outputs on {len(images)} images. Monte Carlo: "
        f"{drawn.draws} chips, 95 % interval {low:.4g} to {high:.4g}; noise to signal "
        f"{drawn.noise_to_signal:.2g}."
    )
    section = Section("Error without chips", text, ["", "MSE", "off by", "time"], rows)
    return section, [(e.method, e.mse, e.seconds) for e in found]
