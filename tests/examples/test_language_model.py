"""The runner that tunes a language model for chips, on a tiny Llama."""

import json
from pathlib import Path

import pytest

from tests import fresh

pytest.importorskip("keras_hub")

from tests.examples.tiny_llama import TEXT, llama  # noqa: E402

pytestmark = pytest.mark.slow

RUNNER = Path(__file__).parents[2] / "examples/language_model.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    llama().save_to_preset(str(folder / "preset"))
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "short.txt").write_text("the chips", encoding="utf-8")
    return folder


def start(folder, out, **changes):
    values = {
        "model": folder / "preset",
        "tune_text": folder / "text.txt",
        "text": folder / "text.txt",
        "out": out,
        **changes,
    }
    return fresh.run_script(RUNNER, *(f"--{k}={v}" for k, v in values.items()))


def test_models_are_compared_and_what_is_done_is_not_done_again(folder, tmp_path):
    done = start(folder, tmp_path, models="control,hardware")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("control", "hardware"):
        assert name in done.stdout
        found = json.loads((tmp_path / name / "chips.json").read_text("utf-8"))
        assert set(found["ways"]["measured"]) == {"1", "3.1536e+07"}
        assert found["digital"]["texts"]
    histories = [
        json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
        for name in ("control", "hardware")
    ]
    assert "noise_scale" in histories[1] and "noise_scale" not in histories[0]
    written = (tmp_path / "hardware.weights.h5").stat().st_mtime_ns
    again = start(folder, tmp_path, models="hardware")
    assert again.returncode == 0
    assert (tmp_path / "hardware.weights.h5").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune_text": "short.txt", "models": "control"}, "need a text of 17"),
        ({"text": "short.txt", "models": "pretrained"}, "fewer or shorter windows"),
        ({"preset": "huge"}, "no preset"),
    ],
)
def test_bad_input_is_told_in_one_line(folder, tmp_path, changes, message):
    texts = {k: folder / v for k, v in changes.items() if str(v).endswith(".txt")}
    done = start(folder, tmp_path, **{**changes, **texts})
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
