"""Shifts of images are those that their names say, and are what is measured."""

import keras
import numpy as np
import pytest
import scipy.ndimage
from keras import ops

from hwa_keras.analysis import SHIFTS, rotate, shear, shift_curve, zoom

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

SIZE = 61
IMAGES = np.random.default_rng(0).uniform(size=(2, 12, 9, 3)).astype("float32")


def shifted(shift, images, amount):
    return ops.convert_to_numpy(shift(images, amount))


def line(angle):
    """An image of a smooth bright line through the center, and the coordinates.

    Angles count counter-clockwise from the x axis; y points up.
    """
    half = (SIZE - 1) / 2
    y, x = np.meshgrid(half - np.arange(SIZE), np.arange(SIZE) - half, indexing="ij")
    distance = -x * np.sin(angle) + y * np.cos(angle)
    return np.exp(-0.5 * (distance / 1.5) ** 2)[None, ..., None], x, y


def direction(image, x, y):
    """The angle in degrees, from 0 to 180, of the longest axis of the bright part."""
    weight = image[0, ..., 0] * (np.hypot(x, y) < SIZE / 3)
    u, v = (np.sum(weight * p) for p in (x * x - y * y, 2 * x * y))
    return np.degrees(np.arctan2(v, u)) / 2 % 180


@pytest.mark.parametrize("degrees", [20.0, 40.0])
def test_a_line_turns_counter_clockwise_by_the_angle(degrees):
    image, x, y = line(np.radians(10))
    found = direction(shifted(rotate, image, degrees), x, y)
    assert found == pytest.approx(10 + degrees, abs=0.3)


@pytest.mark.parametrize("degrees", [28.6, 57.3])
def test_a_vertical_line_leans_to_the_right_by_the_angle(degrees):
    image, _, y = line(np.pi / 2)
    leaning = shifted(shear, image, degrees)[0, ..., 0]
    inner = np.abs(y[:, 0]) <= 15  # The line leaves the image elsewhere.
    peaks = np.argmax(leaning, axis=1)[inner] - (SIZE - 1) / 2
    slope = np.polyfit(y[inner, 0], peaks, 1)[0]
    assert np.degrees(np.arctan(slope)) == pytest.approx(degrees, abs=0.7)


@pytest.mark.parametrize("percent", [60.0, 80.0, 120.0, 140.0])
def test_the_field_of_view_is_the_percentage(percent):
    _, x, y = line(0)
    image = sum(np.exp(-0.1 * ((x - c) ** 2 + y**2)) for c in (-12, 12))
    row = shifted(zoom, image[None, ..., None], percent)[0, (SIZE - 1) // 2, :, 0]
    half = (SIZE - 1) // 2
    places = np.array([np.argmax(row[:half]), half + np.argmax(row[half:])]) - half
    np.testing.assert_allclose(places, np.array([-12, 12]) * 100 / percent, atol=0.6)


@pytest.mark.parametrize("label", list(SHIFTS))
def test_pixels_are_those_of_scipy(label):
    kind, amount = label.replace(" %", "").replace("°", "").split()
    angle, factor = np.radians(float(amount)), float(amount) / 100
    matrix = {  # From output to input, in rows and columns.
        "rotation": [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]],
        "shear": [[1, 0], [np.tan(angle), 1]],
        "zoom": [[factor, 0], [0, factor]],
    }[kind]
    center = np.array([5.5, 4.0])
    offset = center - np.array(matrix) @ center
    found = ops.convert_to_numpy(SHIFTS[label](IMAGES))
    assert found.dtype == "float32"
    for image, result in zip(IMAGES, found, strict=True):
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                image[..., channel], matrix, offset, order=1, mode="reflect"
            )
            np.testing.assert_allclose(result[..., channel], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("shift", "amount", "layer"),
    [
        (rotate, 40.0, lambda: keras.layers.RandomRotation((40 / 360, 40 / 360))),
        (zoom, 60.0, lambda: keras.layers.RandomZoom((-0.4, -0.4))),
        (zoom, 140.0, lambda: keras.layers.RandomZoom((0.4, 0.4))),
    ],
)
def test_pixels_are_those_of_the_keras_layer(shift, amount, layer):
    expected = ops.convert_to_numpy(layer()(IMAGES, training=True))
    np.testing.assert_allclose(shifted(shift, IMAGES, amount), expected, atol=1e-4)


def test_integer_images_are_shifted_as_floats():
    images = (IMAGES * 255).astype("uint8")
    expected = shifted(rotate, images.astype("float32"), 20.0)
    np.testing.assert_array_equal(shifted(rotate, images, 20.0), expected)


def compiled():
    inputs = keras.Input((12, 9, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model.compile("adam", "mse", metrics=["mae"])
    return model


X = np.random.default_rng(1).uniform(size=(10, 12, 9, 3)).astype("float32")
Y = np.random.default_rng(2).normal(size=(10, 3)).astype("float32")


def test_every_level_is_the_evaluation_of_the_shifted_images():
    model = compiled()
    before = [ops.convert_to_numpy(w) for w in model.weights]
    curve = shift_curve(model, (X, Y), batch_size=5, verbose=0)
    assert curve.levels == ["none", *SHIFTS] and curve.metric == "mae"
    images = {"none": X, "rotation 40°": rotate(X, 40), "zoom 60 %": zoom(X, 60)}
    for label, shown in images.items():
        outputs = ops.convert_to_numpy(model(shown))
        assert curve.values(label, metric="loss") == pytest.approx(
            np.mean((outputs - Y) ** 2), rel=1e-4
        )
    losses = [curve.values(label, metric="loss").item() for label in curve.levels]
    assert len(set(losses)) == 9
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new))


def test_shifts_of_one_s_own_and_keras_layers():
    model = compiled()
    own = {
        "dark": lambda images: 0.5 * images,
        "flipped": keras.layers.RandomFlip("horizontal", seed=1),
    }
    curve = shift_curve(model, (X, Y), shifts=own, metric="loss", verbose=0)
    assert curve.levels == ["none", "dark", "flipped"]
    expected = np.mean((ops.convert_to_numpy(model(0.5 * X)) - Y) ** 2)
    assert curve.values("dark") == pytest.approx(expected, rel=1e-4)
    assert curve.values("flipped") != pytest.approx(curve.values("none"), rel=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shifts": {}}, "`shifts` is empty"),
        ({"data": None}, "pair .* of arrays.*NoneType"),
        ({"data": (X[:0], Y[:0])}, "`data` is empty"),
        ({"metric": "f1"}, "not among the compiled ones"),
    ],
)
def test_bad_input(kwargs, message):
    arguments = {"data": (X, Y), "verbose": 0, **kwargs}
    with pytest.raises(ValueError, match=message):
        shift_curve(compiled(), **arguments)


def test_bad_images_and_amounts():
    with pytest.raises(ValueError, match=r"\(batch, height, .* shape \(12, 9, 3\)"):
        rotate(IMAGES[0], 20)
    with pytest.raises(ValueError, match="`degrees` must lie between"):
        shear(IMAGES, 90)
    with pytest.raises(ValueError, match="`percent` must be positive"):
        zoom(IMAGES, 0)


def test_an_uncompiled_model_is_refused():
    model = keras.Sequential([keras.Input((12, 9, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="not compiled"):
        shift_curve(model, (X, Y), verbose=0)
