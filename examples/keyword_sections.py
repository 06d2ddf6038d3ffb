"""Tables and figures of examples/keyword_spotting.py."""

import keras
import numpy as np
from keyword_studies import BATCH, LARGEST, models_of
from matplotlib.figure import Figure

from hwa_keras.recipes.runner import cell
from hwa_keras.results import Section
from hwa_keras.results.text import readable


def accuracy_section(found, settings):
    """Accuracies in software and on chips, with intervals over trainings, and energy.

    With several data sets, such as speakers left out, the intervals are over these.
    """
    rows, means = [], {name: _by_training(found, name) for name in models_of(settings)}
    for name, (software, chips, spread) in means.items():
        own = [row for row in found if row["model"] == name]
        energy = readable(float(np.mean([row["joules"] for row in own])), "J")
        synops = f"{np.mean([row['synops'] for row in own]):,.0f}"
        accuracies = [cell(software), *(cell(column) for column in chips.T)]
        rows.append([name, *accuracies, synops, energy])
        between = [f"{each:.4f}" for each in spread]
        rows.append([f"{name}, between chips", "", *between, "", ""])
    if "ideal" in means:
        gains = means["hardware"][1] - means["ideal"][1]
        rows.append(["hardware over ideal", "", *map(cell, gains.T), "", ""])
    over = "speakers" if _several(found) else "trainings"
    text = (
        f"Synapses of 5 bits in ±{LARGEST}, leak mismatch of {settings.tau_std:.0%}, "
        "synaptic mismatch in percent of the largest weight; "
        f"{settings.chips} chips of each training, {settings.seeds} with other seeds; "
        f"measured on {settings.held_out} clips. ± is half of the 95 % interval over "
        f"{over}, each a mean of its chips; between chips: the standard deviation of "
        "the chips of a training. The hardware model was trained at "
        f"{settings.synaptic_std:.0%}. Synaptic operations and energy are those of "
        f"one clip, in software; {found[0]['energy_source']}; in frames, each step in "
        f"full: {readable(found[0]['frame_joules'], 'J')} of multiply-accumulates."
    )
    levels = [f"{level:.0%}" for level in settings.levels]
    columns = ["model", "software", *levels, "synaptic operations", "energy"]
    return Section(
        "Three models on chips", text, columns, rows, curves(found, settings)
    )


def _several(found):
    return len({row["dataset"] for row in found}) > 1


def _by_training(found, name):
    """Software accuracies `[n]`, means of chips `[n, levels]`, deviations `[levels]`.

    n is the number of data sets, or of seeds where there is one data set.
    """
    own = [row for row in found if row["model"] == name]
    key = "dataset" if _several(found) else "seed"
    groups = [
        [row for row in own if row[key] == value]
        for value in dict.fromkeys(row[key] for row in own)
    ]
    software = [np.mean([row["software"] for row in group]) for group in groups]
    chips = [np.mean([row["chips"] for row in group], axis=(0, 2)) for group in groups]
    between = np.array([np.std(row["chips"], axis=1, ddof=1) for row in own])
    return np.array(software), np.array(chips), np.sqrt(np.mean(between**2, axis=0))


def speakers_section(found, settings):
    """What is lost and gained on the clips of each speaker who was left out."""
    names = list(dict.fromkeys(row["dataset"] for row in found))
    rows = []
    for name in names:
        cells = []
        for model in settings.models:
            own = [r for r in found if (r["dataset"], r["model"]) == (name, model)]
            software = np.mean([row["software"] for row in own])
            chips = np.mean([row["chips"] for row in own], axis=(0, 2))
            cells += [software, *chips]
        rows.append([name.partition("/")[2], *(f"{each:.4f}" for each in cells)])
    levels = ["software", *(f"{level:.0%}" for level in settings.levels)]
    columns = [f"{model}, {level}" for model in settings.models for level in levels]
    text = "Each network was trained on the clips of the other speakers."
    return Section("Speakers left out", text, ["speaker", *columns], rows)


def files_section(rows):
    """What was written of a chip."""
    text = (
        "A chip of the last network that was trained for hardware: saved, and exported "
        "for TensorFlow and TensorFlow Lite. Beside each, the largest difference of "
        "its outputs from the chip's."
    )
    return Section("A chip in files", text, ["file", "bytes", "difference"], rows)


def curves(found, settings):
    """Accuracy over mismatch: a line for each training, means of its chips."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    levels = 100 * np.array(settings.levels)
    for i, name in enumerate(models_of(settings)):
        own = [row for row in found if row["model"] == name]
        for row in own:
            label = name if row is own[0] else None
            means = np.mean(row["chips"], axis=1)
            axes.plot(levels, means, "o-", color=f"C{i}", label=label, alpha=0.8)
    axes.set_xlabel("synaptic mismatch, % of the largest weight")
    axes.set_ylabel("accuracy, mean of chips")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def activity_section(model, data):
    """Spikes and membranes of the network for one clip, and rates over the test."""
    names = ["frontend_neurons", "hidden_neurons", "word_neurons"]
    outputs = [model.get_layer(name).output for name in names]
    inside = keras.Model(model.inputs, outputs)
    traces = [
        [np.asarray(each) for each in layer]
        if isinstance(layer, (list, tuple))
        else np.asarray(layer)
        for layer in inside.predict(data.test[0][:BATCH], verbose=0)
    ]
    front, hidden, word = traces
    word = word[1] if isinstance(word, list) else word
    rates = [
        [name, f"{spikes.mean():.4f}", f"{spikes.sum((1, 2)).mean():.0f}"]
        for name, spikes in (("front end", front), ("hidden", hidden))
    ]
    label = int(data.test[1][0])
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots(3, sharex=True, height_ratios=(1, 2, 2))
    for place, name, spikes in (
        (axes[0], "channel", front[0]),
        (axes[1], "hidden neuron", hidden[0]),
    ):
        times, neurons = np.nonzero(spikes)
        place.plot(times, neurons, "|", color="black", markersize=3)
        place.set_ylabel(name)
    for i, trace in enumerate(word[0].T):
        style = {"linewidth": 2.5} if i == label else {"alpha": 0.6}
        axes[2].plot(trace, label=str(i), **style)
    axes[2].set_ylabel("membrane or spikes of words")
    axes[2].set_xlabel("bin")
    axes[2].legend(ncols=5, fontsize="small")
    text = (
        f"The network trained for hardware, in software: the first test clip (class "
        f"{label}, thick), and rates over {len(front)} clips."
    )
    columns = ["neurons", "spikes a bin", "spikes a clip"]
    return Section("Spikes and membranes", text, columns, rates, figure)
