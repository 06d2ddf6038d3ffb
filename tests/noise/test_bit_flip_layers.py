"""BitFlip in layers, models, files, and given what it cannot use."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import noise, quantizers, random
from hwa_keras.devices import SRAM
from hwa_keras.layers import HWALSTM, HWADense
from hwa_keras.noise import AdditiveGaussian, BitFlip, Compose, ProcessVariation
from hwa_keras.quantizers import (
    DoReFa,
    NoOp,
    Uniform,
)
from hwa_keras.quantizers.code import Code
from tests import fresh, zoo
from tests.bits import (
    X,
    as_numpy,
    assert_rate,
    held,
    noisy,
    patterns_of,
    quantized,
    table,
)

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

pytestmark = pytest.mark.usefixtures("built_optimizers")

# --- In layers and models


def converted(kernel_noise, quantizer="ste_sign", width=300, **kwargs):
    layers = [keras.layers.Dense(width, name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input((12,)), *layers])
    return hwa_keras.to_hwa(model, quantizer, kernel_noise, verbose=0, **kwargs)


def dense(**kwargs):
    return HWADense(
        5, kernel_quantizer="ste_sign", kernel_noise=BitFlip(0.3), noise_seed=1
    )


def small():
    return converted(BitFlip(0.3), width=6, seed=1)


@pytest.mark.parametrize("make", [dense, small], ids=["layer", "model"])
def test_noisy_in_training_alone(make):
    owner = make()
    exact = as_numpy(owner(X))
    np.testing.assert_array_equal(owner(X, training=False), exact)
    one, two = (as_numpy(owner(X, training=True)) for _ in range(2))
    assert np.any(one != exact) and np.any(one != two)
    again = make()
    again(X)
    again.set_weights(owner.get_weights())
    np.testing.assert_array_equal(again(X, training=True), one)
    for each in owner.noises():
        each.p.assign(0.0)
    np.testing.assert_allclose(owner(X, training=True), exact, rtol=1e-6, atol=1e-6)


def test_each_kernel_has_a_p_of_its_own():
    shared = BitFlip(0.2)
    lstm = HWALSTM(40, kernel_quantizer="ste_sign", kernel_noise=shared)
    lstm.build((None, 6, 120))
    assert len(hwa_keras.hardware_kernels(lstm)) == 2
    for owner in (converted(shared), lstm):
        one, other = owner.noises()
        assert {one.error_rate, other.error_rate} == {float(np.float32(0.2))}
        one.p.assign(0.0)
        (w, still), (v, flipped) = noisy(owner)
        np.testing.assert_array_equal(still, w)
        assert_rate(flipped != v, 0.2)
        other.p.assign(0.01)
        (w, still), (v, flipped) = noisy(owner)
        np.testing.assert_array_equal(still, w)
        assert_rate(flipped != v, 0.01)
    assert shared.error_rate == pytest.approx(0.2)


def test_each_kernel_is_read_in_the_code_of_its_own_quantizer():
    four = {"kernel_quantizer": Uniform(8, scale="max", axis=-1)}
    model = converted(BitFlip(0.1, "sign_magnitude"), rules=[("second", four)])
    model.noises()[0].p.assign(0.3)
    (w, flipped), (v, read_back) = noisy(model)
    assert_rate(flipped != w, 0.3)
    np.testing.assert_array_equal(np.abs(flipped), 1)
    step = np.abs(v.astype("float64")).max(0, keepdims=True) / 7
    values = table(4, 0.0, "sign_magnitude")
    mask = patterns_of(v, step, values) ^ patterns_of(read_back, step, values)
    assert_rate(mask[(v != 0) & (read_back != 0)] >> 3 & 1, 0.1)  # Zero has no sign.
    for i in range(3):
        assert_rate(mask >> i & 1, 0.1)


def test_a_learned_step_is_the_one_of_now_and_no_weight_of_the_noise():
    layer = HWADense(
        300,
        kernel_quantizer=Uniform(8, scale="learned"),
        kernel_noise=BitFlip(0.3, "sign_magnitude"),
    )
    layer.build((None, 100))
    for scale in (0.05, 0.5):
        layer.kernel_quantizer.alpha.assign(scale)
        ((w, flipped),) = noisy(layer)
        levels = flipped.astype("float64") / scale * 7
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
        assert np.abs(levels).max() == pytest.approx(7)
        assert np.any(w != flipped)
    names = [w.path.rpartition("/")[2] for w in layer.kernel_noise.weights]
    assert names[:2] == ["scale", "p"]
    scale = layer.kernel_quantizer.alpha
    assert not any(w is scale for w in layer.kernel_noise.weights)
    assert not layer.kernel_noise.trainable_weights
    model = keras.Sequential([keras.Input((100,)), layer])
    assert hwa_keras.summary(model).params == {4: 100 * 300, 32: 300 + 1}


@pytest.mark.slow
def test_inside_compose_it_comes_in_its_turn():
    quantizer = DoReFa(4, "weights")
    perturb = Compose(
        [BitFlip(0.1), Compose([AdditiveGaussian(0.01, "absolute")])], scale=2.0
    )
    model = converted(perturb, quantizer)
    for w, found in noisy(model):
        levels = np.round(found * 15 / 2 - 0.5)
        assert abs(np.std(found - (levels + 0.5) * 2 / 15) - 0.02) < 0.002
        changed = (levels.astype(int) % 16) ^ (
            np.round(w * 15 / 2 - 0.5).astype(int) % 16
        )
        for i in range(4):
            assert_rate(changed >> i & 1, 0.2)
    flips = [n for n in model.noises() if isinstance(n, BitFlip)]
    assert len(flips) == 2 and all(n.quantizer is not None for n in flips)


def test_a_chip_of_the_noise_reads_the_codes_of_each_kernel():
    model, given = converted(None, width=150), BitFlip(0.1)
    composed = Compose([given, ProcessVariation(0.0)], scale=2.0)
    for p, perturb, rate in ((0.1, given, 0.1), (0.02, composed, 0.04)):
        given.p.assign(p)
        chip = hwa_keras.program(model, perturb, seed=1)
        for found, w in zip(held(chip), quantized(model), strict=True):
            assert_rate(found != w, rate)
    assert given.quantizer is None  # Chips have copies.


def test_a_chip_of_a_noise_that_belongs_to_a_kernel_with_a_learned_step():
    model = converted(BitFlip(0.1), Uniform(8, scale="learned"), width=5)
    kernels = hwa_keras.hardware_kernels(model)
    trained_with = kernels[0].noise
    trained_with.p.assign(0.5)
    chip = hwa_keras.program(model, trained_with, seed=1)
    for found, kernel in zip(held(chip), kernels, strict=True):
        levels = found / as_numpy(kernel.quantizer.code_step())
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
        assert np.mean(found != as_numpy(kernel.quantized())) > 0.5


# --- Configuration and files


@pytest.mark.parametrize(
    "perturb",
    [
        BitFlip(0.1),
        BitFlip(0.0, "sign_magnitude", [0, 1, 1.5], DoReFa(3, "weights"), scale=0.5),
        BitFlip(0.5, quantizer="ste_sign"),
    ],
)
def test_configuration_round_trips_as_json(perturb):
    again = noise.get(json.loads(json.dumps(noise.serialize(perturb))))
    assert again.get_config() == perturb.get_config()
    if perturb.quantizer is not None:
        w = perturb.quantizer(ops.convert_to_tensor(X))
        seed = random.seed_from(1)
        np.testing.assert_array_equal(again(w, seed), perturb(w, seed))


LOAD = """
    import json, keras, numpy as np, hwa_keras
    from hwa_keras.training.callbacks import noises_of
    x = np.load(f"{folder}/x.npy")
    found, rates = {}, {}
    for name in names:
        model = keras.models.load_model(f"{folder}/{name}.keras")
        for training in (False, True):
            y = model(x, training=training)
            found[f"{name} {training}"] = keras.ops.convert_to_numpy(y)
        kept = [n for n in noises_of(model) if hasattr(n, "p")]
        rates[name] = [float(n.p.numpy()) for n in kept]
    np.savez(f"{folder}/found.npz", **found)
    print(json.dumps(rates))
"""


@pytest.mark.slow
def test_models_and_chips_load_as_they_are_in_a_fresh_process(tmp_path):
    flips = BitFlip(0.1, "sign_magnitude", [0.0, 1.0, 2.0, 3.0])
    model = converted(
        Compose([flips, AdditiveGaussian(0.01)]),
        Uniform(8, scale="learned", axis=-1),
        width=12,
        seed=3,
    )
    layered = keras.Sequential(
        [
            keras.Input((12,)),
            HWADense(12, kernel_quantizer="ste_sign", kernel_noise=BitFlip(0.2)),
            HWADense(
                12,
                kernel_noise=BitFlip(0.1, quantizer=NoOp(precision=1)),
                kernel_constraint="weight_clip",
            ),
        ]
    )
    for m in (model, layered):
        m(X, training=True)  # Seeds move on.
        rates = [0.25, 0.0625]
        for each in m._flatten_layers():
            if isinstance(each, BitFlip):
                each.p.assign(rates.pop(0))
    saved = {
        "model": model,
        "layered": layered,
        "hard": hwa_keras.program(model, SRAM(errors="hard"), seed=1),
        "soft": hwa_keras.program(layered, SRAM(), seed=2, read_noise="frozen"),
    }
    np.save(tmp_path / "x.npy", X)
    expected = {}
    for name, m in saved.items():
        m.save(tmp_path / f"{name}.keras")
        for training in (False, True):
            expected[f"{name} {training}"] = as_numpy(m(X, training=training))
    printed = fresh.run(LOAD, names=list(saved), folder=str(tmp_path))
    rates = json.loads(printed.splitlines()[-1])
    assert rates["model"] == rates["layered"] == [0.25, 0.0625]
    found = np.load(tmp_path / "found.npz")
    for key, wanted in expected.items():
        np.testing.assert_array_equal(found[key], wanted, err_msg=key)
    for name in ("model", "layered"):
        assert np.any(found[f"{name} False"] != found[f"{name} True"])


# --- Bad input


def unquantized():
    return HWADense(3, kernel_noise=BitFlip(0.1), name="first").build((None, 4))


def of_unknown_code(quantizer):
    layer = HWADense(3, kernel_quantizer=quantizer, kernel_noise=BitFlip(0.1))
    return layer.build((None, 4))


def halves(w):
    return 0.5 * ops.sign(w)


def with_factors(factors, quantizer="ste_sign"):
    return BitFlip(0.1, bit_factors=factors, quantizer=quantizer)


WITHOUT = r"kernel' has no quantizer. Give .*'ste_sign'.*DoReFa.*Uniform\(levels=8"
PROBABILITY = "`p` of BitFlip is the probability .*from 0 to 0.5"


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: BitFlip(-0.1), f"{PROBABILITY}.*Received: p=-0.1"),
        (lambda: BitFlip(0.51), f"{PROBABILITY}.*Received: p=0.51"),
        (lambda: BitFlip(float("nan")), f"{PROBABILITY}.*Received: p=nan"),
        (lambda: BitFlip(float("inf")), f"{PROBABILITY}.*Received: p=inf"),
        (lambda: BitFlip(None), f"{PROBABILITY}.*Received: p=None"),
        (lambda: BitFlip("a"), f"{PROBABILITY}.*Received: p='a'"),
        (lambda: BitFlip(0.1, scale=-1), "`scale` of BitFlip .*scale=-1"),
        (lambda: noise.get("bit_flip"), r"BitFlip has no default for p.*BitFlip\(p="),
        (
            lambda: BitFlip(0.1, "gray"),
            "`encoding` of BitFlip must be 'twos_complement' or 'sign_magnitude'. "
            "Received: encoding='gray'",
        ),
        (lambda: BitFlip(0.1, quantizer="sign"), "Unknown quantizer 'sign'. Known"),
        (
            lambda: with_factors([1.0, 1.0]),
            "has 2 factors, and .* has 1 bits. Give one per bit, the highest",
        ),
        (
            lambda: converted(BitFlip(0.1, bit_factors=[1, 1]), DoReFa(4, "weights")),
            "`bit_factors` of BitFlip has 2 factors, and .* has 4 bits",
        ),
        (lambda: with_factors([]), "has 0 factors"),
        (lambda: with_factors([-1.0]), "`bit_factors` of BitFlip.*Received.*=-1.0"),
        (lambda: with_factors([float("nan")]), "`bit_factors` of BitFlip.*=nan"),
        (lambda: with_factors(2.0), "must be a list of factors.*bit_factors=2.0"),
        (unquantized, f"BitFlip flips the bits .*'first/{WITHOUT}"),
        (lambda: converted(BitFlip(0.1), None), f"first/{WITHOUT}"),
        (
            lambda: converted(Compose([AdditiveGaussian(0.1), BitFlip(0.1)]), None),
            f"first/{WITHOUT}",
        ),
        (lambda: of_unknown_code(halves), "has <function halves.*of unknown code"),
        (lambda: of_unknown_code(Uniform(2**24)), "up to 24 bits.*kernel' has 25"),
        (lambda: of_unknown_code(NoOp(precision=4)), "has <NoOp .*of unknown code"),
        (
            lambda: BitFlip(0.1)(X, random.seed_from(1)),
            "'weights' has no quantizer. Give",
        ),
        (
            lambda: hwa_keras.program(zoo.mlp(), BitFlip(0.1)),
            f"'dense.*/{WITHOUT}",
        ),
    ],
)
def test_bad_input(make_bad, message):
    with pytest.raises(ValueError, match=message):
        make_bad()


def test_aliases_and_names():
    assert noise.get(noise.serialize(BitFlip(0.1))).get_config()["p"] == 0.1
    assert quantizers.get("ste_sign").code() == Code(1, 0.5)
    assert "bit_flip" in noise.family.aliases()
