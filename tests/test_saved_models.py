"""The model that is shipped in saved_models/, run as its page says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_of_the_shipped_chip_runs(monkeypatch, capsys):
    page = (ROOT / "saved_models/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "saved_models/README.md", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    accuracies = {float(t): float(accuracy) for t, accuracy in printed}
    assert list(accuracies) == [1.0, 86_400.0, 31_536_000.0]
    assert all(accuracy > 0.96 for accuracy in accuracies.values())
