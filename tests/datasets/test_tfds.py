"""Sentences and sounds in TensorFlow Datasets' format, written for the occasion."""

import numpy as np
import pytest

from hwa_keras import datasets

pytestmark = pytest.mark.slow  # Arrays of NumPy, the same on any backend.

GLUE = ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets")


def store(tfds, folder, name, features, splits, config=None, version="2.0.0"):
    """Write lists of examples as TFDS does, in their order."""
    import tensorflow as tf

    features = tfds.features.FeaturesDict(features)
    signature = {
        key: tf.TensorSpec(feature.shape, feature.dtype)
        for key, feature in features.get_tensor_info().items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version,
        features=features,
        split_datasets={
            split: tf.data.Dataset.from_generator(
                lambda examples=examples: iter(examples), output_signature=signature
            )
            for split, examples in splits.items()
        },
        config=config,
        data_dir=folder,
        disable_shuffling=True,
    )


def store_glue(tfds, folder, task):
    """A few examples of a task, of the features that TFDS's own builder names."""
    from tensorflow_datasets.text.glue import Glue

    (config,) = (config for config in Glue.BUILDER_CONFIGS if config.name == task)
    texts, classes = list(config.text_features), config.label_classes
    label = tfds.features.ClassLabel(names=classes) if classes else np.float32
    features = {text: tfds.features.Text() for text in texts}
    features |= {"label": label, "idx": np.int32}

    def examples(split, count):
        return [
            {text: f"{split} {text} {i} é" for text in texts}
            | {"label": i % len(classes) if classes else 2.5 * i, "idx": i}
            for i in range(count)
        ]

    validation = "validation_matched" if task == "mnli" else "validation"
    splits = {"train": 5, validation: 3, "test": 2}
    splits = {split: examples(split, count) for split, count in splits.items()}
    store(tfds, folder, "glue", features, splits, config=task)
    return texts, validation, len(classes) if classes else 1


@pytest.mark.parametrize("task", GLUE)
def test_glue(task, tfds, tmp_path):
    texts, validation, classes = store_glue(tfds, tmp_path, task)
    data = datasets.load(f"glue/{task}", data_dir=tmp_path)
    assert (data.name, data.num_classes) == (f"glue/{task}", classes)
    assert data.validation is None
    for (x, y), split, count in [(data.train, "train", 5), (data.test, validation, 3)]:
        x = x if isinstance(x, tuple) else (x,)
        assert len(x) == len(texts)
        for column, text in zip(x, texts, strict=True):
            assert column.tolist() == [f"{split} {text} {i} é" for i in range(count)]
        assert y.dtype == ("float32" if classes == 1 else "int64")
        step = 2.5 if classes == 1 else 1
        labels = np.arange(count) * step
        assert y.tolist() == (labels if classes == 1 else labels % classes).tolist()


def test_sst2_is_that_of_glue_where_its_files_are_missing(tfds, tmp_path):
    store_glue(tfds, tmp_path, "sst2")
    data = datasets.load("sst2", data_dir=tmp_path)
    assert (data.name, data.num_classes, data.validation) == ("sst2", 2, None)
    assert data.test[0][0] == "validation sentence 0 é"
    with pytest.raises(ValueError, match="'sst2'.*GLUE keeps the labels"):
        datasets.load("sst2", "validation", data_dir=tmp_path)


def test_speech_commands(tfds, tmp_path):
    audio = tfds.features.Audio(file_format="wav", sample_rate=16000, dtype=np.int16)
    label = tfds.features.ClassLabel(num_classes=12)
    ramp = np.linspace(-32768, 32767, 16000).astype("int16")
    clips = {"train": [16000, 12000, 9], "validation": [500], "test": [15999, 16000]}
    splits = {
        split: [{"audio": ramp[:n], "label": 11 - i} for i, n in enumerate(lengths)]
        for split, lengths in clips.items()
    }
    features = {"audio": audio, "label": label}
    store(tfds, tmp_path, "speech_commands", features, splits, version="0.0.3")
    data = datasets.load("speech_commands", data_dir=tmp_path)
    assert data.num_classes == 12
    for split, lengths in clips.items():
        x, y = getattr(data, split)
        assert x.shape == (len(lengths), 16000) and x.dtype == np.float32
        assert y.dtype == np.int64 and y.tolist() == [11, 10, 9][: len(lengths)]
        for row, n in zip(x, lengths, strict=True):
            assert np.array_equal(row[:n], ramp[:n] / 32768) and not row[n:].any()
    assert data.train[0].min() == -1 and data.train[0].max() < 1
    x, y = datasets.load("speech_commands", "validation", data_dir=tmp_path)
    assert np.array_equal(x, data.validation[0]) and y.tolist() == [11]


def test_a_split_that_is_not_in_the_files_is_damage(tfds, tmp_path):
    features = {"sentence": tfds.features.Text(), "label": np.int64}
    splits = {"train": [{"sentence": "a", "label": 1}]}
    store(tfds, tmp_path, "glue", features, splits, config="cola")
    assert datasets.load("glue/cola", "train", data_dir=tmp_path)[0].tolist() == ["a"]
    with pytest.raises(ValueError, match="damaged or incomplete"):
        datasets.load("glue/cola", "test", data_dir=tmp_path)
