"""The command line of the runners of the recipe: what they share beside `recipes`."""

import time
from pathlib import Path

import keras
import presets
from absl import app, flags, logging

from hwa_keras import recipes
from hwa_keras.recipes import two_phases, workers

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "smoke", "Which preset: smoke, small or paper.")
flags.DEFINE_string("config", None, "Presets; default: configs/RUNNER.yaml.")
flags.DEFINE_string("out", None, "Folder to write to; default: runs/RUNNER.")
flags.DEFINE_string(
    "saved_models", str(ROOT / "saved_models"), "Folder of the exported SavedModel."
)
flags.DEFINE_bool("teacher_only", False, "Stop after the digital teacher.")
flags.DEFINE_bool("student_only", False, "Begin with the student.")
flags.DEFINE_bool("eval_only", False, "Train nothing, evaluate what is there.")
flags.DEFINE_bool("resume", False, "Go on with the run in --out that was cut short.")
flags.DEFINE_bool("overwrite", False, "Replace the run in --out.")
flags.DEFINE_string(
    "checkpoint", None, "A .keras file: the teacher to begin with, or what to evaluate."
)
flags.DEFINE_bool("mixed_precision", False, "Compute in bfloat16.")
flags.DEFINE_enum(
    "distribute", "none", ["none", "mirrored", "multiworker"], "How to train on several"
    " devices of this machine, or on several machines (see docs/recipe.md)."
)  # fmt: skip
# Left out, these are what the preset says.
OVERRIDES = ("device", "chips", "seed")
flags.DEFINE_enum("device", None, ["pcm", "simple_pcm"], "What chips are made of.")
flags.DEFINE_integer("chips", None, "Chips to program per model.", 1)
flags.DEFINE_integer("seed", None, "Seed of training and of the first chip.", 0)


def main(name, settings_class, task_class):
    """Run a recipe from the command line.

    Args:
        name: String, the runner's name in messages, presets and folders.
        settings_class: A `recipes.TwoPhaseSettings` with the runner's own keys.
        task_class: A `recipes.Task`, made of the settings.
    """

    def run(_):
        start = time.monotonic()
        logging.set_verbosity(logging.WARNING)
        task, out = presets.checked(
            name, lambda: begin(name, settings_class, task_class)
        )
        if not FLAGS.eval_only:
            phases = phases_of_flags()
            teacher = FLAGS.checkpoint and Path(FLAGS.checkpoint)
            two_phases.train(task, out, teacher, phases, FLAGS.resume)
        if not FLAGS.teacher_only:
            models = presets.checked(name, lambda: trained(task, out))
            recipes.follow_for_a_year(task, models, out, FLAGS.saved_models)
        print(f"Done in {time.monotonic() - start:.0f} s.")

    app.run(run)


def phases_of_flags():
    """The phases to train."""
    if FLAGS.teacher_only:
        return ("teacher",)
    return ("student",) if FLAGS.student_only else two_phases.PHASES


def begin(name, settings_class, task_class):
    """Check everything that can be checked before anything takes time."""
    workers.start(FLAGS.distribute)
    only = ("teacher_only", "student_only", "eval_only")
    if len(chosen := [flag for flag in only if FLAGS[flag].value]) > 1:
        raise ValueError(f"Give one of --{' and --'.join(chosen)}, not both.")
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    path = FLAGS.config or ROOT / f"configs/{name}.yaml"
    settings = presets.read(path, FLAGS.preset, settings_class, overrides)
    if FLAGS.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(settings.seed)
    out = workers.own_folder(Path(FLAGS.out or f"runs/{name}"))
    if FLAGS.checkpoint and not (FLAGS.student_only or FLAGS.eval_only):
        raise ValueError("--checkpoint goes with --student_only or --eval_only.")
    if FLAGS.checkpoint and not Path(FLAGS.checkpoint).is_file():
        raise FileNotFoundError(
            f"There is no checkpoint '{FLAGS.checkpoint}'. A run without --eval_only "
            "and --student_only writes teacher.keras and student.keras to --out."
        )
    task = task_class(settings)
    if FLAGS.eval_only:
        out.mkdir(parents=True, exist_ok=True)
        return task, out
    phases = phases_of_flags()
    two_phases.open_run(out, settings, phases, FLAGS.resume, FLAGS.overwrite)
    if FLAGS.student_only:
        two_phases.load(task, Path(FLAGS.checkpoint or out / "teacher.keras"))
    return task, out


def trained(task, out):
    """{name: model}: the checkpoint that was given, or teacher and student."""
    if FLAGS.eval_only and FLAGS.checkpoint:
        paths = {"model": Path(FLAGS.checkpoint)}
    else:
        teacher = Path(FLAGS.checkpoint or out / "teacher.keras")
        paths = {"digital": teacher, "hwa": out / "student.keras"}
    models = {name: two_phases.load(task, path) for name, path in paths.items()}
    for model in models.values():
        task.compile(model, 1.0, 1)
    return models
