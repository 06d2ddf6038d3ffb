"""The notebooks: executed from the first cell to the last, and kept without outputs.

Here they are executed on few examples; `make docs` executes them as they stand.
"""

import json
from pathlib import Path

import pytest

from tests import fresh
from tests.docs.pages import shortened

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*"))


def code_cells(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    for cell in code_cells(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    if path.stem == "language_model":
        pytest.importorskip("keras_hub")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    code = "\n".join("".join(cell["source"]) for cell in code_cells(path))
    assert fresh.run(shortened(code))
