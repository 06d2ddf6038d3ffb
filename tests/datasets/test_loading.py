"""`load`: images, splits, and what it says of data that is missing or damaged."""

import re
import shutil
import sys

import numpy as np
import pytest

from hwa_keras import datasets
from tests import fresh

pytestmark = pytest.mark.slow  # Arrays of NumPy, the same on any backend.


def check(dataset, name, image, train, test, num_classes):
    """A loaded data set has the documented shapes, types and values."""
    assert (dataset.name, dataset.num_classes) == (name, num_classes)
    for (x, y), samples in [(dataset.train, train), (dataset.test, test)]:
        assert x.shape == (samples, *image) and x.dtype == np.float32
        assert y.shape == (samples,) and y.dtype == np.int64
        assert x.min() == 0.0 and x.max() == 1.0
        assert set(np.unique(y)) == set(range(num_classes))


def test_digits_are_the_embedded_images():
    digits = datasets.load("digits")
    check(digits, "digits", (8, 8, 1), 1437, 360, 10)
    # Together the parts are the 1,797 originals, whose pixels count 0 to 16.
    everything = np.concatenate([digits.train[0], digits.test[0]])
    assert np.array_equal(everything * 16, np.round(everything * 16))
    assert int((everything * 16).sum()) == 561718


def test_digits_are_split_by_class_and_always_alike():
    np.random.seed(1)
    first = datasets.load("digits")
    np.random.seed(2)
    second = datasets.load("digits")
    for part in ("train", "test"):
        for a, b in zip(getattr(first, part), getattr(second, part), strict=True):
            assert np.array_equal(a, b)
    total = np.bincount(np.concatenate([first.train[1], first.test[1]]))
    assert np.abs(np.bincount(first.test[1]) - total * 360 / 1797).max() < 1
    # The split is part of published numbers: it must not move with scikit-learn.
    assert first.test[1][:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]


def test_mnist(data_dir):
    mnist = datasets.load("mnist")
    check(mnist, "mnist", (28, 28, 1), 60000, 10000, 10)
    assert np.bincount(mnist.test[1]).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    # The mean of the official training images.
    assert mnist.train[0].mean(dtype="float64") == pytest.approx(0.1306605, abs=1e-6)


def test_cifar10(data_dir):
    x, y = datasets.load("cifar10", "test", data_dir=data_dir / "tfds")
    assert x.shape == (10000, 32, 32, 3) and x.dtype == np.float32
    assert y.dtype == np.int64 and np.bincount(y).tolist() == [1000] * 10
    # Also where the images are JPEG: a fast decoder is off by more than 1 / 255.
    means = x.mean((0, 1, 2), dtype="float64") * 255
    assert means == pytest.approx([126.0, 123.7, 114.9], abs=0.1)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'imagenet'.*'digits', 'mnist'.*'cifar100'"):
        datasets.load("imagenet")


def test_one_split_is_that_part_of_everything():
    digits = datasets.load("digits")
    assert digits.validation is None
    for split in ("train", "test"):
        part = datasets.load("digits", split)
        for a, b in zip(part, getattr(digits, split), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "split", "there"),
    [
        ("digits", "validation", "'train', 'test'.$"),
        ("mnist", "valid", "'train', 'test'.$"),
        ("speech_commands", "dev", "'train', 'validation', 'test'.$"),
        ("wikitext2", "valid", "'train', 'validation', 'test'.$"),
        ("glue/mnli", "validation", "'train', 'test'. GLUE keeps the labels of its"),
    ],
)
def test_unknown_split_lists_those_there_are(name, split, there):
    with pytest.raises(ValueError, match=f"{name}.*'{split}'.*{there}"):
        datasets.load(name, split)


def test_import_leaves_tensorflow_datasets_alone():
    fresh.run("""
        import sys
        import hwa_keras.datasets.batches
        assert "tensorflow_datasets" not in sys.modules
    """)


TFDS_NAMES = ["mnist", "fashion_mnist", "cifar10", "cifar100"]
TFDS_NAMES += ["speech_commands", "glue/cola", "glue/mnli"]


@pytest.mark.parametrize("name", TFDS_NAMES)
def test_missing_data_says_what_where_and_how_to_fetch_it(name, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load(name, data_dir=tmp_path)
    message = str(caught.value)
    assert f"{name}/<version>/dataset_info.json in {tmp_path}" in message
    assert f"tfds.load('{name}', data_dir='{tmp_path}')" in message
    assert "HWA_DATA_DIR" in message
    assert not list(tmp_path.iterdir())


def test_data_dir_comes_from_argument_then_environment(monkeypatch, tmp_path):
    def looked_in(**kwargs):
        with pytest.raises(FileNotFoundError) as caught:
            datasets.load("mnist", **kwargs)
        return re.search(r"dataset_info\.json in (.*?)\. Fetch", str(caught.value))[1]

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HWA_DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert looked_in() == str(tmp_path / "tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds_data"))
    assert looked_in() == str(tmp_path / "tfds_data")
    monkeypatch.setenv("HWA_DATA_DIR", str(tmp_path / "hwa"))
    assert looked_in() == str(tmp_path / "hwa" / "tfds")
    assert looked_in(data_dir=str(tmp_path / "given")) == str(tmp_path / "given")


@pytest.mark.parametrize("damage", ["truncated", "absent", "foreign"])
def test_damaged_files_are_named(damage, data_dir, tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    shutil.copytree(data_dir / "tfds" / "mnist" / "3.0.1", folder)
    (train,) = folder.glob("*train.tfrecord*")
    if damage == "truncated":
        train.write_bytes(train.read_bytes()[:100_000])
    elif damage == "absent":
        train.unlink()
    else:
        (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged or incomplete") as caught:
        datasets.load("mnist", data_dir=tmp_path)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("digits", "sklearn.datasets", "scikit-learn"),
        ("mnist", "tensorflow_datasets", "tensorflow-datasets"),
    ],
)
def test_missing_package_names_the_extra(name, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        datasets.load(name)
    assert package in str(caught.value)
    assert "pip install hwa_keras[examples]" in str(caught.value)
