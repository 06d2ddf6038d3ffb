"""The code of the pages that a newcomer reads first runs from top to bottom."""

import pytest

from tests import fresh
from tests.docs.pages import blocks, shortened

# README.md has swept and exported; that docs/index.md calls the same functions as they
# can be called is enough.
BOUND = """
import inspect
def bound(function):
    return lambda *args, **kwargs: inspect.signature(function).bind(*args, **kwargs)
hwa_keras.drift_sweep = bound(hwa_keras.drift_sweep)
hwa_keras.export = bound(hwa_keras.export)
"""


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_they_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # Where README.md writes what it exports.
    first = [*blocks("docs/concepts.md"), *blocks("README.md")]
    fresh.run(shortened("\n".join([*first, BOUND, *blocks("docs/index.md")])))
    assert (tmp_path / "runs/chip/saved_model.pb").is_file()
