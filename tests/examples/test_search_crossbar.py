"""The runner of architecture search, on few images."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hwa_keras.search import SearchResult, spaces
from tests import fresh

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PRESETS = yaml.safe_load((ROOT / "configs/search_crossbar.yaml").read_text("utf-8"))


def small_preset(path):
    few = {
        "dataset": "digits",
        "resolution": [7],  # Not that of the images.
        "train_images": 128,
        "search_images": 64,
        "test_images": 32,
        "epochs": 1,
        "calibration_images": 32,
        "batches_accuracy": 2,
        "eval_batch": 32,
        "population": 4,
        "generations": 2,
        "rank_networks": 3,
        "rank_batches": 2,
        "best": 1,
        "chips": 2,
    }
    smoke = {**PRESETS["smoke"], **few}
    path.write_text(yaml.safe_dump({"smoke": smoke}), encoding="utf-8")
    return path


def test_a_run_writes_fronts_ratios_and_networks(tmp_path):
    pytest.importorskip("pymoo")
    out = tmp_path / "run"
    config = small_preset(tmp_path / "preset.yaml")
    found = fresh.run_script(
        ROOT / "examples/search_crossbar.py", f"--config={config}", f"--out={out}"
    )
    assert found.returncode == 0, found.stderr[-3000:]
    results = json.loads((out / "results.json").read_text())
    assert results["speed"]["compilations"] == 0
    names = {"M2", "M2u", "M3", "M3 published"}
    assert set(results["modes"]["ratios"]) == names
    for name in ("M1_0", "M2_0", "M2u_0", "M3_0", "M3_published_0"):
        front = SearchResult.from_json(out / f"front_{name}.json")
        assert (np.diff(front.values("accuracy")) >= 0).all()
    [network] = results["networks"]
    for key in ("crossbar", "crossbar_tuned", "pcm_year"):
        assert len(network[key]) == 2 and 0 <= min(network[key]) <= 1
    assert (out / "network_0.keras").exists()
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in (
        "Mini-batches that rank networks",
        "Fronts",
        "Networks that were made",
    ):
        assert title in page


@pytest.mark.parametrize("preset", PRESETS)
def test_the_space_of_each_preset_fits_its_images(preset):
    settings = PRESETS[preset]
    space = getattr(spaces, settings["space"])(tuple(settings["resolution"]))
    assert space.count > 50
    needed = max(settings["batches_accuracy"], settings["rank_batches"])
    assert needed * settings["eval_batch"] <= settings["search_images"]
