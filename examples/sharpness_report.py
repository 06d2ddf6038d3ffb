"""Tables, figures and the page of the sharpness studies."""

import dataclasses
import itertools

import numpy as np
from matplotlib.figure import Figure
from sharpness_training import GROUPS, MEASURES

from hwa_keras.analysis import correlation
from hwa_keras.recipes.runner import cell
from hwa_keras.results import Result, Section


def write(title, recipes, found, run):
    """Tables, figures, numbers and the page of a run."""
    settings = run.settings
    curves = {
        key: merged(recipes, found, key)
        for key in ("robustness", "quantization", "shift")
        if key in next(iter(found.values()))[0]
    }
    texts = _texts(settings, curves)
    sections = {key: curve_section(*texts[key], recipes, curves[key]) for key in curves}
    correlations = {}
    if settings.sharpness_images:
        sections["sharpness"], correlations = sharpness_section(
            recipes, found, curves, settings
        )
    for key, by_method in curves.items():
        first, *others = by_method.values()
        first.to_csv(run.out / f"{key}.csv", *others)
    run.used["methods"] = {name: dataclasses.asdict(r) for name, r in recipes.items()}
    numbers = {
        name: [
            {k: v.to_dict() if isinstance(v, Result) else v for k, v in record.items()}
            for record in records
        ]
        for name, records in found.items()
    }
    run.write_numbers(correlations=correlations, networks=numbers)
    run.write_report(title, sections)


def _texts(settings, curves):
    """Title and text of the section of each kind of curve."""
    calibrated = ", with batch-norm statistics estimated anew on each chip (AdaBS)"
    texts = {
        "robustness": (
            "Accuracy with conductance variation",
            f"Over {settings.chips} chips and {settings.seeds} training(s) of each "
            f"method; ± is half of the 95 % interval"
            f"{calibrated if settings.calibration_images else ''}.",
        ),
        "quantization": (
            "Accuracy with quantized weights",
            "Bits of the weights, rounded without training for it; the first layer "
            "keeps its precision.",
        ),
    }
    if "shift" in curves:
        best = best_of(curves["shift"])
        texts["shift"] = (
            "Accuracy on shifted images",
            f"Best methods by number of shifts: {best}.",
        )
    return texts


def merged(recipes, found, key):
    """One curve per method, the samples of all its seeds together."""
    return {
        name: Result.from_curve(
            recipe.title,
            curves[0].metric,
            curves[0].axes[0],
            {
                level: {
                    curves[0].metric: np.concatenate([c.values(level) for c in curves])
                }
                for level in curves[0].levels
            },
        )
        for name, recipe in recipes.items()
        for curves in [[record[key] for record in found[name]]]
    }


def curve_section(title, text, recipes, curves):
    """A table of all methods, and a figure with a part for each group of them."""
    levels = next(iter(curves.values())).levels
    groups = list(dict.fromkeys(recipe.group for recipe in recipes.values()))
    figure = Figure(figsize=(5.2 * len(groups), 4), layout="constrained")
    parts = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(parts, groups, strict=True):
        for name, recipe in recipes.items():
            if recipe.group == group:
                curves[name].plot(axes=axes)
        axes.legend(fontsize=8, frameon=False)
        axes.set_title(GROUPS[group])
        axes.label_outer()
        if not _is_number(levels[0]):
            axes.tick_params(axis="x", rotation=90)
            axes.set_xticks(range(len(levels)), levels)
    rows = [
        [curve.name, *(cell(curve.values(level)) for level in levels)]
        for curve in curves.values()
    ]
    columns = ["", *(f"{level:g}" if _is_number(level) else level for level in levels)]
    return Section(title, text, columns, rows, figure)


def sharpness_section(recipes, found, curves, settings):
    """Sharpness of each network, and whether it goes with what noise costs."""
    last = settings.sigmas[-1]
    lost = {
        name: [
            record["robustness"].estimate(0.0).mean
            - record["robustness"].estimate(last).mean
            for record in found[name]
        ]
        for name in recipes
    }
    sharp = {
        (name, key): [record["sharpness"][key] for record in found[name]]
        for name, key in itertools.product(recipes, MEASURES)
    }
    figure = Figure(figsize=(4.2 * len(MEASURES), 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for name, recipe in recipes.items():
            marker = {"plain": "o", "clipped": "s", "noise": "^"}[recipe.group]
            axes.plot(sharp[name, key], lost[name], marker, label=recipe.title)
        axes.set(xlabel=f"m-sharpness of {key}", ylabel=f"lost at σ_c = {last:g}")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right", fontsize=8)
    rows = [
        [
            recipe.title,
            *(f"{np.mean(sharp[name, key]):.4g}" for key in MEASURES),
            f"{np.mean(lost[name]):.4f}",
        ]
        for name, recipe in recipes.items()
    ]
    numbers = {}
    for group in [*GROUPS, "all"]:
        names = [n for n, r in recipes.items() if group in (r.group, "all")]
        losses = [v for name in names for v in lost[name]]
        if len(losses) < 3:
            continue
        numbers[group] = {
            key: dataclasses.asdict(
                correlation([v for n in names for v in sharp[n, key]], losses)
            )
            for key in MEASURES
        }
        rows.append(
            [f"Pearson r, {GROUPS.get(group, 'all')} ({len(losses)} networks)"]
            + [f"{v['r']:.2f} (p = {v['p']:.2g})" for v in numbers[group].values()]
            + [""]
        )
    text = (
        "How much the loss on training images rises at the worst point of a "
        "neighborhood, mean over batches of 128, and how it goes with the accuracy "
        f"lost between σ_c = 0 and {last:g}."
    )
    columns = ["", *MEASURES, "accuracy lost"]
    return Section("Sharpness", text, columns, rows, figure), numbers


def best_of(curves):
    """How often each method is the best one over the levels of its curves."""
    first = next(iter(curves.values()))
    counts = {curve.name: 0 for curve in curves.values()}
    for level in first.levels:
        best = max(curves.values(), key=lambda curve: curve.estimate(level).mean)
        counts[best.name] += 1
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _is_number(value):
    return isinstance(value, (int, float))
