"""Flat minima and weights that are off: SGD, SAM, ASAM and SAMSON on CIFAR-10.

Each method trains a network, with clipped weights and without; then the networks are
put on chips whose conductances vary, their sharpness is measured, their weights are
quantized and their images shifted.

    python examples/sharpness_cifar10.py --preset=small --out=runs/sharpness
    python examples/sharpness_cifar10.py --preset=smoke --methods=sgd,samson_inf
    KERAS_BACKEND=jax python examples/sharpness_cifar10.py --preset=paper

Presets and methods are in configs/sharpness_cifar10; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import itertools
import json
import time
from pathlib import Path

import numpy as np
import presets
from absl import app, flags, logging
from matplotlib.figure import Figure
from sharpness_training import MEASURES, NETWORKS, Recipe, measure, train
from study import cell, check, console, prepared, show

from hwa_keras.analysis import Curve, Section, correlation, report

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_enum("preset", "smoke", ["smoke", "small", "paper"], "How large a run.")
flags.DEFINE_string(
    "config", str(ROOT / "configs/sharpness_cifar10"), "Folder of presets and methods."
)
flags.DEFINE_list("methods", None, "Files of that folder. Default: all of them.")
flags.DEFINE_string("out", "runs/sharpness_cifar10", "Folder for all that is written.")
# Left out, these are what the preset says.
OVERRIDES = ("epochs", "network", "seeds", "repeats")
flags.DEFINE_integer("epochs", None, "Epochs of each training.", 1)
flags.DEFINE_enum("network", None, sorted(NETWORKS), "What to train.")
flags.DEFINE_integer("seeds", None, "Trainings of each method.", 1)
flags.DEFINE_integer("repeats", None, "Chips per level of variation.", 1)

GROUPS = {"plain": "without clipping", "clipped": "clipped", "noise": "under noise"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; presets.yaml explains each key."""

    network: str
    train_images: int
    test_images: int
    augment: bool
    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    weight_decay: float
    sigmas: list
    repeats: int
    calibration_images: int
    sharpness_images: int
    bits: list
    seeds: int

    def __post_init__(self):
        check(self, network=NETWORKS)
        if self.sigmas[:1] != [0.0] or len(self.sigmas) < 2:
            raise ValueError("`sigmas` must begin with 0.0 and go on.")


def read_recipes(folder, names):
    """The methods of a folder by name, plain SGD first."""
    folder = Path(folder)
    known = [path.stem for path in folder.glob("*.yaml") if path.stem != "presets"]
    names = sorted(known) if names is None else names
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"{folder} has no method {', '.join(unknown)}. It has "
            f"{', '.join(sorted(known))}."
        )
    found = {
        name: presets.read(folder / f"{name}.yaml", None, Recipe, {}) for name in names
    }
    order = ["SGD", *MEASURES]
    return dict(
        sorted(
            found.items(),
            key=lambda item: (
                list(GROUPS).index(item[1].group),
                order.index(item[1].title.split(" ")[0]),
            ),
        )
    )


def run(recipes, settings, data, out):
    """Train and measure everything: per method, one dictionary per seed."""
    found = {}
    for name, recipe in recipes.items():
        found[name] = []
        for seed in range(settings.seeds):
            start = time.monotonic()
            model = train(recipe, settings, data, seed)
            trained = time.monotonic()
            model.save(out / f"{name}_{seed}.keras")
            found[name].append(measure(model, settings, data, seed))
            curve = found[name][-1]["robustness"]
            last = settings.sigmas[-1]
            console.print(
                f"{recipe.title}, seed {seed}: {curve.estimate(0.0).mean:.4f}, at "
                f"σ_c = {last:g} {curve.estimate(last).mean:.4f} (trained in "
                f"{trained - start:.0f} s, measured in "
                f"{time.monotonic() - trained:.0f} s)"
            )
    return found


def merged(recipes, found, key):
    """One curve per method, the samples of all its seeds together."""
    return {
        name: Curve(
            recipe.title,
            curves[0].quantity,
            curves[0].metric,
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


def write(recipes, settings, found, out):
    """Tables, figures, numbers and the page of a run."""
    curves = {
        key: merged(recipes, found, key)
        for key in ("robustness", "quantization", "shift")
    }
    calibrated = ", with batch-norm statistics estimated anew on each chip (AdaBS)"
    texts = {
        "robustness": (
            "Accuracy with conductance variation",
            f"Over {settings.repeats} chips and {settings.seeds} training(s) of each "
            f"method; ± is half of the 95 % interval"
            f"{calibrated if settings.calibration_images else ''}.",
        ),
        "quantization": (
            "Accuracy with quantized weights",
            "Bits of the weights, rounded without training for it; the first layer "
            "keeps its precision.",
        ),
        "shift": (
            "Accuracy on shifted images",
            f"Best methods by number of shifts: {best_of(curves['shift'])}.",
        ),
    }
    sections = {key: curve_section(*texts[key], recipes, curves[key]) for key in curves}
    sections["sharpness"], correlations = sharpness_section(
        recipes, found, curves, settings
    )
    for key, section in sections.items():
        show(section)
        section.figure.savefig(out / f"{key}.png", dpi=150)
    for key, by_method in curves.items():
        first, *others = by_method.values()
        first.to_csv(out / f"{key}.csv", *others)
    used = {
        "preset": FLAGS.preset,
        **dataclasses.asdict(settings),
        "methods": {name: dataclasses.asdict(r) for name, r in recipes.items()},
    }
    numbers = {
        name: [
            {k: v.to_dict() if isinstance(v, Curve) else v for k, v in record.items()}
            for record in records
        ]
        for name, records in found.items()
    }
    content = {"settings": used, "correlations": correlations, "networks": numbers}
    (out / "results.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    title = "CIFAR-10: sharpness-aware training and weights that are off"
    report(out / "report.html", title, settings=used, sections=sections.values())


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    file = Path(FLAGS.config, "presets.yaml")
    settings, recipes, data, out = presets.begin(
        "sharpness_cifar10",
        "cifar10",
        FLAGS.out,
        lambda: presets.read(file, FLAGS.preset, Settings, overrides),
        lambda: read_recipes(FLAGS.config, FLAGS.methods),
    )
    found = run(recipes, settings, prepared(data, settings), out)
    write(recipes, settings, found, out)
    console.print(f"Written to {out}. Done in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    app.run(main)
