"""What examples/keyword_spotting.py trains, puts on chips and shows."""

import time

import keras
import numpy as np
from matplotlib.figure import Figure
from study import cell, console

import hwa_keras
from hwa_keras.analysis import Section
from hwa_keras.datasets import Dataset
from hwa_keras.models import keyword_spotting
from hwa_keras.noise import SynapticMismatch
from hwa_keras.spiking import FilterBank
from hwa_keras.training import NoiseRamp, SilentLayers

LARGEST = 0.9  # The largest weight of a synapse.
BATCH = 300  # Clips that are evaluated at once.


def features_of(data, settings):
    """What the filter bank makes of clips: a data set of `[clips, bins, channels]`."""
    bank = FilterBank(data.sample_rate)
    parts = []
    for part, count in zip(
        (data.train, data.test),
        (settings.train_clips, settings.test_clips),
        strict=True,
    ):
        chosen = np.random.default_rng(0).permutation(len(part[0]))[:count]
        x, y = part[0][chosen], part[1][chosen]
        parts.append((np.asarray(bank.features(x, sample_rate=data.sample_rate)), y))
    return Dataset(data.name, *parts, data.num_classes)


def models_of(settings):
    """The arguments of the three models, by name."""
    mismatch = {"synaptic_std": settings.synaptic_std, "tau_std": settings.tau_std}
    return {
        "ideal": {"quantized": False},
        "quantized": {"quantized": True},
        "hardware": {"quantized": True, **mismatch},
    }


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
        **arguments,
    )
    steps = len(x) // settings.batch_size * settings.epochs
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(schedule), loss, metrics=["accuracy"], jit_compile=True
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


def on_chips(model, data, settings, seed):
    """Accuracies of the chips of a model at each level of mismatch.

    All chips have synapses of 5 bits and the leak mismatch of the settings; the front
    end is free of mismatch.
    """
    design = network(data, settings, tau_std=settings.tau_std, hold=True)
    for own, learned in zip(
        design.trainable_variables, model.trainable_variables, strict=True
    ):
        own.assign(learned)
    exact = [("frontend", SynapticMismatch(0.0, LARGEST))]
    return [
        hwa_keras.monte_carlo(
            design,
            SynapticMismatch(level, LARGEST),
            data.test,
            chips=settings.chips,
            seed=1000 * seed,
            batch_size=BATCH,
            rules=exact,
            verbose=0,
        )["accuracy"].tolist()
        for level in settings.levels
    ]


def compared(data, settings):
    """Train the three models with each seed and measure them.

    Returns:
        The list of what was measured, and the last network trained for hardware.
    """
    found = []
    for seed in range(settings.seeds):
        for name, arguments in models_of(settings).items():
            model, accuracy, seconds = trained(data, settings, arguments, seed)
            chips = on_chips(model, data, settings, seed)
            row = {"model": name, "seed": seed, "software": accuracy}
            found.append({**row, "chips": chips, "seconds": seconds})
            console.print(
                f"{name}, seed {seed}: {accuracy:.4f} in software, on chips "
                + ", ".join(f"{np.mean(values):.4f}" for values in chips)
                + f"; trained in {seconds:.0f} s."
            )
    return found, model


def accuracy_section(found, settings):
    """Accuracies in software and on chips, with intervals over seeds and over chips."""
    rows, names = [], list(models_of(settings))
    for name in names:
        own = [row for row in found if row["model"] == name]
        means = np.array([np.mean(row["chips"], axis=1) for row in own])
        cells = [cell(np.array([row["software"] for row in own]))]
        rows.append([name, *cells, *(cell(column) for column in means.T)])
        between = np.array([np.std(row["chips"], axis=1, ddof=1) for row in own])
        spread = np.sqrt(np.mean(between**2, axis=0))
        rows.append([f"{name}, between chips", "", *(f"{s:.4f}" for s in spread)])
    gains = []
    for seed in range(settings.seeds):
        own = {r["model"]: r["chips"] for r in found if r["seed"] == seed}
        gains.append(np.mean(own["hardware"], 1) - np.mean(own["ideal"], 1))
    gained = [cell(column) for column in np.array(gains).T]
    rows.append(["hardware over ideal", "", *gained])
    text = (
        f"Synapses of 5 bits in ±{LARGEST}, leak mismatch of {settings.tau_std:.0%}, "
        "synaptic mismatch in percent of the largest weight; "
        f"{settings.chips} chips of each of {settings.seeds} trainings. ± is half of "
        "the 95 % interval over trainings, each a mean of its chips; between chips: "
        "the standard deviation of the chips of a training. The hardware model was "
        f"trained at {settings.synaptic_std:.0%}."
    )
    columns = ["model", "software", *(f"{level:.0%}" for level in settings.levels)]
    return Section(
        "Three models on chips", text, columns, rows, curves(found, settings)
    )


def curves(found, settings):
    """Accuracy over mismatch: a line for each training, means of its chips."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    levels = 100 * np.array(settings.levels)
    for i, name in enumerate(models_of(settings)):
        for row in (row for row in found if row["model"] == name):
            label = name if row["seed"] == 0 else None
            means = np.mean(row["chips"], axis=1)
            axes.plot(levels, means, "o-", color=f"C{i}", label=label, alpha=0.8)
    axes.set_xlabel("synaptic mismatch, % of the largest weight")
    axes.set_ylabel("accuracy, mean of chips")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def activity_section(model, data):
    """Spikes and membranes of the network for one clip, and rates over the test."""
    names = ["frontend_neurons", "hidden_neurons", "word_neurons"]
    outputs = [model.get_layer(name).output for name in names]
    inside = keras.Model(model.inputs, outputs)
    traces = [
        [np.asarray(each) for each in layer]
        if isinstance(layer, (list, tuple))
        else np.asarray(layer)
        for layer in inside.predict(data.test[0][:BATCH], verbose=0)
    ]
    front, hidden, word = traces
    word = word[1] if isinstance(word, list) else word
    rates = [
        [name, f"{spikes.mean():.4f}", f"{spikes.sum((1, 2)).mean():.0f}"]
        for name, spikes in (("front end", front), ("hidden", hidden))
    ]
    label = int(data.test[1][0])
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots(3, sharex=True, height_ratios=(1, 2, 2))
    for place, name, spikes in (
        (axes[0], "channel", front[0]),
        (axes[1], "hidden neuron", hidden[0]),
    ):
        times, neurons = np.nonzero(spikes)
        place.plot(times, neurons, "|", color="black", markersize=3)
        place.set_ylabel(name)
    for i, trace in enumerate(word[0].T):
        style = {"linewidth": 2.5} if i == label else {"alpha": 0.6}
        axes[2].plot(trace, label=str(i), **style)
    axes[2].set_ylabel("membrane or spikes of words")
    axes[2].set_xlabel("bin")
    axes[2].legend(ncols=5, fontsize="small")
    text = (
        f"The network trained for hardware, in software: the first test clip (class "
        f"{label}, thick), and rates over {len(front)} clips."
    )
    columns = ["neurons", "spikes a bin", "spikes a clip"]
    return Section("Spikes and membranes", text, columns, rates, figure)
