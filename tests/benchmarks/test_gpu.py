"""benchmarks/gpu.py: a run as a user starts it, and what it is made of."""

import io
import json
import math
import os
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hwa_keras
from benchmarks import gpu_chips, gpu_data, gpu_recipe
from hwa_keras.analysis.drift import drift_axes
from hwa_keras.results import Result
from tests import fresh

ROOT = Path(__file__).parents[2]


def run(*flags):
    """On JAX, whatever the backend of the suite."""
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.slow  # The second run of the suite would run the same thing.
def test_a_small_run_writes_everything_without_tensorflow(tmp_path):
    out = tmp_path / "new" / "run"
    done = run("--minutes=1", "--smoke", f"--out={out}")
    assert done.returncode == 0, done.stderr[-4000:]
    names = {"result.json", "result.md", "student.keras", "teacher.keras"}
    assert {path.name for path in out.iterdir()} == names
    content = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert content["finished"] is True and content["tensorflow_imported"] is False
    assert "cpu" in content["device"] and content["device"] in done.stdout
    assert "jax" in content["machine"] and "not CIFAR-10" in content["data"]

    policies = [row["policy"] for row in content["steps"]]
    assert policies == ["float32", "mixed_bfloat16"]
    for row in content["steps"]:
        assert row["plain_ms"] > 0 and row["hwa_ms"] > 0 and len(row["ratios"]) == 5
        assert row["ratio"] == np.median(row["ratios"])
    assert list(content["training"]) == ["teacher", "student"]
    for found in content["training"].values():
        assert len(found["history"]) == found["epochs"] >= 1
        assert set(found["accuracy"]) == {"test", "chip_images"}
    results = [Result.from_dict(found) for found in content["drift"]]
    drift = {result.name: result for result in results}
    for name in ("digital", "hardware-aware"):
        assert drift[name].series == [("none",), ("measured",)]
        assert drift[f"{name} + AdaBS"].series == [("measured",)]
    for result in results:
        assert result.levels == ["1 s", "1 day", "1 year"]
        assert 1 <= result.chips <= 2

    tables = (out / "result.md").read_text(encoding="utf-8")
    assert tables.strip() in done.stdout
    assert "| hardware-aware | measured GDC + AdaBS |" in tables
    assert f"| {content['steps'][1]['ratio']:.3f} |" in tables


def test_what_is_missing_is_said(tmp_path):
    said = fresh.run(
        """
        import contextlib, sys
        sys.path.insert(0, root)
        from benchmarks import gpu
        for flags in ([], ["--data=nowhere.tar.xz"], ["--smoke", "--minutes=0"]):
            with contextlib.redirect_stderr(sys.stdout):
                with contextlib.suppress(SystemExit):
                    gpu.main([*flags, "--out=" + out])
        """,
        root=str(ROOT),
        out=str(tmp_path / "run"),
    )
    for message in (
        "--data is missing; only --smoke runs without it.",
        "--data: there is no file 'nowhere.tar.xz'.",
        "--minutes must be positive, not 0.0.",
    ):
        assert message in said
    assert not (tmp_path / "run").exists()


def archive(path, **splits):
    """Write images and labels as TensorFlow Datasets does."""
    import tensorflow as tf

    with tarfile.open(path, "w:xz") as file:
        for name, (x, y) in splits.items():
            records = path.with_name(name)
            with tf.io.TFRecordWriter(str(records)) as writer:
                for image, label in zip(x, y, strict=True):
                    encoded = io.BytesIO()
                    Image.fromarray(image).save(encoded, "PNG")
                    feature = {
                        "id": tf.train.Feature(
                            bytes_list=tf.train.BytesList(value=[b"train_00007"])
                        ),
                        "image": tf.train.Feature(
                            bytes_list=tf.train.BytesList(value=[encoded.getvalue()])
                        ),
                        "label": tf.train.Feature(
                            int64_list=tf.train.Int64List(value=[label])
                        ),
                    }
                    features = tf.train.Features(feature=feature)
                    example = tf.train.Example(features=features)
                    writer.write(example.SerializeToString())
            file.add(records, f"cifar10/3.0.2/{name}")


def test_images_are_read_from_an_archive(tmp_path):
    rng = np.random.default_rng(0)
    parts = [
        (rng.integers(0, 256, (count, 32, 32, 3)).astype("uint8"), labels)
        for count, labels in ((3, [9, 0, 200]), (2, [1, 5]), (2, [7, 4]))
    ]
    path = tmp_path / "cifar10.tar.xz"
    names = [
        "cifar10-train.tfrecord-00000-of-00002",
        "cifar10-train.tfrecord-00001-of-00002",
        "cifar10-test.tfrecord-00000-of-00001",
    ]
    archive(path, **dict(zip(names, parts, strict=True)))
    data = gpu_data.cifar10(path)
    x, y = data.train
    assert x.dtype == "float32" and y.dtype == "int64"
    images = np.concatenate([parts[0][0], parts[1][0]])
    np.testing.assert_array_equal(x, images.astype("float32") / 255)
    np.testing.assert_array_equal(y, [9, 0, 200, 1, 5])
    np.testing.assert_array_equal(data.test[1], [7, 4])

    archive(path, **{names[0]: parts[0]})
    with pytest.raises(ValueError, match="holds no .tfrecord files of test images"):
        gpu_data.cifar10(path)


def test_images_are_normalized_by_channel():
    data = gpu_data.normalized(gpu_data.digits(), 500, 60)
    x, y = data.train
    assert x.shape == (500, 8, 8, 3) and len(data.test[0]) == len(data.test[1]) == 60
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, atol=1e-4)
    batches = gpu_data.batches(x, y, 32)
    assert len(batches) == 15 and batches[0][0].shape == (32, 8, 8, 3)


class Time:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch, module):
        self.now = 100.0
        clock = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(module, "time", clock)


def train(time, pace, seconds):
    """Learning rates of the epochs of a training, each of which takes some time."""
    optimizer = types.SimpleNamespace(learning_rate=None)
    model = types.SimpleNamespace(optimizer=optimizer, stop_training=False)
    pace.set_model(model)
    rates = []
    for epoch, each in enumerate(seconds):
        pace.on_epoch_begin(epoch)
        rates.append(optimizer.learning_rate)
        time.now += each
        pace.on_train_batch_end(0)
        pace.on_epoch_end(epoch, {"loss": np.float32(2.0)})
        if model.stop_training:
            break
    return rates


def test_the_learning_rate_is_annealed_over_the_epochs_that_fit(monkeypatch):
    time = Time(monkeypatch, gpu_recipe)
    told = []
    pace = gpu_recipe.Pace(0.1, 141.0, 10.0, 99, told.append)
    assert pace.total(0) == 4
    expected = [0.05 * (1 + math.cos(math.pi * e / 4)) for e in range(4)]
    np.testing.assert_allclose(train(time, pace, [10.0] * 9), expected)
    assert not pace.cut_short
    assert told[1] == {"epoch": 1, "seconds": 10.0, "loss": 2.0}

    # Epochs take twice the time: there are two, and the second one is the last.
    time.now = 100.0
    pace = gpu_recipe.Pace(0.1, 141.0, 10.0, 99, told.append)
    np.testing.assert_allclose(train(time, pace, [20.0] * 9), [0.1, 0.05])
    # A largest number of epochs.
    time.now = 100.0
    pace = gpu_recipe.Pace(0.1, 141.0, 10.0, 3, told.append)
    assert len(train(time, pace, [10.0] * 9)) == 3
    # Not even one fits.
    time.now = 100.0
    pace = gpu_recipe.Pace(0.1, 101.0, 10.0, 3, told.append)
    assert len(train(time, pace, [10.0] * 9)) == 1 and pace.cut_short


@pytest.mark.parametrize(
    "deadline, chips", [(50.0, 1), (155.0, 2), (185.0, 4), (1000.0, 10)]
)
def test_as_many_chips_as_fit(monkeypatch, deadline, chips):
    time = Time(monkeypatch, gpu_chips)
    size = types.SimpleNamespace(chips=10, chip_images=2, calibration_images=2)
    data = types.SimpleNamespace(train=(np.ones((4, 2)),), test=(np.ones((4, 2)),))

    def drift_sweep(model, device, data, times, chips, compensation, **_):
        # 5 seconds a chip, 20 more for the first one of a network.
        time.now += 2.5 * len(chips) + 10 * (chips[0] == 0)
        found = {i: {"accuracy": 0.5} for i in chips}
        samples = {(c, t): found for c in compensation for t in times}
        axes = drift_axes(compensation, times)
        return Result("model", "accuracy", axes, samples)

    monkeypatch.setattr(hwa_keras, "drift_sweep", drift_sweep)
    told = {}

    def tell(found, label):
        told.update(found)
        assert label in found

    gpu_chips.sweep({"a": None, "b": None}, data, size, deadline, tell)
    assert list(told) == ["a", "a + AdaBS", "b", "b + AdaBS"]
    assert [result.chips for result in told.values()] == [chips] * 4
