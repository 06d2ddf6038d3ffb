"""How examples/search_crossbar.py makes the networks that a search has found."""

import keras
import numpy as np
from keras import ops

import hwa_keras
from hwa_keras.core.replica import replicate
from hwa_keras.recipes import classifier
from hwa_keras.recipes.runner import cell, console
from hwa_keras.results import Section


def made(result, objective, images, settings, out):
    """The best networks: tuned under noise, programmed, followed, exported."""
    size = objective.space.resolution[-1]
    images = {name: resized(images[name], size) for name in ("train", "test")}
    rows, numbers = [], []
    for i, solution in enumerate(result.best(settings.best)):
        candidate = solution.candidate
        model = objective.extract(candidate)
        compiled(model, settings.tune_rate)
        software = accuracy(model, images["test"])
        crossbar = objective.crossbar(candidate)
        before = on_chips(model, crossbar, images, settings)
        tuned = tune(model, crossbar, images, settings)
        after = on_chips(tuned, crossbar, images, settings)
        drift = hwa_keras.drift_sweep(
            tuned,
            "pcm",
            images["test"],
            chips=settings.chips,
            compensation="measured",
            verbose=0,
        )
        drift.to_json(out / f"network_{i}_drift.json")
        tuned.save(out / f"network_{i}.keras")
        chip = hwa_keras.program(tuned, "pcm", seed=0, verbose=0)
        if keras.backend.backend() == "tensorflow":
            path = out / f"network_{i}.tflite"
            hwa_keras.export_tflite(chip, path, overwrite=True, verbose=0)
        year = drift.values("measured", "1 year")
        power = solution.values["power"]
        rows.append(
            [
                " ".join(map(str, candidate.config.values())),
                f"{power:.4g}",
                f"{software:.4f}",
                *map(cell, (before, after, year)),
            ]
        )
        numbers.append(
            {
                **solution.to_dict(),
                "software": software,
                "crossbar": before.tolist(),
                "crossbar_tuned": after.tolist(),
                "pcm_year": year.tolist(),
            }
        )
        console.print(f"Network {i + 1} of {settings.best} is made.")
    choices = ", ".join(result.front[0].candidate.config)
    text = (
        f"Networks of M2, by {choices}. On crossbars with the ranges found, before and "
        f"after {settings.tune_epochs} epochs under noise, then on PCM after a year "
        f"with measured compensation; {settings.chips} chips each."
    )
    columns = ["network", "power", "software", "crossbar", "tuned", "PCM, a year"]
    return Section("Networks that were made", text, columns, rows), numbers


def resized(data, size):
    """Images as the supernet sees them, with their labels."""
    x, y = data
    if x.shape[1] == size:
        return data
    parts = [
        ops.convert_to_numpy(
            ops.image.resize(x[i : i + 1000], (size, size), data_format="channels_last")
        )
        for i in range(0, len(x), 1000)
    ]
    return np.concatenate(parts), y


def compiled(model, rate):
    """Compile a classifier that ends in logits."""
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer, **classifier.classification())


def accuracy(model, data):
    """The accuracy in software."""
    return model.evaluate(*data, verbose=0, return_dict=True)["accuracy"]


def on_chips(model, crossbar, images, settings):
    """Accuracies of chips of a plain model on crossbars."""
    converted = hwa_keras.to_hwa(replicate(model), hardware=crossbar, verbose=0)
    compiled(converted, settings.tune_rate)
    found = hwa_keras.monte_carlo(
        converted, None, images["test"], chips=settings.chips, verbose=0
    )
    return found.values(metric="accuracy")


def tune(model, crossbar, images, settings):
    """A plain model, trained further with the noise of the crossbars."""
    converted = hwa_keras.to_hwa(replicate(model), hardware=crossbar, seed=0, verbose=0)
    compiled(converted, settings.tune_rate)
    keras.utils.set_random_seed(0)
    x, y = images["train"]
    converted.fit(
        x, y, batch_size=settings.batch_size, epochs=settings.tune_epochs, verbose=0
    )
    plain = hwa_keras.to_digital(converted)
    compiled(plain, settings.tune_rate)
    return plain
