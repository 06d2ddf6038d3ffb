"""Export: a chip or a model as a SavedModel or a .tflite file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.console
import rich.table
from keras import ops

from hwa_keras.core.modes import hardware_mode
from hwa_keras.core.types import Data, PathLike
from hwa_keras.deployment.chip import Chip
from hwa_keras.deployment.signature import TIME, inputs_by_name, outputs_by_name
from hwa_keras.deployment.whole_export import write_whole

__all__ = ["export", "export_tflite", "verify_export"]


def export(
    model: keras.Model,
    path: PathLike,
    read_noise: str = "off",
    overwrite: bool = False,
    example: Data | None = None,
    verbose: int = 1,
) -> list[Any] | None:
    """Write a chip or a model as a SavedModel.

    Of a chip, the signature `serve(x, t)` takes the inputs and the seconds since the
    end of programming, and returns the outputs; drift and the chip's compensation are
    in the graph.

    Of any other Keras model, the signature `serve(x)` returns what
    `model(x, training=False)` does, with kernels of few distinct values packed: those
    on hardware with a kernel quantizer, and those of any layer that happens to have
    few. A byte
    holds k weights of n distinct values, where nᵏ ≤ 256: eight binary, five ternary,
    two 4-bit weights, one weight of up to 256 values; a scale per channel is taken out
    first where that helps. The graph unpacks them, to the same values, each time it
    runs. All other kernels, and those of a plain Keras model, are stored as floats.
    What was packed and what was not, and why, is printed and returned.

    Loading needs TensorFlow alone. A model with several inputs has each of them as an
    argument, by its name or its key in a dictionary, in place of `x`. A single output
    is called `output`, and several by their layers' names or their keys. Stateful
    recurrent layers begin at zero at each call. Keras's own `model.export` works as
    well, on a chip as it is at its `t`.

    Args:
        model: A `Chip`, or any built Keras model.
        path: Folder to write. It must be missing or empty unless `overwrite` is True.
        read_noise: Of a chip: `"off"`, or `"frozen"`: the one draw of read noise that
            the chip keeps, as constants. Defaults to `"off"`.
        overwrite: Bool. Replace what is at `path`, in one step: what is there is whole
            at every moment. Defaults to `False`.
        example: A batch of inputs, for a subclassed model, which does not know the
            shapes of its inputs.
        verbose: 0 or 1. With 1, print how the kernels of a model are stored. A chip
            prints nothing. Defaults to `1`.

    Returns:
        None for a chip. For any other model a list with an entry for each kernel,
        which has its `path`, `shape`, `nbytes`, `float_nbytes`, the number of distinct
        `values`, the `digits` in a byte, whether it is `scaled`, and the `reason` why
        it is not packed.

    Raises:
        ValueError: If `path` holds something, the model is not built, or an argument
            is unknown.
        TypeError: If `model` is no Keras model.
        RuntimeError: If the backend is not TensorFlow, or something else is writing
            to `path`.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> chip = hwa_keras.program(model, "pcm", seed=1)
        >>> folder = tempfile.mkdtemp()
        >>> hwa_keras.export(chip, f"{folder}/chip")
        >>> x = np.ones((2, 8), "float32")
        >>> hwa_keras.verify_export(f"{folder}/chip", chip, x, times=[1.0, 1e6]) < 1e-6
        True
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> binary = hwa_keras.to_hwa(model, kernel_quantizer="ste_sign", verbose=0)
        >>> [kernel] = hwa_keras.export(binary, f"{folder}/binary", verbose=0)
        >>> kernel.float_nbytes, kernel.nbytes, kernel.values, kernel.digits
        (8192, 768, 2, 4)
        >>> x = np.ones((2, 64), "float32")
        >>> hwa_keras.verify_export(f"{folder}/binary", binary, x) < 1e-6
        True
    """
    writer, stored = _tensorflow_writer(model, read_noise, example)
    write_whole(Path(path), overwrite, writer.saved_model)
    return _reported(model, stored, verbose)


def export_tflite(
    model: keras.Model,
    path: PathLike,
    read_noise: str = "off",
    overwrite: bool = False,
    example: Data | None = None,
    verbose: int = 1,
) -> list[Any] | None:
    """Write a chip or a model as one `.tflite` file.

    The signature, `serve(x, t)` of a chip and `serve(x)` of any other model, and the
    packing of kernels are those of `export`, and all operators are TensorFlow Lite's
    own. Kernels are unpacked anew at each call, which takes time: packing saves
    storage and transfer, not latency. Spiking neurons are written out step by step, so
    that the number of time steps must be known. A few models do not convert: recurrent
    layers need `unroll=True`, all layers a policy that computes in float32, and a chip
    of more than 2**24 weights, which writes its devices again in the graph, must be
    programmed without `verify`.

    Args:
        model: A `Chip`, or any built Keras model.
        path: File to write. It must not exist unless `overwrite` is True.
        read_noise: Of a chip: `"off"` or `"frozen"`, as in `export`. Defaults to
            `"off"`.
        overwrite: Bool. Replace the file; it stays whole if the export fails.
            Defaults to `False`.
        example: A batch of inputs, for a subclassed model.
        verbose: 0 or 1. With 1, print how the kernels of a model are stored. Defaults
            to `1`.

    Returns:
        None for a chip, and a list of how the kernels are stored for any other model,
        as `export`.

    Raises:
        ValueError: If the file exists, the model is not built, or an argument is
            unknown.
        TypeError: If `model` is no Keras model.
        RuntimeError: If the backend is not TensorFlow.
    """
    writer, stored = _tensorflow_writer(model, read_noise, example, unroll=True)
    _check_converts(model)
    write_whole(Path(path), overwrite, writer.tflite)
    return _reported(model, stored, verbose)


def verify_export(
    path: PathLike,
    model: keras.Model,
    x: Data,
    times: Iterable[float] | None = None,
    read_noise: str = "off",
) -> float:
    """Run an exported chip or model beside the original: their largest difference.

    Args:
        path: What `export` or `export_tflite` wrote.
        model: The `Chip` or Keras model it was made from.
        x: A batch of inputs.
        times: Of a chip: list of times, seconds since the end of programming. A model
            has none.
        read_noise: What a chip was exported with. Defaults to `"off"`.

    Returns:
        The largest absolute difference of any output at any time, divided by the
        largest magnitude of the original's at that time. Of outputs that are no
        numbers: 0 if all are equal, else 1.

    Raises:
        FileNotFoundError: If there is no artefact at the path.
        ValueError: If it was not exported from such a chip or model; if an output is
            NaN or infinite; or if `times` are missing or empty for a chip, or given for
            a model.
    """
    _check_model(model, read_noise)
    from hwa_keras.deployment import export_tensorflow

    path = Path(path)
    moments = _moments(model, times, read_noise)
    if not path.exists():
        kind = "chip" if isinstance(model, Chip) else "model"
        raise FileNotFoundError(f"There is no exported {kind} at '{path}'.")
    inputs = inputs_by_name(model, x)
    timed = [TIME] if isinstance(model, Chip) else []
    serve = export_tensorflow.load(path, [*inputs, *timed])
    differences = []
    for time, mode in moments:
        with hardware_mode(**mode):
            outputs = export_tensorflow.run_fixed(model, x)
        found = serve({**inputs, **time})
        differences.append(_difference(found, outputs_by_name(model, outputs)))
    return max(differences)


def _moments(model, times, read_noise):
    """Pairs (arguments of an artefact beside the inputs, the same as a mode)."""
    if isinstance(model, Chip) is (times is None):
        raise ValueError(
            "`times` goes with a chip, which ages, as in times=[1.0, 3600.0], and with "
            f"nothing else. Received: times={times!r} and a {type(model).__name__}."
        )
    if times is None:
        return [({}, {})]
    seconds = [model.check_time(t) for t in np.ravel(list(times))]
    if not seconds:
        raise ValueError(
            "`times` is empty, so that nothing would be compared. Give at least one "
            "time, in seconds."
        )
    return [
        (
            {TIME: np.float32(t)},
            {"time": ops.cast(t, "float32"), "read_noise": read_noise},
        )
        for t in seconds
    ]


def _difference(found, expected):
    """The largest difference of outputs by name, relative to the largest expected."""
    if set(found) != set(expected):
        raise ValueError(
            f"The artefact has the outputs {sorted(found)}, and the original has "
            f"{sorted(expected)}. Compare it with what it was exported from."
        )
    return max(_distance(name, found[name], expected[name]) for name in expected)


def _distance(name, found, expected):
    expected = ops.convert_to_numpy(expected)
    if found.shape != expected.shape or not expected.size:
        raise ValueError(
            f"The output '{name}' of the artefact has the shape {found.shape}, that of "
            f"the original {expected.shape}: they must be equal, and not empty."
        )
    if expected.dtype.kind in "OSU":  # Text is equal or not.
        return float(np.any(found != expected))
    found, expected = found.astype("float64"), expected.astype("float64")
    if not np.all(np.isfinite([found, expected])):
        broken = [
            f"{np.sum(~np.isfinite(y))} of {y.size} values of {who}"
            for who, y in (("the artefact", found), ("the original", expected))
        ]
        raise ValueError(
            f"The output '{name}' is not finite: {' and '.join(broken)} are NaN or "
            "infinite, so that there is no difference to measure."
        )
    largest = max(np.max(np.abs(expected)), np.finfo("float32").tiny)
    return float(np.max(np.abs(found - expected)) / largest)


def _check_model(model, read_noise):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Only a Keras model, or a chip as `hwa_keras.program` makes it, is "
            f"exported. Received: {model!r} of type {type(model).__name__}."
        )
    if not isinstance(model, Chip) and read_noise != "off":
        raise ValueError(
            "`read_noise` goes with a chip, as `hwa_keras.program` makes it. Received: "
            f"read_noise={read_noise!r} and a {type(model).__name__}."
        )
    if read_noise not in ("off", "frozen"):
        raise ValueError(
            "`read_noise` of an artefact must be 'off' or 'frozen' (one draw, kept as "
            f"constants). Received: read_noise={read_noise!r}."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built. Call it once on a batch of inputs "
            "first."
        )
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Export needs the TensorFlow backend, and the backend in use is "
            f"'{keras.backend.backend()}'. Save it with model.save('model.keras'), "
            "start Python with KERAS_BACKEND=tensorflow, load it with "
            "keras.models.load_model and export it there."
        )


def _tensorflow_writer(model, read_noise, example, unroll=False):
    """A pair: the writer, and how a model's kernels are stored, or None for a chip."""
    _check_model(model, read_noise)
    from hwa_keras.deployment import export_tensorflow

    if isinstance(model, Chip):
        return export_tensorflow.chip_writer(model, read_noise, example, unroll), None
    return export_tensorflow.model_writer(model, example, unroll)


def _check_converts(model):
    tiles = model.tiles if isinstance(model, Chip) else ()
    if any(not tile.keeps_state and tile.verify[0] > 0 for tile in tiles):
        raise ValueError(
            "The chip is large: it keeps no state of its devices, but writes and "
            "verifies them again in the graph, in a loop that TensorFlow Lite cannot "
            "run. Export a SavedModel, or program it without `verify`."
        )


def _reported(model, stored, verbose):
    if stored and verbose:
        rich.console.Console().print(_table(model, stored))
    return stored


def _table(model, stored):
    floats = sum(kernel.float_nbytes for kernel in stored)
    total = sum(kernel.nbytes for kernel in stored)
    table = rich.table.Table(
        title=f"{model.name}: kernels of {floats:,} bytes in {total:,}"
    )
    for column in ("kernel", "shape", "bytes", "stored as"):
        table.add_column(column)
    for kernel in stored:
        how = f"{kernel.digits} per byte, of {kernel.values} values"
        how += " × scale" if kernel.scaled else ""
        shape = " × ".join(map(str, kernel.shape))
        plain = "floats" if kernel.nbytes == kernel.float_nbytes else "as it is"
        table.add_row(
            kernel.path,
            shape,
            f"{kernel.nbytes:,}",
            f"[dim]{plain}: {kernel.reason}[/dim]" if kernel.reason else how,
        )
    return table
