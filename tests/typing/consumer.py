"""A user's program: `make lint` has a strict type checker read it, nothing runs it.

The lines that a checker must refuse say so: an ignored error that is none is an error.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

import hwa_keras
from hwa_keras import crossbar, devices, noise, profile, quantizers, search, spiking
from hwa_keras.results import Estimate, Result
from hwa_keras.training import Distiller, NoiseRamp, RhoSchedule, SharpnessAwareModel

Data = tuple[Any, Any]


def train(model: keras.Model, data: Data) -> keras.Model:
    hardware = hwa_keras.Hardware(
        kernel_quantizer=quantizers.Uniform(levels=16, scale="max"),
        kernel_noise=noise.Compose(["programming_noise", noise.DropConnect(0.01)]),
        tile=(256, None),
    )
    rules = [("head", None), (keras.layers.Conv2D, {"kernel_noise": None})]
    hwa = hwa_keras.to_hwa(model, hardware=hardware, rules=rules, skip="first")
    student: keras.Model = Distiller(hwa, model, layers=["hidden"])
    SharpnessAwareModel.wrap(student, method="asam").compile("sgd", "mse")
    halved = RhoSchedule(lambda epoch, rho: rho if epoch < 5 else rho / 2)
    student.fit(*data, callbacks=[NoiseRamp(stop=2, epochs=5), halved])
    NoiseRamp(epochs="ten")  # type: ignore[arg-type]
    return hwa


def on_chips(model: keras.Model, data: Data, folder: Path) -> Estimate:
    device: devices.Device = devices.PCM(g_max=20, mapping=devices.Pairs())
    chip: hwa_keras.Chip = hwa_keras.program(model, device, seed=1)
    chip.t = devices.PCM(t0=20.0).check_time(3600)
    chip.evaluate(*data)
    hwa_keras.adapt_batchnorm(chip, data[0])
    hwa_keras.export(chip, folder / "chip", example=data[0][:1])
    error: float = hwa_keras.verify_export("chip", chip, data[0], times=[1.0, 3600])
    year: Result = hwa_keras.drift_sweep(
        model, "pcm", data, times={"a day": 86_400}, compensation="oracle", chips=50
    )
    year.to_csv(folder / "year.csv", Result.from_json("before.json"))
    hwa_keras.monte_carlo(model, device, data, chips="many")  # type: ignore[arg-type]
    hwa_keras.program(model, 7)  # type: ignore[arg-type]
    spread: np.ndarray[Any, Any] = year.values("oracle", "a day", metric="accuracy")
    assert error < spread.std()
    return year.estimate("oracle", "a day")


def energies(model: keras.Model, x: np.ndarray[Any, Any]) -> list[float]:
    device = devices.Memristor(sigma=0.3, g_max=25.0)
    arrays = crossbar.Crossbar(device, rows=128, wire=(1.0, 1), v_read=0.2, t_read=1e-7)
    costs: profile.ModelSummary = profile.summary(model, data=x, crossbar=arrays)
    assert costs.memory is not None and costs.total_params > 0
    ranges: search.RangeFront = search.optimize_ranges(model, arrays, x, max_error=0.1)
    assert ranges.chosen is not None
    return [
        profile.array_energy(model, x, arrays, profile.Periphery(adc=1e-12)).joules,
        costs.memory.relative,
        ranges.chosen.energy,
    ]


def spikes(model: keras.Model, data: Data) -> search.SearchResult:
    neurons = spiking.LIF(tau=[20e-3] * 4, dt=1e-3, surrogate=spiking.Atan(2))
    assert neurons.tau.shape == (4,)
    converted = spiking.to_spiking(model, data[0], encoder=spiking.RateEncoder(50))
    joules: float = hwa_keras.spiking_energy(converted, data[0], "seneca").joules
    supernet = search.Supernet(search.spaces.small_cnn(resolution=(28,)), seed=1)
    objectives = [
        search.CrossbarAccuracyPower(supernet, devices.Memristor(sigma=0.2), data),
        search.Objective(lambda candidate: {"spent": joules}, {"spent": "min"}),
    ]
    search.search(supernet, objectives, generations=2.5)  # type: ignore[arg-type]
    return search.search(supernet, objectives, mode="M2", checkpoint="run.json")
