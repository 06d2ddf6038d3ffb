"""Time of a tuning step of a pretrained language model on hardware, over a plain one.

    python -m benchmarks.language_step --model=FOLDER

FOLDER is what `keras_hub.models.CausalLM.from_preset` reads. The full recipe has
`DriftNoise` of PCM with a range per column, and 8-bit DACs and ADCs on tiles of
512 × 512: with input ranges that are learned, and with one for each token.
"""

import dataclasses
import statistics
import time

import keras
import keras_hub
import numpy as np
from absl import app, flags

from benchmarks import measure
from hwa_keras.circuits import ADC, DAC
from hwa_keras.recipes import LanguageModelRecipe, language_model

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Folder of a pretrained model.", required=True)
flags.DEFINE_integer("batch", 2, "Windows of a step.", 1)
flags.DEFINE_integer("length", 256, "Tokens of a window.", 2)
flags.DEFINE_list("rows", [], "Which rows, after the plain one; all by default.")
flags.DEFINE_integer("steps", 5, "Steps that are timed, after two.", 1)


def rows():
    """{what: the hardware of the recipe, or None for plain tuning}."""
    noisy = LanguageModelRecipe().hardware
    converters = {
        f"noise+{name}": dataclasses.replace(
            noisy,
            dac=DAC(8, range=name),
            adc=ADC(8, range=0.02, relative_to="full_column"),
            tile=(512, 512),
        )
        for name in ("learned", "vector_max")
    }
    return {"plain": None, "noise": noisy, **converters}


def step_time(hardware):
    """The median seconds of a step, and those of the first."""
    model = keras_hub.models.CausalLM.from_preset(FLAGS.model)
    recipe = LanguageModelRecipe(
        hardware=hardware, batch=FLAGS.batch, length=FLAGS.length
    )
    language_model.prepare(model, recipe)
    vocabulary = model.backbone.token_embedding.input_dim
    count = FLAGS.batch * FLAGS.length
    tokens = np.random.default_rng(0).integers(0, vocabulary, count + 1)
    x, y = (part.reshape(FLAGS.batch, -1) for part in (tokens[:-1], tokens[1:]))
    inputs = language_model.as_inputs(x)
    taken = []
    for _ in range(FLAGS.steps + 2):
        begin = time.perf_counter()
        keras.Model.train_on_batch(model, inputs, y)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[2:]), taken[0]


def main(_):
    print(measure.describe())
    print(f"{'what':16s} {'step s':>8s} {'ratio':>6s} {'bound':>6s} {'first s':>8s}")
    plain = None
    for what, hardware in rows().items():
        if FLAGS.rows and what not in ("plain", *FLAGS.rows):
            continue
        step, first = step_time(hardware)
        plain = plain or step
        bound = "" if hardware is None else "1.3"
        ratio = step / plain
        print(f"{what:16s} {step:8.2f} {ratio:6.2f} {bound:>6s} {first:8.1f}")
        keras.backend.clear_session()


if __name__ == "__main__":
    app.run(main)
