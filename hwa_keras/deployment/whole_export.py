"""Exports that are at their path as a whole, at every moment, and have one writer."""

import contextlib
import ctypes
import os
import shutil

try:
    import fcntl
except ImportError:  # Windows, where two writers are not told apart.
    fcntl = None  # type: ignore[assignment]

__all__ = ["write_whole"]

_HERE = -100  # AT_FDCWD: paths count from the working folder.
_EXCHANGE = 2  # RENAME_EXCHANGE


def write_whole(path, overwrite, write):
    """Write beside a path, then move what was written there in one step.

    Args:
        path: A `pathlib.Path`, of a file or a folder.
        overwrite: Bool. Whether what is at the path is replaced. Until then, and if the
            writing fails or is cut short, it stays as it was.
        write: Function that writes a file or a folder to the path that it is given.

    Raises:
        ValueError: If something is at the path, and `overwrite` is False.
        RuntimeError: If another process or thread is writing to the same path.

    Example:
        >>> import pathlib
        >>> from hwa_keras.deployment.whole_export import write_whole
        >>> path = pathlib.Path(tempfile.mkdtemp(), "note.txt")
        >>> write_whole(path, False, lambda part: part.write_text("one"))
        >>> write_whole(path, True, lambda part: part.write_text("another"))
        >>> path.read_text(), [p.name for p in path.parent.iterdir()]
        ('another', ['note.txt'])
    """
    _check_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer(path) as folder:
        _check_free(path, overwrite)  # Another may just have finished.
        fresh = folder / path.name
        write(fresh)
        _move(fresh, path, folder / "old")


def _check_free(path, overwrite):
    occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if occupied and not overwrite:
        raise ValueError(
            f"'{path}' exists and is not empty. Give another path, or pass "
            "overwrite=True to replace it."
        )


@contextlib.contextmanager
def _only_writer(path):
    """A folder beside a path, which one writer at a time has.

    The lock goes with the process: of one that was killed the folder is left, which the
    next writer empties.
    """
    folder = path.with_name(f".export-{path.name}")
    folder.mkdir(exist_ok=True)
    with _locked(folder) as is_alone:
        if not is_alone:
            raise RuntimeError(
                f"Another export is writing '{path}'. Wait until it is done, or give "
                "another path."
            )
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder):
    """Hold the lock of a folder: whether nobody else does."""
    if fcntl is None:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        is_alone = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_alone = False
        except OSError:
            pass  # A file system without locks.
        yield is_alone
    finally:
        os.close(handle)


def _move(fresh, path, old):
    """Put one file or folder in the place of another, or where nothing is."""
    if not path.exists():
        fresh.rename(path)
    elif not _exchange(fresh, path):
        path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            old.rename(path)
            raise


def _exchange(first, second):
    """Exchange two paths in one step, if the system can: whether it did."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if fcntl else None
    if rename is None:
        return False
    paths = os.fsencode(first), os.fsencode(second)
    return rename(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) == 0
