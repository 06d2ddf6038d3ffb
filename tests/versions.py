"""The core of the suite on each Python, and on the oldest TensorFlow and Keras.

    python -m tests.versions [--only=3.13,oldest] [--folder=build/versions]

Each row gets a virtual environment of its own, with the newest releases that pip finds,
or with the lowest that setup.py names; interpreters are those on the PATH. Prints the
table that stands in CONTRIBUTING.md.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = ("3.10", "3.11", "3.12", "3.13", "oldest")
CORE = (
    "circuits",
    "conversion/test_conversion.py",
    "core",
    "deployment/test_chip.py",
    "deployment/test_export.py",
    "devices",
    "layers",
    "noise",
    "quantizers",
    "results",
    "training/test_callbacks.py",
    "training/test_sharpness_aware.py",
)
PACKAGES = ("tensorflow", "keras", "numpy")


def oldest():
    """The lowest TensorFlow and Keras of setup.py, as pip takes them."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    found = re.findall(r'"(tensorflow|keras)>=([\d.]+)"', text)
    return [f"{name}=={version}.*" for name, version in found]


def install(row, folder):
    """Make the environment of a row; its interpreter's path."""
    version, pins = ("3.10", oldest()) if row == "oldest" else (row, [])
    interpreter = shutil.which(f"python{version}")
    if interpreter is None:
        raise SystemExit(f"There is no python{version} on the PATH.")
    python = folder / row / "bin/python"
    subprocess.run([interpreter, "-m", "venv", folder / row], check=True)
    pip = [python, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    needed = ["-e", f"{ROOT}[examples]", "pytest>=8.2", "pytest-xdist"]
    subprocess.run([*pip, *needed, *pins], check=True)
    return python


def versions(python):
    """What was installed, by package."""
    code = "import importlib.metadata as m, platform; print(platform.python_version())"
    code += "".join(f"; print(m.version({name!r}))" for name in PACKAGES)
    found = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return found.stdout.split()


def test(python):
    """The last line of pytest on the core of the suite."""
    paths = [f"tests/{name}" for name in CORE]
    command = [python, "-m", "pytest", "-q", "-n", "2", *paths]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = found.stdout.strip().splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            print(line, file=sys.stderr, flush=True)
    return lines[-1] if lines else found.stderr[-500:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(ROWS), help="Rows, with commas.")
    parser.add_argument("--folder", default=ROOT / "build/versions", type=Path)
    options = parser.parse_args()
    print(f"| Python | {' | '.join(PACKAGES)} | result |")
    print("|" + "---|" * (len(PACKAGES) + 2))
    for row in options.only.split(","):
        python = install(row, options.folder.resolve())
        print(f"| {' | '.join([*versions(python), test(python)])} |", flush=True)


if __name__ == "__main__":
    main()
