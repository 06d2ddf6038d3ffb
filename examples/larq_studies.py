"""The parts of examples/mnist_larq_study.py."""

import time

import keras
import numpy as np
from larq_networks import (
    VARIANTS,
    accuracy,
    fit,
    network,
    output_stds,
    start_from,
)
from matplotlib.figure import Figure

import hwa_keras
from hwa_keras.noise import ADC, OutputNoise, ProcessVariation
from hwa_keras.results import Section, estimate, proportion


class Study:
    """What all parts share: data, settings, a folder, and what was found so far."""

    def __init__(self, data, settings, out):
        self.data, self.settings, self.out = data, settings, out
        self.sections, self.numbers = {}, {}

    def train(self, name, kernel_quantizer=None, input_quantizer=None):
        """A network of parts a and b, from scratch, and its accuracy."""
        s = self.settings
        keras.utils.set_random_seed(s.seed)
        name = name.replace(" ", "_")
        model = network(self.data, s.hidden, name, kernel_quantizer, input_quantizer)
        return model, fit(model, self.data, s.learning_rate, s.epochs, s.batch_size)

    def tune(self, base, name, **circuits):
        """The float network, trained on with something in its circuits."""
        s = self.settings
        keras.utils.set_random_seed(s.seed + 1)
        model = start_from(network(self.data, s.hidden, name, **circuits), base)
        fit(model, self.data, s.tune_learning_rate, s.tune_epochs, s.batch_size)
        return model

    def add(self, key, section, numbers):
        """Keep a part for the page and the files."""
        self.sections[key], self.numbers[key] = section, numbers


def compare_bits(study):
    """Parts a to c: the float network beside the quantized ones."""
    numbers, base = [], None
    for name in study.settings.networks:
        model, score = study.train(name, *VARIANTS[name])
        base = base or model
        numbers.append({"network": name, "accuracy": score, **_cost(study, model)})
    columns = ["network", "accuracy", "parameters", "memory, KiB", "kernels smaller by"]
    columns += ["MACs of ≤ 2 bits", ".tflite, KiB", "latency, ms"]
    formats = ["", ".4f", ",", ",.1f", ".1f", ".1%", ",.1f", ".3f"]
    rows = [
        [f"{v:{f}}" for v, f in zip(found.values(), formats, strict=False)]
        for found in numbers
    ]
    text = (
        "Memory counts each parameter by its bits. The file holds packed kernels, "
        "which are unpacked at each call. Latency: one image, one thread, median of "
        "200."
    )
    section = Section("a–c. Few bits", text, columns, rows)
    study.add("bits", section, numbers)
    return base


def _cost(study, model):
    """What a network costs: on paper, as a file, and when the file runs."""
    counted = hwa_keras.summary(model, verbose=0)
    path = study.out / f"{model.name}.tflite"
    hwa_keras.export_tflite(model, path, overwrite=True, verbose=0)
    x = study.data.test[0]
    dense = [layer for layer in counted.layers if layer.layer_type == "HWADense"]
    floats = 32 * sum(layer.total_params for layer in dense)
    return {
        "parameters": counted.total_params,
        "memory_kib": counted.memory_bits / 8192,
        "kernels_smaller": floats / sum(layer.memory_bits for layer in dense),
        "low_precision_macs": counted.low_precision_share,
        "tflite_kib": path.stat().st_size / 1024,
        "latency_ms": _latency(path, x[:1]),
        "difference": hwa_keras.verify_export(path, model, x[:64]),
    }


def _latency(path, x, repeats=200):
    """Median milliseconds of one example in a `.tflite` file, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path), num_threads=1).get_signature_runner("serve")
    (name,) = run.get_input_details()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(**{name: x})
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def bear_noise(study, base):
    """Part d: accuracy over the noise of training and of testing."""
    s, numbers, rows = study.settings, {}, []
    figure, axes = _draw("output noise σ in the test")
    for train in s.noise_train:
        noises = [
            OutputNoise(1.0, "std", always=True, seed=s.seed + i, scale=train)
            for i in range(len(s.hidden))
        ]
        model = study.tune(base, f"noise_{train:g}", behind=noises)
        numbers[train] = {}
        for test in s.noise_test:
            for noise in noises:
                noise.scale.assign(test)
            scores = [accuracy(model, study.data) for _ in range(s.noise_draws)]
            numbers[train][test] = scores
        found = [estimate(scores) for scores in numbers[train].values()]
        rows.append([f"σ = {train:g}", *map(_interval, found)])
        axes.errorbar(
            s.noise_test,
            [e.mean for e in found],
            [e.half_width for e in found],
            label=f"trained at σ = {train:g}",
            marker="o",
        )
    axes.legend(frameon=False)
    pairs = {
        f"σ = {level:g}": (estimate(numbers[level][level]), estimate(numbers[0][level]))
        for level in s.noise_train
        if level > 0 and level in s.noise_test
    }
    text = (
        "σ is relative to the standard deviation of the outputs of each hidden layer. "
        f"Mean ± half of the 95 % interval over {s.noise_draws} draws of the noise; "
        f"one training each. {_verdict(pairs)}"
    )
    columns = ["trained at", *(f"tested at σ = {test:g}" for test in s.noise_test)]
    section = Section("d. Noise on outputs", text, columns, rows, figure)
    study.add("output_noise", section, numbers)


def bear_variation(study, base):
    """Part e: many chips with process variation, trained with it and without."""
    s, numbers, rows = study.settings, {}, []
    variation = ProcessVariation(s.variation_train, hold=False)
    models = {
        "without": study.tune(base, "nominal"),
        "with": study.tune(base, "varied", kernel_noise=variation),
    }
    figure, axes = _draw("process variation σ of the chips")
    for i, (name, model) in enumerate(models.items()):
        numbers[name] = {
            std: hwa_keras.monte_carlo(
                model,
                ProcessVariation(std),
                study.data.test,
                chips=s.chips,
                seed=s.seed,
                batch_size=500,
            )
            .values(metric="accuracy")
            .tolist()
            for std in s.variation_test
        }
        found = [estimate(scores) for scores in numbers[name].values()]
        nominal = f"{accuracy(model, study.data):.4f}"
        rows.append([f"trained {name} it", nominal, *map(_interval, found)])
        places = [j + 0.4 * i - 0.2 for j in range(len(found))]
        boxes = axes.boxplot(
            list(numbers[name].values()),
            positions=places,
            widths=0.3,
            patch_artist=True,
            boxprops={"facecolor": f"C{i}"},
            medianprops={"color": "black"},
        )["boxes"]
        boxes[0].set_label(f"trained {name} it")
    axes.set_xticks(range(len(s.variation_test)), s.variation_test)
    axes.legend(frameon=False)
    level = s.variation_train
    pair = [estimate(numbers[name][level]) for name in ("with", "without")]
    text = (
        f"{s.chips} chips per cell, whose weights are each off by a factor 1 + σ·z; "
        "mean ± half of the 95 % interval over chips. Each network is trained once; "
        f"training with it, at σ = {level:g}, draws another chip at each step. "
        f"{_verdict({f'σ = {level:g}': pair})}"
    )
    columns = ["", "nominal", *(f"σ = {std:g}" for std in s.variation_test)]
    section = Section("e. Process variation", text, columns, rows, figure)
    study.add("process_variation", section, numbers)


def bear_saturation(study, base):
    """Part f: outputs of a limited range and few bits, trained with and without."""
    s, pairs, numbers = study.settings, {}, []
    stds = output_stds(base, study.data, len(s.hidden))
    without = study.tune(base, "unlimited")
    for bits in s.saturation_bits:
        for limit in s.saturation_ranges:
            converters = [ADC(bits, limit * std) for std in stds]
            prepared = study.tune(base, "prepared", behind=converters)
            surprised = network(study.data, s.hidden, "surprised", behind=converters)
            start_from(surprised, without)
            surprised.compile(loss=prepared.loss, metrics=["accuracy"])
            scores = [accuracy(model, study.data) for model in (prepared, surprised)]
            keys = ("bits", "range", "with", "without")
            numbers.append(dict(zip(keys, (bits, limit, *scores), strict=True)))
            count = len(study.data.test[0])
            pairs[f"{bits} bits, ±{limit:g}"] = [proportion(v, count) for v in scores]
    figure, axes = _draw("range of the converter, ± σ of the outputs")
    for k, bits in enumerate(s.saturation_bits):
        mine = [found for found in numbers if found["bits"] == bits]
        for key, line in (("without", ":"), ("with", "-")):
            values = [found[key] for found in mine]
            label = f"{bits} bits, trained {key}"
            axes.plot(s.saturation_ranges, values, f"C{k}{line}o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(s.saturation_ranges, [f"{r:g}" for r in s.saturation_ranges])
    axes.legend(frameon=False)
    text = (
        "The outputs of each hidden layer pass a converter, whose range is relative to "
        "their standard deviation in the float network. ± is half of the 95 % interval "
        f"that the number of test images gives; one training each. {_verdict(pairs)}"
    )
    columns = ["converter", "trained with it", "trained without it"]
    rows = [[name, *map(_interval, found)] for name, found in pairs.items()]
    section = Section("f. Saturation", text, columns, rows, figure)
    study.add("saturation", section, numbers)


def _draw(xlabel):
    """A figure with its axes, for accuracy over something."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel="accuracy")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _verdict(pairs):
    """Whether training with it is better, by the intervals at what was trained for."""
    better = [
        name for name, (with_it, without) in pairs.items() if with_it.is_above(without)
    ]
    if not better:
        return "Training with it is not better than without, by these intervals."
    return (
        f"At {len(better)} of {len(pairs)} levels trained for, training with it is "
        f"better than without by more than the intervals: {'; '.join(better)}."
    )


def _interval(found):
    return f"{found.mean:.4f} ± {found.half_width:.4f}"
