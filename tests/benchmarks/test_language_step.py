"""benchmarks.language_step on a tiny Llama."""

from pathlib import Path

import pytest

from tests import fresh

pytest.importorskip("keras_hub")

from tests.examples.tiny_llama import llama  # noqa: E402


@pytest.mark.slow
def test_it_times_a_plain_step_and_those_on_hardware(tmp_path):
    llama().save_to_preset(str(tmp_path / "preset"))
    said = fresh.run(
        """
        import sys
        sys.path.insert(0, root)
        from absl import app
        import tensorflow as tf
        from benchmarks import language_step
        graphs = {"disable_meta_optimizer": True}  # As they were traced.
        tf.config.optimizer.set_experimental_options(graphs)
        given = [f"--model={model}", "--length=16", "--steps=1"]
        app.run(language_step.main, ["language_step", *given])
        """,
        root=str(Path(__file__).parents[2]),
        model=str(tmp_path / "preset"),
    )
    rows = {line[:20].strip(): line[20:].split() for line in said.splitlines()[-3:]}
    assert list(rows) == ["plain", "drift noise", "and converters"]
    assert rows["plain"][1] == "1.00" and float(rows["and converters"][0]) >= 0
