"""A pretrained language model that survives drift: tuning under the noise of a chip."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hwa_keras import devices, noise, training
from hwa_keras.circuits.hardware import Hardware
from hwa_keras.constraints import HistogramClip
from hwa_keras.conversion import to_hwa
from hwa_keras.core.checks import check_choice, check_count, check_positive
from hwa_keras.core.kernels import hardware_kernels
from hwa_keras.core.types import ArrayLike, PathLike
from hwa_keras.results import write_text

__all__ = ["LanguageModelRecipe", "tokens_of", "tune_language_model"]

_EPOCH = 10  # Updates between two lines of the log.
_MINUTES = 5.0  # Between two checkpoints.


def _pcm_for_a_year():
    device = devices.PCM(per="column")
    drift = noise.DriftNoise(device, compensation="measured_columns")
    return Hardware(kernel_noise=drift, device=device)


@dataclasses.dataclass(frozen=True)
class LanguageModelRecipe:
    """How a language model is tuned under the noise of a chip.

    Every step reads all kernels as a chip would hold them, at an age of its own between
    a second and a year, after compensation, and the gradient passes straight through.

    Args:
        hardware: A `Hardware` with the noise of training, or None for plain tuning: a
            control. Defaults to `DriftNoise` of PCM with a range per column and gains
            per column.
        clip: Float > 0, the largest weight of a column in its standard deviations, or
            None: pretrained models have outliers that carry them. Defaults to `None`.
        ramp: Integer ≥ 0, steps over which the noise grows to its strength. Defaults to
            `0`.
        learning_rate: Float > 0, the peak; see `training.Budget`. Defaults to `1e-4`.
        steps: Integer, the most updates. Defaults to `600`.
        minutes: Float, the most time without compilation, or None. Defaults to `None`.
        batch: Integer, windows of a step. Defaults to `2`.
        length: Integer, tokens of a window. Defaults to `256`.
        accumulate: Integer, steps whose gradients make one update. Defaults to `1`.
        tune: `"all"` weights; `"lora"`, low-rank additions to the attention's kernels;
            or `"vectors"`, the scales and biases alone. Defaults to `"all"`.
        rank: Integer, the rank of the additions. Defaults to `8`.
        distill: Float in [0, 1], the share of the loss that is the distance to what
            the model said before it was tuned. Defaults to `0.0`.
        top_k: Integer, most likely tokens of that to keep. Defaults to `64`.
        seed: Integer, of noise and order. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    hardware: Any = dataclasses.field(default_factory=_pcm_for_a_year)
    clip: float | None = None
    ramp: int = 0
    learning_rate: float = 1e-4
    steps: int = 600
    minutes: float | None = None
    batch: int = 2
    length: int = 256
    accumulate: int = 1
    tune: str = "all"
    rank: int = 8
    distill: float = 0.0
    top_k: int = 64
    seed: int = 0

    def __post_init__(self):
        counts = ("steps", "batch", "length", "accumulate", "rank", "top_k")
        for name in counts:
            check_count("LanguageModelRecipe", **{name: getattr(self, name)})
        check_count("LanguageModelRecipe", least=0, ramp=self.ramp, seed=self.seed)
        check_positive("LanguageModelRecipe", learning_rate=self.learning_rate)
        for name in ("clip", "minutes"):
            if getattr(self, name) is not None:
                check_positive("LanguageModelRecipe", **{name: getattr(self, name)})
        check_choice("LanguageModelRecipe", ("all", "lora", "vectors"), tune=self.tune)
        if not 0 <= self.distill <= 1:
            raise ValueError(
                "`distill` of LanguageModelRecipe must be in [0, 1]. Received: "
                f"distill={self.distill!r}."
            )


def tokens_of(model: Any, text: str) -> np.ndarray:
    """The tokens of a text, by the tokenizer of a keras-hub `CausalLM`.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        text: String.

    Returns:
        An `int32` array `[tokens]`.

    Raises:
        ValueError: If the model has no tokenizer, or its vocabulary is not the model's.
    """
    tokenizer = getattr(getattr(model, "preprocessor", None), "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            f"'{model.name}' has no preprocessor with a tokenizer. Give tokens, an "
            "array of integers, or load the model with its preprocessor: "
            "CausalLM.from_preset(folder)."
        )
    tokens = np.asarray(tokenizer(text), "int32")
    embedded = model.backbone.token_embedding.input_dim
    known = tokenizer.vocabulary_size()
    if known > embedded or tokens.max(initial=0) >= embedded:
        raise ValueError(
            f"The tokenizer of '{model.name}' knows {known:,} tokens, and the model "
            f"embeds {embedded:,}: they belong to different models."
        )
    return tokens


def tune_language_model(
    model: Any,
    tokens: ArrayLike,
    recipe: "LanguageModelRecipe | None" = None,
    folder: PathLike | None = None,
    verbose: int | str = 1,
) -> keras.callbacks.History:
    """Tune a language model, on hardware or plainly.

    Args:
        model: A keras-hub `CausalLM`. It is converted and trained in place.
        tokens: Integer array, the text to train on; see `tokens_of`.
        recipe: A `LanguageModelRecipe`, or None for the default.
        folder: Path of a folder for checkpoints, or None. A tuning that was cut short
            goes on there from its last checkpoint.
        verbose: As in `fit`. Defaults to `1`.

    Returns:
        The `History` of Keras: `loss` and `per_second`, tokens in a second, over
        epochs of ten steps.

    Raises:
        ValueError: If the text is shorter than a window, or the checkpoint belongs to
            another recipe.

    Example:
        A model of keras-hub, and a chip that is a year old:

        ```python
        model = keras_hub.models.CausalLM.from_preset("smollm2")
        tokens = hwa_keras.recipes.tokens_of(model, text)
        recipe = hwa_keras.recipes.LanguageModelRecipe(minutes=30)
        hwa_keras.recipes.tune_language_model(model, tokens, recipe)
        chip = hwa_keras.program(model, None, seed=0)  # The device of the recipe.
        chip.t = 365 * 86_400.0
        print(chip.generate("The history of science is", max_length=32))
        ```

    Reference:
        - Büchel et al., 2025, arXiv:2505.09663, on clipping and noise; the age of the
          chip as a random number is this package's own.
    """
    recipe = recipe or LanguageModelRecipe()
    count = recipe.steps * recipe.accumulate * recipe.batch
    x, y = shuffled_windows(tokens, count, recipe.length, recipe.seed)
    if recipe.distill:
        y = _with_teacher(model, x, y, recipe.top_k)
    prepare(model, recipe)
    callbacks, budget = _callbacks(recipe, folder)
    if budget.step and folder is not None:
        model.optimizer.build(model.trainable_variables)  # So that it is loaded too.
        model.load_weights(Path(folder) / Checkpoints.weights(budget.step))
    done = budget.step * recipe.batch
    # What the text's own preprocessing would be done to are tokens already.
    return keras.Model.fit(
        model,
        as_inputs(x[done:]),
        y[done:],
        batch_size=recipe.batch,
        shuffle=False,
        epochs=math.ceil(recipe.steps / _EPOCH),
        initial_epoch=budget.step // (_EPOCH * recipe.accumulate),
        steps_per_epoch=_EPOCH * recipe.accumulate,
        callbacks=callbacks,
        verbose=verbose,
    )


def prepare(model, recipe):
    """Put a model on the hardware of a recipe and compile it for its training."""
    if recipe.hardware is not None and not hardware_kernels(model):
        to_hwa(model, hardware=recipe.hardware, seed=recipe.seed, verbose=0)
    if recipe.tune == "lora":
        model.backbone.enable_lora(recipe.rank)
    if recipe.tune == "vectors":
        for variable in model.trainable_variables:
            variable.trainable = len(variable.shape) < 2
    accumulate = recipe.accumulate if recipe.accumulate > 1 else None
    loss = training.TopKDistillation(recipe.distill)
    if not recipe.distill:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(
        recipe.learning_rate, gradient_accumulation_steps=accumulate, clipnorm=1.0
    )
    # XLA would compile the whole step for minutes; the kernels have it in any case.
    is_jax = keras.backend.backend() == "jax"
    model.compile(
        optimizer=optimizer, loss=loss, weighted_metrics=[], jit_compile=is_jax
    )


def shuffled_windows(tokens, count, length, seed=0):
    """Windows of a text, and the same one token later.

    Each pass over the text begins at a random token, so that its windows are cut at
    other places, and takes them in random order.

    Args:
        tokens: Integer array `[tokens]`.
        count: Integer, windows wanted.
        length: Integer, tokens of a window.
        seed: Integer. Defaults to `0`.

    Returns:
        A pair of `int32` arrays `[count, length]`.

    Raises:
        ValueError: If the text is shorter than a window and its next token.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or len(tokens) < length + 1:
        raise ValueError(
            f"A window of {length} tokens and the next one need a text of {length + 1}."
            f" Received: tokens of shape {tokens.shape}."
        )
    rng = np.random.default_rng(seed)
    starts: list[int] = []
    while len(starts) < count:
        slack = (len(tokens) - 1) % length if len(tokens) < 2 * length else length - 1
        first = rng.integers(slack + 1)
        passed = np.arange(first, len(tokens) - length, length)
        starts += rng.permutation(passed).tolist()
    windows = np.stack([tokens[s : s + length + 1] for s in starts[:count]])
    return windows[:, :-1].astype("int32"), windows[:, 1:].astype("int32")


def as_inputs(tokens):
    """The inputs of a keras-hub backbone for windows without padding."""
    return {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}


def _with_teacher(model, x, y, k):
    """Targets with the most likely tokens of a model, window by window."""
    found = [
        training.with_top_k(
            targets[None], keras.Model.predict_on_batch(model, as_inputs(w[None])), k
        )
        for w, targets in zip(x, y, strict=True)
    ]
    return np.concatenate(found)


def _callbacks(recipe, folder):
    """The callbacks of a tuning, and the budget among them."""
    saves = [] if folder is None else [Checkpoints(folder, recipe)]
    budget = training.Budget(
        recipe.learning_rate,
        recipe.steps * recipe.accumulate,
        recipe.minutes,
        per_step=recipe.batch * recipe.length,
        done=saves[0].done() if saves else (0, 0.0),
    )
    found = [budget]
    if recipe.clip is not None:
        clip = HistogramClip(recipe.clip, per="column")
        found.append(training.ConstrainKernels(clip))
    if recipe.hardware is not None and recipe.hardware.kernel_noise is not None:
        epochs = math.ceil(recipe.ramp / _EPOCH)
        found.append(training.NoiseRamp(0.0, 1.0, epochs=epochs))
    for each in saves:
        each.budget = budget
    return [*found, *saves], budget


class Checkpoints(keras.callbacks.Callback):
    """Saves weights, optimizer and what is used of a budget, every few minutes.

    Args:
        folder: Path of a folder, which is made.
        recipe: The `LanguageModelRecipe`, to which the checkpoint belongs.

    Raises:
        ValueError: If the folder holds a checkpoint of another recipe.
    """

    def __init__(self, folder, recipe):
        super().__init__()
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.recipe = repr(recipe)
        self.budget: Any = None
        self._saved = 0.0

    def done(self):
        """Steps and seconds of the checkpoint in the folder, or zeros."""
        path = self.folder / "tuning.json"
        if not path.is_file():
            return 0, 0.0
        state = json.loads(path.read_text("utf-8"))
        if state["recipe"] != self.recipe:
            raise ValueError(
                f"{path} belongs to another tuning, {state['recipe']}. Take another "
                f"folder, or remove it. Received: {self.recipe}."
            )
        self._saved = state["seconds"]
        return state["steps"], state["seconds"]

    def on_epoch_end(self, epoch, logs=None):
        if self.budget.seconds - self._saved >= 60.0 * _MINUTES:
            self.save()

    @staticmethod
    def weights(step):
        """The name of the file of weights and optimizer after a step."""
        return f"tuning_{step}.weights.h5"

    def save(self):
        """Write a checkpoint, and remove the one before."""
        self._saved = self.budget.seconds
        before = list(self.folder.glob(self.weights("*")))
        self.model.save_weights(self.folder / self.weights(self.budget.step))
        state = {
            "recipe": self.recipe,
            "steps": self.budget.step,
            "seconds": self._saved,
        }
        write_text(self.folder / "tuning.json", json.dumps(state))
        for path in before:
            path.unlink()
