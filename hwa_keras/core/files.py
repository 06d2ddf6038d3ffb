"""Files that are either there as a whole or not at all."""

import os


def write_whole(path, write):
    """Write a file beside its place, then put it there.

    Args:
        path: A `pathlib.Path`. A file that is there is replaced.
        write: Function that writes to the path that it is given.
    """
    part = path.with_name(f"part_{path.name}")
    write(part)
    os.replace(part, path)


def write_text(path, text):
    """Write text as a whole."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
