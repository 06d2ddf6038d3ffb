"""What of Keras's models runs on hardware: one table.

    python -m benchmarks.breadth [--only=PATTERN,...] [--jobs=1] [--out=FILE.md]

Every model of keras.applications and a small one of each keras-hub family goes through
the same checks, in a process of its own:

- identical: on hardware without quantizer and noise, in inference with programming
  noise, and taken back to Keras, outputs equal those of before to the bit;
- fit: one step of Adam with programming noise, compiled as a graph without XLA, leaves
  all weights finite and changes the kernels that it changes in plain Keras;
- sweep: one chip at one time evaluates to a finite loss;
- save → load: the model and a chip of it come back with the same outputs to the bit;
- export: a chip's SavedModel is within 1e-4 of the chip at two times.

Kernels are counted as found, + those that only the argument `kernels` finds.
✓ passes; ✗ fails, and passes in plain Keras; – fails in plain Keras too.
"""

import collections
import concurrent.futures
import dataclasses
import fnmatch
import json
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import keras
import numpy as np
from absl import app, flags
from keras import ops

import hwa_keras
from benchmarks import breadth_models, measure
from hwa_keras.core.kernels import find_kernels, share_text

NOISE = "programming_noise"
TIMES = (3600.0, 1e6)
MARKER = "breadth: "  # Begins the line of a process's output that holds its row.


@dataclasses.dataclass
class Row:
    """What was found for one model.

    Args:
        model: Its name.
        kernels: The number of kernels found, and of those that are found by the
            pattern that `breadth_models.NAMED` has for the model.
        left_out: The kinds of the layers whose weights are no kernels.
        share: The share of the weights that are kernels.
        cells: Dictionary from the names of checks to what the table says.
        errors: Dictionary from the names of failed checks to tracebacks; "process"
            stands for all of them.
        seconds: Time that it took, without imports.
    """

    model: str
    kernels: str = ""
    left_out: str = ""
    share: str = ""
    cells: dict = dataclasses.field(default_factory=dict)
    errors: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def line(self):
        cells = [self.cells.get(name, "") for name in CHECKS]
        found = [self.model, self.kernels, self.left_out, self.share, *cells]
        return "| " + " | ".join(map(str, [*found, f"{self.seconds:.0f}"])) + " |"

    @property
    def failures(self):
        """The checks that fail, and do not in plain Keras."""
        return [name for name, cell in self.cells.items() if cell.startswith("✗")]


class Failed(Exception):
    """A check ran to its end, and what it looked at was wrong."""


@dataclasses.dataclass
class Subject:
    """A model under test, a batch for it, and what it gave before all checks."""

    model: keras.Model
    x: object
    y: object
    plain: list
    hardware: bool
    kernels: str | None = None

    @classmethod
    def make(cls, build, hardware, kernels=None):
        keras.utils.set_random_seed(0)
        model = build()
        x = breadth_models.example(model)
        outputs = model(x, training=False)
        rng = np.random.default_rng(1)
        y = keras.tree.map_structure(
            lambda out: rng.normal(size=out.shape).astype("float32"), outputs
        )
        subject = cls(model, x, y, _arrays(outputs), hardware, kernels)
        if hardware:
            subject.put_on_hardware(NOISE)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-3),
            loss=keras.tree.map_structure(lambda _: "mse", y),
            metrics=[],  # None would leave those that keras-hub's tasks begin with.
            weighted_metrics=[],
            jit_compile=False,
        )
        return subject

    def put_on_hardware(self, noise):
        options = {"kernels": self.kernels, "seed": 0, "verbose": 0}
        hwa_keras.to_hwa(self.model, kernel_noise=noise, **options)

    def outputs(self, model=None):
        model = self.model if model is None else model
        return _arrays(model(self.x, training=False))


def _arrays(outputs):
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]


def check_identical(subject):
    model, plain = subject.model, subject.plain
    _check_equal(plain, subject.outputs(), "inference")
    if not subject.hardware:
        return
    hwa_keras.to_digital(model)
    _check_equal(plain, subject.outputs(), "the model taken back to Keras")
    subject.put_on_hardware(None)
    _check_equal(plain, subject.outputs(), "hardware with nothing asked for")
    hwa_keras.to_digital(model)
    subject.put_on_hardware(NOISE)


def check_fit(subject):
    changed = _kernels_that_change(subject)
    if not all(np.all(np.isfinite(w)) for w in subject.model.get_weights()):
        raise Failed("weights are not finite")
    if not any(moved for _, moved in changed):
        raise Failed("no kernel changed")
    return changed


def _kernels_that_change(subject):
    """Pairs (path, whether one training step changes it) of the kernels."""
    kernels = find_kernels(subject.model, subject.kernels)[0]
    before = [ops.convert_to_numpy(kernel.variable.value) for kernel in kernels]
    size = len(keras.tree.flatten(subject.y)[0])
    found = subject.model.fit(subject.x, subject.y, batch_size=size, verbose=0)
    if not np.isfinite(found.history["loss"][-1]):
        raise Failed(f"the loss is {found.history['loss'][-1]}")
    after = [ops.convert_to_numpy(kernel.variable.value) for kernel in kernels]
    return [
        (kernel.path, not np.array_equal(*values))
        for kernel, *values in zip(kernels, before, after, strict=True)
    ]


def check_sweep(subject):
    model, data = subject.model, (subject.x, subject.y)
    if not subject.hardware:
        loss = model.evaluate(*data, verbose=0)
    else:
        result = hwa_keras.drift_sweep(
            model, "pcm", data, times=TIMES[:1], chips=1, compensation="none", verbose=0
        )
        loss = result.estimate("none", f"{TIMES[0]:g} s").mean
    if not np.all(np.isfinite(loss)):
        raise Failed(f"the loss is {loss}")


def check_saved(subject):
    _check_loaded(subject, subject.model, "the loaded model")
    if subject.hardware:
        chip = hwa_keras.program(
            subject.model, "pcm", seed=1, read_noise="off", verbose=0
        )
        _check_loaded(subject, chip, "the loaded chip")


def _check_loaded(subject, model, what):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
    _check_equal(subject.outputs(model), subject.outputs(loaded), what)


def check_exported(subject):
    model = subject.model
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/exported"
        if not subject.hardware:
            model.export(path, verbose=False)
            return
        chip = hwa_keras.program(model, "pcm", seed=1, verbose=0)
        hwa_keras.export(chip, path, verbose=0)
        difference = hwa_keras.verify_export(path, chip, subject.x, list(TIMES))
    if not difference < 1e-4:
        raise Failed(f"the artefact differs by {difference:.1e}")


CHECKS = {
    "identical": check_identical,
    "fit": check_fit,
    "sweep": check_sweep,
    "save → load": check_saved,
    "export": check_exported,
}


def _check_equal(expected, found, what):
    for a, b in zip(expected, found, strict=True):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            off = np.max(np.abs(a.astype("float64") - b))
            raise Failed(f"{what} differs by {off:.1e}")


def examine(name, build=None):
    """Put one model through all checks.

    Args:
        name: The name of a model, as `breadth_models.names` lists it.
        build: Function that builds the model, if the list does not have it.

    Returns:
        A `Row`.
    """
    start = time.perf_counter()
    build = build or (lambda: breadth_models.build(name))
    named = breadth_models.NAMED.get(name)
    row, subject, sign = Row(name), None, "–"
    try:
        model = build()
        sign = "✗"
        _describe(row, model, named)
    except Exception:
        row.errors["process"] = traceback.format_exc()
        cell = _cell(sign, row.errors["process"])
        row.cells = dict.fromkeys(CHECKS, cell)
        return row
    for check, function in CHECKS.items():
        if check == "export" and keras.backend.backend() != "tensorflow":
            row.cells[check] = "needs TensorFlow"
            continue
        try:
            subject = subject or Subject.make(build, True, named)
            changed = function(subject)
            if changed and not all(moved for _, moved in changed):
                _compare_changes(changed, Subject.make(build, False, named))
            row.cells[check] = "✓"
        except Exception:
            row.errors[check] = traceback.format_exc()
            plain = _plain_error(function, build, row.cells.get("fit") == "✓")
            row.cells[check] = (
                _cell("–", plain) if plain else _cell("✗", row.errors[check])
            )
            subject = None  # What a failed check leaves behind is not used again.
    row.seconds = time.perf_counter() - start
    return row


def _describe(row, model, named):
    alone, _ = find_kernels(model)
    kernels, without = find_kernels(model, named)
    kinds = [type(layer).__name__ for _, layer in without]
    kinds += [f"kernel {kernel.digital}" for kernel in kernels if kernel.digital]
    counts = collections.Counter(kinds).most_common()
    row.left_out = ", ".join(f"{count} {kind}" for kind, count in counts)
    chosen = [kernel for kernel in kernels if not kernel.digital]
    more = len(kernels) - len(alone)
    row.kernels = f"{len(chosen) - more}" + (f" + {more}" if more else "")
    share = share_text(model.weights, [kernel.variable for kernel in chosen])
    row.share = share[share.index("(") + 1 : -1]


def _compare_changes(changed, plain):
    """Raise `Failed` if kernels stay that change in a plain subject."""
    moves = _kernels_that_change(plain)
    stuck = [
        path
        for (path, moved), (_, should) in zip(changed, moves, strict=True)
        if should and not moved
    ]
    if stuck:
        raise Failed(f"no change of {', '.join(stuck)}")


def _plain_error(function, build, fitted):
    """The traceback of a check in plain Keras, or an empty string."""
    try:
        subject = Subject.make(build, hardware=False)
        if fitted:
            _kernels_that_change(subject)
        function(subject)
    except Exception:
        return traceback.format_exc()
    return ""


def _cell(sign, error):
    """A cell of a table: a sign, and the last line of a traceback in short."""
    lines = [line for line in error.split("\n") if line and not line.startswith(" ")]
    last = next(line for line in lines if ": " in line or line == lines[-1])
    last = " ".join(last.replace("|", "/").split()).removeprefix(f"{__name__}.Failed: ")
    return f"{sign} {last[:80]}"


def in_a_process(name, timeout):
    """`examine` in a process of its own, which may die."""
    command = [sys.executable, "-m", "benchmarks.breadth", f"--model={name}"]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return _dead(name, f"took over {timeout} s", "", time.perf_counter() - start)
    for line in done.stdout.split("\n"):
        if line.startswith(MARKER):
            return Row(**json.loads(line.removeprefix(MARKER)))
    reason = f"the process ended with {done.returncode}"
    return _dead(name, reason, done.stderr[-2000:], time.perf_counter() - start)


def _dead(name, reason, error, seconds):
    cells = {check: f"✗ {reason}" for check in CHECKS}
    return Row(name, cells=cells, errors={"process": error}, seconds=seconds)


def report(rows):
    """The table of some rows, what it sums up to, and the tracebacks, as Markdown."""
    head = ["model", "kernels", "left out", "on hardware", *CHECKS, "s"]
    failures = sum(len(row.failures) for row in rows)
    families = sum(row.model.startswith("hub/") for row in rows)
    lines = [
        f"{measure.describe()}, {time.strftime('%Y-%m-%d')}",
        "",
        f"Models: {len(rows)}, of which families of keras-hub: {families}. "
        f"Checks that fail on hardware and pass in plain Keras: {failures}.",
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join("---" for _ in head) + " |",
        *(row.line() for row in rows),
    ]
    for row in rows:
        shown = {"process", *row.failures} if row.failures else ()
        for name, error in row.errors.items():
            if name in shown:
                title = f"### {row.model}: {name}"
                lines += ["", title, "", "```", error.strip(), "```"]
    return "\n".join(lines) + "\n"


def main(_):
    arguments = flags.FLAGS
    if arguments.model:
        print(MARKER + json.dumps(dataclasses.asdict(examine(arguments.model))))
        return
    names = [
        name
        for name in breadth_models.names()
        if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only)
    ]
    rows = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(lambda n: in_a_process(n, arguments.timeout), names):
            rows.append(row)
            print(row.line(), flush=True)
            if arguments.out:
                Path(arguments.out).write_text(report(rows))
    print(report(rows))


if __name__ == "__main__":
    flags.DEFINE_list("only", ["*"], "The models to look at, such as hub/B*,*/VGG*.")
    flags.DEFINE_integer("jobs", 1, "Processes at a time.", lower_bound=1)
    flags.DEFINE_string("out", None, "File to write the table to, after each model.")
    flags.DEFINE_integer("timeout", 1800, "Seconds that one model may take.")
    flags.DEFINE_string("model", None, "Look at one model, in this process.")
    app.run(main)
