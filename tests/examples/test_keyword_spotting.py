"""The runner of keyword spotting, on few clips."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests import fresh

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "examples/keyword_spotting.py"


def preset(path, **changes):
    presets = (ROOT / "configs/keyword_spotting.yaml").read_text(encoding="utf-8")
    smoke = yaml.safe_load(presets)["smoke"]
    few = {"train_clips": 64, "test_clips": 20, "epochs": 1, "levels": [0.12]}
    path.write_text(yaml.safe_dump({"smoke": {**smoke, **few, **changes}}))
    return path


def test_a_run_writes_tables_numbers_and_the_page(tmp_path):
    if "HWA_DATA_DIR" not in os.environ:
        pytest.skip("needs FSDD: HWA_DATA_DIR is not set")
    out = tmp_path / "run"
    config = preset(tmp_path / "preset.yaml")
    found = fresh.run_script(RUNNER, f"--config={config}", f"--out={out}")
    assert found.returncode == 0, found.stderr[-3000:]
    results = json.loads((out / "results.json").read_text())
    rows = results["models"]
    assert [row["model"] for row in rows] == ["ideal", "quantized", "hardware"]
    for row in rows:
        assert np.shape(row["chips"]) == (1, 2)
        accuracies = np.array([row["software"], *row["chips"][0]])
        assert ((accuracies >= 0) & (accuracies <= 1)).all()
        np.testing.assert_allclose(
            20 * accuracies, np.round(20 * accuracies), atol=1e-5
        )
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Three models on chips", "Spikes and membranes"):
        assert title in page
    assert (out / "hardware.keras").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "digits"}, "`dataset` must be fsdd"),
        ({"readout": "rate"}, "`readout` must be one of"),
        ({"synaptic_std": 0.0}, "`synaptic_std` must be above 0"),
        ({"batch_size": 128}, "`batch_size` must not be above `train_clips`"),
    ],
)
def test_a_preset_that_no_run_can_have_ends_it_at_once(tmp_path, changes, message):
    config = preset(tmp_path / "preset.yaml", **changes)
    found = fresh.run_script(RUNNER, f"--config={config}", f"--out={tmp_path}")
    assert found.returncode == 1
    assert message in found.stderr
