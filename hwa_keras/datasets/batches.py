"""Batches whose order depends on a seed and the number of the epoch alone."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

__all__ = ["Batches"]


class Batches(keras.utils.PyDataset):
    """Arrays in shuffled batches, the same in every run, resumed or not.

    Where a generator of batches remembers how far it has come, this one remembers
    nothing: batch `i` of epoch `e` is a function of `(seed, e, i)`, whenever, in
    whatever order and from whichever worker it is asked for. So a run that stops
    after three epochs and goes on with the fourth sees what an uninterrupted one sees.

    | what                       | is drawn from                                  |
    | -------------------------- | ---------------------------------------------- |
    | the order of the examples  | `np.random.default_rng((seed, epoch))`         |
    | `transform` of a batch     | `np.random.default_rng((seed, epoch, i))`      |

    Whoever drives the training sets `epoch` when an epoch begins. Where nobody does,
    it advances at the end of every epoch; on some backends Keras begins one to look at
    the data before it trains, so that the first is then 1, not 0.

    Give it to `fit` with `shuffle=False`. `fit` shuffles the numbers of the batches by
    itself otherwise, with Python's `random`: every batch is still right, but they come
    in another order. Leave `steps_per_epoch` at its default, or an epoch of `fit` is
    not one of the data.

    Args:
        x: Array of shape `(samples, ...)`, or a tuple or dictionary of such arrays.
            Sentences are turned into numbers before: `fit` takes text from plain arrays
            alone.
        y: Targets, like `x`. Defaults to `None`, for batches of inputs alone.
        batch_size: Int, examples per batch. Defaults to `128`.
        seed: Int, not negative. Defaults to `0`.
        shuffle: Bool. Whether every epoch has an order of its own. Without it, all have
            the given one. Defaults to `True`.
        transform: Function `(x, rng) -> x` that changes the inputs of a batch, such as
            `pad_crop_flip`; `rng` is a `np.random.Generator`. Defaults to `None`.
        drop_remainder: Bool. Whether to leave out the last batch where it is not full,
            for one shape and so one compilation. Defaults to `False`.

    Attributes:
        epoch: Int, the number of the epoch that batches are of. Starts at 0.

    Raises:
        ValueError: If the arrays differ in length, or make no batch.

    Example:
        >>> x, y = np.arange(10.0), np.arange(10)
        >>> batches = hwa_keras.datasets.Batches(x, y, batch_size=4, seed=1)
        >>> len(batches), [len(y) for x, y in batches]
        (3, [4, 4, 2])
        >>> first = batches[0]
        >>> batches.epoch = 1
        >>> np.array_equal(first[0], batches[0][0])
        False
        >>> batches.epoch = 0
        >>> np.array_equal(first[0], batches[0][0])
        True
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 128,
        *,
        seed: int = 0,
        shuffle: bool = True,
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        drop_remainder: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or seed < 0:
            raise ValueError(
                "batch_size must be positive and seed not negative. Received: "
                f"batch_size={batch_size}, seed={seed}."
            )
        data = (x,) if y is None else (x, y)
        self.data = keras.tree.map_structure(np.asarray, data)
        self.samples = _common_length(keras.tree.flatten(self.data))
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.transform = transform
        self.drop_remainder = drop_remainder
        self.epoch = 0
        self._begun = False
        self._order: tuple[int | None, np.ndarray] = (None, np.arange(self.samples))
        if len(self) == 0:
            raise ValueError(
                f"There is no batch of {batch_size} examples. Received: "
                f"{self.samples} examples, drop_remainder={drop_remainder}."
            )

    def __len__(self) -> int:
        extra = 0 if self.drop_remainder else self.batch_size - 1
        return (self.samples + extra) // self.batch_size

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        epoch = self.epoch  # Read once: it may be set while a worker is in here.
        index = range(len(self))[index]
        start = index * self.batch_size
        chosen = self._order_of(epoch)[start : start + self.batch_size]
        x, *y = keras.tree.map_structure(lambda array: array[chosen], self.data)
        if self.transform is not None:
            x = self.transform(x, np.random.default_rng((self.seed, epoch, index)))
        return (x, *y)

    def _order_of(self, epoch: int) -> np.ndarray:
        """The examples in the order of an epoch, kept for the next batch."""
        kept, order = self._order
        if self.shuffle and kept != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(self.samples)
            self._order = (epoch, order)
        return order

    def on_epoch_begin(self) -> None:
        self._begun = True

    def on_epoch_end(self) -> None:
        # Keras also calls this before the first epoch.
        self.epoch += self._begun
        self._begun = False


def _common_length(arrays: list[np.ndarray]) -> int:
    shapes = [array.shape for array in arrays]
    if () in shapes or len({shape[:1] for shape in shapes}) != 1:
        raise ValueError(
            "x and y must be arrays with equally many examples, or tuples or "
            f"dictionaries of such arrays. Received arrays of shapes: "
            f"{', '.join(map(str, shapes)) or 'none'}."
        )
    return shapes[0][0]
