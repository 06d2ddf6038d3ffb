"""The runner of the sharpness study, on real images and in little time."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests import fresh

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "examples/sharpness_cifar10.py"


def start(*arguments):
    return fresh.run_script(RUNNER, *arguments)


def small_presets(folder):
    import yaml

    shutil.copytree(ROOT / "configs/sharpness_cifar10", folder)
    path = folder / "presets.yaml"
    smoke = yaml.safe_load(path.read_text(encoding="utf-8"))["smoke"]
    images = {"train_images": 128, "test_images": 64, "sharpness_images": 128}
    smoke = {**smoke, **images, "calibration_images": 64}
    path.write_text(yaml.safe_dump({"smoke": smoke}), encoding="utf-8")
    return folder


def test_a_run_writes_tables_figures_networks_and_the_page(data_dir, tmp_path):
    out = tmp_path / "run"
    config = small_presets(tmp_path / "config")
    methods = "--methods=sgd,sgd_noise,samson_inf_clip"
    found = start(methods, f"--config={config}", f"--out={out}")
    assert found.returncode == 0, found.stderr[-3000:]
    assert "Traceback" not in found.stderr
    names = {path.name for path in out.iterdir()}
    for key in ("robustness", "quantization", "shift"):
        assert {f"{key}.png", f"{key}.csv"} <= names
    networks = {"sgd_0.keras", "sgd_noise_0.keras", "samson_inf_clip_0.keras"}
    assert networks | {"sharpness.png", "report.html", "results.json"} <= names
    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["methods"]["samson_inf_clip"] == {
        "method": "samson", "rho": 0.5, "norm": "inf", "clip": 0.2,
        "noise": None, "alpha": None, "optimizer": "SGD",
    }  # fmt: skip
    for records in results["networks"].values():
        assert set(records[0]["sharpness"]) == {"SAM", "ASAM", "SAMSON₂", "SAMSON∞"}
        assert all(0 < v < float("inf") for v in records[0]["sharpness"].values())
    assert results["correlations"]["all"]["SAM"]["count"] == 3
    text = (out / "robustness.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["model"] for row in rows} == {"SGD", "SGD + noise", "SAMSON∞ + clip"}
    assert {row["sigma"] for row in rows} == {"0.0", "0.2", "0.4"}
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("conductance variation", "quantized weights", "Sharpness"):
        assert title in page


def test_a_method_that_is_not_there_is_one_line(tmp_path):
    found = start("--methods=adam", f"--out={tmp_path}")
    assert found.returncode == 1
    message = found.stderr.strip().splitlines()[-1]
    assert message.startswith("sharpness_cifar10: ")
    assert "has no method adam. It has asam, asam_clip" in message
    assert "Traceback" not in found.stderr


def preset_of(folder, tmp_path, **sizes):
    """The smoke preset of a folder, smaller still, with its methods."""
    import yaml

    config = tmp_path / "config"
    shutil.copytree(ROOT / "configs" / folder, config)
    path = config / "presets.yaml"
    smoke = yaml.safe_load(path.read_text(encoding="utf-8"))["smoke"]
    smoke = {"smoke": {**smoke, **sizes, "sigmas": [0.0, 0.4], "chips": 1}}
    path.write_text(yaml.safe_dump(smoke), encoding="utf-8")
    return config


@pytest.mark.parametrize(
    "folder, methods",
    [
        ("sharpness_vit", "adamw,samson_inf"),
        ("sharpness_mobilenet", "sgd,sam"),
        ("sharpness_translation", "adamw,asam"),
    ],
)
def test_networks_of_the_other_studies_train_and_are_measured(
    data_dir, tmp_path, folder, methods
):
    translates = folder == "sharpness_translation"
    what = "pieces" if translates else "images"
    sizes = {f"train_{what}": 64, f"test_{what}": 32}
    if folder == "sharpness_mobilenet":
        sizes["calibration_images"] = 32
    config = preset_of(folder, tmp_path, **sizes)
    runner = ROOT / f"examples/{folder if translates else 'sharpness_cifar10'}.py"
    out = tmp_path / "run"
    found = fresh.run_script(
        runner, f"--methods={methods}", f"--config={config}", f"--out={out}"
    )
    assert found.returncode == 0, found.stderr[-3000:]
    text = (out / "robustness.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    plain = "SGD" if "sgd" in methods else "AdamW"
    assert rows[0]["model"] == plain and len({row["model"] for row in rows}) == 2
    assert {row["sigma"] for row in rows} == {"0.0", "0.4"}
