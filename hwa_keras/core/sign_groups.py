"""Groups of contiguous rows of a kernel: synapses that share a sign."""

import math

from keras import ops

from hwa_keras.core.checks import check_count

__all__ = ["check_group", "grouped", "ungrouped"]


def grouped(owner, w, group, partial):
    """The synapses of each column in groups of contiguous rows.

    Args:
        owner: String, for messages.
        w: Tensor `[..., columns]`, a kernel whose other axes are rows.
        group: Integer ≥ 1, the size of a group.
        partial: Bool. Whether the last group of a column may be smaller; it is filled
            with zeros.

    Returns:
        Tensor `[groups, group, columns]`.
    """
    rows, columns = _matrix_shape(w)
    missing = -rows % group
    if missing and not partial:
        raise ValueError(
            f"`group` of {owner} must divide the fan-in of a kernel. Received: "
            f"group={group} for a kernel of shape {tuple(w.shape)}, whose fan-in is "
            f"{rows}. Give the layer a multiple of {group} inputs, or allow a smaller "
            "last group with partial=True."
        )
    matrix = ops.reshape(w, (rows, columns))
    if missing:
        matrix = ops.pad(matrix, ((0, missing), (0, 0)))
    return ops.reshape(matrix, (-1, group, columns))


def ungrouped(groups, w):
    """The kernel of the shape of `w` that `grouped` made these groups of."""
    rows, columns = _matrix_shape(w)
    return ops.reshape(ops.reshape(groups, (-1, columns))[:rows], w.shape)


def check_group(owner, group):
    """The size of a group as an int, or a `ValueError`."""
    return check_count(owner, group=group)


def _matrix_shape(w):
    if len(w.shape) < 2:
        return 1, int(w.shape[0])  # A diagonal kernel is one row.
    return math.prod(w.shape[:-1]), int(w.shape[-1])
