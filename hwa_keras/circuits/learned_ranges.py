"""Ranges that are learned: where they start, and the gradients that move them.

Pure functions. A range is a bound r that stands for (−r, r), in the unit of the signal.
"""

import functools
import math

from keras import ops

from hwa_keras import backend
from hwa_keras.circuits.ranges import largest_code
from hwa_keras.quantizers.base import in_float32
from hwa_keras.quantizers.uniform import uniform

__all__ = ["clip_gradient", "clip_learned", "lsq_learned", "moved_start"]


def moved_start(bound, batches, x, first=100, stds=3.0):
    """Set a range from the first batches of data, as aihwkit does.

    For batch number i = `batches` < `first`: r ← (i·r + stds·σ)/(i + 1), with σ the
    (unbiased) standard deviation of the batch; a batch with σ = 0 does not count. What
    training did to r meanwhile stays in the mean. The update of `apply_input_range` in
    IBM/aihwkit-lightning, nn/modules/torch_utils/torch_linear.py (`init_from_data`,
    `init_std_alpha`), but that a constant batch other than zero gives max|x| for
    stds·σ.

    Args:
        bound: Scalar tensor, r.
        batches: Scalar float tensor, the number of batches that r has seen.
        x: Float tensor, the batch.
        first: Number of batches to start from.
        stds: Float > 0.

    Returns:
        The new `bound` and `batches`, without gradient.

    Example:
        >>> from hwa_keras.circuits.learned_ranges import moved_start
        >>> zero = ops.convert_to_tensor(0.0)
        >>> bound, batches = moved_start(zero, zero, np.array([-1.0, 0.0, 1.0]))
        >>> float(bound), float(batches)
        (3.0, 1.0)
    """
    x = ops.stop_gradient(ops.cast(x, bound.dtype))

    def moved():
        found = _spread(x, stds)
        mean = ops.abs((bound * batches + found) / (batches + 1.0))
        counts = found > 0
        return ops.where(counts, mean, bound), batches + ops.cast(counts, bound.dtype)

    # The data is not looked at once the range has started.
    pair = ops.cond(batches < first, moved, lambda: (bound, batches))
    return tuple(ops.stop_gradient(value) for value in pair)


def clip_gradient(x, bound, upstream, decay=0.01, min_unclipped=0.95):
    """The gradient of a learned range in IBM's aihwkit and aihwkit-lightning.

    With u the gradient of the loss with respect to the converted inputs:

    dL/dr = r·(Σ_{x ≥ r} min(u, 0) − Σ_{x ≤ −r} max(u, 0))
            + decay·r·[share of |x| < r is above min_unclipped]

    An input beyond the range widens it where the loss would fall if the input were
    passed on larger, and nothing narrows it but the decay, which acts while few inputs
    are clipped. The gradient is relative to r. The decay is no part of the loss: a
    scaled loss leaves it as it is. dL/dx = u for |x| ≤ r, else 0.

    This is `InputRangeForward.backward` (with `StraightThroughClamp`) in
    IBM/aihwkit-lightning, src/aihwkit_lightning/nn/modules/torch_utils/torch_linear.py,
    and `gradient_relative=True`, `gradient_scale=1` in IBM/aihwkit,
    `InputRangeParameter`. Names there: `decay`, `input_min_percentage`.

    Args:
        x: Float tensor of any shape.
        bound: Scalar tensor r > 0.
        upstream: Tensor u of the shape of `x`.
        decay: Float ≥ 0.
        min_unclipped: Float from 0 to 1.

    Returns:
        A pair: dL/dx, of the shape of `x`, and dL/dr, a scalar.

    Example:
        >>> from hwa_keras.circuits.learned_ranges import clip_gradient
        >>> x = ops.convert_to_tensor(np.array([0.5, 3.0, 4.0, -5.0], "float32"))
        >>> u = ops.convert_to_tensor(np.array([1.0, -1.0, 1.0, 2.0], "float32"))
        >>> to_x, to_r = clip_gradient(x, ops.convert_to_tensor(2.0), u)
        >>> [float(v) for v in to_x], float(to_r)
        ([1.0, 0.0, 0.0, 0.0], -6.0)

    Reference:
        - Rasch et al., 2023, arXiv:2302.08469 (learned input ranges).
        - Büchel et al., "AIHWKIT-Lightning", 2024.
    """
    zeros = ops.zeros_like(upstream)
    above = ops.where(x >= bound, ops.minimum(upstream, 0.0), zeros)
    widening = _total(ops.where(x <= -bound, ops.minimum(-upstream, 0.0), above))
    inside = _total(ops.cast(ops.abs(x) < bound, upstream.dtype))
    share = inside / ops.cast(ops.size(x), upstream.dtype)
    shrinking = decay * ops.cast(share > min_unclipped, upstream.dtype)
    to_x = ops.where(ops.abs(x) <= bound, upstream, zeros)
    return to_x, bound * (widening + shrinking)


def clip_learned(x, bound, bits, decay=0.01, min_unclipped=0.95):
    """`ranges.quantized_within` with the gradient of `clip_gradient` for the bound.

    Args:
        x: Float tensor of any shape. Half precision is computed in `float32`.
        bound: Scalar tensor r > 0.
        bits: Integer ≥ 2.
        decay: Float ≥ 0.
        min_unclipped: Float from 0 to 1.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> from hwa_keras.circuits.learned_ranges import clip_learned
        >>> x = np.array([-9.0, 0.4, 1.2], "float32")
        >>> [float(v) for v in clip_learned(x, 3.0, bits=3)]
        [-3.0, 0.0, 1.0]
    """
    forward, backward = _directions(bits, decay, min_unclipped)

    @ops.custom_gradient
    def convert(x, bound):
        def gradient(*args, upstream=None):
            return backward(x, bound, args[0] if upstream is None else upstream)

        return forward(x, bound), gradient

    x = ops.convert_to_tensor(x)
    value = in_float32(x)
    return ops.cast(convert(value, ops.cast(bound, value.dtype)), x.dtype)


@functools.cache
def _directions(bits, decay, min_unclipped):
    """The functions of `clip_learned`; backward in one pass over memory."""
    codes = float(largest_code(bits))

    def forward(x, bound):
        converted = ops.clip(x, -bound, bound) * (codes / bound)
        return ops.round(converted) * (bound / codes)

    def backward(x, bound, upstream):
        return clip_gradient(x, bound, upstream, decay, min_unclipped)

    return forward, backend.fuse(backward)


def lsq_learned(x, bound, bits):
    """`ranges.quantized_within` with the gradient of learned step size quantization.

    LSQ trains the step Δ = r/Q by Δ ← Δ − lr·g·dL/dΔ, with g = 1/√(N·Q), N the features
    of one example, and dL/dΔ = Σ u·(round(v) − v) for v = x/Δ inside the range, Σ ±u·Q
    outside. As dL/dΔ = Q·dL/dr, the same step in terms of r is r ← r − lr·Q²·g·dL/dr:
    Q²·g·dL/dr is what this gives r as its gradient.

    Args:
        x: Float tensor `[batch, ...]`. Half precision is computed in `float32`.
        bound: Scalar tensor r > 0.
        bits: Integer ≥ 2; Q = 2^(bits − 1) − 1.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> from hwa_keras.circuits.learned_ranges import lsq_learned
        >>> x = np.array([[-9.0, 0.4, 1.2]], "float32")
        >>> [float(v) for v in lsq_learned(x, 3.0, bits=3)[0]]
        [-3.0, 0.0, 1.0]

    Reference:
        - Esser et al., "Learned step size quantization", ICLR 2020,
          arXiv:1902.08153, equation 3 and section 2.2.
    """
    codes = largest_code(bits)
    x = ops.convert_to_tensor(x)
    features = ops.cast(math.prod(ops.shape(x)[1:]), in_float32(x).dtype)
    return uniform(x, codes + 1, bound, codes**2 / ops.sqrt(features * codes))


def _spread(x, stds):
    """A number of standard deviations of a batch, or max|x| of a constant one."""
    count = ops.cast(ops.size(x), x.dtype)
    variance = ops.sum(ops.square(x - ops.mean(x)))
    spread = stds * ops.sqrt(variance / ops.maximum(count - 1.0, 1.0))
    return ops.where(spread > 0, spread, ops.max(ops.abs(x)))


def _total(x):
    """Σ x, most of it as a product with ones: on a CPU XLA sums on one thread."""
    return ops.sum(ops.matmul(x, ops.ones(x.shape[-1:], x.dtype)))
