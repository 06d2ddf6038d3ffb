"""Ranges and their gradients against published formulas, transcribed in NumPy."""

import numpy as np
import pytest
from keras import ops

from hwa_keras.circuits import learned_ranges, ranges
from tests.gradients import gradient

RNG = np.random.default_rng(7)
X = RNG.normal(size=(6, 8)).astype("float32")
U = RNG.normal(size=(6, 8)).astype("float32")


def near(found, right, unit=1.0):
    """Equal to 1e-6 of the sum of the magnitudes that were added up."""
    np.testing.assert_allclose(found, right, rtol=1e-6, atol=1e-6 * unit)


def lightning(x, r, u, decay, min_percentage):
    """InputRangeForward and StraightThroughClamp of IBM/aihwkit-lightning."""
    x, u, r = x.astype("float64"), u.astype("float64"), float(np.float32(r))
    upper_thresh, lower_thresh = x >= r, x <= -r
    ir_grad = 0.0
    ir_grad += np.clip(u[upper_thresh], None, 0.0).sum()
    ir_grad -= np.clip(u[lower_thresh], 0.0, None).sum()
    ir_grad *= r
    if decay > 0:
        percentage = 1.0 - (upper_thresh | lower_thresh).sum() / upper_thresh.size
        ir_grad += decay * r * (percentage > min_percentage)
    d_input = u.copy()
    d_input[(upper_thresh | lower_thresh) & (np.abs(x) != r)] = 0.0
    return d_input, ir_grad


def grid(x, r, bits):
    q = 2 ** (bits - 1) - 1
    r = float(np.float32(r))
    return r * np.round(np.clip(x.astype("float64") / r, -1, 1) * q) / q


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("r", [0.3, 1.0, 2.5, 9.0, float(X.max()), float(-X.min())])
def test_clip_gradient_is_that_of_aihwkit_lightning(bits, r):
    for decay, share in ((0.01, 0.95), (0.0, 0.95), (0.5, 0.2)):

        def weighted(x, bound, decay=decay, share=share):
            return ops.sum(
                U * learned_ranges.clip_learned(x, bound, bits, decay, share)
            )

        found = gradient(weighted, X, np.float32(r))
        for got, right in zip(found, lightning(X, r, U, decay, share), strict=True):
            near(got, right, unit=r * np.abs(U).sum() if np.ndim(right) == 0 else 1.0)
    found = ops.convert_to_numpy(learned_ranges.clip_learned(X, np.float32(r), bits))
    near(found, grid(X, r, bits), unit=r)


def lsq(x, r, u, bits):
    """dL/dx, and by what LSQ moves the step for a learning rate of 1."""
    q = 2 ** (bits - 1) - 1
    step = float(np.float32(r)) / q
    v = x.astype("float64") / step
    slope = np.where(np.abs(v) <= q, np.round(v) - v, np.sign(v) * q)
    scale = 1 / np.sqrt(np.prod(x.shape[1:]) * q)
    return np.where(np.abs(v) <= q, u, 0.0), scale * (u * slope).sum()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("r", [0.3, 1.0, 9.0])
def test_lsq_gradient_moves_the_step_as_lsq_does(bits, r):
    q = 2 ** (bits - 1) - 1
    found = gradient(
        lambda x, bound: ops.sum(U * learned_ranges.lsq_learned(x, bound, bits)),
        X,
        np.float32(r),
    )
    to_x, step_moves = lsq(X, r, U, bits)
    np.testing.assert_array_equal(found[0], to_x.astype("float32"))
    # Of the rounding error of v, which is as large as the quotient is.
    np.testing.assert_allclose(found[1] / q, step_moves, rtol=1e-4, atol=1e-5)
    near(
        ops.convert_to_numpy(learned_ranges.lsq_learned(X, np.float32(r), bits)),
        grid(X, r, bits),
    )


def test_start_is_that_of_aihwkit_lightning():
    r, i = 0.7, 0.0
    bound, batches = ops.convert_to_tensor(np.float32(r)), ops.convert_to_tensor(0.0)
    for k in range(6):
        x = (X * (k + 1)).astype("float32")
        bound, batches = learned_ranges.moved_start(
            bound, batches, x, first=4, stds=2.0
        )
        if i < 4:
            r = abs((r * i + 2.0 * x.astype("float64").std(ddof=1)) / (i + 1))
            i += 1
        near(float(ops.convert_to_numpy(bound)), r, unit=r)
        assert float(ops.convert_to_numpy(batches)) == i


def test_constant_batches_start_at_their_size_and_zeros_do_not_count():
    zero = ops.convert_to_tensor(0.0)
    for x, right in ((np.full((2, 3), -4.0), (4, 1)), (np.zeros((2, 3)), (0, 0))):
        found = learned_ranges.moved_start(zero, zero, x.astype("float32"))
        assert tuple(float(ops.convert_to_numpy(v)) for v in found) == right


def test_bounds_of_batches_and_examples():
    x = np.array([[1.0, -3.0], [0.0, 0.0], [0.5, 0.25]], "float32")
    assert float(ops.convert_to_numpy(ranges.batch_bound(x))) == 3
    assert float(ops.convert_to_numpy(ranges.batch_bound(0 * x))) == 1
    found = ops.convert_to_numpy(ranges.example_bound(x))
    np.testing.assert_array_equal(found, [[3], [1], [0.5]])
    assert ranges.example_bound(np.ones((2, 3, 4), "float32")).shape == (2, 1, 1)
    with pytest.raises(ValueError, match="need at least two.*'batch_max'"):
        ranges.example_bound(x[0])


def test_a_range_of_zero_converts_zeros_to_zeros():
    x = np.zeros((2, 3), "float32")
    found = ranges.quantized_within(x, np.zeros((1, 3), "float32"), 8)
    np.testing.assert_array_equal(found, x)


# Of 3 row tiles, 2 groups of columns, 4 vectors and 5 columns in a group.
FACTORS = {
    "one": [np.float32(0.7)],
    "columns": [RNG.uniform(0.5, 1.5, (3, 2, 1, 5))],
    "columns and vectors": [
        RNG.uniform(0.5, 1.5, (3, 2, 1, 5)),
        np.float32(0.9),
        RNG.uniform(0.5, 1.5, (1, 1, 4, 1)),
    ],
}


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("cut", [(3,), (2, 1)])
def test_row_tiles_are_converted_and_added_up(factors, cut):
    stacks = [RNG.normal(size=(k, 2, 4, 5)).astype("float32") for k in cut]
    upstream = RNG.normal(size=(4, 10)).astype("float32")
    bounds = [np.asarray(f, "float32") for f in FACTORS[factors]]

    def weighed(*stacks):
        return ranges.sum_within(list(stacks), bounds, 6) * upstream

    z = np.concatenate(stacks).astype("float64")
    bound = np.prod(np.broadcast_arrays(*map(np.float64, bounds), z)[:-1], axis=0)
    codes = np.clip(np.round(z / bound * 31), -31, 31)
    right = (codes * bound / 31).sum(0).transpose(1, 0, 2).reshape(4, 10)
    found = ops.convert_to_numpy(ranges.sum_within(stacks, bounds, 6))
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
    back = upstream.reshape(4, 2, 5).transpose(1, 0, 2) * (np.abs(z) <= bound)
    found = gradient(weighed, *stacks)
    found = np.concatenate(found if len(cut) > 1 else [found])
    np.testing.assert_array_equal(found, back.astype("float32"))


def test_sums_of_half_precision_stay_so():
    stacks = [ops.cast(RNG.normal(size=(2, 1, 4, 5)), "bfloat16")]
    found = ranges.sum_within(stacks, [np.float32(3.0)], 8)
    assert found.dtype == stacks[0].dtype and found.shape == (4, 5)
    z = ops.convert_to_numpy(ops.cast(stacks[0], "float32"))
    right = (np.clip(np.round(z / 3 * 127), -127, 127) * 3 / 127).sum(0)[0]
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(found, right, rtol=1e-2)


@pytest.mark.parametrize(
    "value", [0, -1.0, np.inf, np.nan, True, None, (1, 1), (2, 1), (0, np.inf),
              (np.nan, 1), (False, 2), (1, 2, 3), "maximum", [[0], [1]]]
)  # fmt: skip
def test_no_ranges(value):
    with pytest.raises(ValueError, match="range"):
        ranges.checked_range(value, ("learned",))


def test_ranges():
    assert ranges.checked_range(2) == (-2.0, 2.0)
    assert ranges.checked_range([0, 3]) == (0.0, 3.0)
    assert ranges.checked_range("learned", ("learned",)) == "learned"
    assert ranges.step_between(2, 0.0, 3.0) == 1.0
    assert ranges.step_between(3, -3.0, 3.0) == 1.0
    assert ranges.largest_code(3) == 3
