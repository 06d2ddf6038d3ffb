"""Presets: settings read from YAML, each of which a flag can replace.

The settings are the fields of a dataclass. This module needs absl and PyYAML, which the
extra `examples` brings: `from hwa_keras.recipes import presets`.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from absl import flags

__all__ = ["define_flags", "given", "read"]

_Settings = TypeVar("_Settings")
_DEFINE: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    list: flags.DEFINE_list,
}


def read(
    path: str | Path,
    name: str | None,
    settings: type[_Settings],
    overrides: Mapping[str, Any] = types.MappingProxyType({}),
) -> _Settings:
    """Read one preset of a YAML file as a dataclass.

    Args:
        path: A YAML file that maps names of presets to their settings, or, with `name`
            None, that is one preset. Of a folder, the file `presets.yaml`.
        name: String, which preset, or None.
        settings: A dataclass; its fields are the keys that a preset has. Those without
            a default must be there.
        overrides: Dictionary of what goes before the preset, such as flags. Defaults to
            none.

    Returns:
        A `settings`.

    Raises:
        ValueError: If the file is no such YAML, or a key is unknown, missing or of
            another type.

    Example:
        >>> import dataclasses, pathlib
        >>> from hwa_keras.recipes import presets
        >>> @dataclasses.dataclass
        ... class Settings:
        ...     epochs: int
        ...     rates: list[float]
        >>> path = pathlib.Path(tempfile.mkdtemp(), "study.yaml")
        >>> _ = path.write_text("small: {epochs: 3, rates: [0.1, 0.2]}")
        >>> presets.read(path, "small", Settings, {"epochs": 5})
        Settings(epochs=5, rates=[0.1, 0.2])
    """
    path = Path(path)
    path = path / "presets.yaml" if path.is_dir() else path
    try:
        preset = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    where = str(path)
    if name is not None:
        preset = preset.get(name) if isinstance(preset, dict) else None
        where = f"{path}, preset '{name}'"
    if not isinstance(preset, dict):
        raise ValueError(f"{path} has no preset '{name or ''}'.")
    _check(where, preset, settings, overrides)
    return settings(**{**preset, **overrides})


def define_flags(
    settings: type,
    path: str | Path | None = None,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Define a flag for each field of a dataclass; left out, it is what a preset says.

    A list is given with commas between its elements.

    Args:
        settings: A dataclass.
        path: The YAML file whose comments `--help` shows, or None.
        flag_values: Where the flags are defined. Defaults to those of the program.

    Raises:
        absl.flags.DuplicateFlagError: If a flag has the name of a field already.
    """
    explained = {} if path is None else _explained(Path(path))
    for key, hint in _hints(settings).items():
        define = _DEFINE.get(_kinds(hint)[0], flags.DEFINE_string)
        text = explained.get(key, "In place of what the preset says.")
        define(key, None, text, flag_values=flag_values)


def given(
    settings: type, flag_values: flags.FlagValues = flags.FLAGS
) -> dict[str, Any]:
    """The fields of a dataclass that flags give, by name.

    Args:
        settings: The dataclass that `define_flags` had.
        flag_values: Those that `define_flags` had.

    Raises:
        ValueError: If an element of a list is of another type.
    """
    values = {key: flag_values[key].value for key in _hints(settings)}
    found = {key: value for key, value in values.items() if value is not None}
    for key, hint in _hints(settings).items():
        if isinstance(found.get(key), list):
            found[key] = _elements(key, hint, found[key])
    return found


def _check(where, preset, settings, overrides):
    """Raise `ValueError` for keys that are unknown, missing or of another type."""
    hints = _hints(settings)
    required = [
        field.name
        for field in dataclasses.fields(settings)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    for problem, keys in (
        ("unknown", [str(key) for key in preset if key not in hints]),
        ("missing", [k for k in required if k not in preset and k not in overrides]),
    ):
        if keys:
            raise ValueError(
                f"{where}: {problem} {', '.join(keys)}. The keys of a preset are "
                f"{', '.join(hints)}."
            )
    for key, value in preset.items():
        kinds = _kinds(hints[key])
        wrong = isinstance(value, bool) and bool not in kinds
        if wrong or not isinstance(value, kinds):
            raise ValueError(
                f"{where}: `{key}` must be of type "
                f"{getattr(hints[key], '__name__', hints[key])}. Received: {value!r}."
            )


def _hints(settings):
    """{name: type} of the fields of a dataclass."""
    hints = typing.get_type_hints(settings)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings)}


def _union(hint):
    """The types that a type allows."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _kinds(hint):
    """The classes that a value of a type may have."""
    kinds = tuple(typing.get_origin(kind) or kind for kind in _union(hint))
    return (*kinds, int) if float in kinds else kinds


def _elements(key, hint, texts):
    """What a list on the command line says."""
    [element] = typing.get_args(_union(hint)[0]) or (str,)
    try:
        return [element(text) for text in texts]
    except ValueError:
        raise ValueError(
            f"--{key} must be of type {element.__name__}, with commas between several. "
            f"Received: {', '.join(texts)}."
        ) from None


def _explained(path):
    """What the comments of a YAML file say of its keys, where they come first."""
    path = path / "presets.yaml" if path.is_dir() else path
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.findall(r"^ +(\w+):[^#\n]*#\s*(.+)$", text, re.M)
    return dict(reversed(found))
