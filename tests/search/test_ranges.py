"""Conductance ranges: the front against all combinations, bounds, errors."""

import itertools
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras import devices
from hwa_keras.analysis import output_error
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import Memristor
from hwa_keras.profile import array_energy
from hwa_keras.search import optimize_ranges

pytestmark = pytest.mark.slow


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(30, activation="relu"),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def data(count=24):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 12)).astype("float32"), rng.integers(0, 3, count)


CROSSBAR = Crossbar(Memristor(sigma=0.2, g_min=0.5), v_read=0.2, t_read=1e-7)


def with_ranges(g_u):
    return CROSSBAR.with_settings(device=replace(CROSSBAR.device, g_u=g_u))


def predicted(model, crossbar, x):
    """The error of the outputs to first order, whatever the noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return output_error(model, crossbar, x, method="delta").variance.mean()


def arrays(model, x, crossbar):
    """What devices and amplifiers take for an example; there are no wires."""
    parts = array_energy(model, x, crossbar).parts
    return parts["array"] + parts["tias"]


@pytest.fixture(scope="module")
def front():
    return optimize_ranges(network(), CROSSBAR, data()[0], steps=5, examples=24)


def test_no_combination_lies_below_the_front(front):
    """Every combination of ranges, its error and energy from scratch."""
    model, x = network(), data()[0]
    grid = sorted({point.g_u[0] for point in front.uniform})
    assert len(front.paths) == 3 and len(grid) == 5
    everything = []
    for g_u in itertools.product(grid[1::3], grid[::2], grid[::4]):
        crossbar = with_ranges(g_u)
        error = predicted(model, crossbar, x)
        everything.append((error, arrays(model, x, crossbar)))
    # The front is convex: no combination lies below the line of two of its points.
    errors = [point.error for point in front.points][::-1]
    energies = [point.energy for point in front.points][::-1]
    for error, energy in everything:
        if errors[0] < error < errors[-1]:
            assert energy > 0.98 * np.interp(error, errors, energies)


def test_points_are_worth_what_they_say(front):
    model, x = network(), data()[0]
    for point in front.points[-2:]:
        crossbar = with_ranges(point.g_u)
        assert arrays(model, x, crossbar) == pytest.approx(point.energy, rel=0.03)
        assert predicted(model, crossbar, x) == pytest.approx(point.error, rel=0.05)


def test_energy_falls_as_the_error_grows(front):
    energies = [p.energy for p in front.points]
    errors = [p.error for p in front.points]
    assert energies == sorted(energies) and errors == sorted(errors, reverse=True)
    for point in front.uniform:
        assert front.energy_at(point.error * 1.01) <= point.energy * 1.01
        assert -0.02 <= front.saved(point.error) < 1


def test_a_bound_on_the_error_chooses_the_cheapest_point(front):
    bound = front.points[len(front.points) // 2].error
    found = optimize_ranges(
        network(), CROSSBAR, data()[0], max_error=bound, steps=5, examples=24
    )
    assert found.chosen.error <= bound
    assert found.chosen.energy == found.energy_at(bound)


def test_a_bound_on_the_accuracy_is_measured_on_chips():
    model, (x, _) = network(), data(200)
    y = np.argmax(ops.convert_to_numpy(model(x)), axis=1)  # So that it knows them.
    found = optimize_ranges(
        model, CROSSBAR, (x, y), max_loss=0.1, steps=5, examples=8, chips=4
    )
    assert found.metric == "accuracy"
    assert found.chosen.metric >= 0.9
    cheaper = [p for p in found.points if p.energy < found.chosen.energy]
    measured = [p for p in cheaper if p.metric is not None]
    assert all(p.metric < 0.9 for p in measured)


def test_table_plot_and_values(front, tmp_path, capsys):
    front.print()
    assert "g_u of each kernel" in capsys.readouterr().out
    front.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000
    front.to_json(tmp_path / "front.json")
    assert type(front).from_json(tmp_path / "front.json") == front
    front.to_csv(tmp_path / "front.csv")
    lines = (tmp_path / "front.csv").read_text().splitlines()
    assert len(lines) == 1 + len(front.points) + len(front.uniform)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_error": 1.0, "max_loss": 0.1}, ValueError, "Give one bound"),
        ({"max_error": 1e-9}, ValueError, "No range keeps the error"),
        ({"max_loss": 0.1}, ValueError, "needs targets"),
        ({"steps": 1}, ValueError, "`steps`"),
        ({"crossbar": Crossbar(devices.PCM())}, TypeError, "of devices.Memristor"),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    crossbar = arguments.pop("crossbar", CROSSBAR)
    with pytest.raises(error, match=message):
        optimize_ranges(
            network(), crossbar, data()[0], **{"steps": 3, "examples": 4, **arguments}
        )
