"""The tables and figures of examples/lanmax_cifar10.py."""

import numpy as np
from lanmax_training import CURVES
from matplotlib.figure import Figure

from hwa_keras.recipes.runner import cell
from hwa_keras.results import Section, estimate


def sections_of(records, settings, sensitivity, spectra):
    """All parts of the report, by the names of their files.

    Args:
        records: List of what `lanmax_training.measure` found, one per training.
        settings: The settings of the run.
        sensitivity: What `layer_sensitivity` returned.
        spectra: What `compare_spectra` returned, or None.
    """
    found = summarized(records)
    sections = {
        "energy": energy_section(found, settings),
        "equal_accuracy": equal_accuracy_section(found),
        "rates": rates_section(records),
        "read_rates": read_rates_section(records, settings),
        "sensitivity": sensitivity_section(sensitivity),
    }
    if spectra is not None:
        sections["spectra"] = spectra_section(spectra, settings)
    return sections


def summarized(records):
    """Per curve, a list of (label, energies, accuracies), one value per training.

    The energy is relative to the network of the largest width, binary and reliable.
    """
    reliable = [r["energy"] for r in records if r["curve"] == "reliable"]
    found = {}
    for curve in CURVES:
        own = [record for record in records if record["curve"] == curve]
        found[curve] = [
            (
                label,
                np.array([r["energy"] for r in group]) / max(reliable),
                np.array([np.mean(r["accuracy"]) for r in group]),
            )
            for label, group in (
                (label, [r for r in own if r["label"] == label])
                for label in dict.fromkeys(r["label"] for r in own)
            )
        ]
    return found


def energy_section(found, settings):
    """Figure 4.4: accuracy over energy."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve, entries in found.items():
        energies = [estimate(e) for _, e, _ in entries]
        accuracies = [estimate(a) for _, _, a in entries]
        axes.errorbar(
            [e.mean for e in energies],
            [a.mean for a in accuracies],
            xerr=np.nan_to_num([e.half_width for e in energies]),
            yerr=np.nan_to_num([a.half_width for a in accuracies]),
            marker="o",
            capsize=2,
            linewidth=1,
            label=CURVES[curve],
        )
    axes.set(xscale="log", xlabel="energy of the memory", ylabel="accuracy")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    rows = [
        [CURVES[curve], label, cell(energies), cell(accuracies)]
        for curve, entries in found.items()
        for label, energies, accuracies in entries
    ]
    text = (
        f"Means of {settings.seeds} training(s), each evaluated with up to "
        f"{settings.draws} draws of wrong bits; ± is half of the 95 % interval over "
        "the trainings. Energy 1 is that of the largest network in binary, "
        "reliable memory."
    )
    return Section(
        "Energy and accuracy", text, ["", "", "energy", "accuracy"], rows, figure
    )


def energy_needed(entries, accuracy):
    """The least energy with which a curve reaches an accuracy.

    Between its points, which are sorted by energy, a curve is taken as a line over the
    logarithm of the energy; what more energy makes worse does not count.

    Returns:
        A float, or None where the accuracy is above or below the curve.
    """
    points = sorted((float(np.mean(e)), float(np.mean(a))) for _, e, a in entries)
    energies = np.log([energy for energy, _ in points])
    best = np.maximum.accumulate([a for _, a in points])
    if not best[0] <= accuracy <= best[-1]:
        return None
    after = int(np.argmax(best >= accuracy))
    if after == 0:
        return float(np.exp(energies[0]))
    share = (accuracy - best[after - 1]) / (best[after] - best[after - 1])
    return float(
        np.exp(energies[after - 1] + share * (energies[after] - energies[after - 1]))
    )


def equal_accuracy_section(found):
    """How much energy the other memories need for the accuracies of LaNMax."""
    rows = []
    for label, energies, accuracies in found["lanmax"]:
        row = [label, cell(accuracies), cell(energies)]
        for curve in ("uniform", "reliable"):
            needed = [energy_needed(found[curve], a) for a in accuracies]
            ratios = [n / e for n, e in zip(needed, energies, strict=True) if n]
            outside = len(needed) - len(ratios)
            text = f"{cell(ratios)} ×" if ratios else ""
            row.append(f"{text} ({outside} outside)" if outside else text)
        rows.append(row)
    text = (
        "Energy that one p for all layers, and a smaller network in reliable memory, "
        "need for the accuracy of each network that LaNMax has trained, in units of "
        "the energy of that network; interpolated between the mean points of their "
        "curves. Outside: networks whose accuracy is above or below all of the curve, "
        "which are left out."
    )
    columns = ["LaNMax", "accuracy", "energy", "one p needs", "reliable needs"]
    return Section("Energy at equal accuracy", text, columns, rows)


def rates_section(records):
    """Figure 4.5: the error rate that each kernel has got."""
    own = [record for record in records if record["curve"] == "lanmax"]
    labels = list(dict.fromkeys(record["label"] for record in own))
    kernels = own[0]["kernels"]
    names = [kernel["path"].rpartition("/")[0] for kernel in kernels]
    figure = Figure(figsize=(max(6, 0.3 * len(names)), 4.5), layout="constrained")
    axes = figure.subplots()
    rates = {}
    for label in labels:
        group = [r for r in own if r["label"] == label]
        values = np.array([[k["error_rate"] for k in r["kernels"]] for r in group])
        rates[label] = np.exp(np.mean(np.log(values), axis=0))
        axes.plot(names, rates[label], "o-", linewidth=1, label=label)
    axes.set(yscale="log", ylabel="bit error rate")
    axes.tick_params(axis="x", rotation=90)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    rows = [
        [
            name,
            f"{kernel['weights']:,}",
            *(f"{rates[label][i]:.2g}" for label in labels),
        ]
        for i, (name, kernel) in enumerate(zip(names, kernels, strict=True))
    ]
    text = "Geometric means over the trainings."
    columns = ["kernel of", "weights", *labels]
    return Section("Error rates that LaNMax has found", text, columns, rows, figure)


def read_rates_section(records, settings):
    """Figure 4.2: networks in a memory of another error rate than they know."""
    own = [record for record in records if record["curve"] == "uniform"]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rows = []
    for p in settings.rates:
        means = np.mean([r["read_at"] for r in own if r["p"] == p], axis=0)
        shown = np.array(settings.read_rates) > 0
        read = np.array(settings.read_rates)[shown]
        axes.plot(read, means[shown], "o-", linewidth=1, label=f"trained at {p:g}")
        rows.append([f"trained at {p:g}", *(f"{m:.4f}" for m in means)])
    axes.set(xscale="log", xlabel="bit error rate at reading", ylabel="accuracy")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    text = "Mean accuracy over the trainings and up to five draws of wrong bits."
    columns = ["", *(f"read at {p:g}" for p in settings.read_rates)]
    return Section("Other error rates than trained for", text, columns, rows, figure)


def sensitivity_section(curve):
    """Figure 4.3: which kernels bear noise."""
    axes = curve.plot(boxes=True)
    rows = [
        [str(level), cell(curve.values(level)), str(curve.estimate(level).count)]
        for level in curve.levels
    ]
    text = (
        f"{curve.axes[0].label}; ± is half of the 95 % interval over draws of wrong "
        "bits."
    )
    columns = ["", "accuracy", "draws"]
    return Section("Sensitivity of the layers", text, columns, rows, axes.figure)


def spectra_section(spectra, settings):
    """Figures 4.7 and 4.8: what noise in training does to singular values."""
    table = spectra.table()
    columns = [str(column.header) for column in table.columns]
    cells = [list(column.cells) for column in table.columns]
    rows = [[str(cell) for cell in row] for row in zip(*cells, strict=True)]
    text = (
        "Leading singular values of the last kernel but one, unfolded along its "
        f"outputs: networks trained at p = {min(settings.rates):g} and at "
        f"{max(settings.rates):g}."
    )
    return Section("Spectra", text, columns, rows, spectra.plot().figure)
