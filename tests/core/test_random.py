import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

from hwa_keras import random
from tests.modes import MODES, in_mode

MILLION = 1_000_000


def threefry(key, counter, rounds=13):
    """Threefry-2x32 on Python integers, from the paper's description."""
    mask = 0xFFFFFFFF
    rotations = (13, 15, 26, 6, 17, 29, 16, 24)
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + keys[0]) & mask, (counter[1] + keys[1]) & mask
    for done in range(1, rounds + 1):
        x = (x + y) & mask
        by = rotations[(done - 1) % 8]
        y = ((y << by) | (y >> (32 - by))) & mask
        y ^= x
        if done % 4 == 0:
            s = done // 4
            x = (x + keys[s % 3]) & mask
            y = (y + keys[(s + 1) % 3] + s) & mask
    return x, y


def words(*values):
    return ops.convert_to_tensor(np.array(values, "uint32"), dtype="uint32")


def as_integers(tensors):
    return [[int(v) for v in ops.convert_to_numpy(t).ravel()] for t in tensors]


def as_float64(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


@pytest.fixture(scope="module")
def pair_of_normals():
    z = random.normal((MILLION,), random.seed_from(11), pair=True)
    return as_float64(z[0]), as_float64(z[1])


# --- The generator


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0xFD36D048, 0x2D17272C)),
        (
            (0x13198A2E, 0x03707344),
            (0x243F6A88, 0x85A308D3),
            (0xBA3E4725, 0xF27D669E),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_threefry_gives_the_known_answers_of_random123(key, counter, expected):
    found = random._threefry(words(*key), words(counter[0]), words(counter[1]))
    assert as_integers(found) == [[expected[0]], [expected[1]]]
    assert threefry(key, counter) == expected


def test_oracle_gives_the_known_answers_of_twenty_rounds():
    assert threefry((0, 0), (0, 0), rounds=20) == (0x6B200159, 0x99BA4EFE)


def test_threefry_equals_the_oracle_on_random_counters():
    generator = np.random.default_rng(5)
    for _ in range(4):
        key = generator.integers(0, 2**32, 2)
        counters = generator.integers(0, 2**32, (2, 100))
        found = random._threefry(words(*key), words(*counters[0]), words(*counters[1]))
        key = tuple(int(k) for k in key)
        expected = [threefry(key, (int(a), int(b))) for a, b in counters.T]
        assert as_integers(found) == np.transpose(expected).tolist()


def pcg3d(x, y, z):
    """Jarzynski and Olano's hash, folded once more, with Python's integers."""
    x, y, z = ((v * 1664525 + 1013904223) % 2**32 for v in (x, y, z))
    for _ in range(2):
        x = (x + y * z) % 2**32
        y = (y + z * x) % 2**32
        z = (z + x * y) % 2**32
        x, y, z = (v ^ (v >> 16) for v in (x, y, z))
    return x, y, z


def test_bits_hash_the_element_index_under_a_derived_key():
    found = random.bits((100,), random.seed_from(2**40 + 9))
    key = threefry((9, 2**8), (0, 0))
    expected = [pcg3d(i, *key)[1:] for i in range(100)]
    assert as_integers(found) == np.transpose(expected).tolist()


@pytest.mark.parametrize("stream", [0, 1, 2**31 - 1])
def test_fold_in_encrypts_the_number_of_the_stream(stream):
    found = random.fold_in(random.seed_from(7), stream)
    assert found.shape == (2,)
    assert as_integers([found]) == [list(threefry((7, 0), (stream, 1)))]


def test_fold_in_takes_a_tensor():
    seed = random.seed_from(7)
    assert as_integers([random.fold_in(seed, ops.convert_to_tensor(3))]) == as_integers(
        [random.fold_in(seed, 3)]
    )


def test_golden_numbers_that_every_process_and_backend_reproduces():
    seed = random.seed_from(2024)
    assert as_integers(random.bits((4,), seed)) == [
        [0xC9F8B9F6, 0x0B7F7701, 0x298D79C3, 0x20EDF012],
        [0xFD68AD46, 0xA411CC38, 0xCBC4ECC4, 0x73B2BF53],
    ]
    assert as_integers([random.fold_in(seed, 3)]) == [[0xF28FBDA7, 0x580E7C51]]
    np.testing.assert_allclose(
        as_float64(random.normal((4,), seed)),
        [0.4790762922, -2.4304256608, -1.7045405189, -0.1527259461],
        atol=1e-6,
    )


# --- Seeds


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1, 2**32, 2**64 - 1])
def test_seed_holds_the_low_and_the_high_word(seed):
    tensor = random.seed_from(seed)
    assert keras.backend.standardize_dtype(tensor.dtype) == "uint32"
    assert as_integers([tensor]) == [[seed % 2**32, seed >> 32]]


def test_seed_from_takes_numpy_integers():
    assert as_integers([random.seed_from(np.int64(7))]) == [[7, 0]]


@pytest.mark.parametrize("seed", [1.0, "7", None, True, [7]])
def test_seed_from_rejects_what_is_no_integer(seed):
    with pytest.raises(TypeError, match="`seed` must be an integer. Received: "):
        random.seed_from(seed)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_from_rejects_what_does_not_fit(seed):
    with pytest.raises(ValueError, match=rf"in \[0, 2\*\*64\). Received: {seed}"):
        random.seed_from(seed)


def test_next_seed_follows_the_generator():
    one, other = (keras.random.SeedGenerator(3) for _ in range(2))
    drawn = [as_integers([random.next_seed(one)])[0] for _ in range(3)]
    assert drawn == [as_integers([random.next_seed(other)])[0] for _ in range(3)]
    assert len({tuple(seed) for seed in drawn}) == 3


# --- The same numbers, always


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_gives_the_same_numbers_in_every_mode(mode):
    shape = (1013, 7)

    def draw(seed):
        first, second = random.bits(shape, seed)
        z = random.normal(shape, seed, pair=True)
        return first, second, random.uniform(shape, seed), *z

    seed = random.seed_from(123)
    expected = [ops.convert_to_numpy(v) for v in draw(seed)]
    found = [ops.convert_to_numpy(v) for v in in_mode(mode, draw)(seed)]
    for a, b in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(found[3:], expected[3:], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_numbers_depend_on_the_element_index_and_not_on_the_shape():
    seed = random.seed_from(4)
    flat = ops.convert_to_numpy(random.normal((30,), seed))
    for shape in [(5, 6), (2, 3, 5), (29,), (1,)]:
        found = ops.convert_to_numpy(random.normal(shape, seed))
        np.testing.assert_array_equal(found.ravel(), flat[: found.size])


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (7,), (3, 1, 5), [2, 2]])
def test_shapes_and_dtypes(shape):
    seed = random.seed_from(4)
    drawn = [*random.bits(shape, seed), random.uniform(shape, seed)]
    drawn += [random.normal(shape, seed), *random.normal(shape, seed, pair=True)]
    assert all(tuple(v.shape) == tuple(shape) for v in drawn)
    dtypes = [keras.backend.standardize_dtype(v.dtype) for v in drawn]
    assert dtypes == ["uint32"] * 2 + ["float32"] * 4


def test_the_first_of_a_pair_is_what_a_single_draw_gives():
    seed = random.seed_from(4)
    np.testing.assert_array_equal(
        random.normal((50,), seed), random.normal((50,), seed, pair=True)[0]
    )


# --- Different seeds, different numbers


def test_streams_are_uncorrelated(pair_of_normals):
    seed = random.seed_from(11)
    others = [random.fold_in(seed, i) for i in (0, 1)]
    others += [random.seed_from(12), random.seed_from(11 + 2**32)]
    others.append(random.fold_in(random.seed_from(12), 0))
    streams = [*pair_of_normals]
    streams += [as_float64(random.normal((MILLION,), other)) for other in others]
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(MILLION)
    correlation = np.corrcoef(np.square(streams)) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(MILLION)


def test_neighbours_are_uncorrelated(pair_of_normals):
    z = pair_of_normals[0]
    for lag in (1, 2, 3, 64, 1000):
        assert abs(np.mean(z[lag:] * z[:-lag])) < 5 / np.sqrt(MILLION - lag)


def test_every_bit_is_fair_and_independent_of_its_neighbour():
    for drawn in random.bits((MILLION,), random.seed_from(5)):
        drawn = ops.convert_to_numpy(drawn)
        for i in range(32):
            bit = (drawn >> np.uint32(i)) & np.uint32(1)
            assert abs(bit.mean() - 0.5) < 5 * 0.5 / np.sqrt(MILLION)
        toggled = drawn ^ np.roll(drawn, 1)
        ones = np.unpackbits(toggled.view("uint8")).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(32 * MILLION)


# --- Distributions


def test_uniform_is_uniform_on_the_open_interval():
    u = as_float64(random.uniform((MILLION,), random.seed_from(5)))
    assert 0 < u.min() < 1e-5 and 1 - 1e-5 < u.max() < 1
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-4


def test_uniform_excludes_the_ends_for_the_extreme_words():
    ends = as_float64(random._to_unit(words(0, 2**32 - 1)))
    assert ends.tolist() == [2.0**-24, 1 - 2.0**-24]


def test_moments_of_the_normals(pair_of_normals):
    for z in pair_of_normals:
        n = z.size
        assert abs(z.mean()) < 5 / np.sqrt(n)
        assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
        assert abs(scipy.stats.skew(z)) < 5 * np.sqrt(6 / n)
        assert abs(scipy.stats.kurtosis(z)) < 5 * np.sqrt(24 / n)


def test_normals_pass_the_kolmogorov_smirnov_test(pair_of_normals):
    for z in pair_of_normals:
        assert scipy.stats.kstest(z, "norm").pvalue > 1e-4


def test_tails_of_the_normals_hold_their_share(pair_of_normals):
    for z in pair_of_normals:
        for bound in (3.0, 4.0):
            expected = 2 * scipy.stats.norm.sf(bound) * z.size
            found = np.count_nonzero(np.abs(z) > bound)
            assert abs(found - expected) < 5 * np.sqrt(expected)


def box_muller(first, second):
    """The pair of normals of two words, in float64, from the formula."""
    u = ((first >> 9) + 0.5) * 2.0**-23
    quarter = np.pi / 2 * (((second >> 9) + 0.5) * 2.0**-23 - 0.5)
    # Bit 1 turns the quarter about the x axis to the y axis, bit 0 to the other end.
    sign = np.where(second & 1, 1, -1)
    x, y = sign * np.cos(quarter), np.sin(quarter)
    x, y = np.where(second & 2, y, x), np.where(second & 2, x, y)
    radius = np.sqrt(-2 * np.log(u))
    return radius * x, radius * y


def test_normals_are_those_of_box_and_muller():
    seed = random.seed_from(8)
    expected = box_muller(
        *(
            ops.convert_to_numpy(word).astype("int64")
            for word in random.bits((MILLION,), seed)
        )
    )
    found = random.normal((MILLION,), seed, pair=True)
    for z, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(as_float64(z), other, rtol=1e-6, atol=2e-7)


def test_a_pair_of_normals_is_uniform_on_the_circle(pair_of_normals):
    x, y = pair_of_normals
    turns = np.arctan2(y, x) / (2 * np.pi) + 0.5
    assert scipy.stats.kstest(turns, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(x**2, y**2)[0, 1]) < 5 / np.sqrt(MILLION)


@pytest.mark.parametrize("mode", MODES)
def test_the_logarithm_keeps_its_digits_at_both_ends(mode):
    steps = np.concatenate([np.arange(20_000), np.arange(2**23 - 20_000, 2**23)])
    middle = np.arange(2**23 // 2 - 20_000, 2**23 // 2 + 20_000) * 1.41421356
    u = (np.concatenate([steps, middle.astype(int)]) + 0.5) * 2.0**-23
    x = ops.convert_to_tensor(u.astype("float32"))
    found = as_float64(in_mode(mode, random._log)(x))
    np.testing.assert_allclose(
        found, np.log(u.astype("float32").astype("float64")), rtol=5e-7
    )


# --- Bits of a given probability


@pytest.mark.parametrize("p", [0.0, 2.0**-40, 3e-10, 5e-8, 0.3, 0.5, 1.0])
def test_bernoulli_compares_64_bits_with_the_probability(p):
    words = [(int(2**32 * p) & 0xFFFFFFFF, 0), (0, 0), (2**32 - 1, 2**32 - 1)]
    words += [(0, 2**24 - 1), (0, 2**24), (1, 2**31), (214, 2**31), (215, 0)]
    with pytest.MonkeyPatch.context() as patch:
        columns = [np.array(c, "uint32") for c in zip(*words, strict=True)]
        tensors = [ops.convert_to_tensor(c, dtype="uint32") for c in columns]
        patch.setattr(random, "bits", lambda shape, seed: tensors)
        found = random.bernoulli((len(words),), None, p)
    exact = float(np.float32(p)) * 2**64
    expected = [(high * 2**32 + low) < exact for high, low in words]
    assert ops.convert_to_numpy(found).tolist() == expected


def test_bernoulli_has_probabilities_of_a_rare_event():
    seeds = (random.seed_from(s) for s in range(20))
    rate = 2e-6
    hits = sum(
        int(ops.sum(ops.cast(h, "int32")))
        for h in (random.bernoulli((MILLION,), seed, rate) for seed in seeds)
    )
    assert abs(hits - 40) < 5 * np.sqrt(40)


@pytest.mark.parametrize("mode", MODES)
def test_bernoulli_is_the_same_in_every_mode(mode):
    def draw(seed, p):
        return random.bernoulli((301, 7), seed, p)

    args = random.seed_from(3), ops.convert_to_tensor(0.2, "float32")
    found, expected = in_mode(mode, draw)(*args), draw(*args)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(found), ops.convert_to_numpy(expected)
    )


def test_bernoulli_bits_compare_words_of_32_bits_with_the_probability():
    rates = [0.5, 0.1, 0.0, 1e-3, 0.3]
    found = random.bernoulli_bits((200,), random.seed_from(7), rates)
    streams = [threefry((7, 0), (i, 1)) for i in range(3)]
    keys = [threefry(stream, (0, 0)) for stream in streams]
    for n, integer in enumerate(as_integers([found])[0]):
        drawn = [word for key in keys for word in pcg3d(n, *key)[1:]]
        expected = sum(
            2**i
            for i, (word, rate) in enumerate(zip(drawn, rates, strict=False))
            if word < int(np.float32(rate) * 2.0**32)
        )
        assert integer == expected


@pytest.mark.parametrize("mode", MODES)
def test_bernoulli_bits_are_the_same_in_every_mode(mode):
    def draw(seed, p):
        return random.bernoulli_bits((301, 7), seed, [p, 0.5, 0.1 * p])

    seed, p = random.seed_from(123), ops.convert_to_tensor(0.3, "float32")
    found = ops.convert_to_numpy(in_mode(mode, draw)(seed, p))
    np.testing.assert_array_equal(found, draw(seed, 0.3))
    assert found.dtype == "int32" and found.shape == (301, 7)


def test_bernoulli_bits_have_their_probabilities_and_are_independent():
    rates = [1e-4, 1e-3, 0.01, 0.1, 0.5, 0.1, 0.0]
    seeds = [random.seed_from(5), random.seed_from(6), random.seed_from(5 + 2**32)]
    drawn = [
        ops.convert_to_numpy(random.bernoulli_bits((MILLION,), seed, rates))
        for seed in seeds
    ]
    ones = np.array([[(d >> i) & 1 for i in range(len(rates))] for d in drawn])
    assert not ones[:, -1].any() and drawn[0].max() < 2 ** (len(rates) - 1)
    for of_seed in ones:
        for bit, rate in zip(of_seed, rates[:-1], strict=False):
            assert scipy.stats.binomtest(int(bit.sum()), MILLION, rate).pvalue > 1e-4
    often = ones[:, 2:-1].reshape(-1, MILLION)  # Bits of all positions and seeds.
    correlation = np.corrcoef(often) - np.eye(len(often))
    assert np.abs(correlation).max() < 5 / np.sqrt(MILLION)
    for bit in ones[0, 2:-1]:
        lagged = np.corrcoef(bit[1:], bit[:-1])[0, 1]
        assert abs(lagged) < 5 / np.sqrt(MILLION)


def test_as_many_bits_as_a_signed_integer_holds():
    found = random.bernoulli_bits((1000,), random.seed_from(1), [0.5] * 31)
    found = ops.convert_to_numpy(found)
    assert found.min() >= 0 and found.max() > 2**30
