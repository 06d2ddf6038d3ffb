"""Wires against a nodal solver that was written elsewhere, and against Kirchhoff."""

import functools
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from hwa_keras.crossbar import wires
from tests.modes import MODES, in_mode

# The nodal solver takes seconds for the larger ones.
CASES = [
    pytest.param(shape, resistance, marks=[pytest.mark.slow] if is_large else [])
    for shape, is_large in (((64, 64), False), ((128, 128), True), ((64, 256), True))
    for resistance in (0.35, 2.5)
]


@functools.cache
def nodal_solver():
    """The package badcrossbar, which `make test` installs beside the others."""
    sys.path.append(str(Path(sys.prefix, "badcrossbar")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It misses what it plots with.
            import badcrossbar
    except ImportError:
        pytest.skip("badcrossbar is not installed")
    finally:
        sys.path.pop()
    logging.getLogger("badcrossbar").setLevel(logging.ERROR)
    logging.disable(logging.INFO)
    return badcrossbar


@functools.cache
def solved(shape, resistance, largest=25.0):
    """Conductances and what the nodal solver makes of them, µS."""
    rng = np.random.default_rng(shape[1])
    g = rng.uniform(0.5, largest, shape)
    found = nodal_solver().compute(
        np.eye(shape[0]),
        1e6 / g,
        r_i_word_line=resistance,
        r_i_bit_line=0.7 * resistance,
        node_voltages=False,
        all_currents=False,
    )
    return g.astype("float32"), found.currents.output * 1e6


@pytest.mark.parametrize(("shape", "resistance"), CASES)
def test_exact_equals_the_nodal_solver(shape, resistance):
    g, expected = solved(shape, resistance)
    found = wires.exact(ops.convert_to_tensor(g), resistance, 0.7 * resistance)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)
    assert expected.sum() < g.sum()


@pytest.mark.parametrize(("shape", "resistance"), [((100, 40), 2.5), ((1, 7), 10.0)])
def test_other_shapes_are_solved_too(shape, resistance):
    g, expected = solved(shape, resistance)
    found = wires.exact(ops.convert_to_tensor(g), resistance, 0.7 * resistance)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)


@pytest.mark.parametrize("degree", [None, 4])
@pytest.mark.parametrize(("shape", "resistance"), CASES)
def test_closed_form_is_within_a_thousandth_where_devices_lose_a_tenth(
    shape, resistance, degree
):
    g, expected = solved(shape, resistance)
    # A resistance at which the device that loses most loses a tenth, or nearly.
    loss = (1 - expected / g).max()
    resistance *= min(1.0, 0.1 * (1 - loss) / loss)
    g, expected = solved(shape, resistance)
    assert (1 - expected / g).max() <= 0.1
    drop = wires.drop(ops.convert_to_tensor(g), resistance, 0.7 * resistance, degree)
    found = g / (1.0 + ops.convert_to_numpy(drop))
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def naive_drops(i, r_row, r_column):
    """The two sums of the equations, term by term."""
    m, n = i.shape
    rows, columns = np.arange(m), np.arange(n)
    along = np.minimum(columns[:, None], columns) + 1
    down = m - np.maximum(rows[:, None], rows)
    return r_row * i @ along + r_column * down @ i


@pytest.mark.parametrize("mode", MODES)
def test_closed_form_is_its_formula(mode):
    g = np.random.default_rng(0).uniform(0, 25, (2, 9, 5))
    compute = in_mode(mode, lambda g: wires.closed_form(g, 30.0, 50.0))
    found = compute(ops.convert_to_tensor(g.astype("float32")))
    expected = [each / (1 + naive_drops(each * 1e-6, 30.0, 50.0)) for each in g]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=2e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (3, 128), (1, 9)])
def test_the_drop_along_a_wire_is_nearly_a_polynomial(shape, mode):
    (m, n), r_row, r_column = shape, 3.0, 5.0
    rng = np.random.default_rng(6)
    kinds = [rng.uniform(0, 25, shape), 6 * np.abs(rng.normal(size=shape))]
    kinds.append(25.0 * (np.add.outer(np.arange(m), np.arange(n)) < (m + n) / 2))
    g = np.stack(kinds)
    compute = in_mode(mode, lambda g: wires.drop(g, r_row, r_column, 4))
    found = ops.convert_to_numpy(compute(ops.convert_to_tensor(g.astype("float32"))))
    expected = np.stack([naive_drops(each * 1e-6, r_row, r_column) for each in g])
    full = 0.5 * 25e-6 * (r_row * n * (n + 1) + r_column * m * (m + 1))
    assert np.abs(found - expected).max() < 0.006 * full
    if max(shape) <= 5:
        np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("mode", MODES)
def test_currents_obey_the_equations(mode):
    rng = np.random.default_rng(1)
    g, v = rng.uniform(0, 25, (3, 8, 11)), rng.uniform(-0.2, 0.2, (3, 8))
    compute = in_mode(mode, lambda g, v: wires.currents(g, v, 100.0, 150.0))
    tensors = [ops.convert_to_tensor(x.astype("float32")) for x in (g, v)]
    found = ops.convert_to_numpy(compute(*tensors)).astype("float64")
    for i, each, volts in zip(found, g, v, strict=True):
        expected = each * 1e-6 * (volts[:, None] - naive_drops(i, 100.0, 150.0))
        np.testing.assert_allclose(i, expected, atol=1e-6 * np.abs(i).max())


@pytest.mark.parametrize(("shape", "resistance"), CASES[2:])
def test_devices_and_wires_take_what_the_sources_give(shape, resistance):
    g, effective = solved(shape, resistance)
    v = np.random.default_rng(2).uniform(0, 0.2, shape[0])
    tensors = [ops.convert_to_tensor(x.astype("float32")) for x in (g, v)]
    devices, along = wires.power(*tensors, resistance, 0.7 * resistance)
    i = wires.currents(*tensors, resistance, 0.7 * resistance)
    given = v @ ops.convert_to_numpy(ops.sum(i, axis=-1)).astype("float64")
    assert float(devices) + float(along) == pytest.approx(given, rel=1e-6)
    columns = ops.convert_to_numpy(ops.sum(i, axis=-2))
    np.testing.assert_allclose(columns, v @ effective * 1e-6, rtol=1e-5)


def test_devices_that_do_not_conduct_carry_nothing():
    g = np.random.default_rng(3).uniform(0, 25, (2, 6, 6)).astype("float32")
    g[:, 2], g[:, :, 4] = 0, 0
    for compute in (wires.closed_form, wires.exact):
        found = ops.convert_to_numpy(compute(ops.convert_to_tensor(g), 5.0, 5.0))
        assert np.all(np.isfinite(found))
        np.testing.assert_array_equal(found[:, :, 4], 0)
        np.testing.assert_array_equal(found[:, 2], 0)


def test_without_resistance_nothing_changes():
    g = ops.convert_to_tensor(np.random.default_rng(4).uniform(0, 25, (4, 4)))
    for compute in (wires.closed_form, wires.exact):
        found = compute(ops.cast(g, "float32"), 0.0, 0.0)
        np.testing.assert_allclose(found, g, rtol=1e-6)


@pytest.mark.tensorflow_only
def test_closed_form_has_the_gradient_of_its_formula():
    tf = pytest.importorskip("tensorflow")
    g = tf.constant(np.random.default_rng(5).uniform(1, 25, (6, 5)))
    numeric = np.zeros((6, 5))
    with tf.GradientTape() as tape:
        tape.watch(g)
        total = ops.sum(wires.closed_form(g, 300.0, 200.0) ** 2)
    found = tape.gradient(total, g).numpy()
    for place in np.ndindex(6, 5):
        step = np.zeros((6, 5))
        step[place] = 1e-4
        high, low = (
            np.sum(ops.convert_to_numpy(wires.closed_form(x, 300.0, 200.0)) ** 2)
            for x in (g + step, g - step)
        )
        numeric[place] = (high - low) / 2e-4
    np.testing.assert_allclose(found, numeric, rtol=1e-6)


def test_wires_that_drop_nearly_all_are_refused():
    with pytest.raises(ValueError, match="drop nearly all of the voltage"):
        wires.exact(ops.ones((256, 256)), 1e4, 1e4)
