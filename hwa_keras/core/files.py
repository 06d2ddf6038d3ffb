"""Files that are either there as a whole or not at all."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwa_keras.core.types import PathLike

__all__ = ["write_whole"]


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
