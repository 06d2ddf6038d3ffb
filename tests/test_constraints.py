import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.constraints import AggressiveClip, HistogramClip, WeightClip
from hwa_keras.core.kernels import find_kernels

W = np.random.default_rng(0).normal(0.1, 2.0, (3, 4, 5)).astype("float32")


def applied(constraint, w=W):
    return ops.convert_to_numpy(constraint(w))


@pytest.mark.parametrize("c", [0.2, 1, 3.5])
def test_aggressive_clip_clips_to_its_range(c):
    expected = np.clip(W.astype("float64"), -c, c)
    np.testing.assert_allclose(applied(AggressiveClip(c)), expected, rtol=1e-7)


def test_aggressive_clip_is_a_weight_clip_of_the_published_range():
    constraint = AggressiveClip()
    assert isinstance(constraint, WeightClip)
    assert constraint.c == constraint.clip_value == 0.2


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_histogram_clip_is_symmetric_about_zero(alpha):
    w = W.astype("float64")
    limit = alpha * np.sqrt(np.mean((w - w.mean()) ** 2))
    found = applied(HistogramClip(alpha))
    np.testing.assert_allclose(found, np.clip(w, -limit, limit), rtol=1e-5)
    assert np.abs(w).max() > limit


def test_histogram_clip_follows_the_weights():
    np.testing.assert_allclose(
        applied(HistogramClip(), 7 * W), 7 * applied(HistogramClip()), rtol=1e-5
    )
    np.testing.assert_array_equal(applied(HistogramClip(), 0 * W), 0 * W)


@pytest.mark.parametrize("constraint", [AggressiveClip(0.25), HistogramClip(1.5)])
def test_holds_the_kernels_of_plain_keras_layers(constraint, tmp_path):
    layer = keras.layers.Dense(3, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(50.0), "mse")
    x = np.random.default_rng(5).normal(size=(32, 4))
    model.fit(x, np.ones((32, 3)), batch_size=32, verbose=0)
    kernel = ops.convert_to_numpy(layer.kernel)
    assert (np.abs(kernel) == np.abs(kernel).max()).sum() > 1
    assert np.abs(layer.get_weights()[1]).max() > np.abs(kernel).max()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert type(again.kernel_constraint) is type(constraint)
    assert again.kernel_constraint.get_config() == constraint.get_config()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("weight_clip", WeightClip),
        ("aggressive_clip", AggressiveClip),
        ("histogram_clip", HistogramClip),
    ],
)
def test_hardware_layers_know_the_names(name, kind):
    layer = hwa_keras.layers.HWADense(3, kernel_constraint=name)
    assert type(layer.kernel_constraint) is kind


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(WeightClip, "clip_value"), (AggressiveClip, "c"), (HistogramClip, "alpha")],
)
def test_bad_input(kind, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be positive and finite"):
        kind(value)


def test_columns_have_limits_of_their_own():
    w = np.random.default_rng(0).normal(size=(3, 3, 4, 5)) * np.arange(1, 6)
    found = ops.convert_to_numpy(HistogramClip(1.5, per="column")(w))
    limit = 1.5 * w.reshape(-1, 5).std(0)
    np.testing.assert_allclose(found, np.clip(w, -limit, limit), rtol=1e-5)


def test_columns_are_what_a_kernel_knows_them_to_be():
    layer = keras.layers.EinsumDense("abc,dec->abde", (None, 2, 3))
    layer.build((None, 4, 6))  # The kernel (2, 3, 6) has its rows on the last axis.
    model = keras.Sequential([keras.Input((4, 6)), layer])
    kernel = find_kernels(model)[0][0]
    w = np.random.default_rng(0).normal(size=(2, 3, 6))
    found = HistogramClip(1.0, per="column").for_kernel(kernel)(w)
    limit = w.std(-1, keepdims=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), np.clip(w, -limit, limit), rtol=1e-5
    )


def test_unknown_parts_are_told():
    with pytest.raises(ValueError, match="per"):
        HistogramClip(per="row")
