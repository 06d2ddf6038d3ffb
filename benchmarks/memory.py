"""Memory of a language model, in bytes per weight, step by step.

    python -m benchmarks.memory [--sizes=small,mid] [--model=FOLDER] [--steps=chip,...]

Each step runs in a process of its own, on a Llama of keras-hub with random weights: the
small one has 6.5 M weights, the mid one 40 M; `--model` adds a pretrained one from a
folder. Before the step that is measured, a process goes through it once with a tiny
model, so that libraries and compilers have what they need. The figures are the largest
resident memory of the process, less what was resident before, over all weights of the
model. The steps are

- model: the model is made, and evaluates one sequence of 8 tokens;
- train: one step of Adam in plain Keras;
- noise: the same on hardware with PCM programming noise;
- circuits: the same with 8-bit DACs and ADCs too;
- bias: as noise, while nothing but normalization is trained;
- chip: the model is programmed on PCM, and evaluates at one year;
- export: such a chip is written as a SavedModel (TensorFlow).
"""

import gc
import os
import platform
import subprocess
import sys
import tempfile

from absl import app, flags

FLAGS = flags.FLAGS
SIZES = {
    "tiny": (2, 64, 1000),
    "small": (4, 256, 8000),
    "mid": (8, 512, 16000),
}
STEPS = ("model", "train", "noise", "circuits", "bias", "chip", "export")
flags.DEFINE_list("sizes", ["small", "mid"], f"Of {', '.join(SIZES)}.")
flags.DEFINE_string("model", None, "Folder of a pretrained model to measure as well.")
flags.DEFINE_list("steps", list(STEPS), f"Of {', '.join(STEPS)}.")
flags.DEFINE_bool("compile", True, "Whether a training step is one compiled graph.")
flags.DEFINE_string("measure", None, "Size or folder: measure in this process.")

YEAR = 365 * 86400.0


def build(size):
    """A Llama of one of the sizes, or the one of a folder."""
    import keras_hub

    if size not in SIZES:
        return keras_hub.models.CausalLM.from_preset(size, preprocessor=None)
    depth, dim, vocabulary = SIZES[size]
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=vocabulary,
        num_layers=depth,
        num_query_heads=8,
        num_key_value_heads=8,
        hidden_dim=dim,
        intermediate_dim=3 * dim,
        tie_word_embeddings=True,
    )
    return keras_hub.models.LlamaCausalLM(backbone, preprocessor=None)


def batch():
    import numpy as np

    tokens = np.arange(1, 9, dtype="int32")[None]
    return {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}, tokens


def train(model):
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(1e-4),
        loss,
        weighted_metrics=[],
        jit_compile=False,
        run_eagerly=not FLAGS.compile,
    )
    model.fit(*batch(), batch_size=1, verbose=0)


def on_hardware(model, circuits):
    import hwa_keras
    from hwa_keras.circuits import ADC, DAC

    parts = {"dac": DAC(8, 8.0), "adc": ADC(8, 8.0)} if circuits else {}
    hardware = hwa_keras.Hardware(kernel_noise="programming_noise", **parts)
    return hwa_keras.to_hwa(model, hardware=hardware, seed=0, verbose=0)


def run(step, size):
    """Go through a step; returns the model, so that all of it is alive till the end."""
    import hwa_keras

    model = build(size)
    if step in ("noise", "circuits", "bias"):
        on_hardware(model, circuits=step == "circuits")
    if step == "bias":
        for layer in model._flatten_layers():
            is_norm = "norm" in layer.name
            if not list(layer._flatten_layers(include_self=False)) and not is_norm:
                layer.trainable = False
    if step in ("train", "noise", "circuits", "bias"):
        train(model)
    elif step == "model":
        model(batch()[0], training=False)
    else:
        model = hwa_keras.program(model, "pcm", seed=0, verbose=0)
        if step == "chip":
            model.t = YEAR
            model(batch()[0], training=False)
        else:
            with tempfile.TemporaryDirectory() as folder:
                hwa_keras.export(model, f"{folder}/chip", verbose=0)
    return model


def resident():
    """The memory of this process that is resident now, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget_peak():
    """Have the largest resident memory counted from now on (on Linux)."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak():
    """The largest resident memory since then, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measured(step, size):
    """Print weights, bytes at the peak and bytes that stay, of one step."""
    run(step, "tiny")
    gc.collect()
    before = resident()
    forget_peak()
    model = run(step, size)
    top, kept = peak() - before, resident() - before
    del model
    print("memory:", build(size).count_params(), top, kept)


def main(_):
    if FLAGS.measure:
        measured(FLAGS.steps[0], FLAGS.measure)
        return
    if platform.system() != "Linux":
        raise app.UsageError("Peaks of single steps are read from Linux's /proc.")
    print(
        f"{'step':<10} {'model':<10} {'weights':>12} {'peak B/w':>9} {'stays B/w':>10}"
    )
    for size in [*FLAGS.sizes, *([FLAGS.model] if FLAGS.model else [])]:
        for step in FLAGS.steps:
            command = [sys.executable, "-m", "benchmarks.memory"]
            options = [f"--measure={size}", f"--steps={step}"]
            options += [f"--compile={FLAGS.compile}"]
            found = subprocess.run(
                [*command, *options], capture_output=True, text=True, check=False
            )
            lines = [x for x in found.stdout.splitlines() if x.startswith("memory:")]
            if not lines:
                raise SystemExit(f"{step} of {size} failed:\n{found.stderr[-2000:]}")
            weights, top, kept = map(int, lines[0].split()[1:])
            name = os.path.basename(size.rstrip("/"))
            print(
                f"{step:<10} {name:<10} {weights:>12,} {top / weights:>9.1f} "
                f"{kept / weights:>10.1f}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
