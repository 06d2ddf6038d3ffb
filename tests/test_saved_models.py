"""The model that is shipped in saved_models/, run as its page says."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import hwa_keras

ROOT = Path(__file__).parents[1]


@pytest.mark.tensorflow_only
def test_the_page_of_the_shipped_chip_runs(monkeypatch, capsys, tmp_path):
    page = (ROOT / "saved_models/README.md").read_text(encoding="utf-8")
    lite, saved_model = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "saved_models").symlink_to(ROOT / "saved_models")
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    chip = hwa_keras.program(keras.Sequential(layers), "pcm", seed=0)
    hwa_keras.export(chip, tmp_path / "runs/quickstart/saved_model")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(lite, "saved_models/README.md", "exec"), names)
    exec(compile(saved_model, "saved_models/README.md", "exec"), names)
    chip.read_noise = "off"
    expected = chip(names["x"], t=3600.0)
    np.testing.assert_allclose(names["logits"], expected, atol=1e-5)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    accuracies = {float(t): float(accuracy) for t, accuracy in printed}
    assert list(accuracies) == [1.0, 86_400.0, 31_536_000.0]
    assert all(accuracy > 0.96 for accuracy in accuracies.values())
