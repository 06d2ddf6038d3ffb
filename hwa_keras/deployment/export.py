"""Export: a chip as a SavedModel or a .tflite file, with the time as an input."""

import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

from hwa_keras.deployment.chip import Chip

__all__ = ["export", "export_tflite", "verify_export"]


def export(chip, path, read_noise="off", overwrite=False, example=None):
    """Write a chip as a SavedModel whose signature takes the time.

    The signature `serve(x, t)` takes the inputs and the seconds since the end of
    programming, and returns the outputs; drift and the chip's compensation are in the
    graph. Loading it needs TensorFlow alone. A model with several inputs has each of
    them as an argument, by its name, in place of `x`.

    Args:
        chip: A `Chip`.
        path: Folder to write. It must be missing or empty unless `overwrite` is True.
        read_noise: `"off"`, or `"frozen"`: the one draw of read noise that the chip
            keeps, as constants. Defaults to `"off"`.
        overwrite: Bool. Replace what is at `path`; it stays whole if the export
            fails. Defaults to `False`.
        example: A batch of inputs, for a subclassed model, which does not know the
            shapes of its inputs.

    Raises:
        ValueError: If `path` holds something, or an argument is unknown.
        RuntimeError: If the backend is not TensorFlow.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> chip = hwa_keras.program(model, "pcm", seed=1)
        >>> folder = tempfile.mkdtemp()
        >>> hwa_keras.export(chip, f"{folder}/chip")
        >>> x = np.ones((2, 8), "float32")
        >>> hwa_keras.verify_export(f"{folder}/chip", chip, x, times=[1.0, 1e6]) < 1e-6
        True
    """
    writer = _tensorflow_writer(chip, read_noise, example)
    _write_whole(Path(path), overwrite, writer.saved_model)


def export_tflite(chip, path, read_noise="off", overwrite=False, example=None):
    """Write a chip as one `.tflite` file whose signature takes the time.

    The signature `serve(x, t)` is that of `export`, and all operators are TensorFlow
    Lite's own.

    Args:
        chip: A `Chip`.
        path: File to write. It must not exist unless `overwrite` is True.
        read_noise: `"off"` or `"frozen"`, as in `export`. Defaults to `"off"`.
        overwrite: Bool. Replace the file; it stays whole if the export fails.
            Defaults to `False`.
        example: A batch of inputs, for a subclassed model.

    Raises:
        ValueError: If the file exists, or an argument is unknown.
        RuntimeError: If the backend is not TensorFlow.
    """
    writer = _tensorflow_writer(chip, read_noise, example)
    _write_whole(Path(path), overwrite, writer.tflite)


def verify_export(path, chip, x, times, read_noise="off"):
    """Run an exported chip beside the chip and return their largest difference.

    Args:
        path: What `export` or `export_tflite` wrote.
        chip: The `Chip` it was made from.
        x: A batch of inputs.
        times: List of times, seconds since the end of programming.
        read_noise: What the artefact was exported with. Defaults to `"off"`.

    Returns:
        The largest absolute difference of any output at any time, divided by the
        largest magnitude of the chip's outputs at that time.

    Raises:
        FileNotFoundError: If there is no artefact at the path.
        ValueError: If it is no exported chip.
    """
    from hwa_keras.deployment import export_tensorflow

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no exported chip at '{path}'.")
    serve = export_tensorflow.load(path)
    draws = _draws(chip, read_noise)
    largest = 0.0
    for t in times:
        seconds = ops.convert_to_tensor(t, dtype="float32")
        expected = chip.run(chip.kernels_at(seconds, draws), x)
        expected = [ops.convert_to_numpy(y) for y in keras.tree.flatten(expected)]
        found = serve(x, float(t))
        for a, b in zip(found, expected, strict=True):
            scale = max(float(np.max(np.abs(b))), np.finfo("float32").tiny)
            largest = max(largest, float(np.max(np.abs(a - b))) / scale)
    return largest


def _draws(chip, read_noise):
    """Constant random numbers for the graph: an artefact draws none of its own."""
    if read_noise == "off":
        return [(None, None)] * len(chip.tiles)
    if read_noise == "frozen":
        return [tile.frozen_draws() for tile in chip.tiles]
    raise ValueError(
        "`read_noise` of an artefact must be 'off' or 'frozen' (one draw, kept as "
        f"constants). Received: read_noise={read_noise!r}."
    )


def _tensorflow_writer(chip, read_noise, example):
    if not isinstance(chip, Chip):
        raise TypeError(
            "Only a chip, as `hwa_keras.program` makes it, is exported. Received: "
            f"{chip!r} of type {type(chip).__name__}."
        )
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Export needs the TensorFlow backend, and the backend in use is "
            f"'{keras.backend.backend()}'. Save the chip with chip.save('chip.keras'), "
            "start Python with KERAS_BACKEND=tensorflow, load it with "
            "keras.models.load_model and export it there."
        )
    from hwa_keras.deployment import export_tensorflow

    return export_tensorflow.Writer(chip, _draws(chip, read_noise), example)


def _write_whole(path, overwrite, write):
    """Write beside `path` and move into place, so that nothing is ever half there."""
    occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if occupied and not overwrite:
        raise ValueError(
            f"'{path}' exists and is not empty. Give another path, or pass "
            "overwrite=True to replace it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        fresh, old = Path(folder) / "fresh", Path(folder) / "old"
        write(fresh)
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        if old.is_dir():
            shutil.rmtree(old)
