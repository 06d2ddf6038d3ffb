"""Image classification data sets as NumPy arrays, from one loader.

`digits` is embedded in scikit-learn; the others are read with TensorFlow Datasets from
a copy on this machine. Nothing here downloads: a data set that is missing is an error
that names the command to fetch it.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Dataset", "load"]

# The data sets read with TensorFlow Datasets, and their numbers of classes.
_TFDS = {"mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
_NAMES = ("digits", *_TFDS)


class Dataset(NamedTuple):
    """A data set for image classification, split into two parts.

    In both parts `x` is `float32` of shape `(samples, height, width, channels)` in
    [0, 1], and `y` is `int64` of shape `(samples,)` in `[0, num_classes)`.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    num_classes: int


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set from this machine.

    | name            | train  | test   | image       | source                   |
    | --------------- | ------ | ------ | ----------- | ------------------------ |
    | `digits`        | 1,437  | 360    | 8 x 8 x 1   | embedded in scikit-learn |
    | `mnist`         | 60,000 | 10,000 | 28 x 28 x 1 | TensorFlow Datasets      |
    | `fashion_mnist` | 60,000 | 10,000 | 28 x 28 x 1 | TensorFlow Datasets      |
    | `cifar10`       | 50,000 | 10,000 | 32 x 32 x 3 | TensorFlow Datasets      |
    | `cifar100`      | 50,000 | 10,000 | 32 x 32 x 3 | TensorFlow Datasets      |

    The split of `digits` is shuffled, stratified by class and always the same.

    Args:
        name: String, one of the names above.
        data_dir: Path of the folder that TensorFlow Datasets keeps its data in.
            Defaults to `$HWA_DATA_DIR/tfds` where `HWA_DATA_DIR` is set, else to
            `$TFDS_DATA_DIR`, else to `~/tensorflow_datasets`. Ignored for `digits`.

    Returns:
        A `Dataset`: `name`, `train=(x, y)`, `test=(x, y)` and `num_classes`.

    Raises:
        ValueError: If the name is unknown, or the files are damaged.
        FileNotFoundError: If the data set is not on this machine.
        ImportError: If the package that reads the data set is not installed.

    Example:
        >>> digits = hwa_keras.datasets.load("digits")
        >>> x, y = digits.train
        >>> x.shape, y.shape, digits.num_classes
        ((1437, 8, 8, 1), (1437,), 10)
    """
    if name == "digits":
        return _load_digits()
    if name in _TFDS:
        return _load_tfds(name, _tfds_dir() if data_dir is None else Path(data_dir))
    raise ValueError(
        f"Unknown data set. Received: name={name!r}. "
        f"Known names: {', '.join(map(repr, _NAMES))}."
    )


def _load_digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise _missing("digits", "scikit-learn") from error

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)  # pixels count 0 to 16 dots
    x_train, x_test, y_train, y_test = train_test_split(
        x, y.astype("int64"), test_size=360, stratify=y, random_state=0
    )
    return Dataset("digits", (x_train, y_train), (x_test, y_test), 10)


def _load_tfds(name: str, data_dir: Path) -> Dataset:
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise _missing(name, "tensorflow-datasets") from error

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

    # Copies of CIFAR in JPEG exist. TensorFlow's default decoder is a fast one that
    # darkens their red and blue by more than 1 / 255; PNG decodes the same either way.
    @tfds.decode.make_decoder()
    def exactly(image: Any, feature: Any) -> Any:
        channels = feature.shape[-1]
        return tf.io.decode_jpeg(image, channels, dct_method="INTEGER_ACCURATE")

    def read(split: str) -> tuple[np.ndarray, np.ndarray]:
        whole: Any = builder.as_dataset(
            split=split,
            batch_size=-1,
            as_supervised=True,
            decoders={"image": exactly()},
        )
        x, y = tfds.as_numpy(whole)
        return x.astype("float32") / 255, y.astype("int64")

    try:
        builder = tfds.builder_from_directory(folder)
        train, test = read("train"), read("test")
    except (tf.errors.OpError, ValueError, KeyError) as error:
        raise ValueError(
            f"The data set {name!r} in {folder} cannot be read; its files are damaged "
            f"or incomplete. Delete that folder and fetch it again with\n    {fetch}"
        ) from error
    return Dataset(name, train, test, _TFDS[name])


def _tfds_dir() -> Path:
    if root := os.environ.get("HWA_DATA_DIR"):
        return Path(root, "tfds")
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _missing(name: str, package: str) -> ImportError:
    return ImportError(
        f"The data set {name!r} needs the package {package!r}. Install it with "
        "`pip install hwa_keras[examples]`."
    )
