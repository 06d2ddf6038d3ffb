"""The runner of keyword spotting, on few clips."""

import importlib
import json
import os
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

from hwa_keras.datasets import Dataset
from hwa_keras.recipes import presets
from tests import fresh

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "examples/keyword_spotting.py"


def preset(path, **changes):
    text = (ROOT / "configs/keyword_spotting.yaml").read_text(encoding="utf-8")
    smoke = yaml.safe_load(text)["smoke"]
    few = {"train_clips": 40, "test_clips": 20, "dt": 0.08, "hidden": 4}
    few |= {"epochs": 1, "batch_size": 20, "levels": [0.12], "words": 2}
    few |= {"models": ["hardware"]}
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
    assert [row["model"] for row in rows] == ["hardware"]
    for row in rows:
        assert np.shape(row["chips"]) == (1, 2)
        accuracies = np.array([row["software"], *row["chips"][0]])
        assert ((accuracies >= 0) & (accuracies <= 1)).all()
        np.testing.assert_allclose(
            20 * accuracies, np.round(20 * accuracies), atol=1e-5
        )
    page = (out / "report.html").read_text(encoding="utf-8")
    for row in rows:
        assert 0 < row["joules"] == pytest.approx(23.6e-12 * row["synops"])
    titles = ("Three models on chips", "Spikes and membranes", "A chip in files")
    for title in titles:
        assert title in page
    for name in ("hardware.keras", "chip.keras", "chip", "chip.tflite"):
        assert (out / name).exists()


def test_a_data_set_that_is_not_known_ends_a_run_at_once(tmp_path):
    config = preset(tmp_path / "preset.yaml", dataset="digits")
    found = fresh.run_script(RUNNER, f"--config={config}", f"--out={tmp_path}")
    assert found.returncode == 1
    assert "`dataset` must be fsdd" in found.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readout": "rate"}, "`readout` must be one of"),
        ({"synaptic_std": 0.0}, "`synaptic_std` must be above 0"),
        ({"models": ["ideal"]}, "`models` must be among ideal"),
        ({"held_out": "train"}, "`held_out` must be one of"),
        ({"batch_size": 128}, "`batch_size` must not be above `train_clips`"),
    ],
)
def test_presets_that_no_run_can_have(tmp_path, monkeypatch, changes, message):
    monkeypatch.syspath_prepend(ROOT / "examples")
    studies = importlib.import_module("keyword_studies")
    config = preset(tmp_path / "preset.yaml", **changes)
    with pytest.raises(ValueError, match=message):
        presets.read(config, "smoke", studies.Settings)


def test_each_speaker_is_left_out_once_and_choices_spare_the_test(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    studies = importlib.import_module("keyword_studies")
    names = studies.data_sets("fsdd/each")
    assert len(names) == 6 and names[4] == "fsdd/theo"
    assert studies.data_sets("fsdd") == ["fsdd"]
    clips = np.random.default_rng(0).normal(size=(30, 1000)).astype("float32")
    labels = np.arange(30) % 10
    data = Dataset("clips", (clips, labels), (clips[:3], labels[:3]), 10, None, 8000)
    settings = types.SimpleNamespace(
        train_clips=25, test_clips=4, dt=8e-3, words=2, held_out="validation"
    )
    found = studies.features_of(data, settings)
    assert found.num_classes == 2
    x, y = found.train
    x_held, y_held = found.test
    assert (len(x), len(x_held)) == (5, 1)  # A fifth of the six clips of two words.
    assert set(y) | set(y_held) == {0, 1}
    assert not (x[:, None] == x_held[None]).all((2, 3)).any()
