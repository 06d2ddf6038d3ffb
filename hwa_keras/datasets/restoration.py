"""A translation task made of running text: restore its case and punctuation."""

import re
from typing import NamedTuple

import numpy as np

from hwa_keras.core.checks import check_count
from hwa_keras.core.types import ArrayLike
from hwa_keras.datasets.text import Text

__all__ = ["Restoration", "restoration"]

PADDING, START, END = 0, 1, 2
_FIRST = 3  # Token of the first character.
_PUNCTUATION = ".,;:!?'()-"
_SOURCE = "abcdefghijklmnopqrstuvwxyz0123456789 "
_TARGET = _SOURCE + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + _PUNCTUATION
# How WikiText's words, cut apart at every sign, are written.
_WRITTEN = (
    (re.compile(r" @(.)@ "), r"\1"),
    (re.compile(r" ([.,;:!?)])"), r"\1"),
    (re.compile(r"\( "), "("),
    (re.compile(r" '(s|d|m|t|re|ve|ll)\b"), r"'\1"),
)


class Restoration(NamedTuple):
    """Pieces of text without case and punctuation, and as they were written.

    Each part is a pair `({"source": x, "target": t}, y)` of `int32` arrays, as
    `hwa_keras.models.transformer_translation` takes them: `x` of shape
    `(pieces, length)`; `t` and `y` of `(pieces, length + 1)`, where `t` is `y` shifted
    by a start token. Token 0 is padding, 1 starts and 2 ends a piece, and token i ≥ 3
    is the character `source_characters[i - 3]` or `target_characters[i - 3]`.
    """

    name: str
    train: tuple[dict[str, np.ndarray], np.ndarray]
    test: tuple[dict[str, np.ndarray], np.ndarray]
    source_characters: str
    target_characters: str

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """Numbers of source and of target tokens."""
        characters = self.source_characters, self.target_characters
        return tuple(len(each) + _FIRST for each in characters)

    def written(self, tokens: ArrayLike) -> str:
        """The text of target tokens, up to the end token."""
        tokens = np.asarray(tokens).tolist()
        if END in tokens:
            tokens = tokens[: tokens.index(END)]
        characters = [self.target_characters[t - _FIRST] for t in tokens if t >= _FIRST]
        return "".join(characters)


def restoration(
    text: Text, length: int = 32, train: str = "train", test: str = "test"
) -> Restoration:
    """Make a translation task of a running text: restore case and punctuation.

    The text is cut, at `<unk>`, at line ends and between words, into pieces of at most
    `length` characters. The source of a piece is its letters and digits in lower case,
    its target the piece as it was written. Pieces with other than ASCII letters,
    digits and `.,;:!?'()-` are left out, and those shorter than half of `length`.

    Args:
        text: A `Text`, such as `load("wikitext2")`.
        length: Integer ≥ 8, the longest piece in characters. Defaults to `32`.
        train: String, the part of the text to train on. Defaults to `"train"`.
        test: String, the part to test on. Defaults to `"test"`.

    Returns:
        A `Restoration`.

    Raises:
        ValueError: If `text` is no `Text`, has no such part, or a part has no piece.

    Example:
        >>> words = ("The", "lobster", "(", "blue", ")", ",", "in", "life", ".")
        >>> numbers = np.arange(len(words))
        >>> text = hwa_keras.datasets.Text("lobster", numbers, None, numbers, words)
        >>> data = hwa_keras.datasets.restoration(text, length=40)
        >>> inputs, y = data.train
        >>> data.written(y[0])
        'The lobster (blue), in life.'
        >>> inputs["source"].shape, y.shape, data.vocabularies
        ((1, 40), (1, 41), (40, 76))
    """
    if not isinstance(text, Text):
        raise ValueError(
            "`text` must be a hwa_keras.datasets.Text, such as load('wikitext2'). "
            f"Received: {text!r}."
        )
    length = check_count("restoration", 8, length=length)
    first, second = (
        _encoded(_pieces(text, part, length), length) for part in (train, test)
    )
    return Restoration(text.name, first, second, _SOURCE, _TARGET)


def _pieces(text, part, length):
    """The pieces of a part of a text, as written."""
    numbers = (
        getattr(text, part, None) if part in ("train", "validation", "test") else None
    )
    if numbers is None:
        there = [
            p for p in ("train", "validation", "test") if getattr(text, p) is not None
        ]
        raise ValueError(
            f"The text '{text.name}' has no part {part!r} on this machine. It has "
            f"{', '.join(map(repr, there))}: give one of them as `train` and `test`."
        )
    running = " ".join(text.vocabulary[number] for number in numbers)
    allowed = set(_TARGET)
    found = []
    for run in re.split(r"<unk>|<eos>", running):
        run = run.strip()
        for pattern, written in _WRITTEN:
            run = pattern.sub(written, run)
        cut = _cut(run.split(" "), length)
        found += [p for p in cut if len(p) >= length // 2 and allowed.issuperset(p)]
    if not found:
        raise ValueError(
            f"No piece of {length // 2} to {length} characters is in the part {part!r} "
            f"of '{text.name}'. Give a longer text, or another `length`."
        )
    return found


def _cut(words, length):
    """Words in pieces of at most so many characters; longer words are left out."""
    pieces, piece = [], ""
    for word in words:
        longer = f"{piece} {word}".strip()
        if len(longer) > length:
            pieces.append(piece)
            longer = word if len(word) <= length else ""
        piece = longer
    return [*pieces, piece]


def _encoded(pieces, length):
    source = np.full((len(pieces), length), PADDING, "int32")
    target = np.full((len(pieces), length + 1), PADDING, "int32")
    for i, piece in enumerate(pieces):
        plain = " ".join("".join(c for c in piece.lower() if c in _SOURCE).split())
        source[i, : len(plain)] = [_SOURCE.index(c) + _FIRST for c in plain]
        tokens = [_TARGET.index(c) + _FIRST for c in piece]
        target[i, : len(piece) + 1] = [*tokens, END]
    shifted = np.concatenate([np.full((len(pieces), 1), START), target[:, :-1]], axis=1)
    shifted[target == PADDING] = PADDING
    return {"source": source, "target": shifted.astype("int32")}, target
