"""The Python code of the documentation, as it stands and in less time."""

import re
from pathlib import Path

from tests import fresh

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)

# Few examples instead of a whole data set.
_FEW = """
import hwa_keras
whole = hwa_keras.datasets.load
def few(name):
    data = whole(name)
    train, test = (tuple(x[:256] for x in part) for part in (data.train, data.test))
    return data._replace(train=train, test=tuple(x[:16] for x in test))
hwa_keras.datasets.load = few
"""

# In the notebook of language models.
_LESS = {
    "LENGTH = 64": "LENGTH = 16",
    "windows(learned, 16)": "windows(learned, 320)",
    "num_layers=2": "num_layers=1",
    "steps=100": "steps=2",
}


def shortened(code):
    """Code that does all that it did, in less time and with worse results."""
    code = re.sub(r"\b(chips|ramp)=\d+", r"\1=1", code)
    code = re.sub(r"\bepochs=\d+", "epochs=2", code)  # LaNMax needs two.
    for much, less in _LESS.items():
        code = code.replace(much, less)
    return fresh.QUICKEN + _FEW + code


def blocks(name, option=""):
    """The code of the Python blocks of a page, those with an option apart from others.

    Args:
        name: Of the page, such as `"docs/extending.md"`.
        option: A string that the line of the opening fence has. Defaults to all blocks.
    """
    page = (ROOT / name).read_text(encoding="utf-8")
    found = [m for m in _BLOCK.finditer(page) if option in m["options"]]
    return [match["code"] for match in found]
