"""Curves of a metric over noise and bits, and what correlates with them."""

import csv
import json

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

import hwa_keras
from hwa_keras import circuits, noise, random
from hwa_keras.analysis import (
    Correlation,
    Curve,
    correlation,
    quantization_curve,
    robustness_curve,
)
from tests import zoo

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(40, 5)).astype("float32")


def linear(*units):
    layers = [keras.layers.Dense(n, use_bias=False) for n in units]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def normalized():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(5),
        ]
    )
    model.compile("adam", "mse")
    return model


def numpy_of(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


def mse(weights, y):
    outputs = X
    for w in weights:
        outputs = outputs @ w
    return np.mean((outputs - y) ** 2)


def z_of(shape, chip, kernel):
    """The numbers that the devices of a kernel of a chip are off by."""
    seed = random.fold_in(random.fold_in(random.seed_from(chip), kernel), 0)
    return ops.convert_to_numpy(random.normal(shape, seed))


def test_every_sample_is_that_of_the_kernels_off_by_the_draws_of_its_chip():
    model = linear(4, 5)
    weights = numpy_of(model.weights)
    curve = robustness_curve(
        model, (X, Y), [0.1, 0.4], repeats=3, metric="loss", seed=7, verbose=0
    )
    assert curve.levels == [0.1, 0.4] and curve.name == model.name
    assert "σ_c" in curve.quantity
    for sigma in curve.levels:
        expected = [
            mse(
                [w * (1 + sigma * z_of(w.shape, c, i)) for i, w in enumerate(weights)],
                Y,
            )
            for c in (7, 8, 9)
        ]
        np.testing.assert_allclose(curve.values(sigma), expected, rtol=1e-4)


@pytest.mark.slow
def test_mean_loss_grows_with_the_variance_of_the_conductances():
    model = linear(5)
    (w,) = numpy_of(model.weights)
    curve = robustness_curve(
        model, (X, X @ w), [0.1, 0.2], repeats=20, metric="loss", verbose=0
    )
    # E[(Σ x·w·σ·z)²] = σ²·Σ x²·w² for independent z of variance 1.
    unit = np.mean(X**2 @ w**2)
    for sigma in curve.levels:
        found = curve.estimate(sigma)
        assert abs(found.mean - sigma**2 * unit) < 4 * found.std / np.sqrt(20)


@pytest.mark.slow
@pytest.mark.parametrize("on_hardware", [False, True])
def test_samples_are_those_of_programmed_chips(on_hardware):
    x, y = zoo.digits_like()
    model = zoo.mlp()
    if on_hardware:
        dac, adc = circuits.DAC(6, range=4.0), circuits.ADC(8, range=8.0)
        hardware = hwa_keras.Hardware("ste_sign", dac=dac, adc=adc, tile=(5, 3))
        hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    curve = robustness_curve(model, (x, y), [0.3], repeats=2, seed=3, verbose=0)
    assert curve.metric == "accuracy"
    device = noise.MultiplicativeGaussian(0.3)
    chip = hwa_keras.program(model, device, seed=4, read_noise="off")
    found = chip.evaluate(x, y, verbose=0, return_dict=True)
    for name, value in found.items():
        assert curve.values(0.3, name)[1] == pytest.approx(value, rel=1e-4)


def test_another_noise_is_scaled_by_each_sigma_and_not_changed():
    model = linear(4, 5)
    variation = noise.ProcessVariation(0.5, granularity="column", scale=0.8)
    chain = noise.Compose([variation, noise.StuckAt(0.2)])
    curve = robustness_curve(
        model, (X, Y), [0.5], repeats=2, noise=chain, metric="loss", verbose=0
    )
    assert curve.quantity == "scale of Compose"
    assert float(chain.scale.value) == 1.0
    chain.scale.assign(0.5)
    found = hwa_keras.monte_carlo(model, chain, (X, Y), chips=2, verbose=0)
    np.testing.assert_allclose(curve.values(0.5), found["loss"], rtol=1e-4)


@pytest.mark.slow
def test_batchnorm_is_adapted_on_every_chip():
    model = normalized()
    common = {"seed": 2, "verbose": 0}
    # A generator is used up once, for all chips.
    batches = (X[i : i + 20] for i in (0, 20))
    curve = robustness_curve(
        model, (X, Y), [0.3], repeats=2, calibration=batches, **common
    )
    device = noise.MultiplicativeGaussian(0.3)
    batches = iter([X[:20], X[20:]])
    found = hwa_keras.monte_carlo(
        model, device, (X, Y), chips=2, calibration=batches, **common
    )
    np.testing.assert_allclose(curve.values(0.3), found["loss"], rtol=1e-4)
    plain = robustness_curve(model, (X, Y), [0.3], repeats=2, **common)
    assert not np.allclose(plain.values(0.3), found["loss"], rtol=1e-2)


@keras.saving.register_keras_serializable(package="tests")
class Offset(noise.Noise):
    """Not exact at scale 0, against the rule for noises."""

    def perturb(self, w, seed, strength):
        return w + 0.1


def test_one_sample_suffices_where_nothing_is_perturbed():
    model = linear(5)
    common = {"sigmas": [0.0, 0.1], "repeats": 3, "verbose": 0}
    curve = robustness_curve(model, (X, Y), **common)
    assert [curve.values(s).size for s in curve.levels] == [1, 3]
    plain = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert curve.values(0.0, "mae") == pytest.approx(plain["mae"], rel=1e-5)
    inexact = robustness_curve(model, (X, Y), noise=Offset(), **common)
    assert inexact.values(0.0).size == 3


@keras.saving.register_keras_serializable(package="tests")
class Counted(keras.layers.Layer):
    calls = 0

    def call(self, inputs):
        Counted.calls += 1
        return inputs


def test_levels_and_chips_share_one_compiled_graph():
    model = keras.Sequential([keras.Input((6,)), Counted(), keras.layers.Dense(5)])
    model.compile("adam", "mse")
    traced = []
    for sigmas, bits in ([0.2], [4]), ([0.1, 0.2, 0.3], [5, 4, 3]):
        Counted.calls = 0
        robustness_curve(model, (X, Y), sigmas, repeats=2, verbose=0)
        quantization_curve(model, (X, Y), bits, skip=(), verbose=0)
        traced.append(Counted.calls)
    assert traced[0] == traced[1]


def test_the_model_is_left_as_it_is():
    model = normalized()
    variables = [id(v) for v in model.variables]
    before = numpy_of(model.variables)
    robustness_curve(model, (X, Y), [0.4], 1, calibration=X, verbose=0)
    quantization_curve(model, (X, Y), [2], verbose=0)
    assert [id(v) for v in model.variables] == variables
    for old, new in zip(before, numpy_of(model.variables), strict=True):
        np.testing.assert_array_equal(old, new)


def curve_of(samples, name="net", quantity="bits per weight"):
    return Curve(name, quantity, "accuracy", samples)


SAMPLES = {
    8: {"loss": [0.1], "accuracy": [0.97]},
    4: {"loss": [0.3, 0.5, 0.4], "accuracy": [0.9, 0.8, 0.85]},
}


def test_writes_csv_json_and_table(tmp_path):
    curve, other = curve_of(SAMPLES), curve_of({0.1: SAMPLES[4]}, "other", "σ_c")
    curve.to_csv(tmp_path / "curve.csv", other)
    with (tmp_path / "curve.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows] == ["8", "8", "4", "4", "0.1", "0.1"]
    for row in rows[2:4]:
        found = curve.estimate(int(row["level"]), row["metric"])
        assert float(row["mean"]) == found.mean
        assert float(row["std"]) == found.std
        assert float(row["low95"]) == found.low
        assert float(row["high95"]) == found.high
        assert int(row["samples"]) == 3
    curve.to_json(tmp_path / "curve.json")
    content = json.loads((tmp_path / "curve.json").read_text())
    assert content["samples"][1] == {"level": 4, **SAMPLES[4]}
    assert content["summary"][0]["std"] is None
    assert "0.9700" in str(curve) and "0.8500 ± 0.1242" in str(curve)


def test_plots_curves_on_one_figure(tmp_path):
    axes = curve_of(SAMPLES).plot()
    curve_of(SAMPLES, "other").plot(tmp_path / "curves.png", axes=axes)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [line.get_label() for line in axes.get_lines()] == ["net", "other"]
    assert axes.get_xlabel() == "bits per weight"
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [4, 8])
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.85, 0.97])
    low, high = np.sort(axes.collections[0].get_paths()[0].vertices[:, 1])[[0, -1]]
    found = curve_of(SAMPLES).estimate(4)
    assert (low, high) == pytest.approx((found.low, found.high))


def test_plots_levels_with_names(tmp_path):
    named = {"none": SAMPLES[8], "rotation 20°": SAMPLES[4]}
    axes = curve_of(named).plot()
    curve_of(named, "other").plot(tmp_path / "shifts.png", axes=axes)
    assert (tmp_path / "shifts.png").read_bytes().startswith(b"\x89PNG")
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["none", "rotation\n20°"]
    assert len({line.get_color() for line in axes.lines}) == 2


def test_crowded_names_are_turned_and_nothing_lies_on_them(tmp_path):
    names = [f"block{i // 7}_unit{i % 7}_conv/kernel" for i in range(28)]
    curve = curve_of({name: SAMPLES[4] for name in ["all at 0.01", *names]})
    axes = curve.plot(tmp_path / "layers.png")
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == curve.levels
    assert {label.get_rotation() for label in labels} == {90.0}
    ends = [label.get_window_extent() for label in labels]
    assert all(a.x1 <= b.x0 for a, b in zip(ends, ends[1:], strict=False))
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.get_window_extent().y1


def test_boxes_reach_from_quartile_to_quartile_and_whiskers_to_the_extremes(tmp_path):
    samples = [0.1, 0.5, 0.6, 0.7, 0.9]
    levels = {"a": {"accuracy": samples}, "b": {"accuracy": [0.2, 0.4]}}
    axes = curve_of(levels).plot(boxes=True)
    curve_of({"b": levels["b"]}, "other").plot(
        tmp_path / "boxes.png", axes=axes, boxes=True
    )
    assert (tmp_path / "boxes.png").read_bytes().startswith(b"\x89PNG")
    low, high = axes.patches[0].get_path().vertices[:, 1][[0, 2]]
    assert (low, high) == pytest.approx(tuple(np.quantile(samples, [0.25, 0.75])))
    drawn = np.concatenate([line.get_ydata() for line in axes.lines[:5]])
    assert {0.1, 0.6, 0.9} <= set(drawn.round(6))
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b"]
    # A box of the second curve stands beside that of the first at its level.
    middles = [p.get_path().vertices[:2, 0].mean() for p in axes.patches]
    assert middles[:2] == pytest.approx([0, 1]) and 1.3 < middles[2] < 1.7
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["net", "other"]
    axes = curve_of(SAMPLES).plot(boxes=True)  # Of numbers: at equal distances.
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "4"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "`samples` is empty"),
        ({8: {"loss": [1.0]}}, "'accuracy' was not measured at the level 8.*loss"),
        ({8: {"accuracy": []}}, "level 8 has no sample of 'accuracy'"),
    ],
)
def test_a_curve_without_samples_is_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        curve_of(samples)


def test_an_unknown_level_is_named():
    with pytest.raises(ValueError, match="level 5 was not measured. Levels: 8, 4"):
        curve_of(SAMPLES).values(5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sigmas": []}, "`sigmas` must be one or more"),
        ({"sigmas": [-0.1]}, "finite numbers ≥ 0"),
        ({"sigmas": [float("nan")]}, "finite numbers ≥ 0"),
        ({"repeats": 0}, "`repeats` must be an integer"),
        ({"metric": "f1"}, "not among the compiled ones: .*mae"),
        ({"data": None}, "`data` is missing"),
        ({"noise": "flash"}, "Unknown noise 'flash'"),
    ],
)
def test_bad_input_of_a_robustness_curve(kwargs, message):
    arguments = {"data": (X, Y), "sigmas": [0.1], "repeats": 1, "verbose": 0, **kwargs}
    with pytest.raises(ValueError, match=message):
        robustness_curve(linear(5), **arguments)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(TypeError, match="must be a hwa_keras noise"):
        robustness_curve(linear(5), (X, Y), noise=lambda w, seed: w, verbose=0)
    for measure in (robustness_curve, quantization_curve):
        with pytest.raises(ValueError, match="not compiled"):
            measure(zoo.mlp(), (X, Y), verbose=0)
    with pytest.raises(ValueError, match="no kernel left to round"):
        quantization_curve(linear(5), (X, Y), verbose=0)


def test_correlation_is_pearson_s():
    a, b = np.random.default_rng(3).normal(size=(2, 8))
    found = correlation(a, a + 0.5 * b)
    r = np.corrcoef(a, a + 0.5 * b)[0, 1]
    t = r * np.sqrt(6 / (1 - r**2))
    ends = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.959964 / np.sqrt(8 - 3))
    assert found.r == pytest.approx(r) and found.count == 8
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(t, 6))
    assert (found.low, found.high) == pytest.approx(tuple(ends), rel=1e-5)
    assert correlation([1, 2, 3], [3.0, 2.0, 1.0]).r == pytest.approx(-1)
    assert isinstance(found, Correlation)


@pytest.mark.parametrize(
    ("robustness", "message"),
    [
        ([1.0, 2.0], r"`robustness` must hold .* three models.*\[1.0, 2.0\]"),
        ([1.0, 2.0, 3.0, 4.0], "Received: 3 and 4 numbers"),
        ([2.0, 2.0, 2.0], "`robustness` is the same for all models"),
        ([1.0, 2.0, float("nan")], "`robustness` must hold finite numbers"),
    ],
)
def test_bad_input_of_a_correlation(robustness, message):
    with pytest.raises(ValueError, match=message):
        correlation([1.0, 2.0, 3.5], robustness)
