"""Text and JSON that are written as a whole."""

import json
from typing import Any

from hwa_keras.core.files import write_whole
from hwa_keras.core.types import PathLike
from hwa_keras.results.text import json_ready

__all__ = ["write_json", "write_text"]


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
