"""A language model on chips: what can be done against drift, without training.

Every row of the table is one way to run the same model on phase-change memory: how
outputs are compensated, how weights are mapped, which of them stay digital. For each,
chips are programmed, and at several times their perplexity on windows of a text is
measured. Results are written after each chip, and a run that is started again goes on
where it ended.

    python examples/language_chips.py --model=FOLDER --text=FILE --calibration=FILE
    python examples/language_chips.py --model=FOLDER --weights=trained.weights.h5 \\
        --text=FILE --calibration=FILE --ways=measured,least_squares --chips=5
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import json
import time
from pathlib import Path

import keras
from absl import app, flags
from language_texts import load_model, windows_of
from language_ways import Programmed, ways_of
from rich.console import Console
from rich.table import Table

from hwa_keras.results import estimate, write_json

_BATCH = 4  # Windows that are evaluated at once.

console = Console()


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


def define_flags():
    flags.DEFINE_string("model", None, "Folder or .keras file.", required=True)
    flags.DEFINE_string("weights", None, "A .weights.h5 file to load into the model.")
    flags.DEFINE_string("text", None, "Text file to evaluate on.", required=True)
    flags.DEFINE_string("calibration", None, "Text to calibrate with.", required=True)
    flags.DEFINE_string("out", "runs/language_chips", "Folder for what is written.")
    flags.DEFINE_list("ways", ["none", "measured", "least_squares"], "Rows, or 'all'.")
    flags.DEFINE_integer("chips", 5, "Chips of each way.", 1)
    flags.DEFINE_integer("windows", 16, "Windows to evaluate on.", 1)
    flags.DEFINE_integer("calibration_windows", 8, "Windows to calibrate with.", 1)
    flags.DEFINE_integer("length", 256, "Tokens in a window.", 2)
    flags.DEFINE_integer("seed", 0, "Seed of the first chip.", 0)
    flags.DEFINE_multi_string("prompt", [], "Text to continue; any number of them.")
    flags.DEFINE_integer("words", 32, "Tokens of a prompt and its continuation.", 2)
    flags.DEFINE_list(
        "seconds", ["1", "86400", "2592000", "31536000"], "Times since programming."
    )


def study_of_flags(values):
    """The `Study`, the ways and the times that flags ask for."""
    model = load_model(values.model, values.weights)
    known = ways_of(model)
    names = list(known) if values.ways == ["all"] else values.ways
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"--ways must be among {', '.join(known)}. Received: {', '.join(unknown)}."
        )
    times = [float(t) for t in values.seconds]
    windows, calibration = (
        windows_of(model, path, count, values.length)
        for path, count in (
            (values.text, values.windows),
            (values.calibration, values.calibration_windows),
        )
    )
    keys = ("model", "weights", "text", "calibration", "calibration_windows")
    settings = {key: getattr(values, key) for key in keys}
    path = Path(values.out) / "chips.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = model, windows, calibration, path, settings
    study = Study(*parts, values.seed, values.prompt, values.words)
    return study, names, times


def main(_):
    values = flags.FLAGS
    begin = time.monotonic()
    try:
        study, names, times = study_of_flags(values)
    except (OSError, ValueError) as error:
        raise SystemExit(f"language_chips: {' '.join(str(error).split())}") from None
    console.print(f"In software: {study.found['digital']['perplexity']:.2f}")
    study.run(names, values.chips, times)
    console.print(study.table(times))
    console.print(f"{time.monotonic() - begin:.0f} s.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
