"""Files and folders that are there as a whole, and have one writer."""

import multiprocessing
import os
import threading

import pytest

from hwa_keras.deployment import whole_export
from hwa_keras.deployment.whole_export import write_whole

pytestmark = pytest.mark.slow  # Files, the same on any backend.


def writer(text, kind):
    """A function that writes a text as a file, or in a folder."""

    def write(part):
        if kind == "folder":
            part.mkdir()
            part /= "text"
        part.write_text(text)

    return write


def read(path):
    return (path / "text" if path.is_dir() else path).read_text()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_new_one_replaces_the_old_one(tmp_path, monkeypatch, kind, exchanges):
    if not exchanges:
        monkeypatch.setattr(whole_export, "_exchange", lambda first, second: False)
    path = tmp_path / "deep" / "chip"
    write_whole(path, False, writer("one", kind))
    with pytest.raises(ValueError, match="exists and is not empty"):
        write_whole(path, False, writer("two", kind))
    assert read(path) == "one"
    write_whole(path, True, writer("two", kind))
    assert read(path) == "two" and names(path.parent) == ["chip"]


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    (tmp_path / "chip").mkdir()
    write_whole(tmp_path / "chip", False, writer("one", "folder"))
    assert read(tmp_path / "chip") == "one"


def test_a_writing_that_fails_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "chip"
    write_whole(path, False, writer("one", "folder"))

    def fail(part):
        writer("half", "folder")(part)
        assert read(path) == "one"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_whole(path, True, fail)
    assert read(path) == "one" and names(tmp_path) == ["chip"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_writers_one_gets_an_error(tmp_path, overwrite):
    path, found = tmp_path / "chip", []

    def other():
        try:
            write_whole(path, overwrite, writer("other", "folder"))
        except RuntimeError as error:
            found.append(str(error))

    def write(part):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        writer("first", "folder")(part)

    write_whole(path, overwrite, write)
    assert found == [
        f"Another export is writing '{path}'. Wait until it is done, or give another "
        "path."
    ]
    assert read(path) == "first" and names(tmp_path) == ["chip"]


def test_a_writer_that_was_killed_leaves_the_path_to_others(tmp_path):
    path = tmp_path / "chip"
    write_whole(path, False, writer("one", "folder"))

    def killed(part):
        writer("half", "folder")(part)
        os._exit(9)

    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=write_whole, args=(path, True, killed))
    process.start()
    process.join()
    assert process.exitcode == 9 and read(path) == "one"
    write_whole(path, True, writer("two", "folder"))
    assert read(path) == "two" and names(tmp_path) == ["chip"]
