"""What the repository promises about itself."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

from hwa_keras.version import __version__
from tests import fresh

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


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but the package, installed from its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for file in tracked_files():
        name = file.relative_to(ROOT)
        if name.parts[0] in ("hwa_keras", "setup.py", "pyproject.toml", "README.md"):
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "-w", "."]
    install = ["install", "--no-deps", "--target", "installed", "--no-index"]
    subprocess.run([*pip, *wheel, "./source"], cwd=folder, check=True)
    [built] = folder.glob("*.whl")
    subprocess.run([*pip, *install, built.name], cwd=folder, check=True)
    return folder / "installed"


def test_a_wheel_holds_the_package_and_nothing_else(installed):
    kept = {
        str(path.relative_to(installed))
        for path in installed.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    package = {
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.is_relative_to(ROOT / "hwa_keras")
    }
    assert {path for path in kept if ".dist-info" not in path} == package


def test_an_installed_wheel_goes_from_a_model_to_the_page_of_a_year(
    installed, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    fresh.run_bare(
        """
        import sys
        sys.path.insert(0, installed)
        import keras, numpy as np, hwa_keras
        assert hwa_keras.__file__.startswith(installed)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile(loss="mse")
        data = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
        hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
        year = hwa_keras.drift_sweep(model, "pcm", data, chips=2, verbose=0)
        hwa_keras.results.report("page.html", "A year", [year])
        """,
        installed=str(installed),
    )
    assert "A year" in (tmp_path / "page.html").read_text(encoding="utf-8")


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
