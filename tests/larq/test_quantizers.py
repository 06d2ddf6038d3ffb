"""Every quantizer of Larq's and ours of the same name compute the same."""

import inspect

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from hwa_keras import quantizers

CLIPS = (None, 0.5, 1, 1.3)
MODES = ("activations", "weights")
CASES = [
    *[(name, {"clip_value": c}) for name in ("SteSign", "SteHeaviside") for c in CLIPS],
    *[("MagnitudeAwareSign", {"clip_value": clip}) for clip in CLIPS],
    *[("SteTern", {"clip_value": clip}) for clip in CLIPS],
    *[("SteTern", {"threshold_value": threshold}) for threshold in (0, 0.3, 2.0)],
    *[
        ("SteTern", {"ternary_weight_networks": True, "clip_value": clip})
        for clip in CLIPS
    ],
    ("ApproxSign", {}),
    *[("SwishSign", {"beta": beta}) for beta in (1.0, 5.0, 10.0)],
    *[("DoReFa", {"k_bit": k, "mode": mode}) for k in (1, 2, 4, 8) for mode in MODES],
    *[("NoOp", {"precision": precision}) for precision in (1, 8)],
]
every_case = pytest.mark.parametrize(
    "name, arguments", CASES, ids=[f"{name}-{a}" for name, a in CASES]
)


def edges(values):
    values = np.asarray(values, "float32")
    inf = np.float32(np.inf)
    return np.concatenate(
        [values, np.nextafter(values, inf), np.nextafter(values, -inf)]
    )


def grid():
    """A dense grid, with every edge there is and the float32 numbers beside it."""
    tiny = np.finfo("float32").tiny
    special = edges([-1.3, -1, -0.5, -0.3, -0.05, 0.05, 0.3, 0.5, 1, 1.3, 2])
    extreme = np.asarray([0.0, -0.0, tiny, -tiny, 1e-30, -1e-30, 1e4, -1e4], "float32")
    return np.concatenate([np.linspace(-3, 3, 6001, dtype="float32"), special, extreme])


def inputs_of_rank(rank):
    """The grid, and kernels without the extremes, in which every channel differs."""
    if rank == 1:
        return grid()
    shape = {2: (60, 40), 4: (3, 3, 16, 20)}[rank]
    return np.random.default_rng(rank).normal(size=shape).astype("float32")


def outputs_and_gradient(quantizer, x):
    """What a quantizer makes of x, and of one random upstream gradient."""
    upstream = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x)
    return y.numpy(), tape.gradient(y, x, tf.constant(upstream)).numpy()


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_no_quantizer_of_larqs_is_left_out():
    offered = {
        name
        for name, cls in inspect.getmembers(lq.quantizers, inspect.isclass)
        if issubclass(cls, lq.quantizers.Quantizer) and not name.startswith("_")
    }
    former_names = {"DoReFaQuantizer", "NoOpQuantizer", "Quantizer"}
    assert {name for name, _ in CASES} == offered - former_names


@pytest.mark.parametrize("rank", (1, 2, 4))
@every_case
def test_outputs_and_gradients(name, arguments, rank):
    x = inputs_of_rank(rank)
    larqs, ours = getattr(lq.quantizers, name), getattr(quantizers, name)
    y_larq, dx_larq = outputs_and_gradient(larqs(**arguments), x)
    y, dx = outputs_and_gradient(ours(**arguments), x)
    assert_same_bits(y, y_larq)
    if name == "SwishSign":
        # Where Larq's cosh overflows to a gradient of 0, and up to there from
        # |beta·x| = 80, ours is a constant below 1e-32.
        np.testing.assert_allclose(dx, dx_larq, rtol=0, atol=1e-30)
        inside = np.abs(arguments["beta"] * x) <= 80
        assert_same_bits(dx[inside], dx_larq[inside])
    else:
        assert_same_bits(dx, dx_larq)


@pytest.mark.parametrize("name", sorted({"SteSign", "SteTern", "DoReFa", "SwishSign"}))
def test_defaults_and_all_zero_kernels(name):
    x = np.zeros((4, 3), "float32")
    expected = outputs_and_gradient(getattr(lq.quantizers, name)(), x)
    found = outputs_and_gradient(getattr(quantizers, name)(), x)
    for a, b in zip(found, expected, strict=True):
        assert_same_bits(a, b)


@every_case
def test_ours_is_built_from_the_config_of_larqs(name, arguments):
    larqs = getattr(lq.quantizers, name)(**arguments, name="the_name")
    config = larqs.get_config()
    ours = getattr(quantizers, name).from_config(config)
    assert ours.precision == larqs.precision
    kept = {key: ours.get_config()[key] for key in config if key != "dtype"}
    assert kept == {key: value for key, value in config.items() if key != "dtype"}
    for key, value in arguments.items():
        assert ours.get_config()[key] == value


@pytest.mark.parametrize(
    "alias",
    (
        "approx_sign",
        "dorefa_quantizer",
        "magnitude_aware_sign",
        "ste_heaviside",
        "ste_sign",
        "ste_tern",
        "swish_sign",
    ),
)
def test_aliases(alias):
    ours = quantizers.get(alias)
    registered = tf.keras.utils.get_custom_objects()[alias]
    assert type(ours).__name__ == registered.__name__


@pytest.mark.parametrize(
    "alias", ("approx_sign", "ste_heaviside", "ste_sign", "ste_tern", "swish_sign")
)
def test_functions(alias):
    x = grid()
    expected = outputs_and_gradient(getattr(lq.quantizers, alias), x)
    y, dx = outputs_and_gradient(getattr(quantizers, alias), x)
    assert_same_bits(y, expected[0])
    np.testing.assert_allclose(dx, expected[1], rtol=0, atol=1e-30)


def test_half_precision_forward():
    """SteTern is not here: ours compares with its threshold in float32."""
    x = grid().astype("float16")
    for name in ("SteSign", "SteHeaviside", "ApproxSign"):
        larqs = getattr(lq.quantizers, name)(dtype="float16")
        ours = getattr(quantizers, name)()
        assert_same_bits(ops.convert_to_numpy(ours(x)), larqs(tf.constant(x)).numpy())
