"""A year on chips for the networks of a recipe: tables, plot, page, export."""

import dataclasses
from pathlib import Path

import keras
import recipe_workers
from rich.console import Console

import hwa_keras
from hwa_keras.analysis import TIMES
from hwa_keras.analysis.study_data import evaluable
from hwa_keras.results import Result, report, write_json

console = Console()
COMPENSATIONS = ("none", "measured")


def evaluate(task, models, out, saved_models):
    """Follow networks on chips for a year, and write everything down.

    Args:
        task: A `recipe.Task`.
        models: Dictionary from names to compiled models; the last one is exported.
        out: Folder of the run.
        saved_models: Folder to export to.
    """
    software, on_chip_test = {}, {}
    for name, model in models.items():
        software[name] = in_software(task, model, task.test)
        on_chip_test[name] = in_software(task, model, task.chip_test)
        console.print(
            f"{name} in software: {task.metric} {software[name]:.4f}; "
            f"{on_chip_test[name]:.4f} on what chips are evaluated on"
        )
    number, _ = recipe_workers.find()
    results = []
    for name, model in models.items():
        for result in follow(task, name, model, out):
            results.append(result)
            if number == 0:
                write_numbers(task, software, on_chip_test, results, out)
    if number:
        return  # The first worker writes.
    notes = [
        f"In software: {name} {task.metric} {value:.4f} on all test data, "
        f"{on_chip_test[name]:.4f} on what chips are evaluated on."
        for name, value in software.items()
    ]
    illustrate(task, models.values(), results, notes, out)
    if keras.backend.backend() == "tensorflow":
        ship(task, list(models.values())[-1], Path(saved_models) / task.name)
    else:
        console.print("A SavedModel is written with KERAS_BACKEND=tensorflow only.")
    console.print(f"Written to {out}.")


def in_software(task, model, data):
    """The metric of a network as it is, without a chip."""
    found = model.evaluate(
        **evaluable(data, batch_size=256),
        callbacks=list(task.resets),
        return_dict=True,
        verbose=0,
    )
    return found[task.metric]


def follow(task, name, model, out):
    """Drift sweeps of one network, with AdaBS on top where there are statistics."""
    yield sweep(task, name, model, out, COMPENSATIONS, None)
    if task.calibration is not None:
        inputs = task.calibration
        yield sweep(task, f"{name} + AdaBS", model, out, "measured", inputs)


def sweep(task, name, model, out, compensation, calibration):
    """One sweep, its chips shared by all workers."""
    number, count = recipe_workers.find()
    settings = task.settings
    result = hwa_keras.drift_sweep(
        model,
        settings.chip(),
        task.chip_test,
        chips=range(number, settings.chips, count),
        compensation=compensation,
        metric=task.metric,
        seed=settings.seed,
        calibration=calibration,
    )
    result.name = name
    if count > 1:
        shares = recipe_workers.shared(f"{name}.json", result.to_dict(), out)
        if number:
            return result
        result = Result.join(*map(Result.from_dict, shares))
    console.print(result.table())
    return result


def write_numbers(task, software, on_chip_test, results, out):
    """Write what was measured so far: a run that is cut short keeps it."""
    content = {
        "settings": dataclasses.asdict(task.settings),
        "software": software,
        "software_on_chip_test": on_chip_test,
        "results": [result.to_dict() for result in results],
    }
    write_json(out / "results.json", content)
    first, *others = results
    first.to_csv(out / "results.csv", *others)


def illustrate(task, models, results, notes, out):
    """Write the plot of sweeps, and the page of the run."""
    axes = None
    for result in results[:-1]:
        axes = result.plot(axes=axes)
    results[-1].plot(out / "drift.png", axes=axes)
    report(
        out / "report.html",
        f"{task.name}: a year on {task.settings.device}",
        results,
        conversions=[m for m in models if hasattr(m, "digital")],
        settings=dataclasses.asdict(task.settings),
        notes=notes,
    )


def ship(task, model, path):
    """Program one chip, export it, and compare what was written with the chip."""
    chip = hwa_keras.program(model, task.settings.chip(), seed=task.settings.seed)
    hwa_keras.export(chip, path, overwrite=True)
    difference = hwa_keras.verify_export(path, chip, task.example, TIMES.values())
    console.print(f"{path}: largest relative difference from the chip {difference:.1e}")
