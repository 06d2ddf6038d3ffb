"""Set-up shared by the tests and the docstring examples."""

import os
from pathlib import Path

# Read when the backend is imported; what the environment says already goes first, so
# `CUDA_VISIBLE_DEVICES=0 JAX_PLATFORMS=cuda pytest -m gpu` runs on a GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Each worker has one core, and most tensors are small.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
# Most of the time on JAX is compilation: code that runs once need not be fast, and what
# one run compiled, the next one reads.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ.update(
        JAX_COMPILATION_CACHE_DIR=str(Path(__file__).parent / ".pytest_cache/jax"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )

import pytest


def pytest_runtest_setup(item):
    import keras

    backend = keras.backend.backend()
    if item.get_closest_marker("tensorflow_only") and backend != "tensorflow":
        pytest.skip(f"needs the TensorFlow backend; this is {backend}")
    if item.get_closest_marker("gpu"):
        devices = keras.distribution.list_devices()
        if not any("gpu" in device for device in devices):
            pytest.skip(f"needs a GPU; {backend} sees {', '.join(devices)}")


@pytest.fixture(autouse=True, scope="session")
def quick_graphs():
    from tests.fresh import quicken

    quicken()


@pytest.fixture(autouse=True)
def seeded():
    """Start every test and example from the same random state."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def example_names(doctest_namespace):
    """Name in docstring examples what a reader takes as imported."""
    import tempfile

    import keras
    import numpy as np

    import hwa_keras

    doctest_namespace.update(
        hwa_keras=hwa_keras, keras=keras, ops=keras.ops, np=np, tempfile=tempfile
    )


@pytest.fixture(scope="session")
def data_dir():
    """The folder of the real data sets; tests that need it are skipped without."""
    if not (path := os.environ.get("HWA_DATA_DIR")):
        pytest.skip("needs real data sets: HWA_DATA_DIR is not set")
    if not Path(path).is_dir():
        pytest.fail(f"HWA_DATA_DIR={path} is not a folder")
    return Path(path)
