"""What examples/keyword_spotting.py trains, measures and puts on chips."""

import dataclasses
import time

import keras
import numpy as np

import hwa_keras
from hwa_keras.datasets import Dataset, load
from hwa_keras.datasets.fsdd import SPEAKERS
from hwa_keras.models import keyword_spotting
from hwa_keras.noise import SynapticMismatch
from hwa_keras.profile import SPIKING_DEVICES
from hwa_keras.recipes.runner import console
from hwa_keras.spiking import FilterBank
from hwa_keras.training import NoiseRamp, SilentLayers

LARGEST = 0.9  # The largest weight of a synapse.
MODELS = ("ideal", "quantized", "hardware")
BATCH = 300  # Clips that are evaluated at once.
# The front end is free of mismatch.
EXACT = [("frontend", SynapticMismatch(0.0, LARGEST))]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset must say; the file explains each key."""

    dataset: str
    words: int
    models: list[str]
    held_out: str
    train_clips: int
    test_clips: int
    dt: float
    hidden: int
    readout: str
    batch_size: int
    jit_compile: bool
    epochs: int
    learning_rate: float
    synaptic_std: float
    tau_std: float
    warm_up: float
    seeds: int
    chips: int
    levels: list[float]
    device: str

    def __post_init__(self):
        if self.dataset.split("/")[0] not in ("fsdd", "speech_commands"):
            raise ValueError(
                "`dataset` must be fsdd, fsdd/<speaker>, fsdd/each or speech_commands. "
                f"Received: {self.dataset}."
            )
        for key, values in {
            "readout": ("membrane", "count"),
            "held_out": ("test", "validation"),
            "device": tuple(SPIKING_DEVICES),
        }.items():
            if getattr(self, key) not in values:
                raise ValueError(f"`{key}` must be one of {', '.join(values)}.")
        if not {"hardware"} <= set(self.models) <= set(MODELS):
            raise ValueError(
                f"`models` must be among {', '.join(MODELS)}, and hardware one."
            )
        if self.batch_size > self.train_clips:
            raise ValueError("`batch_size` must not be above `train_clips`.")
        if self.synaptic_std <= 0 or self.tau_std < 0:
            raise ValueError("`synaptic_std` must be above 0, `tau_std` at least 0.")


def data_sets(name):
    """The data sets of a study: with `fsdd/each`, one for each speaker left out."""
    if name == "fsdd/each":
        return [f"fsdd/{speaker}" for speaker in SPEAKERS]
    return [name]


def features_of(data, settings):
    """What the filter bank makes of clips: a data set of `[clips, bins, channels]`.

    Of the first `words` classes alone, and, to choose a recipe by, with clips held out
    of the training ones in place of the test clips.
    """
    bank = FilterBank(data.sample_rate, dt=settings.dt)
    counts = settings.train_clips, settings.test_clips
    parts = []
    for (x, y), count in zip((data.train, data.test), counts, strict=True):
        [rows] = np.nonzero(y < settings.words)
        parts.append((x, y, np.random.default_rng(0).permutation(rows)[:count]))
    if settings.held_out == "validation":
        x, y, rows = parts[0]
        held = min(settings.test_clips, len(rows) // 5)
        parts = [(x, y, rows[held:]), (x, y, rows[:held])]
    features = [
        (np.asarray(bank.features(x[rows], sample_rate=data.sample_rate)), y[rows])
        for x, y, rows in parts
    ]
    return Dataset(data.name, *features, min(settings.words, data.num_classes))


def models_of(settings):
    """The arguments of the three models, by name."""
    mismatch = {"synaptic_std": settings.synaptic_std, "tau_std": settings.tau_std}
    known = {
        "ideal": {"quantized": False},
        "quantized": {"quantized": True},
        "hardware": {"quantized": True, **mismatch},
    }
    return {name: known[name] for name in MODELS if name in settings.models}


def network(data, settings, **arguments):
    """A compiled network whose channels have a mean of 1 over the training clips."""
    x = data.train[0]
    gain = 1 / np.maximum(x.mean((0, 1)), 1e-6)
    model = keyword_spotting(
        x.shape[-1],
        data.num_classes,
        settings.hidden,
        bins=x.shape[1],
        readout=settings.readout,
        gain=[float(each) for each in gain],
        dt=settings.dt,
        **arguments,
    )
    steps = len(x) // settings.batch_size * settings.epochs
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(schedule),
        loss,
        metrics=["accuracy"],
        jit_compile=settings.jit_compile,
    )
    return model


def trained(data, settings, arguments, seed):
    """A trained network, its accuracy in software, and the seconds it took."""
    start = time.monotonic()
    keras.utils.set_random_seed(seed)
    model = network(data, settings, **arguments)
    callbacks = [SilentLayers(data.train[0][:64])]
    if arguments.get("synaptic_std"):
        epochs = round(settings.warm_up * settings.epochs)
        callbacks.append(NoiseRamp(stop=1.0, epochs=epochs))
    # Whole batches only, so that one program is compiled.
    count = len(data.train[0]) // settings.batch_size * settings.batch_size
    x, y = (part[:count] for part in data.train)
    model.fit(
        x,
        y,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    accuracy = evaluated(model, data)
    return model, accuracy, time.monotonic() - start


def evaluated(model, data):
    found = model.evaluate(*data.test, batch_size=BATCH, verbose=0, return_dict=True)
    return found["accuracy"]


def design_of(model, data, settings):
    """The network that chips of a model are made from.

    Synapses of 5 bits, and leaks that differ from neuron to neuron.
    """
    design = network(data, settings, tau_std=settings.tau_std, hold=True)
    for own, learned in zip(
        design.trainable_variables, model.trainable_variables, strict=True
    ):
        own.assign(learned)
    return design


def on_chips(model, data, settings, seed):
    """Accuracies of the chips of a model at each level of mismatch."""
    design = design_of(model, data, settings)
    return [
        hwa_keras.monte_carlo(
            design,
            SynapticMismatch(level, LARGEST),
            data.test,
            chips=settings.chips,
            seed=1000 * seed,
            batch_size=BATCH,
            rules=EXACT,
            verbose=0,
        )
        .values(metric="accuracy")
        .tolist()
        for level in settings.levels
    ]


def energy_of(model, data, settings):
    """Synaptic operations and joules of one clip, a mean over the test clips."""
    found = hwa_keras.spiking_energy(
        model, data.test[0][:BATCH], settings.device, batch_size=BATCH
    )
    return {
        "synops": found.synops,
        "joules": found.joules,
        "frame_joules": found.frame_joules,
        "energy_source": found.assumptions[0],
    }


def compared(names, settings):
    """Train the three models on each data set with each seed, and measure them.

    Returns:
        The list of what was measured; the last network trained for hardware, and the
        features that it was trained on.
    """
    found = []
    for name in names:
        data = features_of(load(name), settings)
        for seed in range(settings.seeds):
            for kind, arguments in models_of(settings).items():
                model, accuracy, seconds = trained(data, settings, arguments, seed)
                row = {"model": kind, "dataset": name, "seed": seed}
                row |= {"software": accuracy, "seconds": seconds}
                row["chips"] = on_chips(model, data, settings, seed)
                found.append({**row, **energy_of(model, data, settings)})
                console.print(
                    f"{kind}, {name}, seed {seed}: {accuracy:.4f} in software, on "
                    "chips "
                    + ", ".join(f"{np.mean(values):.4f}" for values in row["chips"])
                    + f"; trained in {seconds:.0f} s."
                )
    return found, model, data


def write_chip(model, data, settings, out):
    """Make a chip, save and export it, and compare each artefact with it.

    Returns:
        A list of rows: the name of a file or folder, its bytes, and the largest
        difference of its outputs from the chip's.
    """
    chip = hwa_keras.program(
        design_of(model, data, settings),
        SynapticMismatch(settings.synaptic_std, LARGEST),
        seed=0,
        rules=EXACT,
        verbose=0,
    )
    chip.save(out / "chip.keras")
    x = data.test[0][:32]
    again = keras.models.load_model(out / "chip.keras")
    expected = chip.predict(x, verbose=0)
    found = [("chip.keras", np.abs(again.predict(x, verbose=0) - expected).max())]
    if keras.backend.backend() == "tensorflow":
        hwa_keras.export(chip, out / "chip", overwrite=True)
        hwa_keras.export_tflite(chip, out / "chip.tflite", overwrite=True)
        for name in ("chip", "chip.tflite"):
            found.append((name, hwa_keras.verify_export(out / name, chip, x, [1.0])))
    return [[name, _size(out / name), f"{off:.1e}"] for name, off in found]


def _size(path):
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return f"{sum(file.stat().st_size for file in files):,}"
