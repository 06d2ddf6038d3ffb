"""examples/mnist_larq_study.py, run as a user runs it."""

import json
from pathlib import Path

import pytest

from tests import fresh

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "examples/mnist_larq_study.py"
SMALL = {
    "hidden": [12],
    "networks": ["float", "binary"],
    "noise_train": [0.0, 1.0],
    "noise_test": [0.0, 1.0],
    "noise_draws": 2,
    "variation_test": [0.4],
    "saturation_ranges": [0.5],
    "saturation_bits": [2],
}


def small_preset(tmp_path, **changes):
    import yaml

    preset = yaml.safe_load((ROOT / "configs/mnist_larq_study.yaml").read_text("utf-8"))
    path = tmp_path / "preset.yaml"
    path.write_text(
        yaml.safe_dump({"digits": {**preset["digits"], **SMALL, **changes}})
    )
    return path


@pytest.mark.tensorflow_only  # It exports.
def test_a_run_writes_all_parts(tmp_path):
    out = tmp_path / "run"
    flags = "--dataset=digits", "--epochs=1", "--tune_epochs=1", "--chips=3"
    config = small_preset(tmp_path)
    done = fresh.run_script(RUNNER, *flags, f"--config={config}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    names = ("float", "binary")
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}.tflite" for name in names),
        "output_noise.png",
        "process_variation.png",
        "saturation.png",
        "report.html",
        "results.json",
    }
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    bits = {row["network"]: row for row in found["bits"]}
    assert bits["binary"]["kernels_smaller"] == pytest.approx(32)
    assert bits["float"]["kernels_smaller"] == 1
    assert all(row["difference"] <= 1e-5 for row in bits.values())
    assert bits["binary"]["low_precision_macs"] == pytest.approx(120 / (120 + 768))
    page = (out / "report.html").read_text(encoding="utf-8")
    for row in bits.values():
        assert f"{row['accuracy']:.4f}" in page and f"{row['accuracy']:.4f}" in (
            done.stdout
        )
    assert len(found["process_variation"]["with"]["0.4"]) == 3
    assert len(found["output_noise"]["1.0"]["1.0"]) == 2
    assert page.count("data:image/png") == 3
    assert "it is better than without" in page or "is not better than" in page


@pytest.mark.slow
def test_a_preset_without_the_level_trained_for_is_an_error(tmp_path):
    config = small_preset(tmp_path, variation_test=[0.1])
    flags = "--dataset=digits", f"--config={config}", f"--out={tmp_path / 'run'}"
    done = fresh.run_script(RUNNER, *flags)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == (
        "mnist_larq_study: `variation_test` must have the level trained for."
    )
