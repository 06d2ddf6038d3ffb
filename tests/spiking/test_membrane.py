"""The backward pass of a whole sequence against a plain loop, differentiated."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras.spiking import membrane, surrogates
from hwa_keras.spiking.membrane import Firing

RNG = np.random.default_rng(3)
T, BATCH = 7, 2
NAMES = ("fast_sigmoid", "atan", "sigmoid", "triangular")
SHAPE = BATCH, len(NAMES) + 1


def each_its_own(x):
    """Every surrogate, and a callable, on a channel of its own."""
    columns = [surrogates.get(name)(x[..., i]) for i, name in enumerate(NAMES)]
    return ops.stack([*columns, 0.3 * ops.exp(-ops.abs(x[..., -1]))], axis=-1)


CASES = [
    Firing(reset, floor, each_its_own, through)
    for reset, floor, through in itertools.product(
        ("zero", "subtract", "none"), (None, -0.2), (False, True)
    )
]


def label(firing):
    return f"{firing.reset}, floor={firing.floor}, through={firing.reset_gradient}"


def stop(x):
    return ops.stop_gradient(x)


def loop_step(u, level, firing):
    """One step in functions that the backend differentiates itself."""
    x = u - level
    slope = stop(each_its_own(stop(x)))
    z = stop(ops.cast(x > 0, x.dtype)) + slope * (x - stop(x))
    seen = z if firing.reset_gradient else stop(z)
    if firing.reset == "zero":
        v = u * (1.0 - seen)
    else:
        v = u - level * seen if firing.reset == "subtract" else u
    if firing.floor is not None:
        v = ops.where(v >= firing.floor, v, firing.floor)
    return z, v


def loop(firing, currents, beta, threshold, v0, strength=0.0, rho=0.0, a0=0.0):
    """z, u, the last v and the last a, by a plain loop over time."""
    v, a, spikes, membranes = v0, a0, [], []
    for current in ops.unstack(currents, T):
        u = beta * v + current
        z, v = loop_step(u, threshold + strength * a, firing)
        a = rho * a + z
        spikes.append(z)
        membranes.append(u)
    return ops.stack(spikes), ops.stack(membranes), v, a


WEIGHTS = [RNG.normal(size=(T, *SHAPE)) for _ in range(2)]
WEIGHTS += [RNG.normal(size=SHAPE) for _ in range(2)]


def loss(results):
    """A number on which every result acts, each element in its own way."""
    return sum(
        ops.sum(ops.cast(w, result.dtype) * result)
        for w, result in zip(WEIGHTS, results, strict=False)
    )


def gradients(function, tensors):
    """What `function` gives, and the gradients of its loss, not compiled."""
    tensors = [ops.convert_to_tensor(x) for x in tensors]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            results = function(*tensors)
            total = loss(results)
        return results, tape.gradient(total, tensors)
    import jax

    positions = tuple(range(len(tensors)))
    found = jax.grad(lambda *xs: loss(function(*xs)), positions)(*tensors)
    return function(*tensors), found


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def values(*shapes, low=0.0, high=1.0):
    return [RNG.uniform(low, high, size=s).astype("float32") for s in shapes]


def inputs():
    [currents] = values((T, *SHAPE), low=-1.2, high=2.0)
    beta, threshold = values(SHAPE[1:], SHAPE[1:], low=0.6, high=0.95)
    return currents, beta, threshold, *values(SHAPE, low=-0.5, high=0.5)


@pytest.mark.parametrize("firing", CASES, ids=label)
def test_gradients_of_a_sequence_are_those_of_a_plain_loop(firing):
    tensors = inputs()
    found = gradients(lambda *xs: membrane.fire(*xs, firing), tensors)
    expected = gradients(lambda *xs: loop(firing, *xs)[:3], tensors)
    assert 0 < ops.sum(found[0][0]) < found[0][0].shape[0] * BATCH * SHAPE[1]
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


@pytest.mark.parametrize("firing", CASES[::2] + CASES[3:6:2], ids=label)
def test_gradients_with_adaptation_are_those_of_a_plain_loop(firing):
    currents, beta, threshold, v0 = inputs()
    strength, rho = values(SHAPE[1:], SHAPE[1:], low=0.2, high=0.9)
    [a0] = values(SHAPE)
    tensors = currents, beta, threshold, strength, rho, v0, a0
    found = gradients(lambda *xs: membrane.adaptive_fire(*xs, firing), tensors)

    def plain(currents, beta, threshold, strength, rho, v0, a0):
        return loop(firing, currents, beta, threshold, v0, strength, rho, a0)

    expected = gradients(plain, tensors)
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


def test_gradients_of_the_synaptic_filter_are_those_of_a_plain_loop():
    currents, alpha, _, i0 = inputs()

    def plain(currents, alpha, i):
        filtered = []
        for x in ops.unstack(currents, T):
            i = alpha * i + x
            filtered.append(i)
        return [ops.stack(filtered)]

    tensors = currents, alpha, i0
    found = gradients(lambda *xs: [membrane.exponential_filter(*xs)], tensors)
    expected = gradients(plain, tensors)
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])


def test_one_value_for_all_neurons_gathers_their_gradients():
    currents, beta, threshold, v0 = inputs()
    one = np.float32(0.8), np.float32(0.7)
    all_alike = [np.full_like(beta, value) for value in one]
    firing = CASES[3]
    run = lambda *xs: membrane.fire(*xs, firing)  # noqa: E731
    _, single = gradients(run, (currents, *one, v0))
    _, each = gradients(run, (currents, *all_alike, v0))
    assert_close(single[1:3], [ops.sum(each[1]), ops.sum(each[2])])


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="`reset`.*'zero', 'subtract', 'none'"):
        Firing(reset="hard")
    with pytest.raises(ValueError, match="`floor` of a neuron must be a finite number"):
        Firing(floor="0")
    with pytest.raises(ValueError, match="`reset_gradient`.*False, True"):
        Firing(reset_gradient=None)


def test_a_surrogate_that_cannot_be_hashed_is_refused():
    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return x

    with pytest.raises(TypeError, match="`surrogate` must be hashable"):
        Firing(surrogate=Unhashable())
