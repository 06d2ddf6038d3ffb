"""A pretrained language model that is tuned to survive a year on phase-change memory.

Three models are compared: the pretrained one, one that is tuned on a text under the
noise of chips of every age, and a control, tuned as long on the same text without
noise. Each is measured in software and on chips, by its perplexity on another text, and
continues prompts. Ratios are to the control in software: the noise's price alone.

    python examples/language_model.py --model=FOLDER --tune_text=wikitext2/valid.txt \\
        --text=wikitext2/test.txt --preset=small
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import resource
import time
from pathlib import Path

import keras
import presets
from absl import app, flags
from language_chips import Study
from language_texts import load_model, windows_of
from rich.console import Console
from rich.table import Table

from hwa_keras import hardware_kernels, recipes, to_digital
from hwa_keras.results import write_json

PRESETS = Path(__file__).parents[1] / "configs" / "language_model.yaml"
CONTROL = {"hardware": None, "clip": None}
MODELS = ("pretrained", "control", "hardware")

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Folder of the pretrained model.", required=True)
flags.DEFINE_string("tune_text", None, "Text file to tune on.", required=True)
flags.DEFINE_string("text", None, "Text file to evaluate on.", required=True)
flags.DEFINE_string("out", "runs/language_model", "Folder for what is written.")
flags.DEFINE_string("preset", "smoke", "Of configs/language_model.yaml.")
flags.DEFINE_integer("steps", None, "Updates, in place of the preset's.", 1)
flags.DEFINE_float("minutes", None, "Minutes of each tuning, in place of the preset's.")
flags.DEFINE_integer("chips", None, "Chips, in place of the preset's.", 1)
flags.DEFINE_list("models", list(MODELS), "Which of the models to look at.")

console = Console()


@dataclasses.dataclass(frozen=True)
class Settings:
    """A preset; see `recipes.LanguageModelRecipe` and `language_ways.ways_of`."""

    steps: int
    learning_rate: float
    batch: int
    length: int
    chips: int
    windows: int
    calibration_windows: int
    ways: list
    seconds: list
    prompts: list
    minutes: float = 0.0  # Of each tuning; 0 is no limit.
    tune: str = "all"
    distill: float = 0.0
    words: int = 32

    def recipe(self, **other):
        """The `LanguageModelRecipe`, with other settings of its own."""
        names = ("steps", "learning_rate", "batch", "length", "tune", "distill")
        own = {name: getattr(self, name) for name in names}
        return recipes.LanguageModelRecipe(**own, minutes=self.minutes or None, **other)


def tuned(settings, name, folder):
    """The weights of a tuned model, from its file or from its training."""
    path = folder / f"{name}.weights.h5"
    if path.is_file():
        return path
    model = load_model(FLAGS.model)
    text = Path(FLAGS.tune_text).read_text(encoding="utf-8")
    recipe = settings.recipe(**(CONTROL if name == "control" else {}))
    begin = time.monotonic()
    history = recipes.tune_language_model(
        model, recipes.tokens_of(model, text), recipe, folder / name
    )
    if hardware_kernels(model):
        to_digital(model)
    model.save_weights(path)
    told = {**history.history, "seconds": time.monotonic() - begin}
    write_json(folder / f"{name}.json", told)
    return path


def studied(settings, name, folder):
    """The finished `Study` of one of the models."""
    weights = None if name == "pretrained" else tuned(settings, name, folder)
    model = load_model(FLAGS.model, weights)
    windows = windows_of(model, FLAGS.text, settings.windows, settings.length)
    calibration = windows_of(
        model, FLAGS.tune_text, settings.calibration_windows, settings.length
    )
    (folder / name).mkdir(exist_ok=True)
    path = folder / name / "chips.json"
    known = {"model": FLAGS.model, "text": FLAGS.text}
    study = Study(
        model, windows, calibration, path, known, 0, settings.prompts, settings.words
    )
    study.run(settings.ways, settings.chips, [float(t) for t in settings.seconds])
    keras.backend.clear_session()
    return study


def table_of(settings, studies):
    """Perplexities of all models, and their ratios to the control in software."""
    table = Table(title="Perplexity, mean over chips (over the control in software)")
    for column in ("model", "software", "way", *(f"{t:g} s" for t in settings.seconds)):
        table.add_column(column)
    control = studies.get("control")
    unit = None if control is None else control.found["digital"]["perplexity"]
    for name, study in studies.items():
        software = _cell(study.found["digital"]["perplexity"], unit)
        for way in settings.ways:
            found = [study.estimate(way, float(t)) for t in settings.seconds]
            table.add_row(name, software, way, *(_cell(e.mean, unit) for e in found))
    return table


def _cell(value, unit):
    return f"{value:.4g}" + ("" if unit is None else f" ({value / unit:.2f})")


def _print_texts(name, found):
    """What a model, and its first chip at the latest time, made of the prompts."""
    console.print(
        f"[bold]{name}[/bold]", *found["digital"].get("texts", ()), sep="\n  "
    )
    for way, times in found["ways"].items():
        for t, chips in times.items():
            texts = chips["0"].get("texts", ())
            if texts:
                console.print(f"[bold]{name}, {way}, {t} s[/bold]", *texts, sep="\n  ")


def main(_):
    begin = time.monotonic()
    folder = Path(FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    given = {key: getattr(FLAGS, key) for key in ("steps", "minutes", "chips")}
    settings = presets.checked(
        "language_model", lambda: presets.read(PRESETS, FLAGS.preset, Settings, given)
    )
    studies = {}
    for name in FLAGS.models:
        studies[name] = presets.checked(
            "language_model", lambda name=name: studied(settings, name, folder)
        )
        console.print(table_of(settings, studies))
    for name, study in studies.items():
        _print_texts(name, study.found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{time.monotonic() - begin:.0f} s, {peak:.1f} GiB at the most.")


if __name__ == "__main__":
    app.run(main)
