"""The runner of crossbars and their energy, on few images."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests import fresh

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def small_preset(path):
    presets = (ROOT / "configs/crossbar_power.yaml").read_text(encoding="utf-8")
    smoke = yaml.safe_load(presets)["smoke"]
    few = {"train_images": 128, "test_images": 64, "energy_images": 4, "adc_bits": [4]}
    few |= {"range_points": 1, "range_steps": 3, "chips": 1, "draws": 10}
    smoke = {**smoke, **few}
    path.write_text(yaml.safe_dump({"smoke": smoke}), encoding="utf-8")
    return path


def test_a_run_writes_tables_numbers_and_the_page(tmp_path):
    out = tmp_path / "run"
    config = small_preset(tmp_path / "preset.yaml")
    found = fresh.run_script(
        ROOT / "examples/crossbar_power.py", f"--config={config}", f"--out={out}"
    )
    assert found.returncode == 0, found.stderr[-3000:]
    results = json.loads((out / "results.json").read_text())
    [row] = results["ranges"]["chips"]
    assert row["layer"]["energy"] <= row["one"]["energy"]
    assert len(row["layer"]["g_u"]) == 4 and len(set(row["one"]["g_u"])) == 1
    assert [t[:2] for t in results["tiles"]] == [[64, "off"], [64, "exact"]]
    methods = {name: mse for name, mse, _ in results["errors"]}
    assert methods["moments"] == pytest.approx(methods["delta"], rel=0.5)
    assert np.isfinite(list(methods.values())).all()
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Conductance ranges", "Tiles and wires", "Bits of the ADCs"):
        assert title in page
