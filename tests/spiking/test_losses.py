"""Losses, readouts, regularizers and the projection against NumPy in float64."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.constraints import SignGroups
from hwa_keras.spiking import (
    CountCrossEntropy,
    FiringRate,
    FiringRateRange,
    FirstSpike,
    MembraneReadout,
    SignTopology,
    SpikeCount,
    WeightMagnitude,
    population_targets,
)
from tests import fresh

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

RNG = np.random.default_rng(11)
SPIKES = (RNG.uniform(size=(5, 12, 6)) < 0.3).astype("float32")


def value_and_gradient(function, x):
    value, (gradient,) = hwa_keras.backend.value_and_gradient(
        lambda tensors: (function(tensors[0]), None), [ops.convert_to_tensor(x)]
    )
    return float(value[0]), ops.convert_to_numpy(gradient)


def difference_quotients(function, x, step=1e-3):
    """Central differences of a function of float64 arrays."""
    x, found = x.astype("float64"), np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        shift = np.zeros(x.shape)
        shift[index] = step
        found[index] = (function(x + shift) - function(x - shift)) / 2 / step
    return found


# --- Firing rates, as activity regularizers


def rate_loss(x, target, multiplier):
    return np.sum(((x.mean((0, 1)) - target) * multiplier) ** 2)


def range_loss(x, low, high, multiplier):
    rates = x.mean((0, 1))
    excess = np.where(rates < low, low - rates, np.where(rates > high, rates - high, 0))
    return np.sum((excess * multiplier) ** 2)


@pytest.mark.parametrize(
    ("regularizer", "loss"),
    [
        (FiringRate(0.3, 10.0), lambda x: rate_loss(x, 0.3, 10.0)),
        (FiringRateRange(0.28, 0.32, 5.0), lambda x: range_loss(x, 0.28, 0.32, 5.0)),
    ],
)
def test_rates_cost_what_they_say_in_a_layer(regularizer, loss):
    def from_layer(x):
        # Keras divides by the batch size, and the regularizer undoes it.
        layer = keras.layers.Activation("linear", activity_regularizer=regularizer)
        layer(x)
        return layer.losses[0]

    value, gradient = value_and_gradient(from_layer, SPIKES)
    expected = loss(SPIKES.astype("float64"))
    assert expected > 0.01 and value == pytest.approx(expected, rel=1e-5)
    slopes = difference_quotients(loss, SPIKES, 1e-6)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-7)


def test_rates_in_a_range_cost_nothing():
    assert float(FiringRateRange(0.0, 1.0, 1e3)(SPIKES)) == 0.0


def test_a_layer_of_neurons_is_drawn_to_its_rate():
    x = RNG.uniform(size=(32, 20, 8)).astype("float32")
    lif = hwa_keras.spiking.LIF(
        tau=20e-3, dt=5e-3, activity_regularizer=FiringRate(0.25, 10.0)
    )
    inputs = keras.Input((20, 8))
    outputs = SpikeCount()(lif(keras.layers.Dense(6)(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.02), lambda y, z: 0.0 * z)
    losses = model.fit(x, np.zeros((32, 6)), epochs=40, verbose=0).history["loss"]
    rates = ops.convert_to_numpy(model(x)).mean(0) / 20
    assert losses[-1] < 0.1 * losses[0]
    assert np.abs(rates - 0.25).max() < 0.1


# --- Magnitudes and signs, as kernel regularizers


def topology(w, group, partial=False):
    w = w.reshape(-1, w.shape[-1])
    found = []
    for column in w.T:
        for start in range(0, len(column), group):
            part = column[start : start + group]
            found.append(min(part[part > 0].sum(), -part[part < 0].sum()))
    return np.mean(found)


def test_magnitudes_cost_their_excess():
    w = RNG.normal(size=(7, 9)).astype("float32")

    def loss(w):
        return 3.0 * np.mean(np.maximum(np.abs(w) - 0.9, 0) ** 2)

    value, gradient = value_and_gradient(WeightMagnitude(0.9, 3.0), w)
    assert value == pytest.approx(loss(w.astype("float64")), rel=1e-5)
    expected = difference_quotients(loss, w, 1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert float(WeightMagnitude(0.9)(np.clip(w, -0.9, 0.9))) == pytest.approx(
        0, abs=1e-12
    )


@pytest.mark.parametrize(
    ("shape", "partial"), [((15, 4), False), ((3, 5, 2, 4), False), ((13, 4), True)]
)
def test_groups_of_both_signs_cost_their_smaller_side(shape, partial):
    w = RNG.normal(size=shape).astype("float32")
    regularizer = SignTopology(0.05, group=5, partial=partial)
    value, gradient = value_and_gradient(regularizer, w)
    assert value == pytest.approx(0.05 * topology(w.astype("float64"), 5), rel=1e-5)
    expected = difference_quotients(lambda w: 0.05 * topology(w, 5), w, 1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    aligned = SignGroups(5, partial)(w)
    assert float(regularizer(aligned)) == 0.0


# --- The projection


@pytest.mark.parametrize("shape", [(5, 40), (10, 3), (2, 5, 3)])
def test_the_projection_is_the_nearest_kernel_of_one_sign_a_group(shape):
    w = RNG.normal(size=shape).astype("float32")
    found = ops.convert_to_numpy(SignGroups(5)(w))
    matrix, projected = (a.reshape(-1, 5, shape[-1]) for a in (w, found))
    for g, c in itertools.product(range(len(matrix)), range(shape[-1])):
        part = matrix[g, :, c].astype("float64")
        candidates = [np.maximum(part, 0), np.minimum(part, 0)]
        nearest = min(candidates, key=lambda each: np.sum((each - part) ** 2))
        np.testing.assert_array_equal(projected[g, :, c], nearest.astype("float32"))
    again = ops.convert_to_numpy(SignGroups(5)(found))
    np.testing.assert_array_equal(again, found)


def test_a_smaller_last_group_is_projected_by_itself():
    w = RNG.normal(size=(13, 4)).astype("float32")
    found = ops.convert_to_numpy(SignGroups(5, partial=True)(w))
    np.testing.assert_array_equal(found[:10], SignGroups(5)(w[:10]))
    np.testing.assert_array_equal(found[10:], SignGroups(3)(w[10:]))


@pytest.mark.parametrize("make", [SignTopology, SignGroups])
def test_a_group_that_does_not_divide_the_fan_in_is_an_error(make):
    part = make(group=5)
    with pytest.raises(
        ValueError,
        match=f"`group` of {make.__name__} must divide.*"
        r"group=5 .*\(13, 64\), whose fan-in is 13.*partial=True",
    ):
        part(np.zeros((13, 64), "float32"))
    with pytest.raises(ValueError, match="`group` of .* must be an integer ≥ 1"):
        make(group=0)


def test_kernels_keep_their_signs_and_range_while_they_train(tmp_path):
    layer = hwa_keras.layers.HWADense(
        4,
        kernel_regularizer=WeightMagnitude(0.2, 10.0),
        kernel_constraint="sign_groups",
    )
    twin = keras.layers.Dense(2, kernel_regularizer=SignTopology(0.1, 2))
    model = keras.Sequential([keras.Input((10,)), layer, twin])
    model.compile("adam", "mse")
    x = RNG.normal(size=(16, 10)).astype("float32")
    model.fit(x, np.ones((16, 2)), epochs=2, verbose=0)
    assert topology(ops.convert_to_numpy(layer.kernel), 5) == 0
    fresh.assert_loads_equal({"model": model}, {"model": x}, tmp_path)
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[0].kernel_constraint.get_config() == {
        "group": 5,
        "partial": False,
    }
    assert again.layers[1].kernel_regularizer.get_config() == {
        "strength": 0.1,
        "group": 2,
        "partial": False,
    }


# --- Readouts


def test_counts_rates_and_populations():
    x = SPIKES.astype("float64")
    np.testing.assert_array_equal(SpikeCount()(SPIKES), x.sum(1))
    np.testing.assert_allclose(SpikeCount(rate=True)(SPIKES), x.mean(1), rtol=1e-6)
    expected = x.sum(1).reshape(5, 3, 2).sum(-1)
    np.testing.assert_array_equal(SpikeCount(2)(SPIKES), expected)
    found = SpikeCount(2, rate=True)(SPIKES)
    np.testing.assert_allclose(found, expected / 24, rtol=1e-6)
    assert SpikeCount(2)(keras.KerasTensor((None, 12, 6))).shape == (None, 3)


def test_first_spikes_and_their_slopes():
    spikes = SPIKES.copy()
    spikes[0, :, 0] = 0.0  # Silent.
    weights = RNG.normal(size=(5, 6)).astype("float32")

    def score(z):
        return -np.cumprod(1 - z, axis=1).sum(1)

    found = ops.convert_to_numpy(FirstSpike()(spikes))
    first = np.where(spikes.any(1), spikes.argmax(1), 12)
    np.testing.assert_array_equal(found, -first)
    np.testing.assert_array_equal(found, score(spikes))
    _, gradient = value_and_gradient(
        lambda z: ops.sum(FirstSpike()(z) * weights), spikes
    )
    expected = difference_quotients(lambda z: np.sum(score(z) * weights), spikes, 1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_membranes_are_read_at_the_end_at_their_largest_or_on_average():
    u = RNG.normal(size=(3, 9, 4)).astype("float32")
    for mode, expected in (("last", u[:, -1]), ("max", u.max(1)), ("mean", u.mean(1))):
        np.testing.assert_allclose(MembraneReadout(mode)(u), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "readout", [SpikeCount(2, rate=True), FirstSpike(), MembraneReadout("max")]
)
def test_readouts_train_behind_neurons_and_keep_their_configuration(readout):
    again = type(readout).from_config(readout.get_config())
    assert again.get_config() == readout.get_config()
    model = keras.Sequential(
        [
            keras.Input((20, 8)),
            keras.layers.Dense(4),
            hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3),
            again,
        ]
    )
    model.compile("adam", "mse", jit_compile=True)
    x = RNG.uniform(size=(16, 20, 8)).astype("float32")
    before = ops.convert_to_numpy(model.layers[0].kernel)
    model.fit(x, np.ones((16, model.output_shape[-1])), verbose=0)
    after = ops.convert_to_numpy(model.layers[0].kernel)
    assert np.isfinite(after).all() and (after != before).any()


# --- Losses


def test_cross_entropy_of_counts():
    labels = np.array([0, 1, 2, 1, 0])
    logits = 0.5 * SPIKES.astype("float64").sum(1).reshape(5, 3, 2).sum(-1)
    expected = np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), labels]
    loss = CountCrossEntropy(population=2, scale=0.5)
    assert float(loss(labels, SPIKES)) == pytest.approx(expected.mean(), rel=1e-5)
    weights = np.array([1, 0, 2, 0, 0], "float32")
    found = float(loss(labels[:, None], SPIKES, sample_weight=weights))
    assert found == pytest.approx((expected * weights).mean(), rel=1e-5)
    again = CountCrossEntropy.from_config(loss.get_config())
    assert again.get_config() == loss.get_config()


def test_a_model_that_returns_spikes_learns_their_counts():
    labels = RNG.integers(0, 2, 64)
    x = RNG.uniform(size=(64, 20, 4)) * np.stack([labels, 1 - labels] * 2, -1)[:, None]
    model = keras.Sequential(
        [
            keras.Input((20, 4)),
            keras.layers.Dense(2),
            hwa_keras.spiking.LIF(tau=20e-3, dt=5e-3),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), CountCrossEntropy())
    losses = model.fit(x, labels, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_population_targets():
    found = ops.convert_to_numpy(population_targets([2, 0], 3, 2, on=0.8, off=0.1))
    expected = [[0.1, 0.1, 0.1, 0.1, 0.8, 0.8], [0.8, 0.8, 0.1, 0.1, 0.1, 0.1]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# --- Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FiringRate(1.5), "`target` of FiringRate is a rate.*target=1.5"),
        (lambda: FiringRate(0.5, -1), "`multiplier` of FiringRate must be a finite"),
        (
            lambda: FiringRate(0.5)(np.ones((2, 3))),
            r"spikes \[batch, time.*\(2, 3\)",
        ),
        (lambda: FiringRateRange(0.5, 0.2), "`low` of FiringRateRange must not be"),
        (lambda: WeightMagnitude(0), "`limit` of WeightMagnitude must be a positive"),
        (lambda: SignTopology(-1), "`strength` of SignTopology must be a finite"),
        (lambda: SpikeCount(4)(SPIKES), "must divide.*population=4 for 6 neurons"),
        (lambda: SpikeCount()(np.ones((2, 3))), r"SpikeCount takes \[batch, time, ne"),
        (lambda: FirstSpike()(np.ones((2, 3))), r"FirstSpike takes \[batch, time, ne"),
        (lambda: MembraneReadout("end"), "must be one of 'last', 'max', 'mean'"),
        (lambda: CountCrossEntropy(scale=0), "`scale` of CountCrossEntropy must be"),
        (lambda: population_targets([3], 3), "must be from 0 to 2.*from 3 to 3"),
        (lambda: population_targets([0], 3, on=2), "are rates in spikes a step.*on=2"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
