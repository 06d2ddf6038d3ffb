"""EpochBackup: what a training that is killed goes on from."""

import re
from pathlib import Path

import keras

from hwa_keras.core.files import write_whole
from hwa_keras.core.types import Logs, PathLike

__all__ = ["EpochBackup"]


class EpochBackup(keras.callbacks.Callback):
    """Keeps the state after the last epoch, whole, and lets a later `fit` go on there.

    `keras.callbacks.BackupAndRestore` writes the weights and then, into another file,
    the number of the epoch. A process that ends between the two leaves the weights of
    one epoch with the number of another. Here one file, which has the number in its
    name, is put into its place in one step. Put the callback last, so that what the
    others did in an epoch is saved with it.

    Args:
        folder: Path of a folder of its own, which is made. It is left as it is when
            training ends: remove it when the result is saved.

    Raises:
        ValueError: At the start of `fit`, if the model is not built.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> folder = tempfile.mkdtemp()
        >>> data = {"x": np.ones((4, 3)), "y": np.ones((4, 2)), "verbose": 0}
        >>> def fit(epochs):
        ...     backup = hwa_keras.training.EpochBackup(folder)
        ...     return model.fit(**data, epochs=epochs, callbacks=[backup]).epoch
        >>> fit(2), fit(3)
        ([0, 1], [2])
    """

    def __init__(self, folder: PathLike) -> None:
        super().__init__()
        self.folder = Path(folder)

    def _saved(self):
        """Paths by the number of epochs that they hold."""
        paths = self.folder.glob("epoch_*.weights.h5")
        return {int(re.findall(r"\d+", path.name)[0]): path for path in paths}

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self.model.built:
            raise ValueError(
                "EpochBackup needs a built model. Call it on a batch of data, or give "
                f"it a keras.Input. Received: {self.model}."
            )
        saved = self._saved()
        if not saved:
            return
        if self.model.optimizer is not None:
            self.model.optimizer.build(self.model.trainable_variables)
        epochs = max(saved)
        self.model.load_weights(saved[epochs])
        self.model._initial_epoch = epochs

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        before = self._saved().values()
        path = self.folder / f"epoch_{epoch + 1}.weights.h5"
        write_whole(path, self.model.save_weights)
        for old in before:
            if old != path:
                old.unlink()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.model._initial_epoch = None  # A next `fit` begins where it is told to.
