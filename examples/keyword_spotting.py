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

from pathlib import Path

import keyword_sections as sections
import keyword_studies as studies

from hwa_keras import datasets
from hwa_keras.recipes import runner

CONFIG = Path(__file__).parents[1] / "configs/keyword_spotting.yaml"


def study(run):
    settings = run.settings
    names = studies.data_sets(settings.dataset)
    with runner.reading(CONFIG.stem):
        datasets.load(names[0])
    found, model, data = studies.compared(names, settings)
    model.save(run.out / "hardware.keras")
    run.write_numbers(models=found)
    parts = {"accuracy": sections.accuracy_section(found, settings)}
    if len(names) > 1:
        parts["speakers"] = sections.speakers_section(found, settings)
    parts["activity"] = sections.activity_section(model, data)
    files = studies.write_chip(model, data, settings, run.out)
    parts["files"] = sections.files_section(files)
    run.write_report(f"Spoken words on spiking chips: {settings.dataset}", parts)


if __name__ == "__main__":
    runner.main(study, studies.Settings, CONFIG)
