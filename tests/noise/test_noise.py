import json

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

from hwa_keras import devices, noise, random
from hwa_keras.noise import (
    AdditiveGaussian,
    BitFlip,
    Compose,
    DropConnect,
    MultiplicativeGaussian,
    Noise,
    OutputNoise,
    ProcessVariation,
    ProgrammingNoise,
    StuckAt,
)
from tests.gradients import gradient
from tests.modes import in_mode

DRAWS = 200_000
VALUES = np.array([-1.0, -0.6, -0.05, 0.0, 0.02, 0.3, 0.8], "float32")
SHAPE = (250, 200)
EXAMPLES = {
    "additive": AdditiveGaussian(0.1),
    "multiplicative": MultiplicativeGaussian(0.2),
    "pcm": ProgrammingNoise(devices.PCM(per="column")),
    "simple_pcm": ProgrammingNoise("simple_pcm"),
    "drop_connect": DropConnect(0.3),
    "process_variation": ProcessVariation(0.2),
    "stuck_at": StuckAt(0.3, value=-0.5),
    "bit_flip": BitFlip(0.3, quantizer="ste_sign"),
    "output_noise": OutputNoise(0.2, relative_to="max"),
    "compose": Compose([MultiplicativeGaussian(0.2), DropConnect(0.3)]),
}


@pytest.fixture(params=EXAMPLES)
def perturb(request):
    """A noise at scale 1; shared, since each object compiles a kernel of its own."""
    EXAMPLES[request.param].scale.assign(1.0)
    return EXAMPLES[request.param]


@pytest.fixture
def weights():
    w = np.random.default_rng(1).normal(size=SHAPE)
    return ops.convert_to_tensor(w.astype("float32"))


def columns(values=VALUES, draws=DRAWS):
    """A kernel with a row for every value."""
    return ops.convert_to_tensor(np.repeat(values[:, None], draws, axis=1))


def as_float64(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def assert_moments(samples, mean, std):
    """Mean and standard deviation of each row, within 5 standard errors."""
    n = samples.shape[-1]
    centred = samples - samples.mean(-1, keepdims=True)
    variance, fourth = (centred**2).mean(-1), (centred**4).mean(-1)
    rounding = 1e-7
    error = np.sqrt(variance / n)
    assert np.all(np.abs(samples.mean(-1) - mean) <= 5 * error + rounding)
    error = np.sqrt((fourth - variance**2) / n / np.maximum(4 * variance, 1e-30))
    assert np.all(np.abs(np.sqrt(variance) - std) <= 5 * error + rounding)


# --- Each noise against its closed form


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_additive_gaussian_relative_to_the_largest_weight(scale):
    w = columns(3 * VALUES)
    found = as_float64(AdditiveGaussian(0.1, scale=scale)(w, random.seed_from(1)))
    assert_moments(found, 3 * VALUES, np.full(7, 0.1 * 3 * scale))
    z = (found - as_float64(w)) / (0.3 * scale)
    assert scipy.stats.kstest(z.ravel()[::7], "norm").pvalue > 1e-4


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_additive_gaussian_of_absolute_strength(scale):
    perturb = AdditiveGaussian(0.02, relative_to="absolute", scale=scale)
    found = as_float64(perturb(columns(3 * VALUES), random.seed_from(2)))
    assert_moments(found, 3 * VALUES, np.full(7, 0.02 * scale))


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_multiplicative_gaussian(scale):
    perturb = MultiplicativeGaussian(0.2, scale=scale)
    found = as_float64(perturb(columns(), random.seed_from(3)))
    assert_moments(found, VALUES, 0.2 * scale * np.abs(VALUES))


@pytest.mark.parametrize(("rate", "scale"), [(0.1, 1.0), (0.4, 0.5), (0.6, 2.0)])
def test_drop_connect_drops_at_its_rate_and_leaves_the_rest(rate, scale):
    w = as_float64(columns(VALUES[VALUES != 0]))
    perturb = DropConnect(rate, scale=scale)
    found = as_float64(perturb(w.astype("float32"), random.seed_from(4)))
    dropped = found == 0
    p = min(rate * scale, 1)
    tolerance = 5 * np.sqrt(p * (1 - p) / DRAWS)
    assert np.all(np.abs(dropped.mean(-1) - p) <= tolerance)
    np.testing.assert_array_equal(found[~dropped], w[~dropped])


@pytest.mark.parametrize(
    ("device", "scale"),
    [
        (devices.PCM(), 1.0),
        (devices.PCM(g_max=10.0, programming_scale=0.7), 2.0),
        (devices.SimplePCM(), 1.5),
    ],
    ids=["pcm", "pcm_scaled", "simple_pcm"],
)
def test_programming_noise_against_the_formulas(device, scale):
    found = as_float64(
        ProgrammingNoise(device, scale=scale)(columns(2 * VALUES), random.seed_from(5))
    )
    g = np.abs(VALUES.astype("float64"))
    factor = scale * device.programming_scale
    std = (0.26348 + 1.9650 * g - 1.1731 * g**2) / 25 * factor
    if isinstance(device, devices.SimplePCM):
        assert_moments(found, 2 * VALUES, 2 * std)
        return
    # A pair: the device of the weight's sign and an empty one, both cut at zero.
    mean, variance = rectified_normal(g, std)
    empty_mean, empty_variance = rectified_normal(0.0, 0.26348 / 25 * factor)
    sign = np.where(VALUES < 0, -1, 1)
    assert_moments(
        found,
        2 * sign * (mean - empty_mean),
        2 * np.sqrt(variance + empty_variance),
    )


def rectified_normal(mean, std):
    """Mean and variance of max(x, 0), x normal."""
    a = mean / std
    first = mean * scipy.stats.norm.cdf(a) + std * scipy.stats.norm.pdf(a)
    second = (mean**2 + std**2) * scipy.stats.norm.cdf(a)
    second += mean * std * scipy.stats.norm.pdf(a)
    return first, second - first**2


@pytest.mark.parametrize("name", ["pcm", "simple_pcm"])
def test_programming_noise_is_what_the_device_programs(name):
    device, w = devices.get(name), columns()
    perturb = ProgrammingNoise(device).perturb

    def both(w):
        state = device.program(w, random.seed_from(6))
        return perturb(w, random.seed_from(7), ops.ones(())), device.read(state, 0.0)

    trained, programmed = (as_float64(v) for v in in_mode("xla", both)(w))
    error = np.sqrt((trained.var(-1) + programmed.var(-1)) / DRAWS)
    assert np.all(np.abs(trained.mean(-1) - programmed.mean(-1)) < 5 * error)
    ratio = trained.std(-1) / programmed.std(-1)
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / DRAWS))
    for one, other in zip(trained, programmed, strict=True):
        p = scipy.stats.ks_2samp(one[:20_000], other[:20_000], method="asymp").pvalue
        assert p > 1e-4


def test_noise_of_every_weight_is_its_own(perturb):
    change = as_float64(perturb(ops.ones(SHAPE), random.seed_from(8))) - 1
    change -= change.mean()
    for neighbour in (np.roll(change, 1, axis=0), np.roll(change, 1, axis=1)):
        correlation = np.mean(change * neighbour) / change.var()
        assert abs(correlation) < 5 / np.sqrt(change.size)


# --- What all of them promise


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scale_zero_is_the_identity_to_the_bit(perturb, dtype, weights):
    w = ops.cast(weights, dtype)
    perturb.scale.assign(0.0)
    found = perturb(w, random.seed_from(1))
    assert as_float64(found).tobytes() == as_float64(w).tobytes()


def check_dtype(perturb, w):
    found = perturb(w, random.seed_from(1))
    assert tuple(found.shape) == tuple(w.shape)
    assert found.dtype == w.dtype
    assert np.isfinite(as_float64(found)).all()
    assert not np.array_equal(as_float64(found), as_float64(w))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shape_and_dtype_are_kept_and_values_are_not(perturb, dtype, weights):
    check_dtype(perturb, ops.cast(weights, dtype))


def test_bfloat16_is_kept(weights):
    check_dtype(EXAMPLES["additive"], ops.cast(weights, "bfloat16"))


@pytest.mark.tensorflow_only
def test_double_precision_stays_double(perturb, weights):
    w = ops.cast(weights, "float64") + 1e-12
    found = perturb(w, random.seed_from(1))
    assert keras.backend.standardize_dtype(found.dtype) == "float64"
    single = perturb(weights, random.seed_from(1))
    np.testing.assert_allclose(found, single, rtol=0, atol=1e-5)
    perturb.scale.assign(0.0)
    np.testing.assert_array_equal(perturb(w, random.seed_from(1)), w)


def test_gradient_is_exactly_that_of_the_identity(perturb, weights):
    upstream = np.random.default_rng(2).normal(size=SHAPE).astype("float32")
    found = gradient(lambda w: perturb(w, random.seed_from(1)) * upstream, weights)
    np.testing.assert_array_equal(found, upstream)


def test_same_seed_same_noise_and_another_seed_another(perturb, weights):
    first = as_float64(perturb(weights, random.seed_from(1)))
    np.testing.assert_array_equal(perturb(weights, random.seed_from(1)), first)
    assert not np.array_equal(perturb(weights, random.seed_from(2)), first)


def test_configuration_round_trips_as_json(perturb, weights):
    config = json.loads(json.dumps(noise.serialize(perturb)))
    again = noise.get(config)
    assert type(again) is type(perturb)
    assert again.get_config() == perturb.get_config()
    np.testing.assert_array_equal(
        again(weights, random.seed_from(1)), perturb(weights, random.seed_from(1))
    )


def test_configuration_holds_the_initial_scale():
    perturb = noise.get(noise.serialize(DropConnect(0.1, scale=0.25)))
    assert float(perturb.scale.value) == 0.25


@pytest.mark.tensorflow_only
def test_graph_agrees_with_eager(perturb, weights):
    graph = in_mode("graph", lambda w, seed: perturb(w, seed))
    expected = perturb(weights, random.seed_from(1))
    found = graph(weights, random.seed_from(1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_scale_changes_without_retracing(perturb, weights):
    traces = []

    if keras.backend.backend() == "tensorflow":

        def call(w, seed):
            traces.append(1)
            return perturb(w, seed)

        compiled = in_mode("xla", call)
    else:

        def stateless(variables, w, seed):
            traces.append(1)
            return perturb.stateless_call([], variables, w, seed)[0]

        pure = in_mode("xla", stateless)

        def compiled(w, seed):
            values = [v.value for v in perturb.non_trainable_variables]
            return pure(values, w, seed)

    w, found = as_float64(weights), {}
    for scale in (1.0, 0.0, 0.5):
        perturb.scale.assign(scale)
        found[scale] = as_float64(compiled(weights, random.seed_from(1)))
        expected = perturb(weights, random.seed_from(1))
        np.testing.assert_allclose(found[scale], expected, rtol=0, atol=2e-6)
    assert len(traces) == 1
    np.testing.assert_array_equal(found[0.0], w)
    assert np.abs(found[0.5] - w).mean() < 0.8 * np.abs(found[1.0] - w).mean()


def test_scale_is_a_variable_that_nothing_trains(perturb):
    assert not perturb.trainable_variables
    assert keras.backend.standardize_dtype(perturb.scale.dtype) == "float32"


def test_symbolic_output_has_the_shape_of_the_input(perturb):
    w = keras.KerasTensor((None, 5), dtype="float16")
    output = perturb(w, keras.KerasTensor((2,), dtype="uint32"))
    assert output.shape == (None, 5)
    assert output.dtype == "float16"


@pytest.mark.tensorflow_only
def test_outputs_of_a_graph_with_any_batch_size_get_noise(weights):
    import tensorflow as tf

    perturb = AdditiveGaussian(0.1)
    graph = tf.function(
        lambda w: perturb(w, random.seed_from(1)),
        input_signature=[tf.TensorSpec((None, SHAPE[1]), "float32")],
        autograph=False,
    )
    for batch in (SHAPE[0], 7):
        expected = perturb(weights[:batch], random.seed_from(1))
        np.testing.assert_allclose(graph(weights[:batch]), expected, atol=2e-6)


def test_all_zero_kernels_stay_finite(perturb):
    found = as_float64(perturb(np.zeros(SHAPE, "float32"), random.seed_from(1)))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("device", ["pcm", "simple_pcm"])
def test_programming_noise_leaves_kernels_of_zeros_alone(device):
    w = np.zeros(SHAPE, "float32")
    found = EXAMPLES[device](w, random.seed_from(1))
    np.testing.assert_array_equal(found, 0)


def test_a_noise_of_ones_own():
    class Doubling(Noise):
        def perturb(self, w, seed, scale):
            return w * (1.0 + scale)

    doubling = noise.get(Doubling())
    w = np.ones((2, 2), "float32")
    np.testing.assert_array_equal(doubling(w, random.seed_from(1)), 2)
    np.testing.assert_array_equal(
        gradient(lambda w: doubling(w, random.seed_from(1)), w), 1
    )


def test_any_callable_is_a_noise():
    def shift(w, seed):
        return w + 1.0

    assert noise.get(shift) is shift


# --- Compose


def test_compose_applies_the_first_first():
    w = ops.ones((300, 300))
    last = as_float64(
        Compose([AdditiveGaussian(0.1), DropConnect(0.5)])(w, random.seed_from(1))
    )
    first = as_float64(
        Compose([DropConnect(0.5), AdditiveGaussian(0.1)])(w, random.seed_from(1))
    )
    assert abs((last == 0).mean() - 0.5) < 5 * 0.5 / 300
    assert not np.any(first == 0)


def test_compose_draws_anew_for_each_noise():
    perturb = Compose([AdditiveGaussian(0.1, "absolute")] * 2)
    found = as_float64(perturb(columns(), random.seed_from(1)))
    assert_moments(found, VALUES, np.full(7, 0.1 * np.sqrt(2)))


def test_compose_multiplies_its_scale_with_those_inside():
    inner = Compose([AdditiveGaussian(0.1, "absolute", scale=0.5)], scale=3.0)
    found = as_float64(Compose([inner], scale=2.0)(columns(), random.seed_from(1)))
    assert_moments(found, VALUES, np.full(7, 0.1 * 0.5 * 3 * 2))


def test_leaves_are_the_elementary_noises():
    one, two, three = AdditiveGaussian(0.1), DropConnect(0.1), ProgrammingNoise()
    nested = Compose([one, Compose([two, three])])
    found = nested.leaves()
    assert len(found) == 3
    assert all(a is b for a, b in zip(found, [one, two, three], strict=True))
    assert one.leaves() == [one]


def test_compose_of_nothing_is_the_identity(weights):
    np.testing.assert_array_equal(Compose([])(weights, random.seed_from(1)), weights)


# --- Bad arguments


@pytest.mark.parametrize(
    ("make_bad", "error", "message"),
    [
        (lambda: AdditiveGaussian(-0.1), ValueError, "`std` of Add.*not neg.*std=-0.1"),
        (lambda: AdditiveGaussian(float("nan")), ValueError, "`std` .*std=nan"),
        (lambda: AdditiveGaussian(float("inf")), ValueError, "`std` .*std=inf"),
        (lambda: AdditiveGaussian("a"), ValueError, "`std` .*std='a'"),
        (lambda: AdditiveGaussian(None), ValueError, "`std` .*std=None"),
        (lambda: AdditiveGaussian(0.1, "mean"), ValueError, "`relative_to` .*='mean'"),
        (lambda: AdditiveGaussian(0.1, scale=-1), ValueError, "`scale` of .*scale=-1"),
        (lambda: MultiplicativeGaussian(-1), ValueError, "`std` of Multi.*std=-1"),
        (lambda: DropConnect(-0.1), ValueError, "`rate` of DropConnect.*rate=-0.1"),
        (
            lambda: DropConnect(1.1),
            ValueError,
            "`rate` of DropConnect is a probability.*rate=1.1",
        ),
        (lambda: DropConnect("a"), ValueError, "`rate` .*rate='a'"),
        (lambda: DropConnect(0.1, scale=-2), ValueError, "`scale` of .*scale=-2"),
        (
            lambda: ProgrammingNoise("pc"),
            ValueError,
            "Unknown device 'pc'. Known .*pcm",
        ),
        (
            lambda: ProgrammingNoise(None),
            ValueError,
            "`device` must be a device or its",
        ),
        (lambda: ProgrammingNoise(devices.PCM), TypeError, r"PCM is a class.*PCM\("),
        (lambda: Compose(["x"]), ValueError, "Unknown noise 'x'"),
        (lambda: Compose([None]), TypeError, "`noises` must be a list.*in it: None"),
        (lambda: Compose([abs]), TypeError, "`noises` must be a list.*in it: .*abs"),
        (lambda: Compose("pcm"), TypeError, "`noises` must be a list.*: 'pcm'"),
        (lambda: Compose(DropConnect(0.1)), TypeError, "`noises` must be a list"),
    ],
)
def test_bad_arguments_are_named(make_bad, error, message):
    with pytest.raises(error, match=message):
        make_bad()
