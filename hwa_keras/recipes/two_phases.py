"""The recipe that the published networks share: a digital teacher, then a student.

The student starts from the teacher's weights and is tuned under the noise of the
hardware. What differs between networks is a `Task`.

Reference:
    - Rasch et al., "Hardware-aware training for large-scale and diverse deep learning
      inference on analog in-memory computing", 2023, arXiv:2302.08469.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras

from hwa_keras import datasets, noise, training
from hwa_keras.constraints import HistogramClip
from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.recipes import workers
from hwa_keras.recipes.task import Task, TwoPhaseSettings
from hwa_keras.results import write_json, write_whole

__all__ = ["PHASES", "load", "open_run", "train"]

PHASES = ("teacher", "student")


def open_run(
    out: Path,
    settings: TwoPhaseSettings,
    phases: Sequence[str] = PHASES,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Make the folder of a run, or check that it holds one to go on with.

    Args:
        out: Path of the folder.
        settings: A `TwoPhaseSettings`.
        phases: The phases that are to be run, of `PHASES`.
        resume: Bool. Whether the folder holds a run to go on with.
        overwrite: Bool. Whether a run that is there is replaced.

    Raises:
        FileExistsError: If a run is there already.
        FileNotFoundError: If there is nothing to resume.
        ValueError: If the run that is there has other settings.
    """
    record = out / "settings.json"
    said = json.loads(json.dumps(dataclasses.asdict(settings)))
    if resume:
        _check_resumable(record, said)
        return
    written = [
        path
        for phase in phases
        for path in (out / phase, out / f"{phase}.keras")
        if path.exists()
    ]
    if written and not overwrite:
        raise FileExistsError(
            f"There is a run in '{out}' already. Go on with it (resume), evaluate its "
            "networks, replace it (overwrite), or give another folder."
        )
    for path in written:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, said)


def _check_resumable(record, settings):
    """Raise an error unless the record is that of a run with these settings."""
    if not record.is_file():
        raise FileNotFoundError(
            f"There is nothing to resume in '{record.parent}'. Start without resume, "
            "or give the folder of the run that was cut short."
        )
    before = json.loads(record.read_text(encoding="utf-8"))
    changed = [k for k in settings if settings[k] != before.get(k) and k != "chips"]
    if changed:
        raise ValueError(
            f"The run in '{record.parent}' has other settings for "
            f"{', '.join(changed)}. Resume it with its own, or start another one."
        )


def train(
    task: Task,
    out: Path,
    teacher: Path | None = None,
    phases: Sequence[str] = PHASES,
    resume: bool = False,
) -> None:
    """Train a digital teacher, then a student on hardware that starts from it.

    A run that is cut short goes on from the last epoch that it ended. Trained networks
    are `teacher.keras` and `student.keras` in the folder.

    Args:
        task: A `Task`.
        out: Path of the folder of the run; see `open_run`.
        teacher: Path of a teacher that is trained already, or None.
        phases: The phases to run, of `PHASES`.
        resume: Bool. Whether phases that are finished are left as they are.

    Raises:
        FileNotFoundError: If there is no teacher to start from.
        ValueError: If the teacher has another architecture.
    """
    own = out / "teacher.keras"
    if "teacher" in phases and not (resume and own.is_file()):
        with workers.scope():
            model = task.digital()
            task.compile(model, task.settings.learning_rate, task.settings.epochs)
        _train_phase(task, "teacher", model, model, task.settings.epochs, [], out)
    if "student" in phases and not (resume and (out / "student.keras").is_file()):
        _train_student(task, teacher or own, out)


def _train_student(task, teacher, out):
    settings = task.settings
    with workers.scope():
        student = task.student(load(task, teacher))
        model = student
        if settings.distillation:
            model = training.Distiller(
                student,
                load(task, teacher),
                weight=settings.distillation,
                temperature=settings.temperature,
            )
        task.compile(model, settings.hwa_learning_rate, settings.hwa_epochs)
    callbacks = [
        training.NoiseRamp(
            stop=settings.noise_scale,
            epochs=settings.ramp_epochs,
            only=noise.ProgrammingNoise,
        ),
        training.WeightRemap(settings.remap_interval),
    ]
    if settings.clip:
        callbacks.append(training.ConstrainKernels(HistogramClip(settings.clip)))
    _train_phase(task, "student", model, student, settings.hwa_epochs, callbacks, out)


def _train_phase(task, phase, model, result, epochs, callbacks, out):
    """Train, so that a run that is cut short can go on, and save the result."""
    folder = out / phase
    folder.mkdir(exist_ok=True)
    seed = 2 * task.settings.seed + (phase == "student")
    shuffled = task.train if isinstance(task.train, datasets.Batches) else None
    workers.fit(
        model,
        task.train,
        epochs,
        [
            training.SeedEpochs(seed, shuffled),
            *callbacks,
            *task.resets,
            *task.callbacks(folder),
            keras.callbacks.TensorBoard(folder / "logs"),
            keras.callbacks.CSVLogger(folder / "log.csv", append=True),
            # Last, so that what the others did in an epoch is saved with it.
            training.EpochBackup(folder / "backup"),
        ],
        task.validation,
    )
    task.finish(model, folder)
    write_whole(out / f"{phase}.keras", result.save)
    shutil.rmtree(folder / "backup")


def load(task: Task, path: Path) -> keras.Model:
    """Load a network, and check that it is the one that a task is about.

    Args:
        task: A `Task`.
        path: Of a `.keras` file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it holds another architecture.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no '{path}'. Train all phases, or give a trained network."
        )
    model = keras.saving.load_model(path)
    hardware = {id(w) for kernel in hardware_kernels(model) for w in kernel.weights}
    shapes = [tuple(w.shape) for w in model.trainable_weights if id(w) not in hardware]
    if shapes != task.shapes:
        raise ValueError(
            f"'{path}' holds another architecture: it has {len(shapes)} weights, that "
            f"of these settings {len(task.shapes)}, or some are of another shape. Give "
            "the preset and the settings that it was trained with."
        )
    return model
