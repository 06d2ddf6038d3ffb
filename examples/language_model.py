"""A pretrained language model on phase-change memory, a second and a year later.

The model is read from a folder in Hugging Face's format, its kernels are programmed to
one simulated chip, and at each time the chip's perplexity on a text is measured and a
sentence is continued.

    python examples/language_model.py --model=FOLDER --text=wikitext2/test.txt
    python examples/language_model.py --model=FOLDER --text=FILE --windows=1
"""

import quiet  # noqa: F401, first of all: silences what TensorFlow says at its import

# isort: split
import json
import resource
import time
from pathlib import Path

import keras
import keras_hub
import numpy as np
from absl import app, flags
from files import write_text
from rich.console import Console
from rich.table import Table

import hwa_keras

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Folder of the pretrained model.", required=True)
flags.DEFINE_string("text", None, "Text file to evaluate on.", required=True)
flags.DEFINE_string("out", "runs/language_model", "Folder for what is written.")
flags.DEFINE_integer("windows", 4, "Windows of the text to evaluate on.", 1)
flags.DEFINE_integer("length", 256, "Tokens in a window.", 2)
flags.DEFINE_integer("seed", 0, "Seed of the chip.", 0)
flags.DEFINE_enum("read_noise", "frozen", ["frozen", "off"], "Noise of reading.")
flags.DEFINE_string("prompt", "The history of science is", "What to continue.")
flags.DEFINE_integer("words", 24, "Tokens of prompt and continuation together.", 2)
flags.DEFINE_list("seconds", ["1", "86400", "31536000"], "Times to look at the chip.")

console = Console()


def windows_of(model, path):
    """The first tokens of a text as inputs, and as targets one token later."""
    tokens = np.array(model.preprocessor.tokenizer(Path(path).read_text("utf-8")))
    wanted = FLAGS.windows * FLAGS.length
    if len(tokens) < wanted + 1:
        raise app.UsageError(
            f"--text={path} has {len(tokens)} tokens, and {FLAGS.windows} windows of "
            f"{FLAGS.length} need {wanted + 1}. Take fewer or shorter windows."
        )
    shape = FLAGS.windows, FLAGS.length
    return tokens[:wanted].reshape(shape), tokens[1 : wanted + 1].reshape(shape)


def perplexity(model, x, y):
    """exp of the mean loss of the targets, window by window."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = []
    for tokens, targets in zip(x, y, strict=True):
        inputs = {
            "token_ids": tokens[None],
            "padding_mask": np.ones((1, len(tokens)), "int32"),
        }
        losses.append(float(loss(targets[None], model(inputs, training=False))))
    return float(np.exp(np.mean(losses)))


def look(chip, x, y):
    """What a chip makes of text at the time that it stands at."""
    row = {"seconds": chip.t}
    for compensation in ("none", "measured"):
        chip.compensation = compensation
        row[compensation] = perplexity(chip, x, y)
    row["text"] = chip.generate(FLAGS.prompt, max_length=FLAGS.words)
    return row


def main(_):
    start = time.monotonic()
    out = Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    model = keras_hub.models.CausalLM.from_preset(FLAGS.model)
    model.compile(sampler="greedy")
    x, y = windows_of(model, FLAGS.text)
    found: dict = {"digital": perplexity(model, x, y), "times": []}
    found["text"] = model.generate(FLAGS.prompt, max_length=FLAGS.words)
    console.print(f"Digital: perplexity {found['digital']:.1f}. {found['text']}")

    begin = time.monotonic()
    device = hwa_keras.devices.PCM(per="column")
    chip = hwa_keras.program(
        model, device, seed=FLAGS.seed, read_noise=FLAGS.read_noise
    )
    found["programming_seconds"] = time.monotonic() - begin
    console.print(f"Programmed in {found['programming_seconds']:.1f} s.")
    table = Table("time (s)", "none", "measured", "continued", title=f"{device}")
    for seconds in map(float, FLAGS.seconds):
        chip.t = seconds
        row = look(chip, x, y)
        found["times"].append(row)
        numbers = (f"{row[name]:.1f}" for name in ("none", "measured"))
        table.add_row(f"{seconds:g}", *numbers, row["text"])
        found["seconds"] = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["peak_gib"] = peak / 2**20  # Linux counts in KiB.
        write_text(out / "results.json", json.dumps(found, indent=1))
    console.print(table)
    console.print(f"{found['seconds']:.0f} s, {found['peak_gib']:.1f} GiB at the most.")


if __name__ == "__main__":
    app.run(main)
