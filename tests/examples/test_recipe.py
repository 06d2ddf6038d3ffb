"""The recipe of the three runners: resumed runs, shares of workers, bad input."""

import concurrent.futures
import csv
import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from tests import fresh, workers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PERCEPTRON = ROOT / "tests/examples/perceptron.py"
KILLED = ROOT / "tests/examples/killed.py"
WORKER = ROOT / "tests/examples/worker.py"
SETTINGS = {
    "batch_size": 64,
    "epochs": 3,
    "learning_rate": 0.1,
    "hwa_epochs": 4,
    "hwa_learning_rate": 0.05,
    "noise_scale": 2.0,
    "ramp_epochs": 2,
    "drop_connect": 0.01,
    "clip": 3.0,
    "levels": 256,
    "scale": "caws",
    "remap_interval": 5,
    "distillation": 0.5,
    "temperature": 2.0,
    "device": "pcm",
    "per": "layer",
    "chips": 2,
    "seed": 0,
}


def runner(name):
    return ROOT / f"examples/train_{name}.py"


def preset(folder, settings):
    """A file with one preset."""
    path = folder / "presets.yaml"
    path.write_text(yaml.safe_dump({"smoke": settings}))
    return f"--config={path}"


def smoke(folder, name, **changes):
    """A file with the smoke preset of a runner, changed."""
    presets = yaml.safe_load((ROOT / f"configs/train_{name}.yaml").read_text())
    return preset(folder, {**presets["smoke"], **changes})


def places(folder):
    return f"--out={folder / 'run'}", f"--saved_models={folder / 'saved'}"


def results(folder):
    content = json.loads((folder / "run/results.json").read_text())
    return content["software"], content["results"]


def log(folder):
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of the perceptron from beginning to end."""
    folder = tmp_path_factory.mktemp("whole")
    config = preset(folder, SETTINGS)
    found = fresh.run_script(PERCEPTRON, config, *places(folder))
    assert found.returncode == 0, found.stderr[-3000:]
    assert "Traceback" not in found.stderr
    return folder, config, found.stdout


def test_a_run_ends_in_table_plot_page_and_export(whole):
    folder, _, printed = whole
    out = folder / "run"
    names = {path.name for path in out.iterdir()}
    written = {"results.csv", "results.json", "drift.png", "report.html"}
    assert written | {"teacher.keras", "student.keras"} <= names
    assert (folder / "saved/perceptron/saved_model.pb").is_file()
    assert "measured GDC" in printed
    software, sweeps = results(folder)
    assert software["digital"] > 0.8 and software["hwa"] > 0.8
    content = json.loads((out / "results.json").read_text())
    assert content["software_on_chip_test"].keys() == software.keys()
    assert [sweep["name"] for sweep in sweeps] == ["digital", "hwa"]
    assert all(chips_of(sweep) == 2 for sweep in sweeps)
    rows = log(out / "student")
    assert [float(row["noise_scale"]) for row in rows] == [0.0, 1.0, 2.0, 2.0]
    assert list((out / "student/logs/train").iterdir())  # TensorBoard's


def test_a_run_killed_in_both_phases_resumes_to_the_same_numbers(whole, tmp_path):
    folder, config, _ = whole
    arguments = config, *places(tmp_path)
    kill_in("teacher", tmp_path / "run", *arguments)
    kill_in("student", tmp_path / "run", *arguments, "--resume")
    found = fresh.run_script(PERCEPTRON, *arguments, "--resume")
    assert found.returncode == 0, found.stderr[-3000:]
    assert results(tmp_path) == results(folder)


def chips_of(sweep):
    """How many chips a sweep in JSON has at each point."""
    (count,) = {len(point["chips"]) for point in sweep["samples"]}
    return count


def kill_in(phase, out, *arguments):
    """Kill a run of the perceptron after the first epoch of a phase."""
    begun = out / phase / "backup/epoch_1.weights.h5"
    found = fresh.run_script(KILLED, PERCEPTRON, begun, *arguments)
    assert found.returncode == -signal.SIGKILL, found.stderr[-3000:]
    assert begun.is_file() and not (out / f"{phase}.keras").exists()


def test_a_checkpoint_is_evaluated_on_another_device(whole, tmp_path):
    folder, config, _ = whole
    checkpoint = f"--checkpoint={folder / 'run/student.keras'}"
    arguments = "--eval_only", "--device=simple_pcm", "--chips=1", checkpoint
    found = fresh.run_script(PERCEPTRON, config, *arguments, *places(tmp_path))
    assert found.returncode == 0, found.stderr[-3000:]
    software, sweeps = results(tmp_path)
    assert software["model"] == results(folder)[0]["hwa"]
    assert "SimplePCM" in sweeps[0]["settings"]["device"]


def test_two_workers_train_alike_and_share_the_chips(whole, tmp_path):
    _, config, _ = whole
    arguments = config, *places(tmp_path)
    arguments += "--distribute=multiworker", "--device=simple_pcm"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(
            pool.map(
                lambda cluster: fresh.run_script(
                    WORKER, PERCEPTRON, cluster, *arguments
                ),
                workers.clusters(2),
            )
        )
    assert [each.returncode for each in found] == [0, 0], found[0].stderr[-3000:]
    out = tmp_path / "run"
    rows = log(out / "student")
    assert len(rows) == 4 and rows == log(out / "worker_1/student")
    assert float(rows[-1]["accuracy"]) > 0.5
    software, sweeps = results(tmp_path)
    assert software["hwa"] > 0.7
    assert [chips_of(sweep) for sweep in sweeps] == [2, 2]


@pytest.mark.parametrize(
    ("name", "less"),
    [
        (
            "wideresnet",
            {
                "train_images": 32,
                "test_images": 16,
                "chip_images": 16,
                "calibration_images": 16,
            },
        ),
        (
            "lstm",
            {
                "train_tokens": 200,
                "held_out": 0.5,
                "test_tokens": 100,
                "chip_tokens": 100,
                "embedding": 4,
                "units": 4,
                "length": 3,
            },
        ),
        ("bert", {"train_sentences": 32, "chip_sentences": 8, "length": 8}),
    ],
)
def test_each_runner_runs_to_the_end(tmp_path, name, less):
    if name != "wideresnet" and "HWA_DATA_DIR" not in os.environ:
        pytest.skip("needs SST-2 or WikiText-2: HWA_DATA_DIR is not set")
    once = {
        "device": "simple_pcm",
        "epochs": 1,
        "hwa_epochs": 1,
        "chips": 1,
        "distillation": 0.0,
    }
    config = smoke(tmp_path, name, **once, **less)
    found = fresh.run_script(runner(name), config, *places(tmp_path))
    assert found.returncode == 0, found.stderr[-3000:]
    assert "relative difference from the chip" in found.stdout
    _, sweeps = results(tmp_path)
    names = [sweep["name"] for sweep in sweeps]
    with_statistics = ["digital", "digital + AdaBS", "hwa", "hwa + AdaBS"]
    assert names == (with_statistics if name == "wideresnet" else ["digital", "hwa"])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("wideresnet", ["--preset=huge"], "no preset 'huge'"),
        ("wideresnet", ["--resume"], "nothing to resume"),
        ("wideresnet", ["--eval_only", "--checkpoint=x.keras"], "no checkpoint"),
        ("wideresnet", ["--checkpoint=x.keras"], "goes with"),
        ("wideresnet", ["--student_only", "--eval_only"], "not both"),
        ("wideresnet", ["--distribute=multiworker"], "TF_CONFIG"),
        ("bert", ["--task=poetry"], "poetry"),
        ("lstm", [], "wikitext2"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, name, arguments, message):
    monkeypatch.setenv("HWA_DATA_DIR", str(tmp_path / "nowhere"))
    found = fresh.run_script(runner(name), *arguments, *places(tmp_path))
    assert found.returncode == 1
    assert message in found.stderr
    assert found.stderr.count("\n") == 1, found.stderr


def test_a_run_that_is_there_is_not_written_over(whole):
    folder, config, _ = whole
    before = (folder / "run/student.keras").stat()
    found = fresh.run_script(PERCEPTRON, config, *places(folder))
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1 and "overwrite" in found.stderr
    found = fresh.run_script(
        PERCEPTRON, config, *places(folder), "--resume", "--seed=1"
    )
    assert found.returncode == 1
    assert "other settings for seed" in found.stderr
    assert (folder / "run/student.keras").stat() == before


def test_a_checkpoint_of_another_architecture_is_one_line(whole, tmp_path):
    folder, _, _ = whole
    checkpoint = f"--checkpoint={folder / 'run/teacher.keras'}"
    found = fresh.run_script(
        runner("wideresnet"), "--eval_only", checkpoint, *places(tmp_path)
    )
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1 and "another architecture" in found.stderr


def test_presets_of_all_runners_are_complete():
    for name in ("wideresnet", "lstm", "bert"):
        presets = yaml.safe_load((ROOT / f"configs/train_{name}.yaml").read_text())
        assert list(presets) == ["smoke", "small", "paper"]
        assert len({tuple(sorted(keys)) for keys in presets.values()}) == 1
