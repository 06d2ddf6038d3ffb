"""examples/quickstart.py, run as a user runs it."""

import csv
from pathlib import Path

import pytest

from tests import fresh

ROOT = Path(__file__).parents[2]
TIMES = ["1 s", "1 hour", "1 day", "1 month", "1 year"]


@pytest.mark.tensorflow_only  # It exports.
def test_a_run_writes_all_that_it_says(tmp_path):
    out = tmp_path / "run"
    flags = "--epochs=2", "--chips=2", "--device=simple_pcm", f"--out={out}"
    done = fresh.run_script(ROOT / "examples/quickstart.py", *flags)
    assert done.returncode == 0, done.stderr
    names = {"chip.keras", "chip.tflite", "drift.png", "report.html", "results.csv"}
    assert {path.name for path in out.iterdir()} == {*names, "saved_model"}

    # The table on the terminal and the CSV hold the same numbers.
    assert "hardware_aware: accuracy" in done.stdout
    with open(out / "results.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    assert [row["model"] for row in rows] == ["digital"] * 15 + ["hardware_aware"] * 15
    assert [row["time"] for row in rows] == 6 * TIMES
    for row in rows:
        low, mean, high = (float(row[key]) for key in ("low95", "mean", "high95"))
        assert 0.1 < mean < 1 and low <= mean <= high
        assert f"{mean:.4f}" in done.stdout
    told = [line for line in done.stdout.splitlines() if "from the chip" in line]
    off = [float(line.split()[-1]) for line in told]
    assert len(off) == 2 and off[0] <= 1e-6 and off[1] <= 1e-5
