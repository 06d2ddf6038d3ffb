"""Binary and ternary quantizers, scopes, metrics and constraints against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import quantizers
from hwa_keras.constraints import WeightClip
from hwa_keras.layers import HWADense
from hwa_keras.metrics import FlipRatio
from tests.gradients import gradient

EDGES = np.array([-1, 1, 0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 0.3, -0.3], "float32")
X = np.concatenate(
    [
        np.linspace(-3, 3, 4801, dtype="float32"),
        EDGES,
        np.nextafter(EDGES[:2], 2 * EDGES[:2]),
        np.random.default_rng(0).normal(size=91).astype("float32"),
    ]
).reshape(-1, 4)
X64 = X.astype("float64")
SIGN = np.where(X64 < 0, -1.0, 1.0)


def clipped(clip_value):
    # The comparison is made in float32.
    return (np.abs(X) <= np.float32(clip_value)).astype("float64")


def ternary(threshold):
    return np.sign(np.sign(X64 + threshold) + np.sign(X64 - threshold))


def swish_slope(beta):
    u = np.clip(beta * X64, -700, 700)
    return beta * (2 - u * np.tanh(u / 2)) / (1 + np.cosh(u))


MEAN = np.abs(X64).mean(0, keepdims=True)
HE = np.sqrt(2 / X.shape[0])
GLOROT = np.sqrt(2 / (X.shape[0] + X.shape[1]))
CASES = {
    "approx_sign": ("approx_sign", SIGN, np.maximum(2 - 2 * np.abs(X64), 0)),
    "swish_sign": ("swish_sign", SIGN, swish_slope(5.0)),
    "swish_sign_steep": (quantizers.SwishSign(beta=20.0), SIGN, swish_slope(20.0)),
    "heaviside": ("ste_heaviside", (X > 0) * 1.0, clipped(1.0)),
    "heaviside_clipped": (
        quantizers.SteHeaviside(0.3),
        (X > 0) * 1.0,
        clipped(0.3),
    ),
    "magnitude": ("magnitude_aware_sign", MEAN * SIGN, MEAN * clipped(1.0)),
    "magnitude_unclipped": (
        quantizers.MagnitudeAwareSign(None),
        MEAN * SIGN,
        MEAN * np.ones_like(X64),
    ),
    "ternary": ("ste_tern", ternary(0.05), clipped(1.0)),
    "ternary_0.3": (
        quantizers.SteTern(np.float32(0.3).item(), clip_value=0.3),
        ternary(np.float32(0.3).item()),
        clipped(0.3),
    ),
    "ternary_weight_networks": (
        quantizers.SteTern(ternary_weight_networks=True, clip_value=None),
        ternary(0.7 * np.abs(X64).mean()),
        np.ones_like(X64),
    ),
    "connect_he": ("binary_connect", HE * SIGN, HE * np.ones_like(X64)),
    "connect_glorot": (
        quantizers.BinaryConnect("glorot"),
        GLOROT * SIGN,
        GLOROT * np.ones_like(X64),
    ),
    "connect_xnor": (
        quantizers.BinaryConnect("xnor"),
        MEAN * SIGN,
        MEAN * np.ones_like(X64),
    ),
    "connect_fixed": (quantizers.BinaryConnect(0.1), 0.1 * SIGN, 0.1 + 0 * X64),
    "no_op": (quantizers.NoOp(3), X64, np.ones_like(X64)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_slopes_against_numpy(name):
    quantizer, values, slopes = CASES[name]
    quantizer = quantizers.get(quantizer)
    found = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(X)))
    np.testing.assert_allclose(found, values, rtol=1e-6)
    upstream = np.random.default_rng(1).normal(size=X.shape).astype("float32")
    found = gradient(lambda x: quantizer(x) * upstream, X)
    np.testing.assert_allclose(found, slopes * upstream, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_far_out(name, dtype):
    quantizer = quantizers.get(CASES[name][0])
    x = np.array([[-1e4, -88.0, -9.0], [9.0, 88.0, 1e4]], "float32")
    found = gradient(
        lambda x: ops.cast(quantizer(ops.cast(x, dtype)), "float32") * 1e-3, x
    )
    assert np.isfinite(found).all()


@pytest.mark.parametrize("alias", ["ste_sign", "approx_sign", "swish_sign"])
def test_nan_stays_nan(alias):
    found = quantizers.get(alias)(ops.convert_to_tensor([np.nan, 1.0]))
    assert np.isnan(ops.convert_to_numpy(found)).tolist() == [True, False]


def test_fans_of_a_convolution_count_its_window():
    kernel = np.ones((3, 3, 8, 16), "float32")
    found = quantizers.BinaryConnect("he")(kernel)
    np.testing.assert_allclose(found, np.sqrt(2 / 72), rtol=1e-6)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown quantizer 'sign'.*ste_tern"):
        HWADense(3, kernel_quantizer="sign")
    with pytest.raises(TypeError, match="Could not interpret 3 .*as a quantizer"):
        HWADense(3, kernel_quantizer=3)


def test_a_quantizer_that_changes_the_shape_is_an_error():
    layer = HWADense(3, kernel_quantizer=lambda w: ops.sum(w, axis=0))
    with pytest.raises(ValueError, match=r"must keep the shape.*\(3,\) of \(4, 3\)"):
        layer(np.ones((2, 4), "float32"))
    layer = HWADense(3, input_quantizer=lambda x: x[:, :2])
    with pytest.raises(ValueError, match="must keep the shape"):
        layer(np.ones((2, 4), "float32"))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    hwa = hwa_keras.to_hwa(model, kernel_quantizer=lambda w: w[:2], verbose=0)
    with pytest.raises(ValueError, match="must keep the shape"):
        hwa(np.ones((2, 4), "float32"))


# --- quantized_scope


def test_quantized_scope_reads_quantized_weights_and_puts_nothing_in_their_place():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            HWADense(5, kernel_quantizer="ste_sign"),
            keras.layers.Dense(2),
            HWADense(3, kernel_quantizer="ste_tern"),
        ]
    )
    before = model.get_weights()
    with hwa_keras.quantized_scope(model):
        inside = model.get_weights()
        kernel = ops.convert_to_numpy(model.layers[0].kernel)
    assert set(np.unique(inside[0])) == {-1.0, 1.0}
    np.testing.assert_array_equal(kernel, inside[0])
    np.testing.assert_array_equal(inside[0], np.where(before[0] < 0, -1, 1))
    np.testing.assert_array_equal(inside[2], before[2])
    assert set(np.unique(inside[4])) <= {-1.0, 0.0, 1.0}
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_quantized_scope_of_a_converted_model_saves_what_it_reads(tmp_path):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    hwa = hwa_keras.to_hwa(plain, kernel_quantizer="ste_sign", verbose=0)
    with hwa_keras.quantized_scope(hwa):
        hwa.save_weights(tmp_path / "binary.weights.h5")
    latent = hwa.get_weights()[0]
    hwa.load_weights(tmp_path / "binary.weights.h5")
    digital = hwa_keras.to_digital(hwa)
    np.testing.assert_array_equal(digital.get_weights()[0], np.where(latent < 0, -1, 1))
    with pytest.raises(ValueError, match="Nothing in .* quantizes"):
        with hwa_keras.quantized_scope(digital):
            pass


# --- FlipRatio


def test_flip_ratio_against_numpy():
    metric, rng = FlipRatio(), np.random.default_rng(3)
    values = [rng.choice([-1, 1], size=(6, 5)) for _ in range(6)]
    for v in values:
        metric.update_state(v.astype("float32"))
    changed = [np.mean(a != b) for a, b in zip(values, values[1:], strict=False)]
    assert float(metric.result()) == pytest.approx(np.mean(changed), rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0
    metric.update_state(values[-1])
    metric.update_state(-values[-1])
    assert float(metric.result()) == 1


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("converted", [True, False])
def test_flip_ratio_of_kernels_appears_in_the_logs(converted, tmp_path):
    quantizer = quantizers.SteSign(metrics=["flip_ratio"])
    if converted:
        layers = [keras.layers.Dense(6, name="a"), keras.layers.Dense(2, name="b")]
    else:
        layers = [
            HWADense(6, kernel_quantizer=quantizer, name="a"),
            HWADense(2, kernel_quantizer=quantizer, name="b"),
        ]
    model = keras.Sequential([keras.Input((4,)), *layers], name="m")
    if converted:
        model = hwa_keras.to_hwa(model, kernel_quantizer=quantizer, verbose=0)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(64, 4)), rng.normal(size=(64, 2))
    signs = []

    def remember(batch, logs):
        signs.append(np.sign(model.get_weights()[0]))

    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=remember)
    history = model.fit(x, y, batch_size=8, verbose=0, callbacks=[watch]).history
    names = [name for name in history if name.startswith("flip_ratio")]
    assert sorted(names) == ["flip_ratio/m/a/kernel", "flip_ratio/m/b/kernel"]
    expected = np.mean([a != b for a, b in zip(signs, signs[1:], strict=False)])
    assert history["flip_ratio/m/a/kernel"] == [pytest.approx(expected, rel=1e-6)]
    assert expected > 0
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert [history[name][-1] for name in names] == [0, 0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="what JAX cannot do")
def test_flip_ratio_on_jax_is_a_warning():
    with pytest.warns(UserWarning, match="flip ratio will not be in the logs"):
        quantizer = quantizers.SteSign(metrics=["flip_ratio"])
    assert quantizer.get_config()["metrics"] == ["flip_ratio"]
    quantizer(np.ones((2, 3), "float32"))


@pytest.mark.tensorflow_only
def test_flip_ratio_of_activations_is_an_error():
    layer = HWADense(3, input_quantizer=quantizers.SteSign(metrics=["flip_ratio"]))
    with pytest.raises(ValueError, match="serves kernels, not activations"):
        layer.build((None, 4))


# --- WeightClip


def test_weight_clip_holds_weights_in_its_range(tmp_path):
    layer = HWADense(3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(50.0), "mse")
    x = np.random.default_rng(5).normal(size=(32, 4))
    model.fit(x, np.ones((32, 3)), verbose=0)
    kernel = ops.convert_to_numpy(layer.kernel)
    assert np.abs(kernel).max() == 1
    assert np.abs(layer.get_weights()[1]).max() > 1
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[0].kernel_constraint.clip_value == 1
    with pytest.raises(ValueError, match="`clip_value` must be positive"):
        WeightClip(0)
