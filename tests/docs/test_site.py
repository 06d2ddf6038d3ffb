"""The documentation site builds strictly, and has a page for whatever is public."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hwa_keras

pytestmark = pytest.mark.slow  # Files, the same on any backend.

ROOT = Path(__file__).parents[2]
PACKAGES = [n for n in hwa_keras.__all__ if inspect.ismodule(getattr(hwa_keras, n))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; the tutorials are not executed."""
    for name in (
        "mkdocs",
        "mkdocs_jupyter",
        "mkdocstrings_handlers.python",
        "material",
    ):
        pytest.importorskip(name, reason=f"needs {name}: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "DOCS_EXECUTE": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_it_builds_without_a_warning(site):
    assert (site / "index.html").is_file()
    assert (site / "images" / "data_path.svg").is_file()


@pytest.mark.parametrize("package", ["hwa_keras", *PACKAGES])
def test_every_public_object_is_on_the_page_of_its_package(site, package):
    page = (site / "api" / package / "index.html").read_text(encoding="utf-8")
    module = hwa_keras if package == "hwa_keras" else getattr(hwa_keras, package)
    public = [n for n in module.__all__ if _has_an_entry(getattr(module, n))]
    missing = [n for n in public if not re.search(rf'id="[\w.]+\.{n}"', page)]
    assert not missing


def _has_an_entry(member):
    """Whether it is a class or function that is not described for all families."""
    is_described = inspect.isclass(member) or inspect.isfunction(member)
    return is_described and bool(member.__doc__)


def test_every_tutorial_is_a_page(site):
    notebooks = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        assert (site / "tutorials" / path.stem / "index.html").is_file()
