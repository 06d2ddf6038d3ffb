"""Files that are either there as a whole or not at all."""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwa_keras.core.types import PathLike
from hwa_keras.results.text import json_ready

__all__ = ["write_json", "write_text", "write_whole"]


def write_whole(path: PathLike, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, then put it there in one step.

    At every moment there is the old file or the new one, never a part and never
    nothing: if writing fails (the disk is full, the process ends), the old file stays.
    Of two that write at once, the later one's file is there, whole.

    Args:
        path: Where to write. Missing folders are made; a file that is there is
            replaced, a link to one stays a link.
        write: Function that writes to the `pathlib.Path` that it is given, which ends
            in the name of the file.

    Raises:
        ValueError: If the path is a folder.

    Example:
        >>> import pathlib
        >>> from hwa_keras.results import write_whole
        >>> path = pathlib.Path(tempfile.mkdtemp(), "numbers.npy")
        >>> write_whole(path, lambda part: np.save(part, np.arange(3)))
        >>> np.load(path).tolist(), [p.name for p in path.parent.iterdir()]
        ([0, 1, 2], ['numbers.npy'])
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder. Give the path of a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: another process may write to the same path at the same time.
    part = path.with_name(f"part_{secrets.token_hex(4)}_{path.name}")
    try:
        write(part)
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: PathLike, text: str) -> None:
    """Write text as a whole, in UTF-8."""

    def write(part):
        # Not in the platform's way: a CSV's line ends are its own.
        part.write_bytes(text.encode("utf-8"))

    write_whole(path, write)


def write_json(path: PathLike, content: Any) -> None:
    """Write nested values as JSON, as a whole.

    JSON has no NaN and no infinities: they are written as the strings "NaN", "Infinity"
    and "-Infinity", for which `float` gives the numbers again.

    Args:
        path: As in `write_whole`.
        content: Dictionaries, lists, strings and numbers, those of NumPy too.

    Example:
        >>> import pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp(), "loss.json")
        >>> hwa_keras.results.write_json(path, {"loss": np.array([0.5, np.inf])})
        >>> path.read_text().split()
        ['{', '"loss":', '[', '0.5,', '"Infinity"', ']', '}']
    """
    write_text(path, json.dumps(json_ready(content), indent=1, allow_nan=False))
