"""Data sets in text files: SST-2's sentences and WikiText-2's running text."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hwa_keras.datasets.source import Part, Source

__all__ = ["SST2", "WIKITEXT2", "Text", "fetch_sst2", "sst2_source", "wikitext2"]

# Files by split.
SST2 = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
WIKITEXT2 = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}

# Folders on the Web, and the names of their files.
_SST2_URL = (
    "https://github.com/clairett/pytorch-sentiment-classification/raw/master/data/SST2/"
    "{train,dev,test}.tsv"
)
_WIKITEXT2_URL = (
    "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/"
    "wikitext-2/{train,valid,test}.txt"
)


class Text(NamedTuple):
    """A running text in three parts, as numbers of words.

    Each part is `int32` of shape `(tokens,)` in `[0, len(vocabulary))`, or None where
    its file is not on this machine. `vocabulary[number]` is the word.
    """

    name: str
    train: np.ndarray | None
    validation: np.ndarray | None
    test: np.ndarray | None
    vocabulary: tuple[str, ...]


def sst2_source(folder: Path) -> Source:
    """SST-2 from its three files of lines `sentence<TAB>label`."""
    return Source(tuple(SST2), partial(_read_sst2, folder), 2)


def fetch_sst2(folder: Path) -> str:
    """The command that puts SST-2's files into a folder."""
    return f'curl -fL --create-dirs -o "{folder}/#1.tsv" "{_SST2_URL}"'


def _read_sst2(folder: Path, split: str) -> Part:
    path = folder / SST2[split]
    if not path.is_file():
        raise FileNotFoundError(
            f"No {path.name} in {folder}, and so no split {split!r} of 'sst2'. Fetch "
            f"it with\n    {fetch_sst2(folder)}"
        )
    sentences, labels = [], []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            sentence, tab, label = line.rstrip("\n").rpartition("\t")
            if not tab or label not in ("0", "1"):
                raise ValueError(
                    f"Line {number} of {path} is damaged: it must be a sentence, a "
                    f"tab and a label, 0 or 1. Received: {line!r}."
                )
            sentences.append(sentence)
            labels.append(int(label))
    return np.array(sentences, dtype=object), np.array(labels, dtype="int64")


def wikitext2(folder: Path, split: str | None = None) -> Text | np.ndarray:
    """WikiText-2 with one word-level vocabulary of the files that are there.

    Args:
        folder: Path of the folder of the files.
        split: String, the part to return. Defaults to `None`, for a `Text`.
    """
    paths = {part: folder / file for part, file in WIKITEXT2.items()}
    words = {part: _words(path) for part, path in paths.items() if path.is_file()}
    if not words or (split and split not in words):
        raise _missing_file(folder, split, tuple(words))
    vocabulary = tuple(dict.fromkeys(word for part in words.values() for word in part))
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokens = {
        part: np.array([numbers[word] for word in words[part]], dtype="int32")
        for part in words
    }
    if split:
        return tokens[split]
    train, validation, test = (tokens.get(part) for part in WIKITEXT2)
    return Text("wikitext2", train, validation, test, vocabulary)


def _words(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [word for line in lines for word in (*line.split(), "<eos>")]


def _missing_file(
    folder: Path, split: str | None, there: tuple[str, ...]
) -> FileNotFoundError:
    if there and split:
        problem = (
            f"No {WIKITEXT2[split]} in {folder}, and so no split {split!r} of "
            f"'wikitext2'. There are {' and '.join(map(repr, there))}."
        )
    else:
        problem = (
            "The data set 'wikitext2' is not on this machine: no "
            f"{', '.join(WIKITEXT2.values())} in {folder}."
        )
    return FileNotFoundError(
        f"{problem} The word-level files are those of github.com/pytorch/examples, "
        "word_language_model/data/wikitext-2. Fetch them with\n"
        f'    curl -fL --create-dirs -o "{folder}/#1.txt" "{_WIKITEXT2_URL}"\n'
        "or give the folder that holds `wikitext2`: `data_dir=`, or the environment "
        "variable HWA_DATA_DIR."
    )
