"""recipes.presets: every key is known, every mistake is told, flags go before."""

import dataclasses

import pytest
from absl import flags

from hwa_keras.recipes import presets


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int
    rate: float | None
    hidden: list[int]
    name: str = "net"
    augment: bool = False


GOOD = "small: {epochs: 3, rate: 1, hidden: [8, 4]}"


def read(tmp_path, text, **overrides):
    path = tmp_path / "presets.yaml"
    path.write_text(text, encoding="utf-8")
    return presets.read(path, "small", Settings, overrides)


def test_what_is_given_goes_before_the_preset(tmp_path):
    assert read(tmp_path, GOOD) == Settings(3, 1, [8, 4])
    assert read(tmp_path, GOOD, epochs=5) == Settings(5, 1, [8, 4])
    assert presets.read(tmp_path, "small", Settings) == Settings(3, 1, [8, 4])


def test_what_a_preset_lacks_can_be_given(tmp_path):
    lacking = "small: {epochs: 3, rate: null}"
    assert read(tmp_path, lacking, hidden=[1]) == Settings(3, None, [1])


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD.replace("rate", "ratio"), "unknown ratio.*keys of a preset are epochs"),
        ("small: {epochs: 3}", "missing rate, hidden"),
        (GOOD.replace("3", "many"), "`epochs` must be of type int. Received: 'many'"),
        (GOOD.replace("3", "2.5"), "`epochs` must be of type int. Received: 2.5"),
        (GOOD.replace("3", "true"), "`epochs` must be of type int. Received: True"),
        (GOOD.replace("[8, 4]", "8"), "`hidden` must be of type list"),
        (GOOD.replace("rate: 1", "rate: fast"), "`rate` must be of type float | None"),
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


def parsed(tmp_path, *arguments):
    """The flags of a command line."""
    path = tmp_path / "study.yaml"
    path.write_text("small:\n  epochs: 3  # of each training\n  hidden: [8]  # units\n")
    values = flags.FlagValues()
    presets.define_flags(Settings, path, values)
    values(["study", *arguments])
    return values


def test_each_setting_has_a_flag_that_the_comments_explain(tmp_path):
    arguments = "--epochs=5", "--hidden=8,4", "--augment", "--rate=1e-3", "--name=3"
    values = parsed(tmp_path, *arguments)
    expected = {"epochs": 5, "rate": 1e-3, "hidden": [8, 4], "name": "3"}
    assert presets.given(Settings, values) == {**expected, "augment": True}
    assert values["epochs"].help == "of each training"


def test_flags_that_are_left_out_give_nothing_and_wrong_ones_are_told(tmp_path):
    assert presets.given(Settings, parsed(tmp_path)) == {}
    values = parsed(tmp_path, "--hidden=8,many")
    with pytest.raises(ValueError, match="--hidden must be of type int.*8, many"):
        presets.given(Settings, values)
