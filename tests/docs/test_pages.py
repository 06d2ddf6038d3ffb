"""The code of the pages that a newcomer reads first runs from top to bottom."""

import pytest

from tests import fresh
from tests.docs.pages import blocks


@pytest.mark.slow
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/concepts.md"])
def test_it_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # Where it writes what it exports.
    fresh.run("\n".join(blocks(page)))
