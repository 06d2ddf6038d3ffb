"""What the repository promises about itself."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

from hwa_keras.version import __version__

pytestmark = pytest.mark.slow  # Files, the same on any backend.

ROOT = Path(__file__).parents[1]


@pytest.fixture
def metadata(monkeypatch):
    """The arguments that setup.py gives to setup()."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def tracked_files():
    """Every file that git has or would add, without those it ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a git repository")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


def test_extras(metadata):
    extras = metadata["extras_require"]
    in_dev = {"examples", "nlp", "jax", "nir", "search", "cluster", "docs"}
    assert set(extras) == {*in_dev, "larq", "dev"}
    for name in in_dev:
        assert set(extras[name]) <= set(extras["dev"])
    # Larq pins NumPy 1, so that one environment cannot hold it and a recent JAX.
    assert not [package for package in extras["dev"] if package.startswith("larq")]


def test_version_is_stated_once_and_in_the_changelog(metadata):
    assert metadata["version"] == __version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert __version__ in headings or headings[0] == "Unreleased"


def test_every_folder_with_modules_is_shipped(metadata):
    folders = {path.parent for path in (ROOT / "hwa_keras").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert names == set(metadata["packages"])
    assert "py.typed" in metadata["package_data"]["hwa_keras"]
    assert (ROOT / "hwa_keras" / "py.typed").is_file()
    templates = {path.name for path in (ROOT / "hwa_keras").rglob("*.jinja")}
    assert templates == set(metadata["package_data"]["hwa_keras.results"])


def test_no_file_names_a_path_of_one_machine():
    machine_path = re.compile(r"(?<![\w.~-])/(?:work|tmp|root|home)/")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in tracked_files()
        for number, line in enumerate(file.read_text(errors="ignore").split("\n"), 1)
        if machine_path.search(line)
    ]
    assert not found, "\n".join(found)


def test_import_needs_no_extra_and_loads_none():
    code = """
import sys, keras
optional = ("matplotlib", "sklearn", "tensorflow_datasets", "jinja2", "keras_hub")
for name in optional:
    sys.modules.pop(name, None)
import hwa_keras, hwa_keras.datasets
print(*[name for name in optional if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("packages", "above"),
    [
        (
            "core backend quantizers devices noise circuits",
            "deployment results analysis",
        ),
        ("layers conversion spiking training deployment", "results analysis search"),
        ("results", "deployment analysis profile search recipes"),
        ("analysis profile", "search recipes"),
    ],
)
def test_imports_point_one_way(packages, above):
    forbidden = re.compile(rf"from hwa_keras\.({above.replace(' ', '|')})\b.* import")
    for package in packages.split():
        for path in (ROOT / "hwa_keras" / package).rglob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            wrong = [line for line in lines if forbidden.match(line)]
            assert not wrong, f"{path}: {wrong}"
