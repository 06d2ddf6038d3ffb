"""The command line of the recipe of two phases, for any `recipes.Task`.

This module needs the extra `examples`: `from hwa_keras.recipes import task_runner`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
from absl import app, flags

from hwa_keras.datasets import Windows
from hwa_keras.recipes import presets, runner, two_phases, workers
from hwa_keras.recipes.task import Task
from hwa_keras.recipes.year_on_chips import follow_for_a_year

__all__ = ["main"]


def main(task: Callable[[Any], Task], settings: type, config: str | Path) -> None:
    """Run the recipe from the command line, with a flag for each of its settings.

    Trains teacher and student, follows both for a year on chips, and writes everything
    to the folder `--out`. `docs/recipe.md` has the table of the other flags. What is
    wrong with flags, presets or checkpoints ends the program with one line.

    Args:
        task: A class of `recipes.Task`, which takes the settings.
        settings: A class of `recipes.TwoPhaseSettings`.
        config: Path of the YAML file of the presets. It names the runner, in messages
            and as the folder in `runs`.
    """
    name = Path(config).stem
    _define_flags(name, config)
    presets.define_flags(settings, config)

    def run(_: Sequence[str]) -> None:
        start = time.monotonic()
        runner.quiet()
        values = flags.FLAGS
        with runner.reading(name):
            made, out = _begin(values, task, settings)
        if not values.eval_only:
            teacher = Path(values.checkpoint) if values.checkpoint else None
            two_phases.train(made, out, teacher, _phases(values), values.resume)
        if not values.teacher_only:
            with runner.reading(name):
                models = _trained(values, made, out)
            follow_for_a_year(made, models, out, values.saved_models)
        print(f"Done in {time.monotonic() - start:.0f} s.")

    app.run(run)


def _define_flags(name, config):
    string, boolean = flags.DEFINE_string, flags.DEFINE_bool
    string("preset", "smoke", f"Which preset of {Path(config).name}.")
    string("config", str(config), "Where the presets are.")
    string("out", f"runs/{name}", "Folder to write to.")
    string("saved_models", "saved_models", "Folder of the exported SavedModel.")
    boolean("teacher_only", False, "Stop after the digital teacher.")
    boolean("student_only", False, "Begin with the student.")
    boolean("eval_only", False, "Train nothing, evaluate what is there.")
    boolean("resume", False, "Go on with the run in --out that was cut short.")
    boolean("overwrite", False, "Replace the run in --out.")
    string("checkpoint", None, "The teacher to begin with, or what to evaluate.")
    boolean("mixed_precision", False, "Compute in bfloat16.")
    kinds = ["none", "mirrored", "multiworker"]
    flags.DEFINE_enum("distribute", "none", kinds, "Which devices or machines train.")


def _phases(values):
    """The phases to train."""
    if values.teacher_only:
        return ("teacher",)
    return ("student",) if values.student_only else two_phases.PHASES


def _begin(values, task_class, settings_class):
    """Check everything that can be checked before anything takes time."""
    workers.start(values.distribute)
    only = ("teacher_only", "student_only", "eval_only")
    if len(chosen := [flag for flag in only if values[flag].value]) > 1:
        raise ValueError(f"Give one of --{' and --'.join(chosen)}, not both.")
    given = presets.given(settings_class)
    settings = presets.read(values.config, values.preset, settings_class, given)
    if values.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(settings.seed)
    out = workers.own_folder(Path(values.out))
    if values.checkpoint and not (values.student_only or values.eval_only):
        raise ValueError("--checkpoint goes with --student_only or --eval_only.")
    if values.checkpoint and not Path(values.checkpoint).is_file():
        raise FileNotFoundError(
            f"There is no checkpoint '{values.checkpoint}'. A run without --eval_only "
            "and --student_only writes teacher.keras and student.keras to --out."
        )
    task = task_class(settings)
    if values.eval_only:
        out.mkdir(parents=True, exist_ok=True)
        return task, out
    if values.distribute != "none" and isinstance(task.train, Windows):
        raise ValueError(
            "The text is read in order by one device: train with --distribute=none. "
            "With --eval_only, workers share the chips."
        )
    phases = _phases(values)
    two_phases.open_run(out, settings, phases, values.resume, values.overwrite)
    if values.student_only:
        two_phases.load(task, Path(values.checkpoint or out / "teacher.keras"))
    return task, out


def _trained(values, task, out):
    """{name: model}: the checkpoint that was given, or teacher and student."""
    if values.eval_only and values.checkpoint:
        paths = {"model": Path(values.checkpoint)}
    else:
        teacher = Path(values.checkpoint or out / "teacher.keras")
        paths = {"digital": teacher, "hwa": out / "student.keras"}
    models = {name: two_phases.load(task, path) for name, path in paths.items()}
    for model in models.values():
        task.compile(model, 1.0, 1)
    return models
