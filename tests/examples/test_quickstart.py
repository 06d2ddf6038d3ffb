"""examples/quickstart.py, run as a user runs it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMES = ["1 s", "1 hour", "1 day", "1 month", "1 year"]


def quickstart(*flags):
    return subprocess.run(
        [sys.executable, str(ROOT / "examples/quickstart.py"), *map(str, flags)],
        capture_output=True,
        text=True,
    )


@pytest.mark.tensorflow_only  # It exports.
def test_a_run_writes_all_that_it_says(tmp_path):
    out = tmp_path / "run"
    flags = "--epochs=2", "--hwa_epochs=1", "--chips=2", "--seed=5"
    done = quickstart(*flags, "--device=simple_pcm", f"--out={out}")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in out.iterdir()}
    assert files == {
        "chip.keras",
        "chip.tflite",
        "drift.png",
        "report.html",
        "results.csv",
        "results.json",
        "saved_model",
    }
    for name in files:
        assert str(out / name) in done.stdout.replace("\n", "")

    # The table on the terminal, the CSV and the JSON hold the same numbers.
    assert "hardware_aware: accuracy over time, 2 chips" in done.stdout
    with open(out / "results.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    assert [row["model"] for row in rows] == ["digital"] * 15 + ["hardware_aware"] * 15
    assert [row["time"] for row in rows] == 6 * TIMES
    for row in rows:
        low, mean, high = (float(row[key]) for key in ("low95", "mean", "high95"))
        assert 0.1 < mean < 1 and low <= mean <= high
        assert f"{mean:.4f}" in done.stdout
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert content["settings"]["epochs"] == 2 and content["settings"]["seed"] == 5
    assert content["settings"]["device"] == "simple_pcm"
    assert content["settings"]["hidden"] == [128, 64]  # The preset's.
    assert [chips_of(result) for result in content["results"]] == [2, 2]

    differences = [
        float(line.split()[-1])
        for line in done.stdout.splitlines()
        if line.startswith("Largest relative difference")
    ]
    assert len(differences) == 2
    assert differences[0] <= 1e-6 and differences[1] <= 1e-5


def chips_of(result):
    """How many chips a result in JSON has at each point."""
    (count,) = {len(point["chips"]) for point in result["samples"]}
    return count


def test_an_unknown_key_in_the_preset_is_one_line(tmp_path):
    config = tmp_path / "preset.yaml"
    preset = (ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8")
    config.write_text(preset.replace("  chips:", "  ships:"), encoding="utf-8")
    done = quickstart(f"--config={config}", f"--out={tmp_path / 'run'}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"quickstart: {config}, preset 'digits': unknown ships.")
    assert not (tmp_path / "run").exists()
