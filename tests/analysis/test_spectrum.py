"""Singular values of kernels, and how they differ between two sets of models."""

import csv
import json

import keras
import numpy as np
import pytest
import scipy.stats

import hwa_keras
from hwa_keras.analysis import (
    Difference,
    SpectrumComparison,
    compare_spectra,
    singular_values,
    spectrum,
    unfold,
)
from hwa_keras.layers import HWADense

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

RNG = np.random.default_rng(0)
SIZES = {"hidden/kernel": (6, 4), "head/kernel": (4, 3)}


def planted(values, shape, mode):
    """A tensor whose unfolding in a mode has these singular values, and else zeros."""
    rest = [n for i, n in enumerate(shape) if i != mode]
    left = np.linalg.qr(RNG.normal(size=(shape[mode], len(values))))[0]
    right = np.linalg.qr(RNG.normal(size=(int(np.prod(rest)), len(values))))[0]
    matrix = left @ np.diag(values) @ right.T
    return np.moveaxis(matrix.reshape(shape[mode], *rest), 0, mode)


def network(kernels=None, names=("hidden", "head")):
    layers = [keras.layers.Dense(n, name=k) for n, k in zip((4, 3), names, strict=True)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    for layer, kernel in zip(layers, kernels or (), strict=False):
        layer.kernel.assign(kernel)
    return model


def sets(counts=(4, 5), **kwargs):
    """Two lists of networks, the kernels of the second larger, and their kernels."""
    kernels = [
        [
            [RNG.normal(size=shape, scale=scale) for shape in SIZES.values()]
            for _ in range(count)
        ]
        for count, scale in zip(counts, (1.0, 1.5), strict=True)
    ]
    return [[network(own, **kwargs) for own in one] for one in kernels], kernels


@pytest.mark.parametrize("mode", [0, 1, 2, 3, -1])
def test_unfolding_puts_fibers_side_by_side(mode):
    tensor = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
    found = unfold(tensor, mode)
    columns = []
    others = [n for i, n in enumerate(tensor.shape) if i != mode % 4]
    for place in np.ndindex(*others):
        fiber = list(place)
        fiber.insert(mode % 4, slice(None))
        columns.append(tensor[tuple(fiber)])
    np.testing.assert_array_equal(found, np.stack(columns, axis=1))
    assert found.dtype == "float64" and found.shape == (
        tensor.shape[mode],
        tensor.size // tensor.shape[mode],
    )


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_singular_values_of_a_planted_tensor(mode):
    tensor = planted([5.0, 3.0, 0.5], (6, 5, 7), mode)
    found = singular_values(tensor, mode, count=4)
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, [5.0, 3.0, 0.5, 0.0], atol=1e-13)
    np.testing.assert_allclose(singular_values(tensor, mode, 2), [5.0, 3.0])
    # A tensor of float32 is decomposed in double precision.
    np.testing.assert_allclose(
        singular_values(keras.ops.cast(tensor, "float32"), mode),
        np.linalg.svd(unfold(tensor.astype("float32"), mode))[1],
        atol=1e-14,
    )


def test_there_are_no_more_values_than_the_smaller_size():
    assert singular_values(np.ones((3, 3, 16, 8)), mode=0).shape == (3,)
    assert singular_values(np.ones((3, 3, 16, 8))).shape == (8,)


def test_a_planted_kernel_is_found_and_a_perturbed_one_too():
    kernel = planted([4.0, 2.0, 1.0], (6, 4), 1)
    model = network([kernel])
    head = np.linalg.svd(model.layers[1].kernel.numpy())[1]
    found = spectrum(model)
    assert list(found) == list(SIZES)
    np.testing.assert_allclose(found["hidden/kernel"], [4, 2, 1, 0], atol=1e-6)
    np.testing.assert_allclose(found["head/kernel"], head, rtol=1e-6)
    u, s, v = np.linalg.svd(kernel)
    s[1] += 0.5
    model.layers[0].kernel.assign(u[:, :4] @ np.diag(s) @ v)
    moved = spectrum(model, layer="hid*", mode=0, count=3)
    assert list(moved) == ["hidden/kernel"]
    np.testing.assert_allclose(moved["hidden/kernel"], [4, 2.5, 1], rtol=1e-6)


@pytest.mark.parametrize("around", ["hwa", "sam", "layers"])
def test_quantized_weights_are_those_that_the_network_computes_with(around):
    if around == "layers":
        model = keras.Sequential(
            [
                keras.Input((6,)),
                HWADense(4, kernel_quantizer="ste_sign", name="hidden"),
                keras.layers.Dense(3, name="head"),
            ]
        )
        inner = model
    else:
        inner = network()
        model = hwa_keras.to_hwa(inner, "ste_sign", skip=["last"], verbose=0)
    if around == "sam":
        model = hwa_keras.training.SharpnessAwareModel.wrap(model)
    hidden, head = (layer.kernel.numpy() for layer in inner.layers)
    signs = np.where(hidden >= 0, 1.0, -1.0)
    expected = {False: (hidden, head), True: (signs, head)}
    for quantized, kernels in expected.items():
        found = spectrum(model, quantized=quantized)
        assert list(found) == list(SIZES)
        for values, kernel in zip(found.values(), kernels, strict=True):
            np.testing.assert_allclose(values, np.linalg.svd(kernel)[1], rtol=1e-5)
    with pytest.raises(ValueError, match="None of the kernels .* has a quantizer"):
        spectrum(model, layer="head", quantized=True)


def test_layers_of_the_same_name_are_told_apart():
    @keras.saving.register_keras_serializable(package="tests")
    class Twins(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.a = keras.layers.Dense(4, name="same")
            self.b = keras.layers.Dense(3, name="same")

        def call(self, inputs):
            return self.b(self.a(inputs))

    model = Twins()
    model(np.zeros((1, 6), "float32"))
    found = spectrum(model)
    assert {k: len(v) for k, v in found.items()} == {
        "same/kernel": 4,
        "same/kernel (2)": 3,
    }


@pytest.mark.parametrize("equal_var", [False, True])
def test_differences_are_those_of_a_t_test(equal_var):
    (first, second), kernels = sets()
    found = compare_spectra(first, second, count=3, equal_var=equal_var)
    assert isinstance(found, SpectrumComparison) and found.kernels == list(SIZES)
    for i, path in enumerate(SIZES):
        a, b = (
            np.array([np.linalg.svd(own[i].astype("float32"))[1][:3] for own in one])
            for one in kernels
        )
        np.testing.assert_allclose(found.first[path], a, rtol=1e-5)
        np.testing.assert_allclose(found.second[path], b, rtol=1e-5)
        a, b = found.first[path], found.second[path]
        each, mean = found.values(path), found.mean(path)
        test = scipy.stats.ttest_ind(b, a, equal_var=equal_var)
        np.testing.assert_allclose(each.t, test.statistic)
        np.testing.assert_allclose(each.p, test.pvalue)
        np.testing.assert_allclose(each.first, a.mean(0))
        np.testing.assert_allclose(each.second, b.mean(0))
        np.testing.assert_allclose(each.change, b.mean(0) / a.mean(0) - 1)
        test = scipy.stats.ttest_ind(b.mean(1), a.mean(1), equal_var=equal_var)
        assert (mean.t, mean.p) == pytest.approx((test.statistic, test.pvalue))
        assert mean.change == pytest.approx(b.mean() / a.mean() - 1)


def test_welch_and_student_differ_and_the_larger_set_has_positive_t():
    (first, second), _ = sets()
    welch, student = (
        compare_spectra(first, second, "head", equal_var=e).mean() for e in (0, 1)
    )
    assert isinstance(welch, Difference) and welch.p != student.p
    assert welch.t > 0 and welch.change > 0
    assert compare_spectra(second, first, "head").mean().t == pytest.approx(-welch.t)


def test_models_belong_together_by_the_order_of_their_kernels():
    (first, second), _ = sets((2, 2))
    expected = compare_spectra(first, second, "head").values()
    weights = [[model.get_weights() for model in one] for one in (first, second)]

    def renamed(values, i):
        model = network(names=(f"dense_{i}", f"dense_{i + 1}"))
        model.set_weights(values)
        return model

    models = [(renamed(w, 2 * i) for i, w in enumerate(one)) for one in weights]
    found = compare_spectra(*models, layer="dense_1")
    assert found.kernels == ["dense_1/kernel"]
    np.testing.assert_array_equal(found.values().t, expected.t)


def test_quantized_weights_and_other_modes_are_compared():
    (first, second), _ = sets((2, 3))
    hwa = [
        [hwa_keras.to_hwa(m, "ste_sign", skip=(), verbose=0) for m in one]
        for one in (first, second)
    ]
    found = compare_spectra(*hwa, mode=0, count=2, quantized=True)
    for path, i in (("hidden/kernel", 0), ("head/kernel", 1)):
        signs = [np.where(m.layers[i].kernel.numpy() >= 0, 1, -1) for m in second]
        expected = [np.linalg.svd(s)[1][:2] for s in signs]
        np.testing.assert_allclose(found.second[path], expected, rtol=1e-6)


def test_without_spread_there_is_no_t():
    found = SpectrumComparison(
        {"k": [[2.0, 0.0, 0.1], [2.0, 0.0, 0.1]]},
        {"k": [[3.0, 1.0, 0.2], [3.0, 2.0, 0.2]]},
    )
    each = found.values()
    assert np.isnan(each.t).tolist() == [True, False, True]
    assert np.isnan(each.p).tolist() == [True, False, True]
    assert each.change[0] == 0.5 and np.isnan(each.change[1])
    assert np.isnan(found.to_dict()["summary"][0]["t"])


def test_writes_csv_json_table_and_plot(tmp_path):
    (first, second), _ = sets((3, 2))
    found = compare_spectra(first, second, count=3)
    found.to_csv(tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["value"] for r in rows] == ["1", "2", "3", "mean"] * 2
    assert float(rows[1]["p"]) == found.values("hidden/kernel").p[1]
    assert float(rows[7]["change"]) == found.mean("head/kernel").change
    found.to_json(tmp_path / "found.json")
    content = json.loads((tmp_path / "found.json").read_text())
    np.testing.assert_array_equal(
        content["first"]["head/kernel"], found.first["head/kernel"]
    )
    assert content["mode"] == -1 and len(content["summary"]) == 8
    text = str(found)
    assert "first (3)" in text and "second (2)" in text and "head/kernel" in text
    assert f"{100 * found.mean('head/kernel').change:+.1f} %" in text
    axes = found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert [line.get_label() for line in axes.get_lines()] == list(SIZES)
    line = axes.get_lines()[1]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(
        line.get_ydata(), 100 * found.values("head/kernel").change
    )


@pytest.mark.parametrize("mode", [2, -3, 0.5])
def test_bad_modes(mode):
    with pytest.raises(ValueError, match="2 dimensions: an integer from -2 to 1.*mode"):
        unfold(np.ones((2, 3)), mode)
    with pytest.raises(ValueError, match="The kernel 'hidden/kernel': `mode`"):
        spectrum(network(), mode=mode)


def test_bad_input_of_a_spectrum():
    with pytest.raises(ValueError, match="^`count` of spectrum must be an integer"):
        spectrum(network(), count=0)
    with pytest.raises(ValueError, match="NaN or infinite values has no singular"):
        singular_values([[1.0, np.nan]])
    with pytest.raises(ValueError, match="called 'tail'. Layers with kernels: hidden"):
        spectrum(network(), layer="tail")
    with pytest.raises(ValueError, match="`layer` selects no layer with a kernel"):
        spectrum(network(), layer=keras.layers.Conv2D)
    with pytest.raises(TypeError, match="A selector is a layer name or path"):
        spectrum(network(), layer=3)
    with pytest.raises(ValueError, match="has no kernels.*not built"):
        spectrum(keras.Sequential([keras.layers.Dense(3)]))


def test_bad_input_of_a_comparison():
    pair = [network(), network()]
    with pytest.raises(ValueError, match="`second` must hold two models.*Received: 1"):
        compare_spectra(pair, pair[:1])
    with pytest.raises(TypeError, match="`first` must be a list"):
        compare_spectra(network(), pair)
    with pytest.raises(TypeError, match="`second` must hold Keras models.*'a'"):
        compare_spectra(pair, "ab")
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"`second` has kernels.*\(6, 3\).*\(6, 4\)"):
        compare_spectra(pair, [pair[0], other])
    found = compare_spectra(pair, pair[::-1])
    for kernel in (None, "tail"):
        with pytest.raises(
            ValueError, match="not compared. Give one of: hidden/kernel"
        ):
            found.values(kernel)
