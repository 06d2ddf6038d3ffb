"""The study of a language model on chips, with a tiny Llama and a tiny tokenizer."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from hwa_keras.core.kernels import find_kernels
from tests import fresh, zoo

pytest.importorskip("keras_hub")

from tests.examples.tiny_llama import TEXT, llama  # noqa: E402

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = llama()
    model.save_to_preset(str(folder / "preset"))
    model.save(folder / "model.keras")
    llama(hidden_dim=12).save_weights(folder / "other.weights.h5")
    llama(vocabulary_size=30).save(folder / "small_vocabulary.keras")
    zoo.mlp().save(folder / "mlp.keras")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "short.txt").write_text("the chips drift", encoding="utf-8")
    return folder


def flags_of(folder, out, **changes):
    return {
        "model": str(folder / "preset"),
        "weights": None,
        "text": str(folder / "text.txt"),
        "calibration": str(folder / "text.txt"),
        "out": str(out),
        "ways": ["measured", "least_squares"],
        "chips": 1,
        "windows": 2,
        "calibration_windows": 2,
        "length": 16,
        "seconds": ["1", "31536000"],
        "prompt": ["the chips"],
        "words": 12,
        "seed": 0,
        **changes,
    }


def start(folder, out, **changes):
    """Run the script."""
    values = flags_of(folder, out, **changes).items()
    lists = {k: ",".join(v) if isinstance(v, list) else v for k, v in values}
    given = (f"--{k}={v}" for k, v in lists.items() if v is not None)
    return fresh.run_script(EXAMPLES / "language_chips.py", *given)


@pytest.fixture
def language_chips(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("language_chips")


def results(out):
    return json.loads((out / "chips.json").read_text(encoding="utf-8"))


def test_a_run_writes_perplexities_and_texts(folder, tmp_path):
    run = start(folder, tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "least_squares" in run.stdout
    found = results(tmp_path)
    assert list(found["ways"]) == ["measured", "least_squares"]
    for times in found["ways"].values():
        assert all(np.isfinite(entry["0"]["perplexity"]) for entry in times.values())
    [text] = found["ways"]["measured"]["3.1536e+07"]["0"]["texts"]
    assert text.startswith("the chips")


def test_the_perplexity_is_that_of_all_tokens(folder, language_chips):
    model = language_chips.load_model(folder / "preset")
    windows = language_chips.windows_of(model, folder / "text.txt", 5, 16)
    logits = keras.Model.predict(model, windows.inputs, verbose=0).astype("float64")
    log_sums = np.log(np.sum(np.exp(logits), axis=-1))
    chosen = np.take_along_axis(logits, windows.targets[..., None], axis=-1)[..., 0]
    expected = np.exp(np.mean(log_sums - chosen))
    found = sys.modules["language_study"].evaluated(model, windows)
    np.testing.assert_allclose(found["perplexity"], expected, rtol=1e-5)


def test_a_run_goes_on_where_it_ended(folder, tmp_path, language_chips):
    def run(chips, **changes):
        values = SimpleNamespace(**flags_of(folder, tmp_path, prompt=[], **changes))
        study, names, times = language_chips.study_of_flags(values)
        study.run(names, chips, times)
        return results(tmp_path)["ways"]

    first, second = run(1), run(2)
    for name, times in first.items():
        for t, entry in times.items():
            assert second[name][t]["0"] == entry["0"]
            found = [e["perplexity"] for e in second[name][t].values()]
            assert len(found) == 2 and found[0] != found[1]
    with pytest.raises(ValueError, match="holds another study"):
        run(1, seed=5)


@pytest.mark.parametrize("name", ["clip_2.5", "digital_weights", "converters"])
def test_other_ways_leave_the_model_as_it_was(folder, tmp_path, language_chips, name):
    values = SimpleNamespace(**flags_of(folder, tmp_path, prompt=[]))
    study, _, times = language_chips.study_of_flags(values)
    study.run([name], 1, times[1:])
    assert study.estimate(name, times[1]).mean != study.found["digital"]["perplexity"]
    after = sys.modules["language_study"].evaluated(study.model, study.windows)
    assert after == study.found["digital"]


def test_what_stays_digital_is_exact_on_the_chip(folder, tmp_path, language_chips):
    values = SimpleNamespace(**flags_of(folder, tmp_path, prompt=[]))
    study, _, times = language_chips.study_of_flags(values)
    ways = sys.modules["language_ways"]
    design = ways.ChipDesign(digital="columns")
    with ways.Programmed(study.model, design, study.calibration) as programmed:
        programmed.write(1)
        for name in ("measured", "none"):
            programmed.settle(times[1], ways.Way(design, name))
        kernel = programmed.chip.programmed_kernels()[0]
        found = kernel.view.to_matrix(np.array(kernel.variable))
    original = find_kernels(study.model)[0][0]
    expected = original.view.to_matrix(np.array(original.variable))
    is_exact = np.all(np.isclose(found, expected, atol=1e-6), axis=0)
    largest = np.abs(expected).max(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(is_exact), [np.argmax(largest)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "short.txt"}, "tokens, and 2 windows of 16 need 33"),
        ({"model": "small_vocabulary.keras"}, "belong to different models"),
        ({"weights": "other.weights.h5"}, "weights of another model than"),
        ({"model": "mlp.keras"}, "must hold a CausalLM of keras-hub, which has"),
        ({"model": "nothing"}, "neither the folder of a model nor a .keras file"),
        ({"ways": ["hope"]}, "--ways must be among none, measured"),
    ],
)
def test_bad_input_is_told(folder, tmp_path, language_chips, changes, message):
    files = {
        key: value if key == "ways" else str(folder / value)
        for key, value in changes.items()
    }
    values = SimpleNamespace(**flags_of(folder, tmp_path, **files))
    with pytest.raises(ValueError, match=message):
        language_chips.study_of_flags(values)


def test_bad_input_ends_a_run_with_one_line(folder, tmp_path):
    run = start(folder, tmp_path, text=folder / "short.txt")
    assert run.returncode == 1 and "windows of 16 need 33" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
