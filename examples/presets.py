"""Presets of the runners: YAML files whose every key is known, under flags."""

import dataclasses
import sys
from pathlib import Path

import yaml

from hwa_keras import datasets


def read(path, name, settings, overrides):
    """Read one preset of a YAML file as a dataclass.

    Args:
        path: A YAML file that maps names of presets to their settings, or, with `name`
            None, that is one preset.
        name: String, which preset, or None.
        settings: A dataclass; its fields are the keys that a preset has. Those without
            a default must be there.
        overrides: Dictionary of what goes before the preset, such as flags. Values of
            None count as not given.

    Returns:
        A `settings`.

    Raises:
        ValueError: If the file is no such YAML, or a key is unknown, missing or of
            another type.
    """
    try:
        preset = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    where = str(path)
    if name is not None:
        preset = preset.get(name) if isinstance(preset, dict) else None
        where = f"{path}, preset '{name}'"
    if not isinstance(preset, dict):
        raise ValueError(f"{path} has no preset '{name or ''}'.")
    fields = {field.name: field for field in dataclasses.fields(settings)}
    required = [k for k, f in fields.items() if f.default is dataclasses.MISSING]
    for problem, keys in (
        ("unknown", [str(key) for key in preset if key not in fields]),
        ("missing", [key for key in required if key not in preset]),
    ):
        if keys:
            raise ValueError(
                f"{where}: {problem} {', '.join(keys)}. The keys of a preset are "
                f"{', '.join(fields)}."
            )
    for key, value in preset.items():
        kind = fields[key].type
        accepted = kind | int if isinstance(1.0, kind) else kind
        wrong = isinstance(value, bool) and kind is not bool
        if wrong or not isinstance(value, accepted):
            raise ValueError(
                f"{where}: `{key}` must be of type {getattr(kind, '__name__', kind)}. "
                f"Received: {value!r}."
            )
    given = {key: value for key, value in overrides.items() if value is not None}
    return settings(**{**preset, **given})


def begin(program, dataset, out, *reads):
    """Read everything that a run starts from, before anything takes time.

    What is wrong with it ends the program with one line and exit status 1.

    Args:
        program: String, the name that the line begins with.
        dataset: Name of a data set, as `hwa_keras.datasets.load` takes it.
        out: Path of the folder to write to, which is made.
        *reads: Functions without arguments, such as calls of `read`.

    Returns:
        What the functions return, the data set, and the folder as a `Path`.
    """

    def everything():
        found = [function() for function in reads]
        data = datasets.load(dataset)
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        return *found, data, folder

    return checked(program, everything)


def checked(program, read):
    """Call a function; what is wrong ends the program with one line.

    Args:
        program: String, the name that the line begins with.
        read: Function without arguments, such as a call of `read`.

    Returns:
        What the function returns.
    """
    try:
        return read()
    except (OSError, ValueError) as error:
        sys.exit(f"{program}: {' '.join(str(error).split())}")
