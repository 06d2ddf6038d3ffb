"""A callback for trainings that stall."""

import csv
import math
from pathlib import Path

import keras

from hwa_keras.core.files import write_whole
from hwa_keras.core.types import Logs

__all__ = ["BestEpoch"]


class BestEpoch(keras.callbacks.Callback):
    """Divides the learning rate after each epoch that is not the best, and ends at it.

    The best epoch has the smallest validation loss; its weights are restored at the end
    of the training. The losses before are read from the log of
    `keras.callbacks.CSVLogger`, so that a training that was cut short and goes on ends
    where it would have ended.

    Args:
        folder: Path of the folder with the log, `log.csv`. The best weights are written
            to `best.weights.h5` there.
        divisor: Float > 1, of the learning rate after an epoch that was not the best.
            Defaults to `4.0`.

    Raises:
        ValueError: After the first epoch, if there is no validation loss.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x = np.ones((8, 1))
        >>> log = keras.callbacks.CSVLogger(f"{folder}/log.csv", append=True)
        >>> callbacks = [hwa_keras.recipes.BestEpoch(folder), log]
        >>> _ = model.fit(x, x, validation_split=0.5, callbacks=callbacks, verbose=0)
    """

    def __init__(self, folder: str | Path, divisor: float = 4.0) -> None:
        super().__init__()
        self.log = Path(folder, "log.csv")
        self.weights = Path(folder, "best.weights.h5")
        self.divisor = divisor

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = {} if logs is None else logs
        if "val_loss" not in logs:
            raise ValueError(
                "BestEpoch needs the validation loss of each epoch. Give `fit` "
                "`validation_data` or `validation_split`."
            )
        optimizer = self.model.optimizer
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        logs["learning_rate"] = rate
        if logs["val_loss"] < self._best_before(epoch):
            write_whole(self.weights, self.model.save_weights)
        else:
            optimizer.learning_rate = rate / self.divisor

    def on_train_end(self, logs: Logs = None) -> None:
        if self.weights.is_file():
            self.model.load_weights(self.weights)

    def _best_before(self, epoch):
        """The smallest validation loss in the log before an epoch."""
        if not self.log.is_file():
            return float("inf")
        with self.log.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
        losses = [float(row["val_loss"]) for row in rows]
        return min((x for x in losses if not math.isnan(x)), default=float("inf"))
