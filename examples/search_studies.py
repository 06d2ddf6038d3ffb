"""What examples/search_crossbar.py searches and compares."""

import time

import numpy as np

from hwa_keras import search
from hwa_keras.devices import Memristor
from hwa_keras.recipes import classifier
from hwa_keras.recipes.runner import cell, console
from hwa_keras.results import Section

NAMES = {
    "M1": "architecture alone (M1)",
    "M2": "a range for each layer (M2)",
    "M2u": "one multiplier of all ranges (M2u)",
    "M3": "M1 scaled, as written (M3)",
    "M3 published": "M1 scaled, as published (M3)",
}


def parts(data, settings):
    """Images and labels to train on, to search with, to calibrate on and to test."""
    x, y = data.train
    kept = settings.train_images + settings.search_images
    whole = data._replace(train=(x[:kept], y[:kept]))
    whole = classifier.standardized(whole, kept, settings.test_images)
    x, y = whole.train
    if len(x) < kept:
        raise ValueError(
            f"{data.name} has {len(x)} training images, and "
            f"`train_images` and `search_images` are {kept} together."
        )
    cut = settings.train_images
    return {
        "train": (x[:cut], y[:cut]),
        "search": (x[cut:], y[cut:]),
        "test": whole.test,
        "calibration": x[: settings.calibration_images],
    }


def device_of(settings):
    """The memristors: at the default range a weight of w conducts |w|·g_u."""
    return Memristor(
        settings.sigma,
        g_max=100 * settings.g_u,
        g_u=settings.g_u,
        per="network",
        largest_weight=1.0,
    )


def objective_of(supernet, data, images, settings, accuracy=None, power=None):
    """Accuracy and power of networks on some images."""
    return search.CrossbarAccuracyPower(
        supernet,
        device_of(settings),
        data,
        batches_accuracy=accuracy or settings.batches_accuracy,
        batches_power=power or settings.batches_power,
        batch_size=settings.eval_batch,
        calibration=images["calibration"],
    )


def samples(supernet, images, settings):
    """n_a and n_p: the mini-batches that rank networks (figure 6.1)."""
    count = settings.rank_batches
    objective = objective_of(supernet, images["search"], images, settings, count, count)
    design = search.DesignSpace(supernet.space, per=None)
    drawn = design.latin_hypercube(settings.rank_networks)
    found = [objective.per_batch(candidate) for candidate in drawn]
    axes, rows, numbers = None, [], {}
    for name in ("accuracy", "power"):
        values = np.array([each[name] for each in found])
        if np.ptp(values.mean(axis=1)) == 0:
            rows.append([name, "all equal", "", ""])
            continue
        ranked = search.rank_samples(values, name=name)
        axes = ranked.plot(axes=axes)
        deltas, counts = ranked.front()
        numbers[name] = {"delta": deltas.tolist(), "batches": counts.tolist()}
        rows.append([name, *(_at(ranked, delta) for delta in (0.02, 0.05, 0.1))])
    text = (
        f"{len(drawn)} random networks on {count} mini-batches of "
        f"{settings.eval_batch} images. δ is a share of the range of the means; the "
        "rank is right with probability 0.95."
    )
    columns = ["mini-batches for", "δ = 0.02", "δ = 0.05", "δ = 0.1"]
    title = "Mini-batches that rank networks"
    return Section(title, text, columns, rows, axes and axes.figure), numbers


def _at(ranked, delta):
    try:
        return str(ranked.at(delta))
    except ValueError:
        return "—"


def speed(objective, count=10):
    """Candidates a second, each of another architecture, after the first of all."""
    first, *others = search.DesignSpace(objective.space).latin_hypercube(count + 1)
    objective(first)
    compiled, begin = objective.compilations, time.monotonic()
    for candidate in others:
        objective(candidate)
    return {
        "candidates_a_second": len(others) / (time.monotonic() - begin),
        "compilations": objective.compilations - compiled,
    }


def searches(objective, settings, out):
    """All modes with all seeds: fronts by name."""
    found = {name: [] for name in NAMES}
    for seed in range(settings.seeds):
        for mode in ("M1", "M2", "M2u"):
            result = search.search(
                objective.space,
                objective,
                mode,
                settings.population,
                settings.generations,
                seed,
                checkpoint=out / f"checkpoint_{mode}_{seed}.json",
                verbose=0,
            )
            found[mode].append(result)
            console.print(f"{mode}, seed {seed}: {len(result.front)} on the front.")
        for name, kind in (("M3", "written"), ("M3 published", "published")):
            scaled = search.scale_ranges(found["M1"][-1], objective, kind, verbose=0)
            found[name].append(scaled)
    return found


def tested(results, supernet, images, settings, out):
    """The fronts as measured on test images, and written."""
    count = len(images["test"][0]) // settings.eval_batch
    objective = objective_of(supernet, images["test"], images, settings, count, count)
    found = {}
    for name, several in results.items():
        found[name] = []
        for result in several:
            again = search.reevaluate(result, objective, verbose=0)
            stem = f"front_{name.replace(' ', '_')}_{result.seed}"
            again.to_json(out / f"{stem}.json")
            again.to_csv(out / f"{stem}.csv")
            found[name].append(again)
    return found


def modes(results, pace):
    """Fronts of all modes (figure 6.2), and power at equal accuracy."""
    comparison = search.compare(results)
    axes = None
    for several in results.values():
        axes = several[0].plot(axes=axes)
    for line, name in zip(axes.lines, results, strict=True):
        line.set_label(NAMES[name])
    axes.set_xscale("log")
    axes.legend(fontsize=8)
    rows = []
    for i, level in enumerate(comparison.levels):
        row = [f"{level:.4f}"]
        for ratios in comparison.ratios.values():
            reached = ratios[:, i][np.isfinite(ratios[:, i])]
            row.append(cell(reached) if reached.size else "—")
        rows.append(row)
    seeds = len(results["M1"])
    text = (
        "Power in units of M1's at equal accuracy, on test images that no search saw; "
        f"± is half of the 95 % interval over {seeds} searches. The thesis has 0.43 to "
        "0.66 for M2. Drawn is the first seed."
    )
    text += (
        f" {pace['candidates_a_second']:.2f} candidates a second, "
        f"{pace['compilations']} compilations after the first."
    )
    columns = ["accuracy", *comparison.ratios]
    section = Section("Fronts", text, columns, rows, axes.figure)
    return section, comparison.to_dict()
