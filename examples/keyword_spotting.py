"""Keyword spotting with spikes: what training for mismatch is worth on chips.

Trains three spiking networks on spoken words: an ideal one, one with synapses of 5
bits, and one that has mismatch in training too. All of them go on the same kind of
chip, at several levels of mismatch. Writes tables, rasters and membranes to a page.

    python examples/keyword_spotting.py --preset=smoke
    python examples/keyword_spotting.py --preset=small --out=runs/keyword_spotting
    python examples/keyword_spotting.py --preset=small --dataset=fsdd/theo

Presets are in configs/keyword_spotting.yaml; flags go before them.
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import dataclasses
import json
import time
from pathlib import Path

import keyword_studies as studies
import presets
from absl import app, flags, logging
from files import write_text
from study import console, show

from hwa_keras.analysis import report

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
flags.DEFINE_enum("preset", "smoke", ["smoke", "small", "paper"], "How large a run.")
flags.DEFINE_string(
    "config", str(ROOT / "configs/keyword_spotting.yaml"), "File of the presets."
)
flags.DEFINE_string("out", "runs/keyword_spotting", "Folder for all that is written.")
# Left out, these are what the preset says.
OVERRIDES = ("dataset", "readout", "epochs", "seeds", "chips")
flags.DEFINE_string(
    "dataset", None, "fsdd, fsdd/<speaker who is left out>, or speech_commands."
)
flags.DEFINE_enum("readout", None, ["membrane", "count"], "What a word's score is.")
flags.DEFINE_integer("epochs", None, "Epochs of each training.", 1)
flags.DEFINE_integer("seeds", None, "Trainings of each model.", 1)
flags.DEFINE_integer("chips", None, "Chips for each accuracy.", 2)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; the file explains each key."""

    dataset: str
    train_clips: int
    test_clips: int
    hidden: int
    readout: str
    batch_size: int
    epochs: int
    learning_rate: float
    synaptic_std: float
    tau_std: float
    warm_up: float
    seeds: int
    chips: int
    levels: list

    def __post_init__(self):
        speech = self.dataset.split("/")[0] in ("fsdd", "speech_commands")
        if not speech:
            raise ValueError(
                f"`dataset` must be fsdd, fsdd/<speaker> or speech_commands. Received: "
                f"{self.dataset}."
            )
        if self.readout not in ("membrane", "count"):
            raise ValueError("`readout` must be one of membrane, count.")
        if self.batch_size > self.train_clips:
            raise ValueError("`batch_size` must not be above `train_clips`.")
        if self.synaptic_std <= 0 or self.tau_std < 0:
            raise ValueError("`synaptic_std` must be above 0, `tau_std` at least 0.")


def main(_):
    start = time.monotonic()
    logging.set_verbosity(logging.WARNING)
    overrides = {key: FLAGS[key].value for key in OVERRIDES}
    settings = presets.checked(
        "keyword_spotting",
        lambda: presets.read(FLAGS.config, FLAGS.preset, Settings, overrides),
    )
    data, out = presets.begin("keyword_spotting", settings.dataset, FLAGS.out)
    data = studies.features_of(data, settings)
    found, model = studies.compared(data, settings)
    sections = [
        studies.accuracy_section(found, settings),
        studies.activity_section(model, data),
    ]
    for section in sections:
        show(section)
    model.save(out / "hardware.keras")
    used = {"preset": FLAGS.preset, **dataclasses.asdict(settings)}
    seconds = time.monotonic() - start
    content = {"settings": used, "seconds": seconds, "models": found}
    write_text(out / "results.json", json.dumps(content, indent=1))
    title = f"Spoken words on spiking chips: {settings.dataset}"
    report(out / "report.html", title, settings=used, sections=sections)
    console.print(f"Written to {out}. Done in {seconds:.0f} s.")


if __name__ == "__main__":
    app.run(main)
