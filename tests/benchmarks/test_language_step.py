"""benchmarks.language_step on a tiny Llama."""

import textwrap
from pathlib import Path

import pytest

from tests import fresh

pytest.importorskip("keras_hub")

from tests.examples.tiny_llama import llama  # noqa: E402


@pytest.mark.slow
def test_it_times_a_plain_step_and_those_on_hardware(tmp_path):
    llama().save_to_preset(str(tmp_path / "preset"))
    code = """
        import sys
        sys.path.insert(0, root)
        from absl import app
        from benchmarks import language_step
        given = [f"--model={model}", "--length=16", "--steps=1", "--rows=noise+learned"]
        app.run(language_step.main, ["language_step", *given])
    """
    said = fresh.run(
        fresh.QUICKEN + textwrap.dedent(code),
        root=str(Path(__file__).parents[2]),
        model=str(tmp_path / "preset"),
    )
    rows = {line[:16].strip(): line[16:].split() for line in said.splitlines()[-2:]}
    assert list(rows) == ["plain", "noise+learned"]
    assert rows["plain"][1] == "1.00" and float(rows["noise+learned"][0]) >= 0
