"""The recipe that the published networks share.

A digital teacher is trained. A student that starts from its weights is tuned under the
noise of the hardware. Both are put on chips and followed for a year, and a chip of the
student is exported. What differs between networks is a `Task`.

Reference:
    - Rasch et al., "Hardware-aware training for large-scale and diverse deep learning
      inference on analog in-memory computing", 2023, arXiv:2302.08469.
"""

import dataclasses
import functools
import json
import shutil
import time
from pathlib import Path

import keras
import presets
import recipe_chips
import recipe_workers
from absl import app, flags, logging

import hwa_keras
from hwa_keras import datasets, noise, quantizers, training
from hwa_keras.results import write_json, write_whole

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
    " devices of this machine, or on several machines (see README)."
)  # fmt: skip
# Left out, these are what the preset says.
OVERRIDES = ("device", "chips", "seed")
flags.DEFINE_enum("device", None, ["pcm", "simple_pcm"], "What chips are made of.")
flags.DEFINE_integer("chips", None, "Chips to program per model.", 1)
flags.DEFINE_integer("seed", None, "Seed of training and of the first chip.", 0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the presets of all runners say; the YAML files explain each key."""

    batch_size: int
    epochs: int
    learning_rate: float
    hwa_epochs: int
    hwa_learning_rate: float
    noise_scale: float
    ramp_epochs: int
    drop_connect: float
    clip: float
    levels: int
    scale: str
    remap_interval: int
    distillation: float
    temperature: float
    device: str
    per: str
    chips: int
    seed: int

    def __post_init__(self):
        self.chip()  # An unknown one is an error right here.
        quantizers.Uniform(self.levels, self.scale)
        for key in ("batch_size", "epochs", "hwa_epochs", "chips"):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}` must be at least 1.")
        training.NoiseRamp(stop=self.noise_scale, epochs=self.ramp_epochs)

    def chip(self):
        """The device that chips are made of."""
        if self.device == "pcm":
            return hwa_keras.devices.PCM(per=self.per)
        return hwa_keras.devices.get(self.device)

    def hardware(self):
        """The quantizer and the noise of every kernel that goes on hardware."""
        return {
            "kernel_quantizer": quantizers.Uniform(self.levels, self.scale),
            "kernel_noise": noise.Compose(
                [
                    noise.DropConnect(self.drop_connect),
                    noise.ProgrammingNoise(self.chip()),
                ]
            ),
        }


class Task:
    """What differs between the networks.

    Attributes:
        name: String, the runner's name.
        settings: A `Settings`.
        metric: Name of the compiled metric that tables show.
        train: What `fit` reads: a `Batches` or `Windows`.
        validation: What `fit` validates on, or None.
        test: What the software is evaluated on.
        chip_test: What chips are evaluated on, which takes a thousand evaluations.
        calibration: Inputs for AdaBS, or None for networks without batch normalization.
        example: Inputs on which the export is compared with the chip.
        resets: Callbacks of every `fit` and `evaluate`.
    """

    metric = "accuracy"
    validation = None
    calibration = None
    resets: tuple = ()

    def digital(self):
        """The network before any training here, built."""
        raise NotImplementedError

    def compile(self, model, learning_rate, epochs):
        """Compile a model for a training, or for evaluation."""
        raise NotImplementedError

    def student(self, teacher):
        """A hardware-aware network with the weights of a teacher, which it may take."""
        teacher.name = "hwa"
        return hwa_keras.to_hwa(
            teacher,
            **self.settings.hardware(),
            seed=self.settings.seed,
            verbose=0,  # The page of the run says it.
        )

    @functools.cached_property
    def shapes(self):
        """The shapes of what is trained, which tell one architecture from another."""
        return [tuple(w.shape) for w in self.digital().trainable_weights]

    def callbacks(self, folder):
        """Callbacks of a training that writes to a folder."""
        return []

    def finish(self, model, folder):
        """Whatever follows a training."""


def main(name, settings_class, task_class):
    """Run a recipe from the command line.

    Args:
        name: String, the runner's name in messages, presets and folders.
        settings_class: A `Settings` with the runner's own keys.
        task_class: A `Task`, made of the settings.
    """

    def run(_):
        start = time.monotonic()
        logging.set_verbosity(logging.WARNING)
        presets.checked(name, lambda: recipe_workers.start(FLAGS.distribute))
        settings, task, out = presets.checked(
            name, lambda: begin(name, settings_class, task_class)
        )
        if not FLAGS.eval_only:
            train(name, task, out)
        if not FLAGS.teacher_only:
            models = presets.checked(name, lambda: trained(task, out))
            recipe_chips.evaluate(task, models, out, FLAGS.saved_models)
        print(f"Done in {time.monotonic() - start:.0f} s.")

    app.run(run)


def begin(name, settings_class, task_class):
    """Check everything that can be checked before anything takes time."""
    chosen = [
        f for f in ("teacher_only", "student_only", "eval_only") if FLAGS[f].value
    ]
    if len(chosen) > 1:
        raise ValueError(f"Give one of --{' and --'.join(chosen)}, not both.")
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    path = FLAGS.config or ROOT / f"configs/{name}.yaml"
    settings = presets.read(path, FLAGS.preset, settings_class, overrides)
    if FLAGS.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(settings.seed)
    out = recipe_workers.own_folder(Path(FLAGS.out or f"runs/{name}"))
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
    else:
        open_run(out, settings)
    return settings, task, out


def open_run(out, settings):
    """Make the folder of a run, or check that it holds one to go on with."""
    record = out / "settings.json"
    said = json.loads(json.dumps(dataclasses.asdict(settings)))
    if FLAGS.resume:
        check_resumable(record, said)
        return
    phases = ["student"] if FLAGS.student_only else ["teacher", "student"]
    written = [
        path
        for phase in phases
        for path in (out / phase, out / f"{phase}.keras")
        if path.exists()
    ]
    if written and not FLAGS.overwrite:
        raise FileExistsError(
            f"There is a run in '{out}' already. Go on with it (--resume), evaluate it "
            "(--eval_only), replace it (--overwrite), or give another --out."
        )
    for path in written:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, said)


def check_resumable(record, settings):
    """Raise an error unless the record is that of a run with these settings."""
    if not record.is_file():
        raise FileNotFoundError(
            f"There is nothing to resume in '{record.parent}'. Start without --resume, "
            "or give the --out of the run that was cut short."
        )
    before = json.loads(record.read_text(encoding="utf-8"))
    changed = [k for k in settings if settings[k] != before.get(k) and k != "chips"]
    if changed:
        raise ValueError(
            f"The run in '{record.parent}' has other settings for "
            f"{', '.join(changed)}. Resume it with its own, or start another one."
        )


def train(name, task, out):
    """The teacher, then the student; what is finished already is not repeated."""
    teacher = Path(FLAGS.checkpoint or out / "teacher.keras")
    if not (FLAGS.student_only or (FLAGS.resume and teacher.is_file())):
        with recipe_workers.scope():
            model = task.digital()
            task.compile(model, task.settings.learning_rate, task.settings.epochs)
        train_phase(task, "teacher", model, model, task.settings.epochs, [], out)
    if FLAGS.teacher_only or (FLAGS.resume and (out / "student.keras").is_file()):
        return
    settings = task.settings
    with recipe_workers.scope():
        student = task.student(presets.checked(name, lambda: load(task, teacher)))
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
        clip = hwa_keras.constraints.HistogramClip(settings.clip)
        callbacks.append(training.ConstrainKernels(clip))
    train_phase(task, "student", model, student, settings.hwa_epochs, callbacks, out)


def train_phase(task, phase, model, result, epochs, callbacks, out):
    """Train, so that a run that is cut short can go on, and save the result."""
    folder = out / phase
    folder.mkdir(exist_ok=True)
    seed = 2 * task.settings.seed + (phase == "student")
    shuffled = task.train if isinstance(task.train, datasets.Batches) else None
    recipe_workers.fit(
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
            keras.callbacks.BackupAndRestore(
                folder / "backup", double_checkpoint=True, delete_checkpoint=False
            ),
        ],
        task.validation,
    )
    task.finish(model, folder)
    write_whole(out / f"{phase}.keras", result.save)
    shutil.rmtree(folder / "backup")


def load(task, path):
    """Load a network, and check that it is the one that this run is about."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no '{path}'. Train one without --student_only and --eval_only, "
            "or give --checkpoint."
        )
    model = keras.saving.load_model(path)
    hardware = {
        id(w) for kernel in hwa_keras.hardware_kernels(model) for w in kernel.weights
    }
    shapes = [tuple(w.shape) for w in model.trainable_weights if id(w) not in hardware]
    if shapes != task.shapes:
        raise ValueError(
            f"'{path}' holds another architecture: it has {len(shapes)} weights, that "
            f"of the preset '{FLAGS.preset}' {len(task.shapes)}, or some are of "
            "another shape. Give the preset and the settings that it was trained with."
        )
    return model


def trained(task, out):
    """{name: model}: the checkpoint that was given, or teacher and student."""
    if FLAGS.eval_only and FLAGS.checkpoint:
        paths = {"model": Path(FLAGS.checkpoint)}
    else:
        teacher = Path(FLAGS.checkpoint or out / "teacher.keras")
        paths = {"digital": teacher, "hwa": out / "student.keras"}
    models = {name: load(task, path) for name, path in paths.items()}
    for model in models.values():
        task.compile(model, 1.0, 1)
    return models
