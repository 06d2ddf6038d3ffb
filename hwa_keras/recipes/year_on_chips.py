"""A year on chips for the networks of a recipe: tables, plot, page, export."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import keras
from rich.console import Console

from hwa_keras.analysis import TIMES, drift_sweep
from hwa_keras.analysis.study_data import evaluable
from hwa_keras.deployment import export, program, verify_export
from hwa_keras.recipes import workers
from hwa_keras.recipes.task import Task
from hwa_keras.results import Result, report, write_json

__all__ = ["follow_for_a_year"]


COMPENSATIONS = ("none", "measured")

console = Console()


def follow_for_a_year(
    task: Task, models: Mapping[str, keras.Model], out: Path, saved_models: Path
) -> None:
    """Follow networks on chips for a year, and write everything down.

    The chips are shared by all workers; see `recipes.workers`. Written are
    `results.json`, `results.csv`, `drift.png` and `report.html`, and a chip of the last
    network as a SavedModel.

    Args:
        task: A `recipes.Task`.
        models: Dictionary from names to compiled models; the last one is exported.
        out: Path of the folder of the run.
        saved_models: Path of the folder to export to.
    """
    software, on_chip_test = {}, {}
    for name, model in models.items():
        software[name] = _in_software(task, model, task.test)
        on_chip_test[name] = _in_software(task, model, task.chip_test)
        console.print(
            f"{name} in software: {task.metric} {software[name]:.4f}; "
            f"{on_chip_test[name]:.4f} on what chips are evaluated on"
        )
    number, _ = workers.find()
    results = []
    for name, model in models.items():
        for result in _follow(task, name, model, out):
            results.append(result)
            if number == 0:
                _write_numbers(task, software, on_chip_test, results, out)
    if number:
        return  # The first worker writes.
    notes = [
        f"In software: {name} {task.metric} {value:.4f} on all test data, "
        f"{on_chip_test[name]:.4f} on what chips are evaluated on."
        for name, value in software.items()
    ]
    _illustrate(task, models.values(), results, notes, out)
    if keras.backend.backend() == "tensorflow":
        _ship(task, list(models.values())[-1], Path(saved_models) / task.name)
    else:
        console.print("A SavedModel is written with KERAS_BACKEND=tensorflow only.")
    console.print(f"Written to {out}.")


def _in_software(task, model, data):
    """The metric of a network as it is, without a chip."""
    found = model.evaluate(
        **evaluable(data, batch_size=256),
        callbacks=list(task.resets),
        return_dict=True,
        verbose=0,
    )
    return found[task.metric]


def _follow(task, name, model, out):
    """Drift sweeps of one network, with AdaBS on top where there are statistics."""
    yield _sweep(task, name, model, out, COMPENSATIONS, None)
    if task.calibration is not None:
        inputs = task.calibration
        yield _sweep(task, f"{name} + AdaBS", model, out, "measured", inputs)


def _sweep(task, name, model, out, compensation, calibration):
    """One sweep, its chips shared by all workers."""
    number, count = workers.find()
    settings = task.settings
    result = drift_sweep(
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
        shares = workers.shared(f"{name}.json", result.to_dict(), out)
        if number:
            return result
        result = Result.join(*map(Result.from_dict, shares))
    console.print(result.table())
    return result


def _write_numbers(task, software, on_chip_test, results, out):
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


def _illustrate(task, models, results, notes, out):
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


def _ship(task, model, path):
    """Program one chip, export it, and compare what was written with the chip."""
    chip = program(model, task.settings.chip(), seed=task.settings.seed)
    export(chip, path, overwrite=True)
    difference = verify_export(path, chip, task.example, TIMES.values())
    console.print(f"{path}: largest relative difference from the chip {difference:.1e}")
