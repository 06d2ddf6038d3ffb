import json

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops
from scipy.stats import norm

import hwa_keras
from hwa_keras import devices, random
from hwa_keras.devices import PCM, BitSlices, Memristor, OffsetColumn, Pairs
from tests.conductances import read, tensor, written
from tests.distributions import assert_distributed, rectified_moments
from tests.fresh import assert_loads_equal

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

RELATIVE = (0.0, 0.02, 0.2, 0.6, 1.0)
NOISES = [
    Memristor(sigma=0.7, g_max=25.0, g_u=10.0),
    Memristor(sigma=0.7, g_min=1.0, g_max=25.0, g_u=10.0),
    Memristor(sigma=0.3, g_min=1.0, g_u=10.0, noise="multiplicative"),
    Memristor(sigma=0.3, noise="multiplicative"),
]

devices_ = pytest.mark.parametrize("device", NOISES, ids=repr)


def kernel(shape=(6, 5), seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def model(scale=3.0):
    """Two dense layers, the weights of the first of which are larger."""
    made = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dense(4)]
    )
    made.layers[0].kernel.assign(scale * kernel((6, 5)))
    made.layers[1].kernel.assign(kernel((5, 4), seed=2))
    made.compile("sgd", "mse")
    return made


def of_tile(tile):
    """The memristors of a tile, from behind its wires too."""
    return getattr(tile.device, "device", tile.device)


# --- 3.33 to 3.38, number by number


@pytest.mark.parametrize("per", ["layer", "column", "network"])
def test_weights_are_mapped_to_pairs_of_conductances(per):
    w = kernel()
    largest = {
        "layer": np.abs(w).max(),
        "column": np.abs(w).max(axis=0),
        "network": 4.0,
    }[per]
    given = {"largest_weight": 4.0} if per == "network" else {}
    device = Memristor(g_min=2.0, g_max=25.0, g_u=12.0, per=per, **given)
    g, found = device.targets(tensor(w))
    positive = np.maximum(0, w) * (12.0 - 2.0) / largest + 2.0
    negative = np.abs(np.minimum(0, w)) * (12.0 - 2.0) / largest + 2.0
    np.testing.assert_allclose(g, [positive, negative], rtol=1e-5)
    np.testing.assert_allclose(np.ravel(found), np.ravel(largest), rtol=1e-6)
    np.testing.assert_allclose(device.to_weights(g, found), w, atol=1e-5)


def test_an_unused_device_conducts_g_min():
    g, _ = Memristor(g_min=2.0).targets(tensor([[0.0, 1.0, -0.5]]))
    np.testing.assert_allclose(g[:, 0], [[2.0, 25.0, 2.0], [2.0, 2.0, 13.5]], rtol=1e-6)


@pytest.mark.parametrize("noise", ["additive", "multiplicative"])
def test_errors_are_those_of_the_same_normal_numbers(noise):
    seed = random.seed_from(4)
    w = tensor(kernel())
    device = Memristor(sigma=0.4, g_min=0.5, g_max=8.0, noise=noise)
    g, largest = (ops.convert_to_numpy(x) for x in device.targets(w))
    z = (
        ops.convert_to_numpy(
            Memristor(sigma=1.0, g_min=50.0, g_max=51.0).write(
                60.0 * ops.ones(g.shape), seed
            )["g"]
        ).astype("f8")
        - 60.0
    )
    state = device.program(w, seed)
    expected = g + 0.4 * z if noise == "additive" else g * (1 + 0.4 * z)
    expected = np.maximum(expected, 0.0)
    np.testing.assert_allclose(state["g"], expected, atol=1e-4)
    for t in (0.0, 3.2e7):
        found = device.read(state, t)
        expected_weights = (expected[0] - expected[1]) * largest / (8.0 - 0.5)
        np.testing.assert_allclose(found, expected_weights, atol=1e-4)
    assert not device.drifts
    assert device.draw_read_noise((2, 2), seed) is None


# --- A million devices


@devices_
def test_written_conductances_and_weight_moments(device):
    g = read(device, written(device, RELATIVE), 0.0)[0]
    for row, relative in enumerate(RELATIVE):
        target = device.g_min + relative * (device.g_u - device.g_min)
        for side, mu in enumerate((target, device.g_min)):
            sigma = device.sigma * (mu if device.noise == "multiplicative" else 1.0)
            if sigma == 0:
                np.testing.assert_array_equal(g[side][row], 0.0)
            else:
                assert_distributed(g[side][row], rectified_moments(mu, sigma))
    w = tensor(np.array(RELATIVE)[:, None])
    mean, variance = map(ops.convert_to_numpy, device.weight_moments(w))
    for row in range(len(RELATIVE)):
        if variance[row, 0] > 0:
            pair = (g[0][row].astype("f8") - g[1][row]) / (device.g_u - device.g_min)
            first, spread = float(mean[row, 0]), float(variance[row, 0])
            assert_distributed(pair, (first, spread + first**2))


def test_the_empty_device_keeps_a_third_of_its_variance():
    device = Memristor(sigma=0.5, g_max=20.0)
    mean, variance = device.weight_moments(tensor([[1.0, -0.9, 0.5]]))
    empty_mean = norm.pdf(0) * 0.5  # 0.40 σ
    empty_variance = (0.5 - norm.pdf(0) ** 2) * 0.25  # 0.34 σ²
    assert abs(empty_variance / 0.25 - 0.3408) < 1e-4
    signs = np.array([1, -1, 1])
    expected = np.array([1.0, -0.9, 0.5]) - signs * empty_mean / 20
    np.testing.assert_allclose(mean[0], expected, rtol=1e-6)
    np.testing.assert_allclose(variance[0], (0.25 + empty_variance) / 400, rtol=1e-5)


@pytest.mark.parametrize(
    "mapping",
    [Pairs((1.0, 1.0)), Pairs((1.0, 3.0), fill="least_first"), BitSlices(6, 2)],
)
def test_weight_moments_of_other_mappings(mapping):
    device = Memristor(sigma=0.7, g_max=10.0, mapping=mapping)
    state = written(device, RELATIVE, count=200_000)
    found = np.asarray(device.to_weights(state["g"], state["largest"]), "f8")
    w = tensor(np.array(RELATIVE)[:, None])
    mean, variance = map(ops.convert_to_numpy, device.weight_moments(w))
    for row, samples in enumerate(found):
        first, spread = float(mean[row, 0]), float(variance[row, 0])
        assert_distributed(samples, (first, spread + first**2))


def test_an_offset_column_has_no_independent_errors():
    device = Memristor(sigma=0.5, mapping=OffsetColumn())
    with pytest.raises(NotImplementedError, match=r"OffsetColumn\(\).*depend on each"):
        device.weight_moments(tensor(kernel()))


def test_more_pairs_make_smaller_errors():
    w = kernel((100, 80))
    seed = random.seed_from(2)

    def rms(**settings):
        device = Memristor(sigma=0.5, g_min=5.0, **settings)
        found = device.read(device.program(tensor(w), seed), 0.0)
        return np.std(np.asarray(found) - w)

    one = rms()
    for count in (2, 4):
        ratio = rms(mapping=Pairs((1.0,) * count)) / one
        np.testing.assert_allclose(ratio, count**-0.5, rtol=0.03)
    np.testing.assert_allclose(rms(g_u=15.0) / one, 2.0, rtol=0.03)


@pytest.mark.parametrize("mapping", [OffsetColumn(), BitSlices(8, 2)])
def test_training_noise_is_what_chips_have(mapping):
    device = Memristor(sigma=0.5, mapping=mapping)
    w, seed = tensor(kernel()), random.seed_from(2)
    written_weights = device.read(device.program(w, seed), 0.0)
    np.testing.assert_allclose(device.perturb(w, seed), written_weights, atol=1e-6)
    np.testing.assert_allclose(
        device.perturb(w, seed, 0.5), (w + written_weights) / 2, atol=1e-6
    )


@pytest.mark.parametrize("target", [0.0, 0.02, -0.4, 1.0])
def test_training_noise_of_a_pair_has_the_distribution_of_chips(target):
    device = Memristor(sigma=0.5, g_max=25.0)
    w = np.full((200, 200), target, "float32")
    w[0, 0] = 1.0
    seed = random.seed_from(2)
    chip = np.asarray(device.read(device.program(tensor(w), seed), 0.0)).ravel()[1:]
    trained = np.asarray(device.perturb(tensor(w), seed)).ravel()[1:]
    error = chip.std() * (2 / chip.size) ** 0.5
    assert abs(trained.mean() - chip.mean()) < 4 * error
    assert trained.std() / chip.std() == pytest.approx(1.0, abs=0.02)
    assert scipy.stats.ks_2samp(trained, chip).pvalue > 1e-3
    half = np.asarray(device.perturb(tensor(w), seed, 0.5)).ravel()[1:]
    np.testing.assert_allclose(half, (target + trained) / 2, atol=1e-6)


@pytest.mark.parametrize("per", ["layer", "column"])
def test_kernels_of_zeros_read_zero(per):
    device = Memristor(sigma=0.5, g_min=1.0, per=per)
    state = device.program(ops.zeros((4, 3)), random.seed_from(1))
    np.testing.assert_array_equal(device.read(state, 0.0), 0.0)


# --- Models


def test_each_kernel_gets_its_own_range():
    device = Memristor(sigma=0.5, g_u=(5.0, 20.0))
    chip = hwa_keras.program(model(), device, seed=1)
    assert [tile.device.g_u for tile in chip.tiles] == [5.0, 20.0]
    errors = [np.asarray(tile.read(0.0) - tile.targets) for tile in chip.tiles]
    largest = [float(ops.max(ops.abs(tile.targets))) for tile in chip.tiles]
    ratio = errors[0].std() / largest[0] / (errors[1].std() / largest[1])
    assert 2.5 < ratio < 6.5


def test_a_crossbar_trains_and_programs_with_the_ranges_of_its_devices():
    device = Memristor(sigma=0.5, g_u=(5.0, 20.0))
    crossbar = hwa_keras.crossbar.Crossbar(device, wire=1.0, ir_drop="closed_form")
    converted = hwa_keras.to_hwa(model(), hardware=crossbar, verbose=0)
    converted.compile("sgd", "mse")
    converted.fit(np.ones((4, 6)), np.ones((4, 4)), verbose=0)
    chip = hwa_keras.program(converted, device=None, seed=1)
    assert [of_tile(tile).g_u for tile in chip.tiles] == [5.0, 20.0]


@pytest.mark.parametrize("g_u", [None, (5.0, 20.0)])
def test_a_network_has_one_range_of_weights(g_u):
    device = Memristor(sigma=0.0, g_u=g_u, per="network")
    made = model()
    largest = max(float(ops.max(ops.abs(layer.kernel))) for layer in made.layers)
    hardware = hwa_keras.Hardware(device=device)
    converted = hwa_keras.to_hwa(model(), hardware=hardware, verbose=0)
    for chip in (
        hwa_keras.program(made, device, seed=1),
        hwa_keras.program(converted, device=None, seed=1),
    ):
        assert [tile.device.largest_weight for tile in chip.tiles] == [largest] * 2
        for tile in chip.tiles:
            g = tile.device.conductances(tile._values(), 0.0)
            top = float(ops.max(ops.abs(tile.targets))) / largest * tile.device.g_u
            np.testing.assert_allclose(ops.max(g), top, rtol=1e-5)
            np.testing.assert_allclose(tile.read(0.0), tile.targets, atol=1e-5)


def test_rules_give_layers_devices_of_their_own():
    made = model()
    rules = [(made.layers[1].name, Memristor(sigma=0.5, g_u=20.0))]
    chip = hwa_keras.program(made, Memristor(sigma=0.5, g_u=5.0), seed=1, rules=rules)
    assert [tile.device.g_u for tile in chip.tiles] == [5.0, 20.0]


def test_a_network_of_zeros_and_one_of_nan():
    device = Memristor(sigma=0.0, per="network")
    zeros = model(scale=0.0)
    zeros.layers[1].kernel.assign(np.zeros((5, 4)))
    chip = hwa_keras.program(zeros, device, seed=1)
    np.testing.assert_array_equal(chip(np.ones((1, 6))), 0.0)
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        hwa_keras.program(model(scale=np.nan), device, seed=1)


@pytest.mark.parametrize(
    "mapping", [Pairs((1.0, 1.0)), BitSlices(8, 3), OffsetColumn()], ids=repr
)
def test_pcm_takes_each_mapping(mapping):
    made = model()
    x = np.eye(6, dtype="float32")
    still = PCM(programming_scale=0, drift_scale=0, read_scale=0, mapping=mapping)
    chip = hwa_keras.program(made, still, seed=1)
    steps = 2 ** (mapping.bits - 1) - 1 if isinstance(mapping, BitSlices) else 1e6
    expected = ops.convert_to_numpy(made(x))
    tolerance = 6 * np.abs(expected).max() / steps
    np.testing.assert_allclose(chip(x), expected, atol=tolerance)
    chip = hwa_keras.program(made, PCM(mapping=mapping), seed=1)
    errors = []
    for chip.t in (0.0, 3.2e7):
        error = ops.convert_to_numpy(chip(x)) - expected
        errors.append(np.std(error) / np.std(expected))
    assert 0.01 < errors[0] < errors[1]
    assert errors[0] < 1.0


def test_pcm_of_two_pairs_makes_smaller_errors():
    w = kernel((100, 80))

    def rms(mapping):
        device = PCM(mapping=mapping)
        state = device.program(tensor(w), random.seed_from(3))
        return np.std(np.asarray(device.read(state, 0.0)) - w)

    ratio = rms(Pairs((1.0, 1.0))) / rms(Pairs())
    np.testing.assert_allclose(ratio, 0.5**0.5, rtol=0.05)


# --- Objects


@pytest.mark.parametrize(
    "device",
    [
        Memristor(sigma=0.1, g_min=1.0, g_u=(5.0, 10.0), noise="multiplicative"),
        Memristor(per="network", largest_weight=2.0, mapping=BitSlices(8, 2)),
        PCM(mapping=Pairs((1.0, 4.0), fill="least_first")),
        PCM(mapping=OffsetColumn()),
    ],
    ids=repr,
)
def test_configuration_round_trips_as_json(device):
    config = json.loads(json.dumps(devices.serialize(device)))
    assert devices.get(config) == device
    assert hash(devices.get(config)) == hash(device)
    assert devices.get("memristor") == Memristor()


def test_chips_load_in_a_fresh_process(tmp_path):
    custom = devices.CustomDevice(
        [1.0, 9.0], [0.1, 0.2], [0.0, 0.1], read_stds=[0.1] * 2
    )
    held = {
        "memristor": (
            Memristor(sigma=0.5, g_u=(5.0, 9.0), mapping=BitSlices(6, 2)),
            1.0,
        ),
        "offset": (devices.Hermes(mapping=OffsetColumn()), 3600.0),
        "wan": (devices.ReRAMWan2022(per="column"), 86_400.0),
        "custom": (custom, 3600.0),
    }
    chips = {}
    for name, (device, t) in held.items():
        chips[name] = hwa_keras.program(model(), device, seed=1, read_noise="frozen")
        chips[name].t = t
    inputs = {name: np.ones((2, 6), "float32") for name in chips}
    assert_loads_equal(chips, inputs, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Memristor(g_min=5.0, g_u=5.0),
            "`g_u`.*above g_min.*g_min=5.0, g_u=5.0",
        ),
        (lambda: Memristor(g_min=30.0), "`g_u`.*g_min=30.0, g_u=25.0, g_max=25.0"),
        (lambda: Memristor(g_u=26.0), "`g_u`.*at most g_max.*g_u=26.0, g_max=25.0"),
        (lambda: Memristor(g_u=(5.0, 26.0)), "`g_u`.*at most g_max.*g_u=26.0"),
        (lambda: Memristor(g_u=-1.0), "`g_u` of Memristor .*positive.*g_u=-1.0"),
        (lambda: Memristor(g_u="5"), "`g_u` of Memristor .*g_u='5'"),
        (lambda: Memristor(g_min=-1.0), "`g_min` of Memristor .*g_min=-1.0"),
        (lambda: Memristor(sigma=-0.1), "`sigma` of Memristor .*sigma=-0.1"),
        (lambda: Memristor(noise="uniform"), "`noise` of Memristor .*'uniform'"),
        (lambda: Memristor(per="row"), "`per` of Memristor .*'network'.*'row'"),
        (lambda: Memristor(largest_weight=0.0), "`largest_weight` of .*=0.0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_one_kernel_cannot_tell_is_asked_for():
    seed = random.seed_from(1)
    with pytest.raises(ValueError, match="one g_u for each kernel.*`program` or"):
        Memristor(g_u=(5.0, 6.0)).program(tensor(kernel()), seed)
    with pytest.raises(ValueError, match="per='network' .*largest_weight="):
        Memristor(per="network").program(tensor(kernel()), seed)
    with pytest.raises(ValueError, match="`g_u` of .* each kernel.*3 for 2 kernels"):
        hwa_keras.program(model(), Memristor(g_u=(5.0, 6.0, 7.0)), seed=1)
    crossbar = hwa_keras.crossbar.Crossbar(Memristor(g_u=(5.0,)))
    with pytest.raises(ValueError, match="`g_u` of .* each kernel.*1 for 2 kernels"):
        hwa_keras.to_hwa(model(), hardware=crossbar, verbose=0)
