import json
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import devices, random
from hwa_keras.core.checks import check_not_negative, check_positive
from hwa_keras.devices import Device
from hwa_keras.devices.device import check_per, check_time, weight_range
from hwa_keras.noise import ProgrammingNoise


@devices.register("halving")
@dataclass(frozen=True)
class Halving(Device):
    """Holds a share of every weight."""

    share: float = 0.5

    def program(self, weights, seed):
        return {"weights": weights * self.share}

    def read(self, state, t, z=None):
        return state["weights"]

    def perturb(self, weights, seed, scale=1.0):
        return weights * (1.0 - (1.0 - self.share) * scale)


@pytest.mark.parametrize("t", [0, 0.0, 1, 3.15e7, np.float32(20.0)])
def test_times_from_zero_on_are_accepted(t):
    assert check_time(t) == float(t)


@pytest.mark.parametrize("t", [-1e-9, -1, float("nan"), float("inf")])
def test_other_times_are_rejected(t):
    with pytest.raises(ValueError, match=rf"`t` is the time .*Received: t={float(t)}"):
        check_time(t)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", None, True])
def test_checks_name_owner_argument_and_value(value):
    with pytest.raises(ValueError, match=f"`x` of Owner .*not negative.*x={value!r}"):
        check_not_negative("Owner", fine=0.0, x=value)
    with pytest.raises(ValueError, match=f"`x` of Owner .*a positive.*x={value!r}"):
        check_positive("Owner", fine=1.0, x=value)


def test_zero_is_not_negative_and_not_positive():
    check_not_negative("Owner", x=0, y=np.float32(0.5))
    with pytest.raises(ValueError, match="x=0"):
        check_positive("Owner", x=0)


def test_granularity_is_by_layer_or_by_column():
    check_per("Owner", "layer")
    check_per("Owner", "column")
    with pytest.raises(ValueError, match="`per` of Owner must be .*per='row'"):
        check_per("Owner", "row")


@pytest.mark.parametrize(
    ("per", "shape", "axes"),
    [
        ("layer", (3, 4), (0, 1)),
        ("column", (3, 4), (0,)),
        # Tiles of a kernel, each with a range of its own.
        ("layer", (3, 3, 2, 4), (2, 3)),
        ("column", (3, 3, 2, 4), (2,)),
    ],
)
def test_weight_range_is_the_largest_magnitude(per, shape, axes):
    w = np.random.default_rng(1).normal(size=shape).astype("float32")
    largest, written = weight_range(ops.convert_to_tensor(w), per)
    np.testing.assert_array_equal(largest, np.abs(w).max(axes, keepdims=True))
    np.testing.assert_array_equal(written, np.ones(largest.shape))


def test_weight_range_of_zeros_is_one_and_nothing_is_written():
    w = ops.convert_to_tensor(np.array([[0, -2], [0, 1]], "float32"))
    largest, written = weight_range(w, "column")
    np.testing.assert_array_equal(largest, [[1, 2]])
    np.testing.assert_array_equal(written, [[0, 1]])
    largest, written = weight_range(ops.zeros((2, 2)), "layer")
    np.testing.assert_array_equal(largest, [[1]])
    np.testing.assert_array_equal(written, [[0]])


def test_a_device_of_ones_own_is_found_saved_and_used():
    device = Halving(share=0.25)
    config = json.loads(json.dumps(devices.serialize(device)))
    assert devices.get(config) == device
    assert devices.get("halving") == Halving()
    assert device.draw_read_noise((2,), random.seed_from(1)) is None
    w = np.ones((2, 2), "float32")
    np.testing.assert_array_equal(
        ProgrammingNoise(device)(w, random.seed_from(1)), 0.25
    )


def test_the_base_class_says_what_is_missing():
    device, seed = Device(), random.seed_from(1)
    for call in (
        lambda: device.program(ops.ones((2,)), seed),
        lambda: device.read({}, 0.0),
        lambda: device.perturb(ops.ones((2,)), seed),
        lambda: device.oracle_gain({}, 0.0),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_a_device_of_one_s_own_needs_no_registration():
    @dataclass(frozen=True)
    class Halving(devices.Device):
        def program(self, weights, seed):
            return {"weights": weights}

        def read(self, state, t, z=None):
            return 0.5 * state["weights"]

    own = Halving()
    assert devices.get(own) is own
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    chip = hwa_keras.program(model, own, seed=1, compensation="none")
    x = np.ones((1, 3), "float32")
    np.testing.assert_allclose(
        2 * ops.convert_to_numpy(chip(x)),
        ops.convert_to_numpy(model(x)),
        rtol=1e-6,
    )


def test_devices_without_fields_of_a_dataclass_are_not_all_equal():
    class Plain(Device):
        pass

    assert Plain() != Plain()
    assert devices.PCM() == devices.PCM() != devices.PCM(g_max=20.0)
