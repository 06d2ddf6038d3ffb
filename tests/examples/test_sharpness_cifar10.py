"""The runner of the sharpness study, on real images and in little time."""

import csv
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from tests import fresh

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "examples/sharpness_cifar10.py"


def start(*arguments):
    return fresh.run_script(RUNNER, *arguments)


def few_images(data_dir, folder):
    """The first images of CIFAR-10, as a data set of their own: they are soon read."""
    import tensorflow as tf

    (whole,) = (data_dir / "tfds/cifar10").glob("*")
    few = folder / "tfds/cifar10" / whole.name
    shutil.copytree(whole, few, ignore=shutil.ignore_patterns("*.tfrecord*"))
    info = json.loads((few / "dataset_info.json").read_text(encoding="utf-8"))
    for split in info["splits"]:
        split["shardLengths"] = ["64"]
        pattern = f"cifar10-{split['name']}.tfrecord*"
        records = tf.data.TFRecordDataset(sorted(map(str, whole.glob(pattern))))
        name = f"cifar10-{split['name']}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(few / name)) as writer:
            for record in records.take(64):
                writer.write(record.numpy())
    (few / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def small_preset(folder, tmp_path, **changes):
    """A folder of configs: its methods, and the smoke preset with changes."""
    import yaml

    config = tmp_path / "config"
    shutil.copytree(ROOT / "configs" / folder, config)
    path = config / "presets.yaml"
    smoke = yaml.safe_load(path.read_text(encoding="utf-8"))["smoke"]
    smoke |= {"sigmas": [0.0, 0.4], "chips": 1, **changes}
    path.write_text(yaml.safe_dump({"smoke": smoke}), encoding="utf-8")
    return config


def test_a_run_writes_tables_figures_networks_and_the_page(
    data_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("HWA_DATA_DIR", str(few_images(data_dir, tmp_path)))
    out = tmp_path / "run"
    sizes = {"train_images": 64, "test_images": 32, "sharpness_images": 64}
    config = small_preset(
        "sharpness_cifar10", tmp_path, **sizes, calibration_images=32, bits=[4]
    )
    methods = "--methods=sgd_noise,samson_inf_clip"
    found = start(methods, f"--config={config}", f"--out={out}")
    assert found.returncode == 0, found.stderr[-3000:]
    assert "Traceback" not in found.stderr
    names = {path.name for path in out.iterdir()}
    for key in ("robustness", "quantization", "shift"):
        assert {f"{key}.png", f"{key}.csv"} <= names
    networks = {"sgd_noise_0.keras", "samson_inf_clip_0.keras"}
    assert networks | {"sharpness.png", "report.html", "results.json"} <= names
    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["methods"]["samson_inf_clip"] == {
        "method": "samson", "rho": 0.5, "norm": "inf", "clip": 0.2,
        "noise": None, "alpha": None, "optimizer": "SGD",
    }  # fmt: skip
    for records in results["networks"].values():
        assert set(records[0]["sharpness"]) == {"SAM", "ASAM", "SAMSON₂", "SAMSON∞"}
        assert all(0 < v < float("inf") for v in records[0]["sharpness"].values())
    text = (out / "robustness.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["model"] for row in rows} == {"SGD + noise", "SAMSON∞ + clip"}
    assert {row["sigma"] for row in rows} == {"0.0", "0.4"}
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("conductance variation", "quantized weights", "Sharpness"):
        assert title in page


def test_sharpness_is_correlated_with_what_is_lost(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import sharpness_report
    from sharpness_training import MEASURES, Recipe

    recipes = {"sgd": Recipe(), "sam": Recipe("sam", 0.1), "clip": Recipe(clip=0.2)}
    lost, sharp = [0.1, 0.3, 0.2], [1.0, 1.5, 3.0]
    found = {}
    for name, loss, value in zip(recipes, lost, sharp, strict=True):
        means = {0.0: 0.9, 0.4: 0.9 - loss}
        estimates = {s: types.SimpleNamespace(mean=m) for s, m in means.items()}
        curve = types.SimpleNamespace(estimate=estimates.get)
        sharpness = dict.fromkeys(MEASURES, value)
        found[name] = [{"robustness": curve, "sharpness": sharpness}]
    settings = types.SimpleNamespace(sigmas=[0.0, 0.4])
    section, numbers = sharpness_report.sharpness_section(recipes, found, {}, settings)
    assert list(numbers) == ["all"]  # No group has three networks.
    assert numbers["all"]["SAM"]["count"] == 3
    r = np.corrcoef(sharp, lost)[0, 1]
    assert numbers["all"]["SAM"]["r"] == pytest.approx(r)
    assert section.rows[1] == ["SAM", *4 * ["1.5"], "0.3000"]
    assert section.rows[-1][1].startswith(f"{r:.2f} (p = ")


def test_a_method_that_is_not_there_is_one_line(tmp_path):
    found = start("--methods=adam", f"--out={tmp_path}")
    assert found.returncode == 1
    message = found.stderr.strip().splitlines()[-1]
    assert message.startswith("sharpness_cifar10: ")
    assert "has no method adam. It has asam, asam_clip" in message
    assert "Traceback" not in found.stderr


def test_a_transformer_is_trained_with_losses_of_its_own(data_dir, tmp_path):
    sizes = {"length": 8, "dim": 8, "depth": 1, "heads": 2, "mlp_dim": 8}
    pieces = {"train_pieces": 64, "test_pieces": 32}
    config = small_preset("sharpness_translation", tmp_path, **sizes, **pieces)
    out = tmp_path / "run"
    found = fresh.run_script(
        ROOT / "examples/sharpness_translation.py",
        "--methods=asam",
        f"--config={config}",
        f"--out={out}",
    )
    assert found.returncode == 0, found.stderr[-3000:]
    text = (out / "robustness.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["model"] for row in rows} == {"ASAM"}
    assert {row["metric"] for row in rows} == {"characters"}
    assert {row["sigma"] for row in rows} == {"0.0", "0.4"}


def test_presets_and_methods_of_all_studies_can_be_had():
    fresh.run(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, examples)
        import sharpness_cifar10, sharpness_training
        from hwa_keras.recipes import presets
        for study in ("cifar10", "vit", "mobilenet"):
            folder = Path(configs, f"sharpness_{study}")
            recipes = sharpness_training.read_recipes(folder, None)
            plain = "AdamW" if study == "vit" else "SGD"
            assert list(recipes.values())[0].title == plain
            assert {recipe.optimizer for recipe in recipes.values()} == {plain}
            settings = sharpness_cifar10.Settings
            for size in ("paper", "small", "smoke"):
                preset = presets.read(folder, size, settings)
            build = sharpness_training.NETWORKS[preset.network]
            assert build((32, 32, 3), classes=7).output_shape == (None, 7)
        """,
        examples=str(ROOT / "examples"),
        configs=str(ROOT / "configs"),
    )
