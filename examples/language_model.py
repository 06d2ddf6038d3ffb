"""A pretrained language model that is tuned to survive a year on phase-change memory.

Compares the pretrained model, one that is tuned under the noise of chips of every age,
and a control, tuned as long without noise: their perplexity on another text, in
software and on chips, and how they continue prompts. Ratios are to the control.

    python examples/language_model.py --model=FOLDER --tune_text=FILE --text=FILE
"""

import dataclasses
import time
from pathlib import Path

import keras
from language_study import Study, compared, print_texts
from language_texts import load_model, windows_of

from hwa_keras import hardware_kernels, recipes, to_digital
from hwa_keras.recipes import runner
from hwa_keras.results import write_json

CONFIG = Path(__file__).parents[1] / "configs/language_model.yaml"


@dataclasses.dataclass(frozen=True)
class Settings:
    """A preset; see `recipes.LanguageModelRecipe` and `language_ways.ways_of`."""

    model: str  # The folder of the pretrained model.
    tune_text: str
    text: str
    steps: int
    learning_rate: float
    batch: int
    length: int
    chips: int
    windows: int
    calibration_windows: int
    ways: list[str]
    seconds: list[float]
    prompts: list[str]
    models: list[str]
    minutes: float = 0.0  # Of each tuning; 0 is no limit.
    tune: str = "all"
    distill: float = 0.0
    words: int = 32

    def recipe(self, name):
        """The `LanguageModelRecipe` of one of the models."""
        plain = {"hardware": None, "clip": None} if name == "control" else {}
        keys = ("steps", "learning_rate", "batch", "length", "tune", "distill")
        own = {key: getattr(self, key) for key in keys}
        return recipes.LanguageModelRecipe(**own, minutes=self.minutes or None, **plain)


def tuned(settings, name, folder):
    """The weights of a tuned model, from its file or from its training."""
    path = folder / f"{name}.weights.h5"
    if path.is_file():
        return path
    model = load_model(settings.model)
    tokens = recipes.tokens_of(model, Path(settings.tune_text).read_text("utf-8"))
    recipe = settings.recipe(name)
    begin = time.monotonic()
    history = recipes.tune_language_model(model, tokens, recipe, folder / name)
    if hardware_kernels(model):
        to_digital(model)
    model.save_weights(path)
    told = {**history.history, "seconds": time.monotonic() - begin}
    write_json(folder / f"{name}.json", told)
    return path


def studied(settings, name, folder):
    """The finished `Study` of one of the models."""
    weights = None if name == "pretrained" else tuned(settings, name, folder)
    model = load_model(settings.model, weights)
    windows = windows_of(model, settings.text, settings.windows, settings.length)
    count = settings.calibration_windows
    calibration = windows_of(model, settings.tune_text, count, settings.length)
    path = folder / name / "chips.json"
    known = {"model": settings.model, "text": settings.text}
    texts = 0, settings.prompts, settings.words
    study = Study(model, windows, calibration, path, known, *texts)
    study.run(settings.ways, settings.chips, [float(t) for t in settings.seconds])
    keras.backend.clear_session()
    return study


def study(run):
    settings, studies = run.settings, {}
    for name in settings.models:
        with runner.reading(CONFIG.stem):
            studies[name] = studied(settings, name, run.out)
        runner.console.print(compared(studies, settings.ways, settings.seconds))
    print_texts(studies)


if __name__ == "__main__":
    runner.main(study, Settings, CONFIG)
