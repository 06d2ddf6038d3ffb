"""Data of a study: what `evaluate` takes, made ready to be read again and again."""

import keras
import numpy as np

from hwa_keras import backend
from hwa_keras.core.checks import check_count

__all__ = ["evaluable"]

_MOST_BATCHES = 2**16
_MOST_BYTES = 2**32


def evaluable(data, batch_size=256):
    """Keyword arguments for `evaluate`, with which data is read as often as needed.

    Args:
        data: Arrays `x`, `(x, y)` or `(x, y, sample_weight)`, where x and y are arrays
            or, for several inputs or outputs, lists or dictionaries of arrays; or what
            gives batches: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a loader, or
            a generator, whose batches are kept in memory.
        batch_size: Integer ≥ 1, for arrays. Defaults to `256`.

    Returns:
        A dictionary, such as `{"x": dataset}`.

    Raises:
        ValueError: If there are no examples, a generator was read before, or the data
            does not end.

    Example:
        >>> from hwa_keras.analysis.study_data import evaluable
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8)), np.ones((4, 3)), np.ones(4)
        >>> model.evaluate(**evaluable(data), verbose=0) >= 0
        True
    """
    check_count("ChipStudy", batch_size=batch_size)
    if data is None:
        raise ValueError("`data` is missing. Give a pair (x, y) or a batched dataset.")
    if isinstance(data, (tuple, list)):
        return _of_arrays(data, batch_size)
    if isinstance(data, dict) or hasattr(data, "shape"):
        return _of_arrays((data,), batch_size)
    if hasattr(data, "__next__"):
        return {"x": _Kept(_batches_of(data))}
    _check_length(data)
    return {"x": data}


def _of_arrays(data, batch_size):
    if not 1 <= len(data) <= 3:
        raise ValueError(
            "`data` must be x, a pair (x, y) or a triple (x, y, sample_weight). "
            f"Received {len(data)} parts."
        )
    sizes = {len(array) if np.ndim(array) else 0 for array in _leaves(data)}
    if 0 in sizes or not sizes:
        raise ValueError(
            "`data` is empty: there are no examples to evaluate on. Give arrays whose "
            "first axis is that of the examples."
        )
    if len(sizes) > 1:
        raise ValueError(
            "The arrays of `data` must hold the same number of examples. Received: "
            f"{sorted(sizes)}."
        )
    return backend.batched(data, batch_size)


def _leaves(data):
    return [leaf for leaf in keras.tree.flatten(data) if leaf is not None]


def _check_length(data):
    """Raise `ValueError` for a dataset that is known to be empty or without end."""
    count = getattr(data, "num_batches", -2)  # Of a PyDataset: None without end.
    if hasattr(data, "cardinality"):
        count = int(data.cardinality())  # -1 without end, -2 unknown.
    if count == 0:
        raise ValueError("`data` is an empty dataset: it has nothing to evaluate.")
    if count is None or count == -1:
        raise ValueError(
            "`data` has no end, so no evaluation would. Take a number of batches of "
            "it, as in dataset.take(100), or leave .repeat() out."
        )


def _batches_of(generator):
    """The batches of a generator, which is used up by it."""
    batches, size = [], 0
    for batch in generator:
        batches.append(batch)
        size += sum(getattr(leaf, "nbytes", 8) for leaf in _leaves(batch))
        if len(batches) > _MOST_BATCHES or size > _MOST_BYTES:
            raise ValueError(
                f"`data` is a generator that did not end after {len(batches)} batches "
                f"of {size:,} bytes, all of which a study keeps to evaluate each chip "
                "on the same. Give one that ends, arrays, or a dataset that can be "
                "read again."
            )
    if not batches:
        raise ValueError(
            "`data` is a generator that has run dry: it has nothing to give, perhaps "
            "because it was read before. Make a new one, or give arrays."
        )
    return batches


class _Kept(keras.utils.PyDataset):
    """Batches in memory."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]
