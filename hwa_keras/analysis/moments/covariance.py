"""Covariance: how the elements of two tensors vary together, stored as needed."""

import math
from dataclasses import dataclass
from typing import Any

from keras import ops

__all__ = ["Budget", "Covariance"]


class Budget:
    """The memory that the covariance of one example may take.

    Args:
        most: Integer, bytes.

    Attributes:
        layer: Name of the layer at work, for messages.
    """

    def __init__(self, most):
        self.most = most
        self.layer = ""

    def check(self, *shape):
        """Raise `ValueError` for a float32 tensor of a shape that does not fit."""
        size = 4 * math.prod(int(n) for n in shape)
        if size > self.most:
            raise ValueError(
                f"The covariance at layer '{self.layer}' takes {size:,} bytes "
                f"({size / 2**30:.2f} GiB) for one example, and max_bytes is "
                f"{self.most:,}. Give a larger max_bytes, or use method='delta', which "
                "holds no covariance."
            )


@dataclass(frozen=True)
class Covariance:
    """The covariances between the elements of two tensors, example by example.

    Both tensors are flat, and element i of one of n elements is (p, c), i = p·C + c.
    Elements of different c are not correlated. C = 1 is any covariance, C = n that of
    independent elements, and C channels that of a convolution of exact inputs, whose
    columns are independent: as much as a model makes of it is stored, and no more.

    Args:
        values: Tensor `[examples, P, Q, C]`: Cov(a[p, c], b[q, c]).
        budget: The `Budget` that larger ones are checked against.
    """

    values: Any
    budget: Budget

    @property
    def channels(self):
        return int(self.values.shape[3])

    def with_values(self, values):
        return Covariance(values, self.budget)

    def transposed(self):
        """That between the second tensor and the first."""
        return self.with_values(ops.transpose(self.values, (0, 2, 1, 3)))

    def variance(self):
        """The variances `[examples, n]` of a tensor, of its covariance with itself."""
        diagonal = ops.diagonal(self.values, axis1=1, axis2=2)
        return _flat(ops.transpose(diagonal, (0, 2, 1)))

    def full(self):
        """The same with C = 1."""
        b, p, q, c = map(int, self.values.shape)
        if c == 1:
            return self
        self.budget.check(p, c, q, c)
        columns = ops.expand_dims(ops.transpose(self.values, (0, 1, 3, 2)), -1)
        spread = columns * ops.reshape(ops.eye(c), (c, 1, c))
        return self.with_values(ops.reshape(spread, (b, p * c, q * c, 1)))

    def among(self, channels):
        """Its values between elements of one channel of so many.

        Args:
            channels: Integer, a divisor of the number of elements.

        Returns:
            Tensor `[examples, n / channels, n / channels, channels]`.
        """
        b, p, _, c = map(int, self.values.shape)
        if c == channels:
            return self.values
        if channels == p * c:
            return ops.reshape(self.variance(), (b, 1, 1, channels))
        positions = p * c // channels
        self.budget.check(positions, positions, channels)
        shape = (b, positions, channels, positions, channels)
        pairs = ops.reshape(self.full().values, shape)
        return ops.diagonal(pairs, axis1=2, axis2=4)

    def scaled(self, scale, both=False):
        """The covariance with s·b in place of the second tensor b.

        Args:
            scale: Tensor `[examples or 1, n]`.
            both: Bool. Whether the first tensor is b too, and scaled as well.
        """
        _, _, q, c = map(int, self.values.shape)
        scales = ops.reshape(scale, (-1, q, c))
        values = self.values * ops.expand_dims(scales, 1)
        return self.with_values(values * ops.expand_dims(scales, 2) if both else values)

    def through(self, function, shape, by_channel):
        """The covariance with L(b) in place of the second tensor b, L linear.

        Args:
            function: L, a function of a batch `[batch, *shape]`.
            shape: Tuple, the shape of an example of b.
            by_channel: Bool. Whether L treats all channels, the last axis, alike, and
                each for itself.
        """
        kept = self
        if not (by_channel and shape[-1] == self.channels):
            kept, by_channel = self.full(), False
        b, p, _, c = map(int, kept.values.shape)
        mapped = function(ops.reshape(kept.values, (b * p, *shape)))
        n = math.prod(int(size) for size in mapped.shape[1:]) // c
        self.budget.check(p, n, c)
        return self.with_values(ops.reshape(mapped, (b, p, n, c)))

    def plus(self, other, sign=1):
        """The sum with another covariance of the same two tensors."""
        first, second = self, other
        if first.channels != second.channels:
            first, second = first.full(), second.full()
        return self.with_values(first.values + sign * second.values)


def _flat(x):
    return ops.reshape(x, (int(x.shape[0]), -1))
