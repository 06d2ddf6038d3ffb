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

import time
from pathlib import Path

from absl import app, flags
from language_study import Study
from language_texts import load_model, windows_of
from language_ways import ways_of

from hwa_keras.recipes import runner
from hwa_keras.recipes.runner import console


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
    parts = model, windows, calibration, path, settings
    study = Study(*parts, values.seed, values.prompt, values.words)
    return study, names, times


def main(_):
    values = flags.FLAGS
    begin = time.monotonic()
    runner.quiet()
    with runner.reading("language_chips"):
        study, names, times = study_of_flags(values)
    console.print(f"In software: {study.found['digital']['perplexity']:.2f}")
    study.run(names, values.chips, times)
    console.print(study.table(times))
    console.print(f"{time.monotonic() - begin:.0f} s.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
