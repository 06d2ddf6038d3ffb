"""Data sets as NumPy arrays from one loader, and batches of them.

`load` reads from this machine alone: a data set that is missing is an error that names
the command to fetch it. `Batches` and `Windows` feed `fit`; their order depends on a
seed and the epoch, so that a resumed run sees what an uninterrupted one sees.
"""

from hwa_keras.datasets.augmentation import pad_crop_flip
from hwa_keras.datasets.batches import Batches
from hwa_keras.datasets.loading import Dataset, load
from hwa_keras.datasets.restoration import Restoration, restoration
from hwa_keras.datasets.text import Text
from hwa_keras.datasets.windows import Windows

__all__ = [
    "Batches",
    "Dataset",
    "Restoration",
    "Text",
    "Windows",
    "load",
    "pad_crop_flip",
    "restoration",
]
