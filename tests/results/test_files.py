"""Files that are there as a whole or not at all."""

import errno
import json
import math
import os
import threading

import numpy as np
import pytest

from hwa_keras.results import write_json, write_text, write_whole


def test_a_file_is_written_and_nothing_else_is_there(tmp_path):
    path = tmp_path / "new" / "folder" / "numbers.npy"
    write_whole(path, lambda part: np.save(part, np.arange(3)))
    assert np.load(path).tolist() == [0, 1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_on_a_full_disk_the_old_file_stays(tmp_path):
    path = tmp_path / "result.csv"
    write_text(path, "old")

    def fill(part):
        part.write_text("half of what is ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, fill)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_process_that_ends_before_the_rename_leaves_the_old_file(
    tmp_path, monkeypatch
):
    path = tmp_path / "result.csv"
    write_text(path, "old")
    seen = []

    def interrupted(part, target):
        seen.append(path.read_text())  # Up to the very last moment.
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert seen == ["old"] and path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_path_each_write_whole(tmp_path):
    path, both = tmp_path / "result.txt", threading.Barrier(2)

    def write(letter):
        def slowly(part):
            part.write_text(letter * 1000)
            both.wait(10)  # Both parts are there at the same time.

        write_whole(path, slowly)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(10)
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_folder_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"
    with pytest.raises(ValueError, match="is a folder"):
        write_text(tmp_path, "text")


def test_json_holds_what_is_not_finite_as_words(tmp_path):
    path = tmp_path / "numbers.json"
    content = {8: [np.float32(0.5), math.nan], "far": np.array([np.inf, -np.inf])}
    write_json(path, content)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"8": [0.5, "NaN"], "far": ["Infinity", "-Infinity"]}
    assert [float(v) for v in found["far"]] == [math.inf, -math.inf]
