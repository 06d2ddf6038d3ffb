"""m_sharpness: the definition, in NumPy."""

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras.analysis import m_sharpness
from hwa_keras.training import SharpnessAwareModel
from tests import zoo
from tests.training import reference

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
NAMES = ("kernel_1", "bias_1", "kernel_2", "bias_2")


def network(seed=0):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(7, activation="tanh"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    model.compile("sgd", LOSS)
    w = [w.astype("float64") for w in model.get_weights()]
    return model, dict(zip(NAMES, w, strict=True))


def loss_and_gradients(w, x, y):
    h = np.tanh(x @ w["kernel_1"] + w["bias_1"])
    z = h @ w["kernel_2"] + w["bias_2"]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    n = np.arange(len(x))
    dz = p.copy()
    dz[n, y] -= 1
    dz /= len(x)
    da = (dz @ w["kernel_2"].T) * (1 - h**2)
    gradients = (x.T @ da, da.sum(0), h.T @ dz, dz.sum(0))
    return -np.log(p[n, y]).mean(), dict(zip(NAMES, gradients, strict=True))


def problem(count):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 5)).astype("float32"), rng.integers(0, 3, count)


@pytest.mark.parametrize(
    "method, rho, norm",
    [("sam", 0.3, 2), ("asam", 0.5, 2), ("samson", 0.5, 2), ("samson", 0.5, "inf")],
)
def test_is_the_mean_rise_over_the_batches(method, rho, norm):
    model, w = network()
    x, y = problem(40)
    found = m_sharpness(model, (x, y), method, rho, norm=norm, m=16)
    rises = []
    for start in (0, 16, 32):  # The last batch has 8 examples.
        part = x[start : start + 16], y[start : start + 16]
        loss, g = loss_and_gradients(w, *part)
        e = reference.worst(w, g, method, rho, 0.01, norm, ("kernel_1", "kernel_2"))
        rises.append(loss_and_gradients({k: w[k] + e[k] for k in w}, *part)[0] - loss)
    assert found.count == 3
    mean = np.average(rises, weights=[16, 16, 8])
    assert found.mean == pytest.approx(mean, abs=1e-5)


def test_one_more_example_hardly_counts():
    model, _ = network()
    x, y = problem(32)
    even = m_sharpness(model, (x, y), m=16).mean
    rest = m_sharpness(model, (5 * x[:1], y[:1]), m=16).mean
    more = np.concatenate([x, 5 * x[:1]]), np.concatenate([y, y[:1]])
    expected = (32 * even + rest) / 33
    assert m_sharpness(model, more, m=16).mean == pytest.approx(expected, rel=1e-5)


def test_leaves_the_model_and_takes_batches():
    model, _ = network()
    x, y = problem(32)
    before = model.get_weights()
    batches = iter([(x[:16], y[:16]), (x[16:], y[16:])])
    one = m_sharpness(model, (x, y), m=16)
    assert m_sharpness(model, batches).mean == pytest.approx(one.mean, rel=1e-6)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_moving_statistics_and_quantizers_are_those_of_inference():
    inputs = keras.Input((5,))
    h = keras.layers.BatchNormalization()(keras.layers.Dense(7)(inputs))
    plain = keras.Model(inputs, keras.layers.Dense(3)(h))
    hwa = hwa_keras.to_hwa(plain, kernel_noise="programming_noise", verbose=0)
    sharp = SharpnessAwareModel.wrap(hwa)
    found = []
    x, y = problem(32)
    for model in (plain, hwa, sharp):
        model.compile("sgd", LOSS)
        found.append(m_sharpness(model, (x, y), "asam").mean)
    np.testing.assert_allclose(found, found[0], rtol=1e-5)
    moved = plain.layers[2].moving_mean
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(moved), 0.0)


@pytest.mark.slow
def test_training_sharpness_aware_flattens():
    x, y = zoo.digits_like(256)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(256) < 0.2, rng.integers(0, 3, 256), y)  # Hard to fit.
    found = []
    for wrap in (lambda m: m, lambda m: SharpnessAwareModel.wrap(m, rho=0.3)):
        keras.utils.set_random_seed(1)
        model = zoo.mlp()
        trained = wrap(model)
        trained.compile(keras.optimizers.SGD(0.5), LOSS)
        trained.fit(x, y, 32, 20, verbose=0)
        model.compile(loss=LOSS)
        found.append(m_sharpness(model, (x, y), rho=0.3, m=256).mean)
    plain, sharp = found
    assert plain > 1.5 * sharp


@pytest.mark.slow
def test_errors():
    model, _ = network()
    x, y = problem(8)
    with pytest.raises(ValueError, match="`m` of m_sharpness must be an integer ≥ 1"):
        m_sharpness(model, (x, y), m=0)
    with pytest.raises(ValueError, match="`data` is empty"):
        m_sharpness(model, (x[:0], y[:0]))
    with pytest.raises(ValueError, match="pair"):
        m_sharpness(model, (x, y, y))
    with pytest.raises(ValueError, match="`rho` must be positive"):
        m_sharpness(model, (x, y), rho=-1)
    with pytest.raises(ValueError, match="no trainable weights to move"):
        m_sharpness(hwa_keras.program(model, "pcm", seed=0), (x, y))
    bare = zoo.mlp()
    with pytest.raises(ValueError, match="is not compiled"):
        m_sharpness(bare, (x, y))
