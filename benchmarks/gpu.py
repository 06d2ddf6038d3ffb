"""Step ratios, then the published recipe on CIFAR-10, in minutes on a GPU.

    python -m benchmarks.gpu --minutes=8 --data=cifar10.tar.xz --out=DIR
    python -m benchmarks.gpu --minutes=1 --smoke --out=DIR

Runs on JAX, without TensorFlow and without a network. It needs JAX, Keras, NumPy and
Pillow, and what Keras and hwa_keras import: absl-py, h5py, ml_dtypes, namex, optree,
rich, scipy. `--smoke` is a look at everything on a CPU, with a tiny network on the
digits of scikit-learn where no `--data` are given.

What is written to `--out`, part by part, so that a run that is cut short keeps it:

| file                             | what                                              |
| -------------------------------- | ------------------------------------------------- |
| `result.json`, `result.md`       | all numbers; the same as tables                   |
| `teacher.keras`, `student.keras` | both networks, also in the course of the training |

Time of compilation counts. Step ratios take what they take; of the time that is left
then, 40 % goes to the teacher, 30 % to the student, 30 % to the chips. How many epochs
that makes follows from the time of a step, which is measured first.
"""

from benchmarks.gpu_environment import START  # first of all: names the backend

# isort: split
import argparse
import dataclasses
import functools
import json
import os
import sys
import time
from pathlib import Path

import keras

from benchmarks import gpu_chips, gpu_data, gpu_recipe, gpu_steps, measure

TEACHER, STUDENT = 0.4, 0.5  # Shares of the time that is left when each begins.
RESERVE = 3.0  # Seconds for the end.
NAMES = {"teacher": "digital", "student": "hardware-aware"}


@dataclasses.dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        depth, width: Of the wide residual network.
        side: Of the images that steps are measured on.
        batch: Examples in a training step.
        train_images, test_images: How many images are used.
        chip_images: Of the test images, those that chips are evaluated on.
        calibration_images: Of the training images, those that AdaBS looks at.
        chips: Per network.
        steps: In one measurement of the time of a step, the first left out.
        pairs: Measurements of both steps.
        most_epochs: However much time there is.
    """

    depth: int
    width: int
    side: int
    batch: int
    train_images: int
    test_images: int
    chip_images: int
    calibration_images: int
    chips: int
    steps: int
    pairs: int
    most_epochs: int


FULL = Size(16, 4, 32, 128, 50_000, 10_000, 2_000, 2_600, 10, 40, 7, 200)
SMOKE = Size(10, 1, 8, 32, 512, 100, 100, 100, 2, 2, 5, 2)


class Record:
    """What was found so far, in memory and in `--out`."""

    def __init__(self, out, **content):
        self.out = out
        self.content = {**content, "steps": [], "training": {}, "drift": []}
        self.drift = {}
        out.mkdir(parents=True, exist_ok=True)
        self.write()

    def write(self):
        self.content["tensorflow_imported"] = bool(sys.modules.get("tensorflow"))
        self.content["seconds"] = round(time.perf_counter() - START, 1)
        self.content["drift"] = [result.to_dict() for result in self.drift.values()]
        _replace(self.out / "result.json", json.dumps(self.content, indent=1))
        _replace(self.out / "result.md", "\n\n".join(self.tables()) + "\n")

    def tables(self):
        """Markdown: what it ran on, step ratios, trainings, drift."""
        content = self.content
        lines = [f"{content['device']}; {content['machine']}", content["data"]]
        if content["steps"]:
            lines.append(_step_table(content["steps"]))
        if content["training"]:
            lines.append(_training_table(content["training"]))
        if self.drift:
            lines.append(_drift_table(self.drift))
        return lines


def _replace(path, text):
    part = path.with_name(f"part_{path.name}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _step_table(steps):
    head = ["training step", "policy", "plain ms", "HWA ms", "HWA / plain", "at most"]
    return _table(
        head,
        [
            [
                f"{row['network']}, batch {row['batch']}, PCM noise",
                row["policy"],
                f"{row['plain_ms']:.2f}",
                f"{row['hwa_ms']:.2f}",
                f"{row['ratio']:.3f}",
                row["bound"],
            ]
            for row in steps
        ],
    )


def _training_table(trainings):
    head = ["network", "epochs", "step ms", "accuracy, test", "on the chips' images"]
    rows = []
    for phase, found in trainings.items():
        software = found.get("accuracy", {})
        rows.append(
            [
                NAMES[phase],
                len(found["history"]),
                f"{found['step_ms']:.2f}" if "step_ms" in found else "",
                *(
                    f"{software[part]:.4f}" if software else ""
                    for part in ("test", "chip_images")
                ),
            ]
        )
    return _table(head, rows)


def _drift_table(drift):
    labels = {"none": "none", "measured": "measured GDC"}
    rows = []
    for name, result in drift.items():
        network, _, adapted = name.partition(" + ")
        for (compensation,) in result.series:
            cells = [result.estimate(compensation, t) for t in result.levels]
            rows.append(
                [
                    network,
                    labels[compensation] + (f" + {adapted}" if adapted else ""),
                    result.chips,
                    *(
                        f"{e.mean:.4f}"
                        + (f" ± {e.half_width:.4f}" if e.count > 1 else "")
                        for e in cells
                    ),
                ]
            )
    return _table(["network", "compensation", "chips", *gpu_chips.TIMES], rows)


def main(arguments=None):
    options = _options(arguments)
    end = START + 60 * options.minutes - RESERVE
    size = SMOKE if options.smoke else FULL
    record = Record(
        options.out,
        device=_device(),
        machine=measure.describe(),
        data="no data read yet",
        minutes=options.minutes,
        policy=options.policy,
        smoke=options.smoke,
        size=dataclasses.asdict(size),
        finished=False,
    )
    say(f"{record.content['device']}; {record.content['machine']}")
    _steps(size, record)
    data = _data(options, size, record)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(options.policy)
    networks = _networks(size, data, end, record)
    gpu_chips.sweep(networks, data, size, end, functools.partial(_drift, record))
    record.content["finished"] = True
    record.write()
    say("done: " + str(options.out))
    print("\n\n".join(record.tables()), flush=True)


def _options(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all of it")
    parser.add_argument(
        "--data", type=Path, help="tar archive of CIFAR-10's TFRecord files"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--policy",
        choices=gpu_steps.POLICIES,
        default=gpu_steps.POLICIES[0],
        help="what teacher and student compute in",
    )
    parser.add_argument("--smoke", action="store_true", help="a look at everything")
    options = parser.parse_args(arguments)
    if options.data is None and not options.smoke:
        parser.error("--data is missing; only --smoke runs without it.")
    if options.data is not None and not options.data.is_file():
        parser.error(f"--data: there is no file '{options.data}'.")
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, not {options.minutes}.")
    if keras.backend.backend() != "jax":
        parser.error(
            f"it runs on JAX, and Keras's backend is {keras.backend.backend()}: set "
            "KERAS_BACKEND=jax."
        )
    return options


def _device():
    import jax

    devices = jax.devices()
    first = devices[0]
    return f"{len(devices)} x {first.device_kind} ({first.platform})"


def say(text):
    """Print a line with the time so far."""
    print(f"[{time.perf_counter() - START:6.1f} s] {text}", flush=True)


def _steps(size, record):
    for policy in gpu_steps.POLICIES:
        row = gpu_steps.compare(policy, size)
        record.content["steps"].append(row)
        record.write()
        say(
            f"{row['network']}, {policy}: plain {row['plain_ms']:.2f} ms, HWA "
            f"{row['hwa_ms']:.2f} ms, ratio {row['ratio']:.3f} (at most "
            f"{row['bound']}); compiled in {row['first_step_s'][0]:.1f} and "
            f"{row['first_step_s'][1]:.1f} s"
        )


def _data(options, size, record):
    if options.data is None:
        loaded = gpu_data.digits()
    else:
        loaded = gpu_data.cifar10(options.data)
    data = gpu_data.normalized(loaded, size.train_images, size.test_images)
    x = data.train[0]
    text = f"{data.name}: {len(x)} training images of {x.shape[1:]}, "
    record.content["data"] = f"{text}{len(data.test[0])} test images"
    if options.data is None:
        record.content["data"] += "; embedded, not CIFAR-10: the accuracies say nothing"
    say(record.content["data"])
    return data


def _networks(size, data, end, record):
    """Train teacher and student, each with its share of the time."""
    share = TEACHER * (end - time.perf_counter())
    teacher = _phase("teacher", gpu_recipe.train_teacher, size, data, share, record)
    share = STUDENT * (end - time.perf_counter())
    train = functools.partial(gpu_recipe.train_student, teacher)
    student = _phase("student", train, size, data, share, record)
    return {NAMES["teacher"]: teacher, NAMES["student"]: student}


def _phase(name, train, size, data, share, record):
    found = record.content["training"][name] = {"seconds_given": share, "history": []}

    def tell(epoch):
        found["history"].append(epoch)
        record.write()
        values = {k: v for k, v in epoch.items() if k not in ("epoch", "seconds")}
        say(
            f"{name}, epoch {epoch['epoch'] + 1} in {epoch['seconds']:.1f} s: "
            + ", ".join(f"{k} {v:.4g}" for k, v in values.items())
        )

    deadline = time.perf_counter() + max(share, 1.0)
    path = record.out / f"{name}.keras"
    model, summary = train(size, data, deadline, path, tell)
    found.update(summary)
    gpu_recipe.compile_for_evaluation(model)
    found["accuracy"] = {
        part: _accuracy(model, data.test, count, size)
        for part, count in (("test", None), ("chip_images", size.chip_images))
    }
    record.write()
    say(f"{name}: {summary}, accuracy {found['accuracy']}")
    return model


def _accuracy(model, test, count, size):
    x, y = (part[:count] for part in test)
    batch_size = min(500, size.chip_images)
    return model.evaluate(x, y, batch_size, verbose=0, return_dict=True)["accuracy"]


def _drift(record, drift, label):
    record.drift = drift
    record.write()
    say(f"chips: {label}, {drift[label].chips} so far")


if __name__ == "__main__":
    main()
