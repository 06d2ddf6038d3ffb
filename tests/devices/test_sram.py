"""SRAM near threshold: energy, soft and hard errors of chips, files and exports."""

import dataclasses
import json
import math

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras import devices, random
from hwa_keras.devices import SRAM, error_rate, relative_energy
from hwa_keras.layers import HWALSTM, HWADense, HWAMultiHeadAttention
from hwa_keras.noise import AdditiveGaussian, BitFlip, Compose, ProgrammingNoise
from hwa_keras.quantizers import DoReFa, NoOp, Uniform
from hwa_keras.quantizers.code import Code
from tests import zoo
from tests.bits import as_numpy, assert_rate, held
from tests.bits import quantized as targets

YEAR = 31_536_000.0
WIDTH = 180  # Kernels of 32,400 weights; of somewhat more, XLA compiles the chip's.


# --- Energy


def test_energy_of_the_thesis():
    assert relative_energy(0.01) == pytest.approx(0.36, abs=0.002)
    assert relative_energy(1e-4) == pytest.approx(0.72, abs=0.002)
    assert relative_energy(0.5) == pytest.approx(math.log(2) / 12.8)
    assert SRAM(0.01).energy == relative_energy(0.01)
    assert SRAM(0.01, a=10.0).energy == relative_energy(0.01, a=10.0)


@pytest.mark.parametrize("a", [1.0, 7.3, 10.0, 12.8, 20.0, 33.3])
def test_no_cell_costs_more_than_a_reliable_one(a):
    p = np.concatenate([[0.0, 1e-300, 1e-9, 1e-6], np.linspace(1e-5, 0.5, 999)])
    found = relative_energy(p, a)
    assert relative_energy(0.0, a) == 1.0
    assert found.max() == 1.0 and np.all(np.diff(found) <= 0)
    below = p > math.exp(-a)
    np.testing.assert_allclose(found[below], -np.log(p[below]) / a, rtol=1e-12)
    assert np.all(found[~below] == 1.0)


@pytest.mark.parametrize("a", [7.3, 12.8])
def test_error_rate_is_the_inverse(a):
    p = np.array([0.0, 1e-3, 1e-2, 0.1, 0.3, 0.5])
    found = error_rate(relative_energy(p, a), a)
    np.testing.assert_allclose(found, p, rtol=1e-9)
    assert found[0] == 0 and found.shape == p.shape and found.dtype == "float64"
    assert isinstance(error_rate(0.36), float)
    assert error_rate(0.36) == pytest.approx(math.exp(-12.8 * 0.36))
    assert isinstance(relative_energy(np.float32(0.1)), float)


# --- Chips


def dense(quantizer="ste_sign", noise=None, units=WIDTH, **kwargs):
    return HWADense(
        units, use_bias=False, kernel_quantizer=quantizer, kernel_noise=noise, **kwargs
    )


def one_layer(quantizer="ste_sign", noise=None, inputs=WIDTH):
    return keras.Sequential([keras.Input((inputs,)), dense(quantizer, noise)])


def seen(chip, **kwargs):
    """The kernel of the only layer of a chip, as its outputs show it at a call."""
    return as_numpy(chip(np.eye(chip.tiles[0].kernel().view.matrix_shape[0]), **kwargs))


MODELS = {
    "one_bit": one_layer(),
    "four_bits": one_layer(DoReFa(4, "weights")),
    "large": one_layer(DoReFa(4, "weights"), inputs=200),
}


def flipped_bits(w, found, bits):
    """Which bits differ between kernels, the highest first."""
    if bits == 1:
        np.testing.assert_array_equal(np.abs(found), 1)
        return [w != found]
    step = 2 / (2**bits - 1)
    codes = [np.round(v.astype("float64") / step - 0.5).astype(int) for v in (w, found)]
    np.testing.assert_allclose(found, (codes[1] + 0.5) * step, atol=1e-6)
    changed = (codes[0] % 2**bits) ^ (codes[1] % 2**bits)
    return [changed >> i & 1 for i in reversed(range(bits))]


@pytest.mark.parametrize(
    ("name", "errors", "p"),
    [
        ("one_bit", "soft", 0.1),
        ("four_bits", "soft", 0.01),
        ("four_bits", "hard", 0.1),
        ("large", "soft", 0.1),
        ("large", "hard", 0.1),
    ],
)
def test_bits_of_a_chip_are_wrong_at_their_rate(name, errors, p):
    bits = 1 if name == "one_bit" else 4
    model = MODELS[name]
    (w,) = targets(model)
    chip = hwa_keras.program(model, SRAM(p, errors), seed=1)
    for flips in flipped_bits(w, seen(chip), bits):
        assert_rate(flips, p)


def test_soft_errors_differ_from_call_to_call():
    model = MODELS["one_bit"]
    (w,) = targets(model)
    chip = hwa_keras.program(model, SRAM(0.1), seed=1)
    calls = np.array([seen(chip) != w for _ in range(3)])
    calls = np.append(calls, [seen(chip, t=0.0) != w, seen(chip, t=YEAR) != w], axis=0)
    for flips in calls:
        assert_rate(flips, 0.1)
    correlation = np.corrcoef(calls.reshape(5, -1)) - np.eye(5)
    assert np.abs(correlation).max() < 5 / WIDTH
    found = [chip.predict(np.eye(WIDTH), batch_size=WIDTH, verbose=0) for _ in range(2)]
    assert_rate(found[0] != w, 0.1)
    assert np.any(found[0] != found[1])
    np.testing.assert_array_equal(as_numpy(chip.tiles[0].read(0.0)), w)


def test_frozen_soft_errors_stay_and_off_there_are_none():
    model = MODELS["one_bit"]
    (w,) = targets(model)
    chip = hwa_keras.program(model, SRAM(0.1), seed=1, read_noise="frozen")
    frozen = seen(chip)
    assert_rate(frozen != w, 0.1)
    for t in (None, 0.0, YEAR):
        np.testing.assert_array_equal(seen(chip, t=t), frozen)
    np.testing.assert_array_equal(held(chip)[0], frozen)
    other = hwa_keras.program(model, SRAM(0.1), seed=2, read_noise="frozen")
    assert np.any(seen(other) != frozen)
    chip.read_noise = "off"
    np.testing.assert_array_equal(seen(chip), w)
    chip.read_noise = "per_call"
    assert np.any(seen(chip) != seen(chip))


@pytest.mark.parametrize("read_noise", ["per_call", "frozen", "off"])
def test_hard_errors_are_those_of_the_chip(read_noise):
    model = MODELS["four_bits"]
    (w,) = targets(model)
    chips = [
        hwa_keras.program(model, SRAM(0.1, "hard"), seed=seed, read_noise=read_noise)
        for seed in (1, 1, 2)
    ]
    one, same, other = (seen(chip) for chip in chips)
    for t in (None, 0.0, YEAR):
        np.testing.assert_array_equal(seen(chips[0], t=t), one)
    np.testing.assert_array_equal(same, one)
    assert np.mean(one != w) == pytest.approx(1 - 0.9**4, abs=0.02)
    correlation = np.corrcoef((one != w).ravel(), (other != w).ravel())[0, 1]
    assert abs(correlation) < 5 / WIDTH


@pytest.mark.parametrize("errors", ["soft", "hard"])
def test_compensation_leaves_the_weights_alone(errors):
    model = MODELS["four_bits"]
    chip = hwa_keras.program(model, SRAM(0.1, errors), seed=1, read_noise="frozen")
    found = seen(chip)
    for compensation in ("measured", "oracle", "none"):
        chip.compensation = compensation
        chip.t = YEAR
        assert float(chip.tiles[0].gain.value) == 1.0
        np.testing.assert_array_equal(seen(chip), found)
        np.testing.assert_array_equal(seen(chip, t=YEAR), found)
    chip.compensation, chip.read_noise = "measured", "per_call"
    flipped_bits(targets(model)[0], seen(chip, t=YEAR), 4)  # Levels, all of them.


@pytest.mark.parametrize("errors", ["soft", "hard"])
def test_without_errors_the_chip_computes_what_the_model_computes(errors):
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            dense(Uniform(8, "max", axis=-1), units=30, activation="relu"),
            dense("binary_connect", units=3),
        ]
    )
    x = np.random.default_rng(0).normal(size=(5, WIDTH)).astype("float32")
    chip = hwa_keras.program(model, SRAM(0.0, errors), seed=1)
    for w, kernel in zip(targets(model), held(chip), strict=True):
        np.testing.assert_array_equal(kernel, w)
    np.testing.assert_allclose(chip(x), model(x), rtol=1e-5, atol=1e-5)


# --- What the BitFlip of each kernel says


def noisy_model():
    factors = [0.0, 1.0, 2.0, 10.0]
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            dense("ste_sign", BitFlip(0.1)),
            dense(
                DoReFa(4, "weights"),
                Compose([AdditiveGaussian(0.1), BitFlip(0.3, bit_factors=factors)]),
            ),
            dense("ste_sign", BitFlip(0.4, scale=5.0)),
        ]
    )
    one, several, _ = (layer.noises()[-1] for layer in model.layers)
    one.p.assign(0.02)
    several.p.assign(0.05)
    several.scale.assign(2.0)
    return model


@pytest.mark.parametrize("errors", ["soft", "hard"])
def test_each_kernel_has_the_rates_of_its_own_noise(errors):
    model = noisy_model()
    chip = hwa_keras.program(
        model, SRAM(errors=errors), seed=1, read_noise="frozen", compensation="none"
    )
    one, several, lost = zip(targets(model), held(chip), strict=True)
    assert_rate(flipped_bits(*one, bits=1)[0], 0.02)
    found = flipped_bits(*several, bits=4)
    for flips, rate in zip(found, (0.0, 0.1, 0.2, 0.5), strict=True):
        assert_rate(flips, rate)
    assert_rate(flipped_bits(*lost, bits=1)[0], 0.5)
    assert [tile.device.p for tile in chip.tiles] == pytest.approx([0.02, 0.1, 0.5])


def test_what_the_memory_is_given_goes_before_what_the_noise_says():
    quantizer = DoReFa(2, "weights")
    model = one_layer(quantizer, BitFlip(0.3, "sign_magnitude", [0.0, 1.0]))
    (w,) = targets(model)
    (tile,) = hwa_keras.program(model, "sram", seed=1).tiles
    known = {"encoding": "sign_magnitude", "bit_factors": (0.0, 1.0)}
    assert tile.device == SRAM(float(np.float32(0.3)), code=quantizer.code(), **known)
    (tile,) = hwa_keras.program(model, SRAM(0.1), seed=1).tiles
    assert tile.device == SRAM(0.1, code=quantizer.code(), **known)
    given = SRAM(0.1, "hard", encoding="twos_complement", bit_factors=[2.0, 0.0])
    chip = hwa_keras.program(model, given, seed=1)
    high, low = flipped_bits(w, seen(chip), bits=2)
    assert_rate(high, 0.2)
    assert not low.any()
    plain = hwa_keras.program(MODELS["one_bit"], SRAM(0.1), seed=1)
    assert plain.tiles[0].device.encoding == "twos_complement"


def test_scale_zero_is_reliable_memory():
    model = one_layer("ste_sign", BitFlip(0.1, scale=0.0))
    chip = hwa_keras.program(model, SRAM(), seed=1)
    np.testing.assert_array_equal(seen(chip), targets(model)[0])
    assert chip.tiles[0].device.energy == 1


def test_a_quantizer_that_only_the_noise_knows():
    noise = BitFlip(0.1, quantizer=NoOp(precision=1))
    model = one_layer(None, noise)
    (w,) = targets(model)
    model.layers[0].kernel.assign(np.sign(w))
    for memory in (SRAM(), SRAM(0.1, "hard")):
        chip = hwa_keras.program(model, memory, seed=1, read_noise="frozen")
        assert_rate(flipped_bits(np.sign(w), seen(chip), 1)[0], 0.1)


@pytest.mark.parametrize("axis", [pytest.param(None, marks=pytest.mark.slow), -1])
def test_a_learned_step_is_kept(axis):
    model = one_layer(Uniform(8, "learned", axis=axis), BitFlip(0.2, "sign_magnitude"))
    scale = model.layers[0].kernel_quantizer.alpha
    scale.assign(
        np.linspace(0.02, 0.05, scale.value.shape[-1] if axis else 1).reshape(
            scale.shape
        )
    )
    step = as_numpy(scale.value) / 7
    for errors in ("soft", "hard"):
        chip = hwa_keras.program(model, SRAM(errors=errors), seed=1)
        found = seen(chip) / step
        np.testing.assert_allclose(found, np.round(found), atol=1e-4)
        assert np.abs(found).max() == pytest.approx(7)
        magnitudes = np.abs(np.round(targets(model)[0] / step).astype(int))
        changed = magnitudes ^ np.abs(np.round(found).astype(int))
        for i in range(3):
            assert_rate(changed >> i & 1, 0.2)
    # What is trained further does not reach the chip.
    before = held(chip)[0]
    scale.assign(2 * as_numpy(scale.value))
    chip.t = 1.0
    np.testing.assert_array_equal(held(chip)[0], before)


BITS = {"kernel_quantizer": "ste_sign", "kernel_noise": BitFlip(0.1)}


def recurrent():
    layer = HWALSTM(30, **BITS)
    return keras.Sequential([keras.Input((4, 30)), layer]), layer


def attention():
    inputs, layer = keras.Input((4, 16)), HWAMultiHeadAttention(2, 8, **BITS)
    return keras.Model(inputs, layer(inputs, inputs)), layer


def converted():
    layers = [keras.layers.Dense(30), keras.layers.Dense(30)]
    model = keras.Sequential([keras.Input((30,)), *layers])
    model = hwa_keras.to_hwa(model, **BITS, verbose=0)
    return model, model


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(m, marks=pytest.mark.slow) for m in (recurrent, attention)),
        converted,
    ],
)
def test_every_kernel_of_a_layer_or_model_has_a_memory_of_its_own(make):
    model, owner = make()
    kernels = hwa_keras.hardware_kernels(owner)
    rates = np.linspace(0.1, 0.5, len(kernels)).astype("float32")
    for kernel, rate in zip(kernels, rates, strict=True):
        kernel.noise.p.assign(rate)
    chip = hwa_keras.program(model, SRAM(), seed=1, read_noise="frozen")
    assert len(chip.tiles) == len(kernels) > 1
    cases = zip(chip.tiles, held(chip), targets(model), rates, strict=True)
    for tile, found, w, rate in cases:
        assert tile.device.p == pytest.approx(float(rate))
        assert_rate(found != w, rate)


def test_rules_mix_memories_with_other_devices():
    model = noisy_model()
    first, second, third = (layer.name for layer in model.layers)
    rules = [(first, None), (second, "pcm")]
    chip = hwa_keras.program(model, SRAM(0.1, "hard"), seed=1, rules=rules)
    assert [type(tile.device).__name__ for tile in chip.tiles] == ["PCM", "SRAM"]
    chip.t = YEAR
    assert float(chip.tiles[0].gain.value) > 1.5
    assert float(chip.tiles[1].gain.value) == 1.0


# --- Many chips, files


def small():
    layers = [
        dense(Uniform(8, "learned", axis=-1), BitFlip(0.1), 12),
        dense("binary_connect", BitFlip(0.1), 12),
    ]
    return keras.Sequential([keras.Input((12,)), *layers])


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


@pytest.mark.slow
def test_monte_carlo_evaluates_the_chips_that_program_makes():
    model, data = compiled(small()), zoo.digits_like(40)
    found = hwa_keras.monte_carlo(model, SRAM(), data, chips=2, seed=5, verbose=0)
    chip = hwa_keras.program(model, SRAM(), seed=6, read_noise="frozen")
    expected = chip.evaluate(*data, verbose=0, return_dict=True)["loss"]
    losses = found.values(metric="loss")
    assert losses[1] == pytest.approx(expected, rel=1e-5)
    assert losses[0] != losses[1]


def test_drift_sweep_says_that_nothing_drifts():
    model, data = compiled(small()), zoo.digits_like(40)
    with pytest.warns(UserWarning, match=r"Nothing drifted: .*SRAM\(p=0.1"):
        result = hwa_keras.drift_sweep(
            model, SRAM(), data, times=[0.0, YEAR], chips=2, verbose=0
        )
    losses = np.array([result.values(*p, metric="loss") for p in result.samples])
    assert losses.shape == (6, 2) and (losses == losses[0]).all()
    assert losses[0, 0] != losses[0, 1]


@pytest.mark.parametrize(
    ("memory", "read_noise"),
    [
        (SRAM(errors="hard", encoding="sign_magnitude"), "frozen"),
        (SRAM(0.1), "per_call"),
    ],
    ids=["hard", "soft"],
)
def test_chips_save_and_load_bit_equal(memory, read_noise, tmp_path):
    model = small()
    chip = hwa_keras.program(model, memory, seed=1, read_noise=read_noise)
    chip.save(tmp_path / "chip.keras")
    again = keras.models.load_model(tmp_path / "chip.keras")
    for one, other in zip(chip.tiles, again.tiles, strict=True):
        assert one.device == other.device
    for one, other in zip(held(chip), held(again), strict=True):
        assert one.tobytes() == other.tobytes()
    x = zoo.inputs_for(model)
    for t in (None, YEAR):
        np.testing.assert_array_equal(chip(x, t=t), again(x, t=t))
    again.t = YEAR
    np.testing.assert_array_equal(held(again)[0], held(chip)[0])


@pytest.mark.parametrize(
    "memory",
    [
        SRAM(),
        SRAM(0.01, "hard", "sign_magnitude", [0.0, 1.0, 1.5], a=10.0),
        SRAM(0.1, code=Code(4, step=None, largest=7, axis=(0, 1)), step=[[0.1], [0.2]]),
    ],
)
def test_configuration_round_trips_as_json(memory):
    again = devices.get(json.loads(json.dumps(devices.serialize(memory))))
    assert again == memory and hash(again) == hash(memory)
    assert dataclasses.asdict(again) == dataclasses.asdict(memory)
    assert type(again.code) is type(memory.code)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    ("memory", "read_noise"),
    [(SRAM(errors="hard"), "off"), (SRAM(), "frozen")],
    ids=["hard", "soft"],
)
def test_exported_chips_are_verified(memory, read_noise, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            dense(Uniform(8, "learned"), BitFlip(0.2), 10),
            dense(Uniform(8, "max", axis=-1), BitFlip(0.2, "sign_magnitude"), 8),
            dense("ste_sign", BitFlip(0.2), 3),
        ]
    )
    chip = hwa_keras.program(model, memory, seed=1, read_noise=read_noise)
    x, times = zoo.inputs_for(model), [0.0, YEAR]
    hwa_keras.export(chip, tmp_path / "chip", read_noise)
    hwa_keras.export_tflite(chip, tmp_path / "chip.tflite", read_noise)
    for name in ("chip", "chip.tflite"):
        path = tmp_path / name
        found = hwa_keras.verify_export(path, chip, x, times, read_noise)
        assert found <= 1e-5
        if read_noise == "frozen":
            assert hwa_keras.verify_export(path, chip, x, times) > 1e-2
    assert b"Flex" not in path.read_bytes()


# --- Bad input

PROBABILITY = "`p` of SRAM is the probability .*from 0 to 0.5"


def program(model, device):
    return hwa_keras.program(model, device, seed=1)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: SRAM(-0.1), f"{PROBABILITY}.*Received: p=-0.1"),
        (lambda: SRAM(0.6), f"{PROBABILITY}.*Received: p=0.6"),
        (lambda: SRAM(float("nan")), f"{PROBABILITY}.*Received: p=nan"),
        (lambda: SRAM("low"), f"{PROBABILITY}.*Received: p='low'"),
        (
            lambda: SRAM(0.1, "dead"),
            "`errors` of SRAM must be 'soft' .*or 'hard' .*'dead'",
        ),
        (
            lambda: SRAM(0.1, encoding="gray"),
            "`encoding` of SRAM must be .*encoding='gray'",
        ),
        (lambda: SRAM(0.1, a=0.0), "`a` of SRAM must be a positive.*a=0.0"),
        (lambda: SRAM(0.1, bit_factors=[-1.0]), "`bit_factors` of SRAM.*=-1.0"),
        (lambda: SRAM(0.1, bit_factors=1.0), "`bit_factors` of SRAM must be a list"),
        (lambda: SRAM().energy, "has the p of each kernel: none of its own"),
        (
            lambda: program(MODELS["four_bits"], SRAM(0.1, bit_factors=[1.0])),
            "`bit_factors` of SRAM has 1 factors, and .* has 4 bits. Give one per bit",
        ),
        (
            lambda: program(MODELS["one_bit"], SRAM()),
            r"SRAM\(\) takes p from the BitFlip .*/kernel' has none.*SRAM\(p=0.01\)",
        ),
        (
            lambda: program(one_layer(noise=AdditiveGaussian(0.1)), SRAM()),
            r"/kernel' has none.*SRAM\(p=0.01\)",
        ),
        (
            lambda: program(zoo.mlp(), SRAM(0.1)),
            "SRAM flips the bits .*'dense.*kernel' has no quantizer. Give .*'ste_sign'",
        ),
        (
            lambda: program(one_layer(lambda w: w), SRAM(0.1)),
            "has <function.*of unknown code. Give the kernel a quantizer",
        ),
        (
            lambda: ProgrammingNoise(SRAM(0.1))(np.ones((2, 2)), random.seed_from(1)),
            r"belong to the bits of a kernel on a chip. Train with .*BitFlip\(p\)",
        ),
        (
            lambda: SRAM(0.1).draw_read_noise((2, 2), random.seed_from(1)),
            r"belongs to no kernel.*hwa_keras.program\(model, SRAM",
        ),
        (lambda: relative_energy(0.6), "`p` is the probability .*p=0.6"),
        (lambda: relative_energy([0.1, np.nan]), "`p` is the probability .*nan"),
        (lambda: relative_energy(0.1, a=-1), "`a` of relative_energy must be a pos"),
        (lambda: error_rate(0.01), "`energy` must be from 0.05415.*energy=0.01"),
        (lambda: error_rate(1.1), "`energy` must be from .* to 1, .*energy=1.1"),
    ],
)
def test_bad_input(make_bad, message):
    with pytest.raises(ValueError, match=message):
        make_bad()
