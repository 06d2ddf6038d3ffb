"""The checkpoint of a search: a JSON file, written whole after each generation."""

import json
from pathlib import Path

from hwa_keras.results import write_text

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path, state):
    """Write the state of a search; what was there stays until all is written."""
    write_text(path, json.dumps(state))


def read_checkpoint(path, settings, generations):
    """The state that a search goes on from, or None if there is none.

    Args:
        path: Of the checkpoint, or None.
        settings: Dictionary of what must be the same as when it was written.
        generations: Integer, how many the search is to have.

    Raises:
        ValueError: If it is of another search, has more generations, or is no
            checkpoint.
    """
    if path is None or not Path(path).exists():
        return None
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        found, done = state["settings"], state["generation"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint of a search.") from error
    settings = json.loads(json.dumps(settings))
    differ = [key for key in settings if settings[key] != found.get(key)]
    if differ:
        raise ValueError(
            f"The checkpoint {path} is of another search: "
            + "; ".join(f"{k} was {_short(found.get(k))}" for k in differ)
            + ". Give the same arguments, or another `checkpoint`."
        )
    if generations < done:
        raise ValueError(
            f"The checkpoint {path} has {done} generations already, and "
            f"`generations` is {generations}. Ask for at least {done}, or give "
            "another `checkpoint`."
        )
    return state


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
