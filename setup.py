"""Package metadata; the tools are configured in `pyproject.toml`."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = runpy.run_path(str(ROOT / "hwa_keras" / "version.py"))["__version__"]

INSTALL_REQUIRES = [
    "tensorflow>=2.18",  # the first release whose wheels are built for NumPy 2
    "keras>=3.9",  # the oldest that tests/versions.py is run with
    "numpy",
    "rich",  # tables on the terminal; Keras brings it along
    "scipy",
]

EXAMPLES = [
    "absl-py",
    "ai-edge-litert",
    "jinja2",
    "matplotlib",
    "PyYAML",
    "scikit-learn",
    "tensorboard",  # TensorFlow 2.21 does not bring it along any more
    "tensorflow-datasets",
    "tensorflow-metadata>=1.17",  # TFDS has no bound; uv goes back to 0.5 on 3.10
    "importlib_resources",  # TFDS needs it to fetch a data set, but does not say so
]
NLP = [
    "keras-hub",
    "safetensors",  # for presets of Hugging Face, which keras-hub converts
]
JAX = ["jax"]
NIR = [
    "nir>=1.0.8",  # spiking networks for other simulators; the release that was tried
    "h5py",  # what its files are written with
]
SEARCH = [
    "pymoo>=0.6.2",  # NSGA-II; the release that was tried
]
CLUSTER = [
    "distributed",  # evaluates the candidates of a search on several machines
]
LARQ = [
    # Pins numpy < 2: not part of `dev`, and not for Python 3.13, where NumPy 1 has no
    # wheels. 0.14 is the release whose quantizers were seen to work in these layers.
    "larq>=0.14; python_version < '3.13'",
    "tf-keras>=2.18; python_version < '3.13'",  # Keras 2, which Larq is written for
]
DOCS = [
    "mkdocs-material",
    "mkdocs-jupyter",  # executes the tutorials
    "mkdocstrings[python]",  # pages from docstrings
]
DEV = [
    "mypy",
    "pytest>=8.2",  # imports `--doctest-modules` by package name under importlib
    "pytest-xdist",
    "ruff>=0.15",  # the 2026 style, which `ruff format --check` compares with
    "types-PyYAML",
]

setup(
    name="hwa_keras",
    version=VERSION,
    description="Keras models for hardware with imperfect weights: hardware-aware "
    "training, simulated deployment and drift, export.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="hwa_keras authors",
    license="MIT",
    keywords="keras hardware-aware training analog in-memory computing PCM memristor",
    packages=find_packages(include=["hwa_keras", "hwa_keras.*"]),
    package_data={
        "hwa_keras": ["py.typed"],
        "hwa_keras.results": ["page.html.jinja"],
    },
    python_requires=">=3.10",
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "examples": EXAMPLES,
        "nlp": NLP,
        "larq": LARQ,
        "jax": JAX,
        "nir": NIR,
        "search": SEARCH,
        "cluster": CLUSTER,
        "docs": DOCS + EXAMPLES + NLP,
        "dev": DEV + DOCS + EXAMPLES + NLP + JAX + NIR + SEARCH + CLUSTER,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
