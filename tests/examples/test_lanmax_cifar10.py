"""The runner of the study of wrong bits, on real digits and in little time."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

from hwa_keras.analysis import SpectrumComparison
from tests import fresh

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "examples/lanmax_cifar10.py"


def start(*arguments):
    return fresh.run_script(RUNNER, *arguments)


def small_preset(path):
    import yaml

    presets = (ROOT / "configs/lanmax_cifar10.yaml").read_text(encoding="utf-8")
    smoke = yaml.safe_load(presets)["smoke"]
    smoke = {**smoke, "train_images": 256, "test_images": 32, "read_rates": [0.0]}
    smoke["sensitivity_chips"] = 1
    path.write_text(yaml.safe_dump({"smoke": smoke}), encoding="utf-8")
    return path


def test_a_run_writes_tables_figures_and_the_page(tmp_path):
    out = tmp_path / "run"
    arguments = ("--epochs=2", "--seeds=1", "--rates=0.01", "--draws=2")
    config = small_preset(tmp_path / "preset.yaml")
    found = start(*arguments, f"--config={config}", f"--out={out}")
    assert found.returncode == 0, found.stderr[-3000:]
    assert "Traceback" not in found.stderr
    figures = {"energy", "rates", "read_rates", "sensitivity"}
    assert {f"{key}.png" for key in figures} <= {path.name for path in out.iterdir()}
    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["rates"] == [0.01]
    trainings = results["trainings"]
    assert [t["curve"] for t in trainings] == ["float", "reliable", "uniform", "lanmax"]
    weights = sum(k["weights"] for k in trainings[0]["kernels"])
    energies = [t["energy"] / weights for t in trainings]
    assert energies[:2] == [16.0, 1.0]
    assert energies[2] == pytest.approx(np.log(100) / 12.8, rel=1e-5)
    rates = np.array([k["error_rate"] for k in trainings[3]["kernels"]])
    counts = [k["weights"] for k in trainings[3]["kernels"]]
    assert energies[3] == pytest.approx(-np.log(rates) / 12.8 @ counts / weights)
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Energy and accuracy", "Energy at equal accuracy", "Sensitivity"):
        assert title in page


def test_energy_at_equal_accuracy_is_read_off_between_points(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import lanmax_report

    entries = [
        ("a", [1.0], [0.97]),
        ("b", [0.01], [0.90]),
        ("c", [0.1], [0.94, 0.96]),
        ("worse than c, for more", [0.2], [0.93]),
    ]
    assert lanmax_report.energy_needed(entries, 0.95) == pytest.approx(0.1)
    # Half way in accuracy is half way in the logarithm of the energy.
    assert lanmax_report.energy_needed(entries, 0.925) == pytest.approx(10**-1.5)
    assert lanmax_report.energy_needed(entries, 0.96) == pytest.approx(np.sqrt(0.2))
    entries[1] = ("b", [0.01], [0.875])
    assert lanmax_report.energy_needed(entries, 0.875) == pytest.approx(0.01)
    assert lanmax_report.energy_needed(entries, 0.80) is None
    assert lanmax_report.energy_needed(entries, 0.98) is None


def test_spectra_are_shown_as_a_table(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import lanmax_report

    values = np.random.default_rng(0).uniform(1, 2, size=(2, 3, 4))
    spectra = SpectrumComparison({"k/kernel": values[0]}, {"k/kernel": values[1]})
    settings = types.SimpleNamespace(rates=[0.1, 0.01])
    section = lanmax_report.spectra_section(spectra, settings)
    assert len(section.rows) == 5
    assert section.rows[0][:2] == ["k/kernel", "1"]
    assert "p = 0.01 and at 0.1" in section.text


def test_what_is_wrong_is_one_line(tmp_path):
    found = start("--rates=0.6", f"--out={tmp_path}")
    assert found.returncode == 1
    last = found.stderr.strip().splitlines()[-1]
    assert last == "lanmax_cifar10: `rates` and `read_rates` are from 0 to 0.5."
    assert "Traceback" not in found.stderr
