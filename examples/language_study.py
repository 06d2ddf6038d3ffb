"""Perplexities of a language model on chips: what the language studies share."""

import json
import time
from pathlib import Path

import keras
from language_ways import Programmed, ways_of
from rich.table import Table

from hwa_keras.recipes.runner import console
from hwa_keras.results import estimate, write_json

_BATCH = 4  # Windows that are evaluated at once.


class Study:
    """Perplexities of one model on chips, by way, time and chip.

    Args:
        model: A `CausalLM`, compiled as `load_model` does.
        windows: The `Windows` that are evaluated.
        calibration: The `Windows` that converters and outputs are calibrated with, as
            unlabelled text.
        path: Of the JSON file to write, and to go on with if it is there.
        settings: Dictionary of what else tells this study from others.
        seed: Integer, the seed of the first chip. Defaults to `0`.
        prompts: List of strings that the model continues, and the first chip of each
            way at the latest time. Defaults to none.
        words: Integer, tokens of a prompt and its continuation together. Defaults to
            `32`.

    Raises:
        ValueError: If the file is that of another study.
    """

    def __init__(
        self,
        model,
        windows,
        calibration,
        path,
        settings,
        seed=0,
        prompts=(),
        words=32,
    ):
        self.model, self.windows, self.calibration = model, windows, calibration
        self.path, self.seed = Path(path), seed
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.prompts, self.words = list(prompts), words
        settings = {"windows": list(windows.targets.shape), "seed": seed, **settings}
        self.found = {"settings": settings, "digital": None, "ways": {}}
        if self.path.is_file():
            self.found = json.loads(self.path.read_text(encoding="utf-8"))
            if self.found["settings"] != settings:
                raise ValueError(
                    f"{path} holds another study: {self.found['settings']}, and asked "
                    f"for is {settings}. Write to another folder."
                )
        if self.found["digital"] is None:
            self.found["digital"] = evaluated(model, windows)
            self._continue(model, self.found["digital"])
            self._write()

    def run(self, names, chips, times):
        """Evaluate ways on chips, what is already known apart.

        Args:
            names: List of names of `ways_of(model)`. Those that share their chips are
                run together, in the order in which they come first.
            chips: Integer, number of chips.
            times: List of seconds since programming.
        """
        ways = ways_of(self.model)
        groups = {}
        for name in names:
            groups.setdefault(ways[name].chip, []).append(name)
        for programming, members in groups.items():
            if not any(self._missing(members, i, times) for i in range(chips)):
                continue
            with Programmed(self.model, programming, self.calibration) as programmed:
                for i in range(chips):
                    self._run_chip(programmed, ways, members, i, times)
                    console.print(self.table(times))

    def _missing(self, names, chip, times):
        return [
            (t, name)
            for t in times
            for name in names
            if str(chip) not in self._entry(name, t)
        ]

    def _entry(self, name, t):
        return self.found["ways"].setdefault(name, {}).setdefault(f"{t:g}", {})

    def _run_chip(self, programmed, ways, names, chip, times):
        missing = self._missing(names, chip, times)
        if missing:
            programmed.write(self.seed + chip)
        for t, name in missing:
            begin = time.monotonic()
            programmed.settle(t, ways[name])
            entry = evaluated(programmed.chip, self.windows)
            if chip == 0 and t == max(times):
                self._continue(programmed.chip, entry)
            self._entry(name, t)[str(chip)] = entry
            self._write()
            console.print(
                f"{name}, chip {chip}, {t:g} s: {entry['perplexity']:.2f} "
                f"({time.monotonic() - begin:.0f} s)"
            )

    def _continue(self, model, entry):
        """Note in an entry how a model, or a chip, continues the prompts."""
        if self.prompts:
            entry["texts"] = [
                model.generate(prompt, max_length=self.words) for prompt in self.prompts
            ]

    def _write(self):
        write_json(self.path, self.found)

    def estimate(self, name, t):
        """Mean perplexity over chips with its interval, or None without chips."""
        entries = self.found["ways"].get(name, {}).get(f"{t:g}", {})
        values = [entry["perplexity"] for entry in entries.values()]
        return estimate(values) if values else None

    def table(self, times):
        """A `rich` table: ways by time, means over chips ± half of the interval."""
        digital = self.found["digital"]["perplexity"]
        table = Table(title=f"Perplexity on chips; {digital:.2f} in software")
        for column in ("way", "chips", *(f"{t:g} s" for t in times)):
            table.add_column(column, justify="left" if column == "way" else "right")
        for name in self.found["ways"]:
            found = [self.estimate(name, t) for t in times]
            counts = sorted({e.count for e in found if e is not None})
            if counts:
                chips = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
                table.add_row(name, chips, *map(_cell, found))
        return table


def _cell(found):
    if found is None:
        return ""
    if found.count == 1:
        return f"{found.mean:.4g}"
    return f"{found.mean:.4g} ± {found.half_width:.2g}"


def evaluated(model, windows):
    """{"perplexity": of all windows}."""
    inputs, targets = windows
    found = keras.Model.evaluate(
        model, inputs, targets, batch_size=_BATCH, verbose=0, return_dict=True
    )
    return {"perplexity": found["perplexity"]}


def compared(studies, ways, times):
    """A `rich` table of several models: perplexities over the control's in software.

    Args:
        studies: Dictionary from names to `Study`s. Without a "control" the table has
            no ratios.
        ways: List of names of ways.
        times: List of seconds since programming.
    """
    table = Table(title="Perplexity, mean over chips (over the control in software)")
    for column in ("model", "software", "way", *(f"{t:g} s" for t in times)):
        table.add_column(column)
    control = studies.get("control")
    unit = None if control is None else control.found["digital"]["perplexity"]
    for name, study in studies.items():
        software = _ratio(study.found["digital"]["perplexity"], unit)
        for way in ways:
            found = [study.estimate(way, float(t)) for t in times]
            table.add_row(name, software, way, *(_ratio(e.mean, unit) for e in found))
    return table


def _ratio(value, unit):
    return f"{value:.4g}" + ("" if unit is None else f" ({value / unit:.2f})")


def print_texts(studies):
    """What models, and their first chips at the latest time, made of the prompts.

    Args:
        studies: Dictionary from names to `Study`s.
    """
    for name, study in studies.items():
        found = {"": study.found["digital"]}
        for way, times in study.found["ways"].items():
            found |= {f", {way}, {t} s": chips["0"] for t, chips in times.items()}
        for what, entry in found.items():
            if "texts" in entry:
                console.print(f"[bold]{name}{what}[/bold]", *entry["texts"], sep="\n  ")
