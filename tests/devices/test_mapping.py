import json

import numpy as np
import pytest
from keras import ops

from hwa_keras import devices
from hwa_keras.devices import BitSlices, OffsetColumn, Pairs
from hwa_keras.devices.mapping import mappings
from tests.modes import MODES, in_mode

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

PAIRS = [
    Pairs(),
    Pairs((1.0, 1.0)),
    Pairs((1.0, 3.0)),
    Pairs((1.0, 2.0, 4.0), fill="least_first"),
    Pairs((1.0,) * 4, fill="least_first"),
]
SLICES = [BitSlices(8, 1), BitSlices(8, 2), BitSlices(5, 3), BitSlices(2, 1)]
ALL = [*PAIRS, *SLICES, OffsetColumn()]

every = pytest.mark.parametrize("mapping", ALL, ids=repr)


def weights(shape=(4, 30, 20), seed=1):
    w = np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")
    w[..., 0, :3] = (1.0, -1.0, 0.0)
    return w


def half_step(mapping):
    steps = isinstance(mapping, BitSlices) and 2 ** (mapping.bits - 1) - 1
    return 0.5 / steps if steps else 0.0


@every
@pytest.mark.parametrize("mode", MODES)
def test_what_is_split_joins_to_the_weights(mapping, mode):
    w = weights()
    x = in_mode(mode, mapping.split)(ops.convert_to_tensor(w))
    assert tuple(x.shape) == mapping.shape(w.shape)
    found = in_mode(mode, mapping.join)(x)
    np.testing.assert_allclose(found, w, atol=half_step(mapping) + 1e-6)
    x = ops.convert_to_numpy(x)
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6


@pytest.mark.parametrize("mapping", [*PAIRS, *SLICES], ids=repr)
def test_one_side_of_each_pair_is_empty(mapping):
    x = np.asarray(mapping.split(ops.convert_to_tensor(weights())))
    positive, negative = np.split(x, 2)
    assert np.all(positive * negative == 0)


@every
def test_join_is_linear(mapping):
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 1, (2, *mapping.shape((6, 5)))).astype("float32")
    parts = [np.asarray(mapping.join(ops.convert_to_tensor(part))) for part in (x, y)]
    found = mapping.join(ops.convert_to_tensor(2 * x + y))
    np.testing.assert_allclose(found, 2 * parts[0] + parts[1], atol=1e-5)


@every
def test_variances_join_as_those_of_samples(mapping):
    rng = np.random.default_rng(3)
    shape = mapping.shape((2, 3))
    std = rng.uniform(0.1, 1.0, shape)
    draws = (std[..., None] * rng.normal(size=(*shape, 40_000))).astype("float32")
    # One weight per draw: the draws are an axis before rows and columns.
    x = ops.convert_to_tensor(np.moveaxis(draws, -1, 1))
    found = np.asarray(mapping.join(x)).astype("f8").var(axis=0)
    expected = mapping.join_variances(ops.convert_to_tensor(std**2))
    np.testing.assert_allclose(found, expected, rtol=5 * np.sqrt(2 / 40_000))


# --- Pairs


def test_equal_pairs_average_their_errors_out():
    v = ops.ones((8, 2, 2))
    for count in (1, 2, 4):
        variance = Pairs((1.0,) * count).join_variances(v[: 2 * count])
        np.testing.assert_allclose(variance, 2.0 / count, rtol=1e-6)
    # Of unequal pairs the large one has the larger part in the error.
    variance = Pairs((1.0, 3.0)).join_variances(v[:4])
    np.testing.assert_allclose(variance, 2 * (1 + 9) / 16, rtol=1e-6)


def test_pairs_are_filled_one_after_the_other():
    pairs = Pairs((1.0, 3.0), fill="least_first")
    w = ops.convert_to_tensor([[0.1, 0.25, 0.625, 1.0]])
    x = np.asarray(pairs.split(w))[:2, 0]
    expected = [[0.4, 1.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]]
    np.testing.assert_allclose(x, expected, atol=1e-6)


# --- Bit slices


@pytest.mark.parametrize("bits", [2, 5, 8, 12, 16])
@pytest.mark.parametrize("per_device", [1, 2, 3, 4, 16])
def test_slices_hold_the_digits_of_integers(bits, per_device):
    mapping, most = BitSlices(bits, per_device), 2 ** (bits - 1) - 1
    m = np.unique(np.linspace(0, most, 300).round().astype(int))
    x = np.asarray(mapping.split(ops.convert_to_tensor([m / most], dtype="float32")))
    base = 2**per_device
    count = len(x) // 2
    assert count == -(-(bits - 1) // per_device)
    for k in range(count):
        digits = m // base**k % base
        np.testing.assert_allclose(x[k, 0], digits / (base - 1), atol=1e-6)
    np.testing.assert_array_equal(x[count:], 0)


def test_weights_of_slices_are_rounded_to_the_nearest_step():
    w = np.linspace(-1, 1, 1001).astype("float32")[None]
    found = BitSlices(4, 1).join(BitSlices(4, 1).split(ops.convert_to_tensor(w)))
    np.testing.assert_allclose(found, np.round(w * 7) / 7, atol=1e-6)


# --- Offset column


def test_the_offset_column_is_a_column_of_the_tile():
    offset = OffsetColumn()
    w = weights((2, 3, 4))
    x = np.asarray(offset.split(ops.convert_to_tensor(w)))
    assert x.shape == (1, 2, 3, 5)
    np.testing.assert_array_equal(x[..., -1], 0.5)
    x = x.copy()
    x[0, :, 1, -1] += 0.1  # An error there is one of all weights of the row.
    error = np.asarray(offset.join(ops.convert_to_tensor(x))) - w
    np.testing.assert_allclose(error[:, 1], -0.2, atol=1e-6)
    np.testing.assert_allclose(error[:, [0, 2]], 0, atol=1e-6)
    assert not offset.is_independent


# --- Objects


@every
def test_configuration_round_trips_as_json(mapping):
    config = json.loads(json.dumps(mappings.serialize(mapping)))
    assert mappings.get(config) == mapping
    assert hash(mappings.get(config)) == hash(mapping)


def test_mappings_are_found_by_name():
    assert mappings.get("pairs") == Pairs()
    assert mappings.get("offset_column") == OffsetColumn()
    with pytest.raises(ValueError, match="no default for bits, bits_per_device"):
        mappings.get("bit_slices")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pairs(()), r"`significance` of Pairs .*for each pair.*=\(\)"),
        (lambda: Pairs((1.0, 0.0)), "`significance` of Pairs .*positive.*=0.0"),
        (lambda: Pairs((1.0, float("nan"))), "`significance` of Pairs .*=nan"),
        (lambda: Pairs(2), "`significance` of Pairs .*a number for each.*=2"),
        (lambda: Pairs(fill="most_first"), "`fill` .*'equal', 'least_first'.*most_f"),
        (lambda: BitSlices(1, 1), "`bits` of BitSlices .*from 2 to 16.*bits=1"),
        (lambda: BitSlices(17, 1), "`bits` of BitSlices .*bits=17"),
        (lambda: BitSlices(True, 1), "`bits` of BitSlices .*bits=True"),
        (lambda: BitSlices(8, 0), "`bits_per_device` of BitSlices .*≥ 1.*=0"),
        (lambda: BitSlices(8, 1.5), "`bits_per_device` of BitSlices .*=1.5"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [devices.PCM, devices.Memristor, devices.Hermes])
def test_devices_take_mappings_only(kind):
    for wrong in ("pairs", 2, Pairs):
        with pytest.raises(TypeError, match=f"`mapping` of {kind.__name__} must be a"):
            kind(mapping=wrong)
