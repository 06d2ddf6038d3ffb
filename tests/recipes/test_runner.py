"""recipes.runner: a study from the command line to its files."""

import json

import pytest

from hwa_keras.recipes import runner
from tests import fresh

pytestmark = pytest.mark.slow  # Files, the same on any backend.

STUDY = """
import dataclasses
from matplotlib.figure import Figure
from hwa_keras.recipes import runner
from hwa_keras.results import Section

@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int
    dataset: str

def study(run):
    with runner.reading("parabola"):
        if run.settings.dataset == "none":
            raise ValueError("There is no data set\\n'none'.")
    rows = [["squared", str(run.settings.epochs**2)]]
    run.write_numbers(squared=run.settings.epochs**2)
    sections = {
        "table": Section("A table", "Of squares.", ["", "value"], rows),
        "curve": Section("A curve", figure=Figure()),
    }
    run.write_report("Squares", sections)

runner.main(study, Settings, config)
"""


@pytest.fixture
def start(tmp_path):
    config = tmp_path / "parabola.yaml"
    config.write_text("smoke: {epochs: 3, dataset: digits}")
    script = tmp_path / "study.py"
    script.write_text(f"config = {str(config)!r}\n{STUDY}")
    return lambda *arguments: fresh.run_script(
        script, f"--out={tmp_path / 'run'}", *arguments
    )


def test_a_study_writes_numbers_figures_and_the_page(start, tmp_path):
    done = start("--epochs=5")
    assert done.returncode == 0, done.stderr
    assert "squared" in done.stdout and "25" in done.stdout
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"results.json", "report.html", "curve.png"}
    found = json.loads((tmp_path / "run/results.json").read_text("utf-8"))
    assert found["settings"] == {"preset": "smoke", "epochs": 5, "dataset": "digits"}
    assert found["squared"] == 25 and found["seconds"] >= 0
    assert "A curve" in (tmp_path / "run/report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--preset=huge", "has no preset 'huge'"),
        ("--dataset=none", "parabola: There is no data set 'none'."),
    ],
)
def test_what_is_wrong_is_one_line(start, argument, message):
    done = start(argument)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("parabola: ")


def test_what_is_wrong_later_keeps_its_traceback():
    with pytest.raises(TypeError), runner.reading("study"):
        raise TypeError("a mistake in the program")
