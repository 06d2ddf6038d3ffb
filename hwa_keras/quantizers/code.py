"""Code: the integers that a memory stores for the levels of a quantizer."""

from dataclasses import dataclass

from keras import ops

ENCODINGS = ("twos_complement", "sign_magnitude")


@dataclass(frozen=True)
class Code:
    """How the levels of a quantizer are numbered: w = step·(c + offset).

    c is a signed integer of `bits` bits. All codes are levels for the memory, those
    that the quantizer never gives included: a flipped bit may lead there.

    Args:
        bits: Integer ≥ 1, the bits of c.
        offset: Float. 0 where a level is zero, ½ where levels lie on both sides of
            it, 2^(bits−1) where none is negative.
        step: Float, the distance of neighboring levels, or None: then `largest` is
            the code of the tensor's largest magnitude.
        largest: Integer, see `step`.
        axis: The axis (or tuple of axes) along which there is a largest magnitude
            each; None for one per tensor.
    """

    bits: int
    offset: float = 0.0
    step: float | None = 1.0
    largest: int = 1
    axis: int | tuple | None = None

    def steps(self, w):
        """The step of a quantized tensor, as a tensor that broadcasts with it."""
        if self.step is not None:
            return ops.convert_to_tensor(self.step, w.dtype)
        return largest_magnitude(w, self.axis) / self.largest

    def flipped(self, w, mask, step=None, encoding="twos_complement"):
        """The weights that are read where some bits of their codes are wrong.

        Args:
            w: Float tensor of levels.
            mask: `int32` tensor of the shape of `w`, the bits that are flipped.
            step: Tensor that broadcasts with `w`, or None for that of the code.
            encoding: `"twos_complement"`, or `"sign_magnitude"`: the highest bit is
                the sign, the others are the magnitude. Codes of which none is
                negative have no sign, and are the same in both.

        Returns:
            A tensor of the shape and dtype of `w`, equal to it to the bit where the
            mask is 0.
        """
        step = self.steps(w) if step is None else ops.cast(step, w.dtype)
        if self.bits == 1:
            read = step * (2.0 * self.offset - 1.0) - w
        elif encoding == "sign_magnitude" and self.offset < 1:
            read = self._flip_sign_magnitude(w, mask, step)
        else:
            read = self._flip_twos_complement(w, mask, step)
        return ops.where(mask == 0, w, read)

    def _flip_twos_complement(self, w, mask, step):
        # Two's complement is offset binary with the highest bit inverted, so that
        # flips change both alike.
        lowest = 2 ** (self.bits - 1)
        stored = ops.cast(ops.round(w / step - self.offset), "int32") + lowest
        read = ops.bitwise_xor(stored, mask) - lowest
        return step * (ops.cast(read, w.dtype) + self.offset)

    def _flip_sign_magnitude(self, w, mask, step):
        sign_bit = 2 ** (self.bits - 1)
        magnitude = ops.cast(ops.round(ops.abs(w) / step - self.offset), "int32")
        negative = ops.cast(w < 0, "int32") * sign_bit
        read = ops.bitwise_xor(magnitude + negative, mask)
        negative = read >= sign_bit  # TensorFlow Lite has no bitwise AND.
        read = ops.where(negative, read - sign_bit, read)
        level = ops.cast(read, w.dtype) + self.offset
        return ops.where(negative, -level, level) * step


def reduced_axes(axis, rank):
    """The axes of a tensor of some rank but those in `axis` (None: all axes)."""
    if axis is None:
        return tuple(range(rank))
    kept = axis if isinstance(axis, (tuple, list)) else (axis,)
    if not all(-rank <= i < rank for i in kept):
        raise ValueError(f"`axis` {axis} does not exist in a tensor of rank {rank}.")
    return tuple(i for i in range(rank) if i not in {j % rank for j in kept})


def largest_magnitude(x, axis):
    """The largest |x|, or one along `axis` each; 1 where all is zero."""
    axes = reduced_axes(axis, len(x.shape))
    largest = ops.max(ops.abs(x), axis=axes, keepdims=axis is not None)
    return ops.where(largest > 0, largest, ops.ones_like(largest))


def check_encoding(owner, encoding):
    """Raise `ValueError` for an unknown encoding."""
    if encoding not in ENCODINGS:
        raise ValueError(
            f"`encoding` of {owner} must be 'twos_complement' or 'sign_magnitude'. "
            f"Received: encoding={encoding!r}."
        )
    return encoding
