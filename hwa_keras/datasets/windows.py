"""Windows of a long text, for truncated back-propagation through time."""

from typing import Any

import keras
import numpy as np

__all__ = ["Windows"]


class Windows(keras.utils.PyDataset):
    """A text cut into parallel streams, and those into windows, one after the other.

    What PyTorch's word_language_model feeds its networks. The tokens are cut into
    `batch_size` streams of equal length. Batch `i` is the window of columns
    `[i * length, (i + 1) * length)` of all streams, with the same window one token
    further on as its targets, so that row `r` of a batch goes on where row `r` of the
    batch before ended: a recurrent network may carry its state over.

        tokens 0 ... 12, batch_size=2, length=2

        stream 0:  0  1 | 2  3 | 4  5        x of batch 1: [[2 3]    y: [[3 4]
        stream 1:  6  7 | 8  9 | 10 11                      [8 9]]       [9 10]]

    Windows are full ones only, as stateful layers and XLA want one shape; PyTorch's
    last one may be shorter. In all, fewer than `batch_size * (length + 1)` tokens are
    never targets: the first of each stream, and the ends that make no window.

    Windows have one order, in every epoch. Give them to `fit` with `shuffle=False`:
    `fit` shuffles the numbers of the batches by itself otherwise, which would tear the
    streams apart and is an error here.

    Args:
        tokens: Int array of shape `(tokens,)`, such as the parts of
            `load("wikitext2")`.
        batch_size: Int, the number of streams. Defaults to `20`.
        length: Int, tokens per window. Defaults to `35`.

    Raises:
        ValueError: If the tokens are too few for one window, or are no tokens; while
            Keras trains, if it shuffles the windows.

    Example:
        >>> windows = hwa_keras.datasets.Windows(np.arange(13), batch_size=2, length=2)
        >>> x, y = windows[1]
        >>> x.tolist(), y.tolist(), len(windows)
        ([[2, 3], [8, 9]], [[3, 4], [9, 10]], 2)
    """

    def __init__(self, tokens: Any, batch_size: int = 20, length: int = 35) -> None:
        super().__init__()
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(
                "tokens must be integers in an array of one axis. Received: "
                f"shape {tokens.shape} of {tokens.dtype}."
            )
        if batch_size < 1 or length < 1:
            raise ValueError(
                "batch_size and length must be positive. Received: "
                f"batch_size={batch_size}, length={length}."
            )
        self.batch_size = batch_size
        self.length = length
        columns = len(tokens) // batch_size
        streams = tokens[: batch_size * columns].reshape(batch_size, columns)
        self.streams = streams.astype("int32")
        self._training = False
        self._asked = {-1}
        if columns <= length:
            raise ValueError(
                f"One window of {batch_size} streams of {length} tokens, with the "
                f"next one as target, takes {batch_size * (length + 1)} tokens. "
                f"Received: {len(tokens)}."
            )

    def __len__(self) -> int:
        return (self.streams.shape[1] - 1) // self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        index = range(len(self))[index]
        if self._training and index - 1 not in self._asked:
            raise ValueError(
                f"Keras asks for window {index} before window {index - 1}, but they "
                "are streams of text with one order. Call `fit` with `shuffle=False`."
            )
        self._asked.add(index)
        start = index * self.length
        window = self.streams[:, start : start + self.length + 1]
        return window[:, :-1].copy(), window[:, 1:].copy()

    def on_epoch_begin(self) -> None:
        self._training = self.workers <= 1  # Several may overtake each other.

    def on_epoch_end(self) -> None:
        self._training = False
