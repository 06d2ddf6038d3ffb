"""Which layers a metric depends on: one kernel at a time through more noise."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import noise, random
from hwa_keras.analysis import layer_sensitivity, robustness_curve
from hwa_keras.core.views import MatrixView
from hwa_keras.layers import HWADense
from hwa_keras.quantizers import SteSign, Uniform
from tests import zoo

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(40, 5)).astype("float32")
BOTH = SteSign(), Uniform(levels=8, scale="max")  # One bit, and four.


def quantized(quantizers=BOTH, **kwargs):
    layers = [
        HWADense(n, use_bias=False, kernel_quantizer=q, name=name, **kwargs)
        for n, q, name in zip((4, 5), quantizers, ("first", "second"), strict=True)
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def plain():
    layers = [keras.layers.Dense(n, use_bias=False, name=f"dense{n}") for n in (4, 5)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def measure(model, **kwargs):
    kwargs = {"chips": 2, "metric": "loss", "verbose": 0, **kwargs}
    return layer_sensitivity(model, (X, Y), **kwargs)


def mse(weights):
    outputs = X
    for w in weights:
        outputs = outputs @ w
    return np.mean((outputs - Y) ** 2)


def read_by_hand(model, index, one, quantizers, chip):
    """A kernel of a chip, read through a noise."""
    variable = model.trainable_weights[index]
    quantizer = quantizers[index]
    view = MatrixView(tuple(variable.shape))
    own = one.for_kernel(SimpleNamespace(path="k", quantizer=quantizer, view=view))
    seed = random.fold_in(random.fold_in(random.seed_from(chip), index), 0)
    w = variable.value if quantizer is None else quantizer(variable.value)
    return ops.convert_to_numpy(own.perturb(w, seed, own.strength(chip=seed)))


def check_by_hand(curve, model, quantizers, noise_at, seeds):
    """The base first, then each kernel probed, against chips written by hand."""
    for i, chip in enumerate(seeds):
        base, probe = (
            [read_by_hand(model, k, noise_at(p), quantizers, chip) for k in (0, 1)]
            for p in (0.1, 0.4)
        )
        expected = [mse(base), mse([probe[0], base[1]]), mse([base[0], probe[1]])]
        found = [curve.values(level)[i] for level in curve.levels]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_every_sample_is_that_of_a_chip_with_these_bits_flipped():
    model = quantized()
    curve = measure(model, p_base=0.1, p_probe=0.4, seed=7)
    assert curve.levels == ["all at 0.1", "first/kernel", "second/kernel"]
    assert curve.axes[0].label == "kernel at p = 0.4, others at 0.1"
    assert curve.name == model.name and curve.metric == "loss"
    check_by_hand(curve, model, BOTH, noise.BitFlip, (7, 8))


@pytest.mark.slow
def test_the_kernels_of_a_converted_model_are_those_that_it_quantizes():
    model = keras.Sequential(
        [keras.Input((6,))] + [keras.layers.Dense(n, use_bias=False) for n in (6, 4, 5)]
    )
    rest = keras.Sequential(model.layers[1:])
    rest.build((None, 6))
    model.layers[0].kernel.assign(np.eye(6))
    hwa = hwa_keras.to_hwa(model, BOTH[1], skip=["first"], verbose=0)
    hwa.compile("adam", "mse")
    sharp = hwa_keras.training.SharpnessAwareModel.wrap(hwa)
    sharp.compile("sgd", "mse")
    found = [measure(m, p_base=0.1, p_probe=0.4) for m in (hwa, sharp)]
    assert found[0].levels[1:] == [k.path for k in hwa_keras.hardware_kernels(hwa)]
    for curve in found:
        check_by_hand(curve, rest, BOTH[1:] * 2, noise.BitFlip, (0, 1))


def test_with_another_noise_levels_are_factors_on_its_scale():
    def noise_at(factor):
        varied = noise.ProcessVariation(0.5, granularity="column")
        return noise.Compose([varied, noise.DropConnect(0.3)], scale=factor)

    model = plain()
    curve = measure(model, noise=noise_at(1.0), p_base=0.1, p_probe=0.4, seed=3)
    assert curve.levels == ["all at 0.1", "dense4/kernel", "dense5/kernel"]
    check_by_hand(curve, model, (None, None), noise_at, (3, 4))


@pytest.mark.slow
def test_base_and_robustness_curve_are_measured_on_the_same_chips():
    model = plain()
    curve = measure(model, noise="programming_noise", p_base=0.5, p_probe=3.0)
    assert curve.axes[0].label == "kernel at scale 3 of ProgrammingNoise, others at 0.5"
    for sigma, level in (0.5, "all at 0.5"), (3.0, "dense4/kernel"):
        other = robustness_curve(
            model,
            (X, Y),
            sigmas=[sigma],
            chips=2,
            noise="programming_noise",
            verbose=0,
        )
        same = np.allclose(
            curve.values(level), other.values(sigma, metric="loss"), rtol=1e-5
        )
        assert same == (level == "all at 0.5")


def test_robustness_curve_flips_the_bits_of_each_kernel():
    model = quantized()
    curve = robustness_curve(
        model,
        (X, Y),
        sigmas=[0.0, 0.5],
        chips=2,
        noise=noise.BitFlip(0.4),
        metric="loss",
        verbose=0,
    )
    assert curve.values(0.0).size == 1
    plain_loss = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(curve.values(0.0), plain_loss, rtol=1e-5)
    flips = noise.BitFlip(0.2)
    expected = [
        mse([read_by_hand(model, k, flips, BOTH, chip) for k in (0, 1)])
        for chip in (0, 1)
    ]
    np.testing.assert_allclose(curve.values(0.5), expected, rtol=1e-4)


@pytest.mark.slow
def test_bits_are_stored_as_the_noise_of_training_has_them():
    stored = {"encoding": "sign_magnitude", "bit_factors": [0.0, 1.0, 0.5, 1.0]}
    trained = noise.BitFlip(0.03, scale=2.0, **stored)
    model = quantized(BOTH[1:] * 2, kernel_noise=noise.Compose([trained]))
    curve = measure(model, p_base=0.1, p_probe=0.4)

    def noise_at(p):
        return noise.BitFlip(p, **stored)

    check_by_hand(curve, model, BOTH[1:] * 2, noise_at, (0, 1))
    assert [float(n.p.value) for n in model.layers[0].noises()] == pytest.approx([0.03])


def test_an_irrelevant_layer_shows_the_base_exactly_and_a_critical_one_does_not():
    bits = {"use_bias": False, "kernel_quantizer": "ste_sign"}
    inputs = keras.Input((12,))
    branch = HWADense(4, **bits, name="branch")(inputs)
    nothing = keras.layers.Dense(3, kernel_initializer="zeros", name="nothing")(branch)
    critical = HWADense(3, **bits, name="critical")(inputs)
    model = keras.Model(inputs, keras.layers.Add()([critical, nothing]))
    model.compile("adam", "mse")
    x = zoo.digits_like()[0]
    y = model.predict(x, verbose=0)
    curve = layer_sensitivity(model, (x, y), chips=5, verbose=0)
    # The plain layer stays digital.
    assert curve.levels == ["all at 0.01", "branch/kernel", "critical/kernel"]
    base, irrelevant, lost = (curve.values(level) for level in curve.levels)
    np.testing.assert_array_equal(irrelevant, base)
    assert lost.min() > 4 * base.max()


@pytest.mark.slow
def test_batchnorm_is_adapted_on_every_chip():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5), keras.layers.BatchNormalization()]
    )
    model.compile("adam", "mse")
    common = {"noise": noise.MultiplicativeGaussian(1.0), "verbose": 0, "chips": 2}
    batches = (X[i : i + 20] for i in (0, 20))
    curve = layer_sensitivity(
        model,
        (X, Y),
        p_base=0.1,
        p_probe=0.5,
        calibration=batches,
        metric="loss",
        **common,
    )
    expected = robustness_curve(
        model, (X, Y), sigmas=[0.1, 0.5], calibration=iter([X[:20], X[20:]]), **common
    )
    for level, sigma in zip(curve.levels, expected.levels, strict=True):
        np.testing.assert_allclose(
            curve.values(level), expected.values(sigma, metric="loss"), rtol=1e-5
        )


@keras.saving.register_keras_serializable(package="tests")
class Traced(keras.layers.Layer):
    calls = 0

    def call(self, inputs):
        Traced.calls += 1
        return inputs


def test_levels_and_chips_share_one_compiled_graph():
    layers = [keras.layers.Dense(5) for _ in range(3)]
    model = keras.Sequential([keras.Input((6,)), Traced(), *layers])
    model.compile("adam", "mse")
    traced = []
    for chips in (1, 3):
        Traced.calls = 0
        measure(model, noise=noise.DropConnect(0.5), chips=chips)
        traced.append(Traced.calls)
    Traced.calls = 0
    robustness_curve(model, (X, Y), sigmas=[0.2], chips=1, verbose=0)
    assert traced == [Traced.calls] * 2


def test_the_model_and_the_noise_are_left_as_they_are():
    model, flips = quantized(), noise.BitFlip(0.5)
    variables = [*model.variables, *flips.variables]
    before = [ops.convert_to_numpy(v) for v in variables]
    measure(model, noise=flips, chips=1)
    assert flips.quantizer is None
    for old, variable in zip(before, variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"p_base": 0.6}, "`p_base` of layer_sensitivity is the probability.*0 to 0.5"),
        ({"p_probe": -0.1}, "`p_probe` of layer_sensitivity .* p_probe=-0.1"),
        ({"p_probe": float("nan"), "noise": "programming_noise"}, "`p_probe` of layer"),
        ({"chips": 0}, "`chips` of ChipStudy .* Received: chips=0"),
        ({"chips": 2.0}, "`chips` of ChipStudy must be an integer"),
        ({"metric": "f1"}, "not among the compiled ones: .*mae"),
        ({"noise": "flash"}, "Unknown noise 'flash'"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        measure(quantized(), **kwargs)


@pytest.mark.slow
def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="'dense4/kernel' has no quantizer. Give"):
        measure(plain())
    with pytest.raises(TypeError, match="must be a hwa_keras noise"):
        measure(plain(), noise=lambda w, seed: w)
    with pytest.raises(ValueError, match="not compiled"):
        layer_sensitivity(zoo.mlp(), (X, Y), noise="programming_noise", verbose=0)
    with pytest.raises(ValueError, match="`data` is missing"):
        layer_sensitivity(quantized(), None, verbose=0)


@pytest.mark.slow
def test_kernels_of_several_ranks_and_shapes_share_a_noise():
    keras.utils.set_random_seed(0)
    model = zoo.residual_cnn()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = zoo.inputs_for(model, batch=4)
    spread = noise.MultiplicativeGaussian(0.1)
    curve = layer_sensitivity(
        model,
        (x, np.zeros(4)),
        p_base=1.0,
        p_probe=5.0,
        chips=2,
        noise=spread,
        verbose=0,
    )
    assert len({len(kernel.shape) for kernel in model.weights}) > 2
    assert len({tuple(curve.values(level)) for level in curve.levels}) > 2
