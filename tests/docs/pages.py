"""The Python blocks of a page of the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(name, option=""):
    """The code of the Python blocks of a page, those with an option apart from others.

    Args:
        name: Of the page, such as `"docs/extending.md"`.
        option: A string that the line of the opening fence has. Defaults to all blocks.
    """
    page = (ROOT / name).read_text(encoding="utf-8")
    found = [m for m in _BLOCK.finditer(page) if option in m["options"]]
    return [match["code"] for match in found]
