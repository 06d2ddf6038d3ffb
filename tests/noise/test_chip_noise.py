"""What is drawn once per chip: process variation and stuck devices; Monte-Carlo."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import noise, random
from hwa_keras.layers import HWADense
from hwa_keras.noise import Compose, DropConnect, ProcessVariation, StuckAt
from hwa_keras.results import estimate
from hwa_keras.training.callbacks import noises_of
from tests import fresh
from tests.bits import held

pytestmark = pytest.mark.usefixtures("built_optimizers")

SHAPE = (400, 500)


def drawn(perturb, w, seed=1):
    return ops.convert_to_numpy(perturb(w, random.seed_from(seed)))


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("weight", SHAPE), ("column", (1, SHAPE[1])), ("layer", (1, 1))],
)
def test_process_variation_has_one_factor_for_all_that_share_it(granularity, shape):
    w = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    varied = drawn(ProcessVariation(0.1, granularity), w)
    factors = varied / w
    expected = np.broadcast_to(factors[: shape[0], : shape[1]], SHAPE)
    np.testing.assert_allclose(factors, expected, rtol=1e-5)
    if shape[1] > 1:
        found = factors[: shape[0], : shape[1]].astype("float64").ravel()
        error = 0.1 / np.sqrt(found.size)
        assert abs(found.mean() - 1) < 5 * error
        assert abs(found.std() - 0.1) < 5 * error / np.sqrt(2)


@pytest.mark.parametrize(("rate", "scale", "value"), [(0.1, 1, 1), (0.02, 5, -0.3)])
def test_devices_are_stuck_at_their_rate_and_value(rate, scale, value):
    w = np.random.default_rng(0).uniform(-0.9, 0.9, size=SHAPE).astype("float32")
    w[0, 0] = -1
    found = drawn(StuckAt(rate, value, scale=scale), w)
    stuck = found == np.float32(value)
    p = rate * scale
    assert abs(stuck.mean() - p) < 5 * np.sqrt(p * (1 - p) / stuck.size)
    np.testing.assert_array_equal(found[~stuck], w[~stuck])


@pytest.mark.parametrize(
    "rare", [StuckAt(5e-8, hold=False), DropConnect(5e-8)], ids=["stuck", "dropped"]
)
def test_rates_below_the_step_of_a_uniform_number_happen(monkeypatch, rare):
    w = ops.ones((3,))
    # 5e-8·2³² is 214.7: of the three words the first two are below it.
    words = [np.array(v, "uint32") for v in ([0, 213, 215], [0, 0, 0])]
    words = [ops.convert_to_tensor(v, dtype="uint32") for v in words]
    monkeypatch.setattr(random, "bits", lambda shape, seed: words)
    strength = rare.strength(1.0)
    found = ops.convert_to_numpy(rare.perturb(w, random.seed_from(1), strength))
    assert found.tolist() == [0, 0, 1]


def converted(kernel_noise, seed=3):
    layers = [keras.layers.Dense(6), keras.layers.Dense(6), keras.layers.Dense(6)]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), *layers])
    return hwa_keras.to_hwa(model, kernel_noise=kernel_noise, seed=seed, verbose=0)


X = np.random.default_rng(2).normal(size=(8, 6)).astype("float32")


def output(model):
    return ops.convert_to_numpy(model(X, training=True))


def test_a_chip_is_held_through_training_steps_and_kernels_differ():
    model = converted(ProcessVariation(0.2))
    held = output(model)
    np.testing.assert_array_equal(output(model), held)
    assert not np.array_equal(held, model(X, training=False))
    chips = [ops.convert_to_numpy(n.chip).tolist() for n in noises_of(model)]
    assert len({tuple(chip) for chip in chips}) == 3
    np.testing.assert_array_equal(output(converted(ProcessVariation(0.2))), held)
    another = output(converted(ProcessVariation(0.2), seed=4))
    assert not np.array_equal(another, held)


def test_not_held_each_call_is_another_chip():
    model = converted(ProcessVariation(0.2, hold=False))
    assert not np.array_equal(output(model), output(model))


def test_redraw_is_the_next_chip():
    model = converted(Compose([StuckAt(0.1), ProcessVariation(0.2)]))
    before = output(model)
    for i, each in enumerate(noises_of(model)):
        each.redraw(random.seed_from(10 + i))
    after = output(model)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(output(model), after)
    with pytest.raises(ValueError, match="ProcessVariation holds no draw.*hold=False"):
        ProcessVariation(0.1, hold=False).redraw(random.seed_from(0))


def test_a_hardware_layer_holds_its_chip_too():
    layer = HWADense(5, kernel_noise=ProcessVariation(0.2), noise_seed=1)
    held = ops.convert_to_numpy(layer(X, training=True))
    np.testing.assert_array_equal(layer(X, training=True), held)
    other = HWADense(5, kernel_noise=ProcessVariation(0.2), noise_seed=2)
    other.build((None, 6))
    other.set_weights(layer.get_weights()[:2] + other.get_weights()[2:])
    assert not np.array_equal(other(X, training=True), held)


def test_training_holds_the_chip_and_saving_keeps_it(tmp_path):
    model = converted(ProcessVariation(0.2))
    model.compile("adam", "mse")
    chips = [ops.convert_to_numpy(n.chip).tolist() for n in noises_of(model)]
    model.fit(X, np.ones((8, 6)), epochs=2, verbose=0)
    noises_of(model)[0].redraw(random.seed_from(77))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    found = [ops.convert_to_numpy(n.chip).tolist() for n in noises_of(again)]
    assert found[1:] == chips[1:] and found[0] != chips[0]
    np.testing.assert_array_equal(output(again), output(model))


# --- Chips of a noise, and many of them


def compiled(model):
    model.compile("adam", "mse", metrics=["mae"])
    return model


def test_a_chip_of_a_noise_holds_its_weights_as_the_noise_leaves_them():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(500)])
    w = ops.convert_to_numpy(model.layers[0].kernel).astype("float64")
    chip = hwa_keras.program(model, ProcessVariation(0.1), seed=1)
    found = held(chip)[0].astype("float64")
    factors = found / w
    assert abs(factors.std() - 0.1) < 5 * 0.1 / np.sqrt(2 * w.size)
    chip.t = 1e6
    np.testing.assert_array_equal(held(chip)[0], found.astype("float32"))
    same = hwa_keras.program(model, ProcessVariation(0.1), seed=1)
    np.testing.assert_array_equal(same(X), chip(X))
    other = hwa_keras.program(model, ProcessVariation(0.1), seed=2)
    assert not np.array_equal(other(X), chip(X))


def test_chips_of_another_strength_are_other_chips():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    w = ops.convert_to_numpy(model.layers[0].kernel).astype("float64")
    small, large = (
        held(hwa_keras.program(model, ProcessVariation(std), seed=1))[0] - w
        for std in (0.1, 0.2)
    )
    np.testing.assert_allclose(large, 2 * small, rtol=1e-4, atol=1e-6)


def test_a_noise_whose_scale_is_changed_makes_other_chips():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    w = ops.convert_to_numpy(model.layers[0].kernel).astype("float64")
    noise = ProcessVariation(0.1)
    errors = []
    for scale in (1.0, 3.0, 0.0, 1.0):
        noise.scale.assign(scale)
        chip = hwa_keras.program(model, noise, seed=1)
        errors.append(held(chip)[0] - w)
    np.testing.assert_allclose(errors[1], 3 * errors[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(errors[2], 0.0, atol=1e-7)
    np.testing.assert_array_equal(errors[3], errors[0])


def test_what_a_noise_holds_in_training_is_not_what_a_chip_gets():
    model = converted(ProcessVariation(0.2))
    trained_with = model.noises()[0]
    one, two = (hwa_keras.program(model, trained_with, seed=s) for s in (1, 2))
    assert not np.array_equal(one(X), two(X))


def test_chips_of_a_noise_save_and_load(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    perturb = Compose([StuckAt(0.2, 1.0), ProcessVariation(0.1, "column")])
    chip = hwa_keras.program(model, perturb, seed=1)
    fresh.assert_loads_equal({"chip": chip}, {"chip": X}, tmp_path)
    assert "Compose(" in repr(chip.tiles[0].device)
    assert repr(hwa_keras.program(model, ProcessVariation(0.1)).tiles[0].device) == (
        "ProcessVariation(scale=1.0, hold=True, std=0.1, granularity='weight')"
    )


def test_a_hardware_model_inside_another_is_quantized_once():
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    hwa = hwa_keras.to_hwa(
        inner,
        kernel_quantizer=hwa_keras.quantizers.DoReFa(4, mode="weights"),
        verbose=0,
    )
    outer = keras.Sequential([keras.Input((6,)), hwa])
    chip = hwa_keras.program(outer, ProcessVariation(0.0), seed=1)
    np.testing.assert_allclose(chip(X), outer(X), rtol=1e-5, atol=1e-6)


def test_monte_carlo_evaluates_the_chips_that_program_makes():
    model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)]))
    data = X, np.ones((8, 5), "float32")
    perturb = ProcessVariation(0.3)
    found = hwa_keras.monte_carlo(model, perturb, data, chips=3, seed=5, verbose=0)
    assert sorted(found.metrics) == ["loss", "mae"]
    expected = [
        hwa_keras.program(model, perturb, seed=5 + i).evaluate(
            *data, verbose=0, return_dict=True
        )["mae"]
        for i in range(3)
    ]
    np.testing.assert_allclose(found.values(metric="mae"), expected, rtol=1e-6)
    assert len(set(expected)) == 3


def test_monte_carlo_takes_devices_and_rules_and_names_bad_arguments():
    model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)]))
    data = X, np.ones((8, 5), "float32")
    found = hwa_keras.monte_carlo(model, "pcm", data, chips=2, verbose=0)
    assert found.values(metric="mae").std() > 0
    with pytest.raises(ValueError, match="`chips` of ChipStudy must be an"):
        hwa_keras.monte_carlo(model, "pcm", data, chips=0)
    with pytest.raises(ValueError, match="has no kernels to program"):
        hwa_keras.monte_carlo(model, "pcm", data, rules=[("dense*", None)])
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    with pytest.raises(ValueError, match="is not compiled"):
        hwa_keras.monte_carlo(plain, "pcm", data)


def test_monte_carlo_stops_once_the_interval_is_within_the_tolerance():
    model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)]))
    data = X, np.ones((8, 5), "float32")

    def found(chips=30, **kwargs):
        perturb = ProcessVariation(0.3)
        options = {"min_chips": 10, "verbose": 0, "metric": "mae", **kwargs}
        options["chips"] = chips
        return hwa_keras.monte_carlo(model, perturb, data, **options).values()

    every = found()
    intervals = [estimate(every[:n]) for n in range(10, 31)]
    widths = [max(i.high - i.mean, i.mean - i.low) for i in intervals]
    # Between the widths after ten and after all: the first width below it ends it.
    assert min(widths) < widths[0]
    tolerance = (widths[0] + min(widths)) / 2
    count = 10 + next(i for i, width in enumerate(widths) if width <= tolerance)
    np.testing.assert_array_equal(found(tolerance=tolerance), every[:count])
    assert len(found(tolerance=1e3, metric="loss")) == 10
    assert len(found(chips=12, tolerance=1e-9)) == 12
    with pytest.raises(ValueError, match="`tolerance` of ChipStudy must be a"):
        found(tolerance=0.0)
    with pytest.raises(ValueError, match="`metric` 'f1' is not among"):
        found(tolerance=0.1, metric="f1")


def test_monte_carlo_reads_each_chip_with_a_draw_of_its_noise():
    model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)]))
    data = X, np.ones((8, 5), "float32")
    exact, frozen = (
        hwa_keras.monte_carlo(
            model, "pcm", data, chips=1, verbose=0, read_noise=read_noise
        ).values(metric="mae")
        for read_noise in ("off", "frozen")
    )
    by_default = hwa_keras.monte_carlo(model, "pcm", data, chips=1, verbose=0)
    assert by_default.values(metric="mae") == frozen != exact


def test_a_log_gets_one_line_and_no_bar(capsys):
    model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)]))
    data = X, np.ones((8, 5), "float32")
    hwa_keras.monte_carlo(model, ProcessVariation(0.1), data, chips=4)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and printed.startswith("4/4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProcessVariation(-0.1), "`std` of ProcessVariation.*std=-0.1"),
        (lambda: ProcessVariation(0.1, "row"), "`granularity` must be.*'row'"),
        (lambda: StuckAt(1.5), "`rate` of StuckAt is a probability.*rate=1.5"),
        (lambda: StuckAt(0.1, 2), "`value` is relative to.*value=2"),
        (lambda: noise.get("stuck_at"), "StuckAt has no default for rate"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
