"""Images for `benchmarks.gpu`, read without TensorFlow and without a network."""

import functools
import io
import struct
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from hwa_keras import datasets

__all__ = ["cifar10", "digits", "normalized", "read_tfrecords"]


def cifar10(path):
    """CIFAR-10 from a tar archive of TensorFlow Datasets' record files.

    Args:
        path: The archive, compressed in any way that `tarfile` reads. Members with
            ".tfrecord" in their names hold `tf.train.Example`s with the features
            `image` (PNG or JPEG) and `label`; those with "train" are the training set.

    Returns:
        A `hwa_keras.datasets.Dataset`, as `hwa_keras.datasets.load` gives it.
    """
    parts = {"train": [], "test": []}
    with tarfile.open(path) as archive:
        for member in archive:
            if ".tfrecord" in member.name:
                name = "train" if "train" in member.name else "test"
                parts[name].append(read_tfrecords(archive.extractfile(member).read()))
    missing = [name for name, files in parts.items() if not files]
    if missing:
        raise ValueError(f"'{path}' holds no .tfrecord files of {missing[0]} images.")
    joined = {
        name: tuple(np.concatenate(arrays) for arrays in zip(*files, strict=True))
        for name, files in parts.items()
    }
    return datasets.Dataset("cifar10", num_classes=10, **joined)


def digits():
    """The digits of scikit-learn, with their one channel repeated three times."""
    data = datasets.load("digits")
    train, test = ((np.repeat(x, 3, axis=-1), y) for x, y in (data.train, data.test))
    return datasets.Dataset("digits, three channels", train, test, data.num_classes)


def normalized(data, train_images, test_images):
    """The first images of both parts, the mean and deviation of channels taken out.

    Labels become `int32`: JAX has no `int64` by default.
    """
    x, y = (part[:train_images] for part in data.train)
    x_test, y_test = (part[:test_images] for part in data.test)
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
    return datasets.Dataset(
        data.name,
        ((x - mean) / std, y.astype("int32")),
        ((x_test - mean) / std, y_test.astype("int32")),
        data.num_classes,
    )


def batches(x, y, batch_size, seed=0, workers=1):
    """Shuffled full batches, shifted by up to an eighth of a side and mirrored."""
    transform = functools.partial(datasets.pad_crop_flip, pad=x.shape[1] // 8)
    found = datasets.Batches(
        x, y, batch_size, seed=seed, transform=transform, drop_remainder=True
    )
    found.workers = workers
    return found


def read_tfrecords(blob):
    """Images and labels of a TFRecord file of `tf.train.Example`s.

    Args:
        blob: Bytes, the whole file.

    Returns:
        `float32` of shape `(samples, height, width, channels)` in [0, 1], and `int64`
        of shape `(samples,)`.
    """
    examples = [_features(record) for record in _records(blob)]
    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(lambda e: _decode(e["image"]), examples))
    x = np.stack(pixels).astype("float32") / 255
    return x, np.array([_integer(e["label"]) for e in examples], "int64")


def _records(blob):
    """Records of a TFRecord file: length (8 bytes), CRC (4), record, CRC (4)."""
    at = 0
    while at < len(blob):
        (length,) = struct.unpack_from("<Q", blob, at)
        yield blob[at + 12 : at + 12 + length]
        at += length + 16


def _features(record):
    """{feature name: first value} of a `tf.train.Example`."""
    found = {}
    for _, features in _fields(record):
        for _, entry in _fields(features):
            pair = dict(_fields(entry))
            ((_, values),) = _fields(pair[2])
            found[pair[1].decode()] = next(value for _, value in _fields(values))
    return found


def _fields(message):
    """(number, value) of the fields of a protocol buffer: integers and bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:  # Bytes, which follow their length.
            value, at = message[at : at + value], at + value
        elif key & 7:
            raise ValueError(f"Wire type {key & 7} is not one of an image's features.")
        yield key >> 3, value


def _varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at


def _integer(value):
    """The first of packed integers, or one that was not packed."""
    return value if isinstance(value, int) else _varint(value, 0)[0]


def _decode(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))
