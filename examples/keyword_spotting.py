"""Keyword spotting with spikes: what training for mismatch is worth on chips.

Trains three spiking networks on spoken words: an ideal one, one with synapses of 5
bits, and one that has mismatch in training too. All of them go on the same kind of
chip, at several levels of mismatch. Writes tables, rasters and membranes to a page.

    python examples/keyword_spotting.py --preset=smoke
    python examples/keyword_spotting.py --preset=small --out=runs/keyword_spotting
    python examples/keyword_spotting.py --preset=small --dataset=fsdd/theo
    python examples/keyword_spotting.py --preset=small --dataset=fsdd/each --seeds=1

The last leaves out each speaker in turn. Presets are in configs/keyword_spotting.yaml;
flags go before them. To choose a recipe, --held_out=validation measures on clips that
are taken from the training ones, and leaves the test clips alone.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import time
from pathlib import Path

import keyword_sections as sections
import keyword_studies as studies
import presets
from absl import app, flags, logging
from study import console, show

from hwa_keras.results import report, write_json

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_enum("preset", "smoke", ["smoke", "small", "paper"], "How large a run.")
flags.DEFINE_string(
    "config", str(ROOT / "configs/keyword_spotting.yaml"), "File of the presets."
)
flags.DEFINE_string("out", "runs/keyword_spotting", "Folder for all that is written.")
# Left out, these are what the preset says.
OVERRIDES = (
    "dataset",
    "words",
    "models",
    "held_out",
    "readout",
    "epochs",
    "seeds",
    "chips",
)
flags.DEFINE_string(
    "dataset", None, "fsdd, fsdd/<speaker left out>, fsdd/each, or speech_commands."
)
flags.DEFINE_integer("words", None, "How many of the words to tell apart.", 2)
flags.DEFINE_list("models", None, "ideal, quantized, and always hardware.")
flags.DEFINE_enum("held_out", None, ["test", "validation"], "What to measure on.")
flags.DEFINE_enum("readout", None, ["membrane", "count"], "What a word's score is.")
flags.DEFINE_integer("epochs", None, "Epochs of each training.", 1)
flags.DEFINE_integer("seeds", None, "Trainings of each model.", 1)
flags.DEFINE_integer("chips", None, "Chips for each accuracy.", 2)


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    settings = presets.checked(
        "keyword_spotting",
        lambda: presets.read(FLAGS.config, FLAGS.preset, studies.Settings, overrides),
    )
    names = studies.data_sets(settings.dataset)
    _, out = presets.begin("keyword_spotting", names[0], FLAGS.out)
    found, model, data = studies.compared(names, settings)
    model.save(out / "hardware.keras")
    used = {"preset": FLAGS.preset, **dataclasses.asdict(settings)}
    seconds = time.monotonic() - start
    content = {"settings": used, "seconds": seconds, "models": found}
    write_json(out / "results.json", content)
    parts = [
        sections.accuracy_section(found, settings),
        *([sections.speakers_section(found, settings)] if len(names) > 1 else []),
        sections.activity_section(model, data),
        sections.files_section(studies.write_chip(model, data, settings, out)),
    ]
    for part in parts:
        show(part)
    title = f"Spoken words on spiking chips: {settings.dataset}"
    report(out / "report.html", title, settings=used, sections=parts)
    console.print(f"Written to {out}. Done in {seconds:.0f} s.")


if __name__ == "__main__":
    app.run(main)
