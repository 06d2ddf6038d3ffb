"""One loader for every data set."""

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hwa_keras.datasets import fsdd, text, tfds
from hwa_keras.datasets.source import Part, Source, check_split, missing_package

__all__ = ["Dataset", "load"]

_NAMES = ("digits", *tfds.NAMES, *fsdd.NAMES, "sst2", "wikitext2")
_SAMPLE_RATES = {"speech_commands": 16000, **dict.fromkeys(fsdd.NAMES, 8000)}


class Dataset(NamedTuple):
    """A data set in two or three parts, each `(x, y)`.

    | of        | x                                                                  |
    | --------- | ------------------------------------------------------------------ |
    | images    | `float32` of `(samples, height, width, channels)` in [0, 1]        |
    | sentences | `object` of `(samples,)`, each a `str`; of pairs, a tuple of two   |
    | speech    | `float32` of `(samples, sample_rate)` in [-1, 1], one second       |

    `y` is `int64` of shape `(samples,)` in `[0, num_classes)`. Where `num_classes` is
    1, it is `float32`, a score to be predicted. `validation` is None where a data set
    has two parts. `sample_rate` is that of audio, in Hz, None of everything else.
    """

    name: str
    train: Part
    test: Part
    num_classes: int
    validation: Part | None = None
    sample_rate: int | None = None


def load(
    name: str,
    split: str | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """Load a data set from this machine.

    | name              | train   | validation | test    | x                           |
    | ----------------- | ------- | ---------- | ------- | --------------------------- |
    | `digits`          | 1,437   |            | 360     | images of 8 x 8 x 1         |
    | `mnist`           | 60,000  |            | 10,000  | images of 28 x 28 x 1       |
    | `fashion_mnist`   | 60,000  |            | 10,000  | images of 28 x 28 x 1       |
    | `cifar10`         | 50,000  |            | 10,000  | images of 32 x 32 x 3       |
    | `cifar100`        | 50,000  |            | 10,000  | images of 32 x 32 x 3       |
    | `speech_commands` | 85,511  | 10,102     | 4,890   | spoken words, 12 classes    |
    | `fsdd`            | 2,700   |            | 300     | spoken digits, 10 classes   |
    | `fsdd/<speaker>`  | 2,500   |            | 500     | the same, by speaker        |
    | `sst2`            | 6,920   | 872        | 1,821   | sentences                   |
    | `glue/cola`       | 8,551   |            | 1,043   | sentences                   |
    | `glue/sst2`       | 67,349  |            | 872     | sentences and parts of them |
    | `glue/mrpc`       | 3,668   |            | 408     | pairs of sentences          |
    | `glue/qqp`        | 363,846 |            | 40,430  | pairs of questions          |
    | `glue/stsb`       | 5,749   |            | 1,500   | pairs; y is a score, 0 to 5 |
    | `glue/mnli`       | 392,702 |            | 9,815   | premise and hypothesis      |
    | `glue/qnli`       | 104,743 |            | 5,463   | question and sentence       |
    | `glue/rte`        | 2,490   |            | 277     | pairs of sentences          |
    | `glue/wnli`       | 635     |            | 71      | pairs of sentences          |
    | `wikitext2`       | 2.09 M  | 217,646    | 245,569 | words of a running text     |

    `digits` is embedded in scikit-learn; its split is shuffled, stratified by class and
    always the same. `sst2` and `wikitext2` are text files:
    `sst2/{train,dev,test}.tsv`, or where that folder is missing `glue/sst2`, and
    `wikitext2/{train,valid,test}.txt`. `fsdd` are the files `fsdd/recordings/*.wav`.
    The others are read with TensorFlow Datasets.

    GLUE keeps the labels of its test splits to itself: `test` is its validation split
    (of MNLI, the matched one). Clips of `speech_commands` and of `fsdd` that are
    shorter than a second are followed by zeros.

    The clips of `fsdd` are of 8 kHz, in the order of digit, speaker and take. Each is
    divided by its largest sample, as speakers differ in loudness by a factor of 16, and
    what is beyond a second is cut off. `fsdd` has the official split, in which all six
    speakers are in both parts; `fsdd/george`, `fsdd/jackson`, `fsdd/lucas`,
    `fsdd/nicolas`, `fsdd/theo` and `fsdd/yweweler` test on one speaker and train on the
    five others.

    Words of `wikitext2` are what stands between spaces, and `<eos>` at the end of each
    line, numbered as they first appear in the files that are there, as in PyTorch's
    word_language_model. Without `train.txt`, the other two can be had all the same, but
    have other numbers.

    Args:
        name: String, one of the names above.
        split: String, `"train"`, `"validation"` or `"test"`, to read only that one.
            Defaults to `None`, for everything.
        data_dir: Path of the folder that TensorFlow Datasets keeps its data in, or of
            the folder that holds `fsdd`, `sst2` or `wikitext2`. For the first it
            defaults to `$HWA_DATA_DIR/tfds` where `HWA_DATA_DIR` is set, else to
            `$TFDS_DATA_DIR`, else to `~/tensorflow_datasets`; for files, to
            `$HWA_DATA_DIR`.
            Ignored for `digits`.

    Returns:
        A `Dataset`: `name`, `train=(x, y)`, `test=(x, y)`, `num_classes`,
        `validation` and `sample_rate`. Of `wikitext2` a `Text`: `name`, `train`,
        `validation` and `test`, `int32` arrays of word numbers, and `vocabulary`. With
        `split`, that part alone: `(x, y)`, or the array of word numbers.

    Raises:
        ValueError: If the name is unknown, the data set has no such split, or the files
            are damaged.
        FileNotFoundError: If the data set, or the file of that split, is not on this
            machine. The message has the command to fetch it.
        ImportError: If the package that reads the data set is not installed.

    Example:
        >>> digits = hwa_keras.datasets.load("digits")
        >>> x, y = digits.train
        >>> x.shape, y.shape, digits.num_classes
        ((1437, 8, 8, 1), (1437,), 10)
        >>> x, y = hwa_keras.datasets.load("digits", "test")
        >>> x.shape
        (360, 8, 8, 1)
    """
    files = Path(data_dir or os.environ.get("HWA_DATA_DIR") or "$HWA_DATA_DIR")
    if name == "wikitext2":
        if split is not None:
            check_split(name, split, tuple(text.WIKITEXT2))
        return text.wikitext2(files / name, split)
    source = _source(name, files, Path(data_dir or tfds.default_dir()))
    if split is not None:
        check_split(name, split, source.splits, source.note)
        return source.read(split)
    parts = {part: source.read(part) for part in source.splits}
    rate = _SAMPLE_RATES.get(name)
    return Dataset(name, num_classes=source.num_classes, sample_rate=rate, **parts)


def _source(name: str, files: Path, records: Path) -> Source:
    """Where a data set comes from, given the folders of files and of TFDS."""
    if name == "digits":
        return Source(("train", "test"), _read_digits, 10)
    if name in tfds.NAMES:
        return tfds.tfds_source(name, records)
    if name in fsdd.NAMES:
        return fsdd.fsdd_source(name, files / "fsdd")
    if name == "sst2":
        if (files / name).is_dir():
            return text.sst2_source(files / name)
        source = tfds.tfds_source("glue/sst2", records)
        return source._replace(read=partial(_read_sst2, files / name, source))
    raise ValueError(
        f"Unknown data set. Received: name={name!r}. "
        f"Known names: {', '.join(map(repr, _NAMES))}."
    )


def _read_sst2(folder: Path, source: Source, split: str) -> Part:
    try:
        return source.read(split)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no folder {folder} with the files of 'sst2'. Fetch them with\n"
            f"    {text.fetch_sst2(folder)}\nIn its place: {error}"
        ) from error


def _read_digits(split: str) -> Part:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_package("digits", "scikit-learn") from error

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)  # pixels count 0 to 16 dots
    x_train, x_test, y_train, y_test = train_test_split(
        x, y.astype("int64"), test_size=360, stratify=y, random_state=0
    )
    return (x_train, y_train) if split == "train" else (x_test, y_test)
