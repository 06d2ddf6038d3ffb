"""Changes of images that leave their class as it is."""

import numpy as np

__all__ = ["pad_crop_flip"]


def pad_crop_flip(
    images: np.ndarray, rng: np.random.Generator, pad: int = 4
) -> np.ndarray:
    """Shift every image at random, and mirror every other one.

    The usual augmentation of CIFAR: zeros are put around an image, a part of its
    former size is cut out at a random place, and with probability 1/2 mirrored left to
    right. Meant as `transform=` of `Batches`; another width is
    `functools.partial(pad_crop_flip, pad=2)`.

    Args:
        images: Array of shape `(samples, height, width, channels)`, of any type.
        rng: A `np.random.Generator`, which is advanced.
        pad: Int >= 0, the zeros on each side, so that an image moves by at most this
            many pixels. Defaults to `4`.

    Returns:
        An array of the shape and type of `images`.

    Example:
        >>> images = np.ones((2, 8, 8, 3), "float32")
        >>> moved = hwa_keras.datasets.pad_crop_flip(images, np.random.default_rng(0))
        >>> moved.shape, moved.dtype.name, bool(moved.mean() < 1)
        ((2, 8, 8, 3), 'float32', True)
    """
    samples, height, width, _ = images.shape
    top, left = rng.integers(0, 2 * pad, size=(2, samples), endpoint=True)
    mirrored = rng.random(samples) < 0.5
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
    samples = np.arange(samples)
    return padded[samples[:, None, None], rows[:, :, None], columns[:, None, :]]
