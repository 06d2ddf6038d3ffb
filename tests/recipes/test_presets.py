"""examples/presets.py: every key is known, and every mistake is told."""

import dataclasses

import pytest

from examples import presets


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int
    rate: float
    hidden: list


GOOD = "small: {epochs: 3, rate: 1, hidden: [8, 4]}"


def read(tmp_path, text, **overrides):
    path = tmp_path / "presets.yaml"
    path.write_text(text, encoding="utf-8")
    return presets.read(path, "small", Settings, overrides)


def test_what_is_given_goes_before_the_preset(tmp_path):
    assert read(tmp_path, GOOD) == Settings(3, 1, [8, 4])
    assert read(tmp_path, GOOD, epochs=5, rate=None) == Settings(5, 1, [8, 4])


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD.replace("rate", "ratio"), "unknown ratio.*keys of a preset are epochs"),
        ("small: {epochs: 3}", "missing rate, hidden"),
        (GOOD.replace("3", "many"), "`epochs` must be of type int. Received: 'many'"),
        (GOOD.replace("3", "2.5"), "`epochs` must be of type int. Received: 2.5"),
        (GOOD.replace("3", "true"), "`epochs` must be of type int. Received: True"),
        (GOOD.replace("small", "large"), "has no preset 'small'"),
        ("", "has no preset 'small'"),
        ("small: [", "is no YAML"),
    ],
)
def test_a_wrong_preset_names_the_file_and_the_mistake(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path, text)
    assert "presets.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)
