"""Presets of the runners: YAML files whose every key is known, under flags."""

import dataclasses
from pathlib import Path

import yaml


def read(path, name, settings, overrides):
    """Read one preset of a YAML file as a dataclass.

    Args:
        path: A YAML file that maps names of presets to their settings.
        name: String, which preset.
        settings: A dataclass; its fields are the keys that a preset has, all of them.
        overrides: Dictionary of what goes before the preset, such as flags. Values of
            None count as not given.

    Returns:
        A `settings`.

    Raises:
        ValueError: If the file is no such YAML, or a key is unknown, missing or of
            another type.
    """
    try:
        presets = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    preset = presets.get(name) if isinstance(presets, dict) else None
    if not isinstance(preset, dict):
        raise ValueError(f"{path} has no preset '{name}'.")
    kinds = {field.name: field.type for field in dataclasses.fields(settings)}
    for problem, keys in (
        ("unknown", [str(key) for key in preset if key not in kinds]),
        ("missing", [key for key in kinds if key not in preset]),
    ):
        if keys:
            raise ValueError(
                f"{path}, preset '{name}': {problem} {', '.join(keys)}. The keys of a "
                f"preset are {', '.join(kinds)}."
            )
    for key, value in preset.items():
        accepted = (int, float) if kinds[key] is float else kinds[key]
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise ValueError(
                f"{path}, preset '{name}': `{key}` must be of type "
                f"{kinds[key].__name__}. Received: {value!r}."
            )
    given = {key: value for key, value in overrides.items() if value is not None}
    return settings(**{**preset, **given})
