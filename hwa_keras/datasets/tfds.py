"""Data sets in TensorFlow Datasets' format: images, GLUE's sentences, spoken words."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwa_keras.datasets.source import Part, Source, missing_package

__all__ = ["GLUE", "IMAGES", "NAMES", "default_dir", "tfds_source"]

# Numbers of classes.
IMAGES = {"mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
# The features with the text, and the number of classes; 1 is a score.
GLUE: dict[str, tuple[tuple[str, ...], int]] = {
    "glue/cola": (("sentence",), 2),
    "glue/sst2": (("sentence",), 2),
    "glue/mrpc": (("sentence1", "sentence2"), 2),
    "glue/qqp": (("question1", "question2"), 2),
    "glue/stsb": (("sentence1", "sentence2"), 1),
    "glue/mnli": (("premise", "hypothesis"), 3),
    "glue/qnli": (("question", "sentence"), 2),
    "glue/rte": (("sentence1", "sentence2"), 2),
    "glue/wnli": (("sentence1", "sentence2"), 2),
}
NAMES = (*IMAGES, "speech_commands", *GLUE)

_CLIP = 16000  # samples in a second of speech_commands
_NO_LABELS = (
    "GLUE keeps the labels of its test split to itself, so that its validation split "
    "is the split 'test' here."
)


def tfds_source(name: str, data_dir: Path) -> Source:
    """What one of `NAMES` has, and how to read it from a folder."""
    read = partial(_read, name, data_dir)
    if name in IMAGES:
        return Source(("train", "test"), partial(read, _images), IMAGES[name])
    if name in GLUE:
        features, classes = GLUE[name]
        sentences = partial(_sentences, features=features, classes=classes)
        return Source(("train", "test"), partial(read, sentences), classes, _NO_LABELS)
    return Source(("train", "validation", "test"), partial(read, _clips), 12)


def default_dir() -> Path:
    """The folder of TensorFlow Datasets where none is given."""
    if root := os.environ.get("HWA_DATA_DIR"):
        return Path(root, "tfds")
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _read(name: str, data_dir: Path, read: Any, split: str) -> Part:
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise missing_package(name, "tensorflow-datasets") from error

    fetch = (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.load('{name}', data_dir='{data_dir}')\""
    )
    # TFDS lays a data set out as NAME/VERSION, and writes dataset_info.json last.
    # Reading that folder as it stands needs no network and takes any version.
    versions = [file.parent for file in data_dir.glob(f"{name}/*/dataset_info.json")]
    if not versions:
        raise FileNotFoundError(
            f"The data set {name!r} is not on this machine: no "
            f"{name}/<version>/dataset_info.json in {data_dir}. Fetch it with\n"
            f"    {fetch}\n"
            "or give the folder that holds it: `data_dir=`, or the environment "
            "variable HWA_DATA_DIR (read as $HWA_DATA_DIR/tfds) or TFDS_DATA_DIR."
        )
    folder = max(versions, key=lambda path: tfds.core.Version(path.name))
    if name in GLUE and split == "test":
        split = "validation_matched" if name == "glue/mnli" else "validation"
    try:
        return read(tfds.builder_from_directory(folder), split)
    except (tf.errors.OpError, ValueError, KeyError) as error:
        raise ValueError(
            f"The data set {name!r} in {folder} cannot be read; its files are damaged "
            f"or incomplete. Delete that folder and fetch it again with\n    {fetch}"
        ) from error


def _whole(builder: Any, split: str, **decoders: Any) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds

    return tfds.as_numpy(
        builder.as_dataset(split=split, batch_size=-1, decoders=decoders or None)
    )


def _images(builder: Any, split: str) -> Part:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    # Copies of CIFAR in JPEG exist. TensorFlow's default decoder is a fast one that
    # darkens their red and blue by more than 1 / 255; PNG decodes the same either way.
    @tfds.decode.make_decoder()
    def exactly(image: Any, feature: Any) -> Any:
        channels = feature.shape[-1]
        return tf.io.decode_jpeg(image, channels, dct_method="INTEGER_ACCURATE")

    whole = _whole(builder, split, image=exactly())
    return whole["image"].astype("float32") / 255, whole["label"].astype("int64")


def _sentences(
    builder: Any, split: str, features: tuple[str, ...], classes: int
) -> Part:
    whole = _whole(builder, split)
    texts = [
        np.array([text.decode() for text in whole[feature]], dtype=object)
        for feature in features
    ]
    y = whole["label"].astype("float32" if classes == 1 else "int64")
    return texts[0] if len(texts) == 1 else tuple(texts), y


def _clips(builder: Any, split: str) -> Part:
    import tensorflow_datasets as tfds

    # One by one: in one batch of integers, they would take the memory twice.
    samples = builder.info.splits[split].num_examples
    x, y = np.zeros((samples, _CLIP), "float32"), np.zeros(samples, "int64")
    examples = tfds.as_numpy(builder.as_dataset(split=split))
    for row, example in enumerate(examples):
        clip = example["audio"][:_CLIP]
        x[row, : len(clip)] = clip
        y[row] = example["label"]
    x /= 32768  # 16 bits
    return x, y
