"""Shifted inputs: images as the training set did not have them."""

import functools
import math
from collections.abc import Callable, Mapping

import keras
import numpy as np
from keras import ops

from hwa_keras.analysis.points import Bench, Points
from hwa_keras.analysis.study import ChipStudy, StudyOptions
from hwa_keras.analysis.study_data import evaluable
from hwa_keras.core.types import Data, Tensor, Unpack
from hwa_keras.results import Axis, Result

__all__ = ["SHIFTS", "ShiftPoints", "rotate", "shear", "shift_curve", "zoom"]


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn images counter-clockwise about their center.

    What comes into view at the borders is the image's own reflection, as in Keras's
    augmentation layers; values between pixels are interpolated linearly.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` where Keras is set so.
        degrees: Float, the angle.

    Returns:
        A `float32` tensor of the shape of `images`.

    Raises:
        ValueError: If `images` has another rank than 4.

    Example:
        >>> image = np.zeros((1, 3, 3, 1))
        >>> image[0, 1, 2, 0] = 1.0  # right of the center
        >>> turned = hwa_keras.analysis.rotate(image, 90)
        >>> round(float(turned[0, 0, 1, 0]), 4)  # above the center
        1.0
    """
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    return _transformed(images, ((cosine, -sine), (sine, cosine)))


def shear(images: Tensor, degrees: float) -> Tensor:
    """Lean the vertical lines of images to the right, as italics do.

    The middle row stays; the others move sideways by tan(angle) of their distance
    from it. Borders and values between pixels are as in `rotate`.

    Args:
        images: Tensor, as in `rotate`.
        degrees: Float between −90 and 90, the angle of vertical lines afterwards.

    Returns:
        A `float32` tensor of the shape of `images`.

    Raises:
        ValueError: If the angle is not below a right one, or `images` has another
            rank than 4.

    Example:
        >>> image = np.zeros((1, 3, 3, 1))
        >>> image[0, :, 1, 0] = 1.0  # a vertical line
        >>> leaning = hwa_keras.analysis.shear(image, 45)
        >>> [int(i) for i in ops.argmax(leaning[0, :, :, 0], axis=-1)]
        [2, 1, 0]
    """
    if not abs(degrees) < 90:
        raise ValueError(
            f"`degrees` must lie between −90 and 90. Received: degrees={degrees}."
        )
    return _transformed(images, ((1.0, math.tan(math.radians(degrees))), (0.0, 1.0)))


def zoom(images: Tensor, percent: float) -> Tensor:
    """Change the field of view of images: below 100 % objects grow, above they shrink.

    The result shows `percent` % of the height and of the width of the image, around
    its center: with 60 % a border is cut off and objects grow by 1/0.6, with 140 %
    there is room around and they shrink by 1/1.4. Borders and values between pixels
    are as in `rotate`.

    Args:
        images: Tensor, as in `rotate`.
        percent: Float > 0, the field of view.

    Returns:
        A `float32` tensor of the shape of `images`.

    Raises:
        ValueError: If `percent` is not positive, or `images` has another rank than 4.

    Example:
        >>> image = np.zeros((1, 5, 5, 1))
        >>> image[0, 2, 3, 0] = 1.0  # one pixel from the center
        >>> near = hwa_keras.analysis.zoom(image, 50)
        >>> int(ops.argmax(near[0, 2, :, 0]))  # now two pixels
        4
    """
    if not percent > 0:
        raise ValueError(f"`percent` must be positive. Received: percent={percent}.")
    factor = percent / 100.0
    return _transformed(images, ((factor, 0.0), (0.0, factor)))


def _transformed(images, matrix):
    """Images whose pixel at x, from the center, is what was at `matrix`·x."""
    images = ops.cast(ops.convert_to_tensor(images), "float32")
    if len(images.shape) != 4:
        raise ValueError(
            "Images must have the shape (batch, height, width, channels). Received a "
            f"tensor of shape {tuple(images.shape)}."
        )
    last = keras.config.image_data_format() == "channels_last"
    batch = images.shape[0]
    height, width = images.shape[1:3] if last else images.shape[2:4]
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = np.array(matrix)
    (a0, a1), (b0, b1) = linear
    a2, b2 = center - linear @ center
    one = np.array([a0, a1, a2, b0, b1, b2, 0.0, 0.0], "float32")
    return ops.image.affine_transform(
        images,
        ops.convert_to_tensor(np.tile(one, (batch, 1))),
        interpolation="bilinear",
        fill_mode="reflect",
    )


SHIFTS = {
    "rotation 20°": functools.partial(rotate, degrees=20.0),
    "rotation 40°": functools.partial(rotate, degrees=40.0),
    "shear 28.6°": functools.partial(shear, degrees=28.6),
    "shear 57.3°": functools.partial(shear, degrees=57.3),
    "zoom 60 %": functools.partial(zoom, percent=60.0),
    "zoom 80 %": functools.partial(zoom, percent=80.0),
    "zoom 120 %": functools.partial(zoom, percent=120.0),
    "zoom 140 %": functools.partial(zoom, percent=140.0),
}


def shift_curve(
    model: keras.Model,
    data: Data,
    *,
    shifts: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    **study: Unpack[StudyOptions],
) -> Result:
    """Measure a model on inputs off the distribution that it was trained on.

    The level `"none"`, which comes first, are the inputs as they are. The thesis
    names the shifts but neither their sense nor the filling of borders: rotation is
    counter-clockwise, and the rest as `rotate`, `shear` and `zoom` say.

    Args:
        model: A built and compiled Keras model, or a chip.
        data: A pair of arrays `(x, y)`, or `(x, y, sample_weight)`; for `SHIFTS`, x is
            images of shape `(examples, height, width, channels)`.
        shifts: Dictionary from names to callables, each from a batch of inputs to a
            batch of inputs; a Keras augmentation layer is one. None means `SHIFTS`:
            rotations by 20 and 40°, shears by 28.6 and 57.3°, zooms to 60, 80, 120
            and 140 %.
        **study: Options of `ChipStudy`: metric, batch_size (that of the calls of
            `shifts`, too), executor, verbose. Nothing is random, so the model is
            evaluated once, as it is.

    Returns:
        A `Result` over the shifts, with one sample at each level.

    Raises:
        ValueError: If the model is not compiled, there are no shifts, or the data is
            empty or no pair of arrays.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)
        ... ])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 8, 8, 1)), np.ones((4, 3))
        >>> curve = hwa_keras.analysis.shift_curve(model, data, verbose=0)
        >>> curve.levels[:3]
        ['none', 'rotation 20°', 'rotation 40°']

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 5.5.2 and
          annex B.
    """
    return ChipStudy(model, data, **study).run(ShiftPoints(shifts))


class ShiftPoints(Points):
    """The points of `shift_curve`: the inputs as they are, and each shift of them.

    Args:
        shifts: As of `shift_curve`.
    """

    is_random = False

    def __init__(
        self, shifts: Mapping[str, Callable[[Tensor], Tensor]] | None = None
    ) -> None:
        self.shifts = dict(SHIFTS if shifts is None else shifts)
        if not self.shifts:
            raise ValueError(
                "`shifts` is empty. Give at least one, or None for SHIFTS."
            )
        levels = ["none", *self.shifts]
        self.axes = (Axis("shift", levels, label="shift of the inputs"),)

    def bench(self, study: ChipStudy) -> Bench:
        data = study.data
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ValueError(
                "`data` must be a pair (x, y) of arrays, so that x can be shifted. "
                f"Received an object of type {type(data).__name__}."
            )
        if study.calibration is not None:
            raise ValueError("A study of shifts calibrates nothing: leave it out.")
        study.evaluable()  # Raises an error if there are no examples.
        return _ShiftBench(study, self.shifts)


class _ShiftBench(Bench):
    def __init__(self, study, shifts):
        super().__init__(study.model, {})
        self.given, self.size, self.shifts = study.data, study.batch_size, shifts

    def put(self, point):
        x, *rest = self.given
        shift = self.shifts.get(point[0])
        if shift is not None:
            parts = (x[i : i + self.size] for i in range(0, len(x), self.size))
            x = np.concatenate([ops.convert_to_numpy(shift(part)) for part in parts])
        self.data = evaluable((x, *rest), self.size)
