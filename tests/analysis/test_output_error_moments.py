"""Moments layer by layer, against formulas written out in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.analysis.moments import output_moments
from hwa_keras.analysis.moments.covariance import Budget, Covariance
from hwa_keras.analysis.moments.graph import Step, steps_of
from hwa_keras.analysis.moments.joint import Joint
from hwa_keras.analysis.moments.rectifier import rectified, rectified_covariance
from hwa_keras.analysis.moments.rules import apply_rule

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
GRID = np.linspace(-8, 8, 4_001)
DENSITY = np.exp(-(GRID**2) / 2) / np.sqrt(2 * np.pi) * (GRID[1] - GRID[0])


def random_moments(shape, examples=2):
    """Means and a full covariance of random tensors."""
    n = int(np.prod(shape))
    roots = RNG.normal(size=(examples, n, n)) / np.sqrt(n)
    covariance = roots @ roots.transpose(0, 2, 1)
    return RNG.normal(size=(examples, *shape)), covariance


def joint_of(mean, covariance, kept=False):
    joint = Joint(Budget(2**31))
    own = Covariance(ops.cast(covariance[..., None], "float32"), joint.budget)
    joint.put(0, ops.cast(mean, "float32"), own)
    joint.kept = {0} if kept else set()
    return joint


def moments_of(joint, i, j=None):
    mean = ops.convert_to_numpy(joint.means[i])
    found = joint.covariance(i, i if j is None else j).full().values
    return mean, ops.convert_to_numpy(found)[..., 0]


def close(found, wanted, tolerance=2e-5):
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


def run(layer, joint, weights=()):
    apply_rule(joint, Step(layer, (0,), 1, ()), dict(weights), 2)
    return joint


PRODUCTS = {
    "dense": (lambda: layers.Dense(3), (5,)),
    "dense in time": (lambda: layers.Dense(3), (4, 2)),
    "einsum": (lambda: layers.EinsumDense("ab,bcd->acd", (2, 2), bias_axes="cd"), (3,)),
    "same": (lambda: layers.Conv2D(2, 3, padding="same"), (3, 3, 2)),
    "strided": (lambda: layers.Conv2D(2, 2, strides=2), (4, 4, 2)),
    "dilated": (lambda: layers.Conv1D(2, 2, dilation_rate=2), (6, 2)),
    "causal": (lambda: layers.Conv1D(3, 3, padding="causal"), (5, 2)),
    "grouped": (lambda: layers.Conv1D(4, 2, groups=2), (4, 4)),
    "depthwise": (lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), (3, 3, 2)),
    "transposed": (lambda: layers.Conv1DTranspose(2, 3, strides=2), (3, 2)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_random_kernels_and_random_inputs(name):
    # y = Σ_k w_k·T_k·x, so that Cov y = W̄ΓW̄ᵀ + Σ_k Var(w_k)·T_k(Γ + μμᵀ)T_kᵀ.
    make, shape = PRODUCTS[name]
    layer = make()
    layer.build((None, *shape))
    kernel = layer.trainable_weights[0]
    layer.trainable_weights[1].assign(RNG.normal(size=layer.trainable_weights[1].shape))
    bias, n = (
        ops.convert_to_numpy(layer(np.zeros((1, *shape), "float32"))),
        kernel.shape,
    )
    inputs = np.eye(int(np.prod(shape)), dtype="float32").reshape(-1, *shape)
    bilinear = []
    for unit in np.eye(int(np.prod(n)), dtype="float32"):
        kernel.assign(unit.reshape(n))
        bilinear.append(
            (ops.convert_to_numpy(layer(inputs)) - bias).reshape(len(inputs), -1)
        )
    bilinear = np.stack(bilinear).transpose(0, 2, 1).astype("float64")
    w, variance = RNG.normal(size=n), RNG.uniform(size=n)
    mean, covariance = random_moments(shape)
    flat = mean.reshape(2, -1)
    linear = np.einsum("k,koi->oi", w.ravel(), bilinear)
    second = covariance + flat[:, :, None] * flat[:, None, :]
    wanted = np.einsum("oi,bij,pj->bop", linear, covariance, linear)
    wanted += np.einsum(
        "k,koi,bij,kpj->bop",
        variance.ravel(),
        bilinear,
        second,
        bilinear,
        optimize=True,
    )
    model = keras.Sequential([keras.Input(shape), layer])
    hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
    weights = {
        id(layer.hardware_kernels[0]): [ops.cast(m, "float32") for m in (w, variance)]
    }
    joint = run(layer, joint_of(mean, covariance, kept=True), weights)
    found = moments_of(joint, 1)
    close(found[0].reshape(2, -1), flat @ linear.T + bias.reshape(1, -1))
    close(found[1], wanted)
    close(moments_of(joint, 0, 1)[1], np.einsum("bij,oj->bio", covariance, linear))
    # The same of exact inputs, whose columns are independent.
    exact = Joint(Budget(2**31))
    exact.put(0, ops.cast(mean, "float32"))
    run(layer, exact, weights)
    pairs = flat[:, :, None] * flat[:, None, :]
    wanted = np.einsum(
        "k,koi,bij,kpj->bop", variance.ravel(), bilinear, pairs, bilinear, optimize=True
    )
    close(moments_of(exact, 1)[1], wanted)


def normalized(**kwargs):
    layer = layers.BatchNormalization(**kwargs)
    layer.build((None, 4, 2))
    for variable in layer.weights:
        variable.assign(RNG.uniform(0.5, 2, size=variable.shape))
    return layer


LINEAR = {
    "batch norm": (normalized, (4, 2)),
    "rescaling": (lambda: layers.Rescaling(3.0, offset=1.0), (4, 2)),
    "pooling": (lambda: layers.AveragePooling2D(2, 1, padding="same"), (3, 3, 2)),
    "global": (lambda: layers.GlobalAveragePooling2D(), (3, 3, 2)),
    "padding": (lambda: layers.ZeroPadding2D(1), (2, 2, 2)),
    "cropping": (lambda: layers.Cropping1D(1), (4, 2)),
    "up": (lambda: layers.UpSampling1D(2), (3, 2)),
    "flatten": (lambda: layers.Flatten(), (3, 3, 2)),
    "reshape": (lambda: layers.Reshape((2, 4)), (4, 2)),
    "permute": (lambda: layers.Permute((2, 1)), (4, 2)),
    "dropout": (lambda: layers.Dropout(0.5), (4,)),
    "activation": (lambda: layers.Activation("linear"), (4,)),
}


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers(name, by_channel):
    make, shape = LINEAR[name]
    layer = make()
    n, channels = int(np.prod(shape)), shape[-1]
    offset = ops.convert_to_numpy(layer(np.zeros((1, *shape), "float32"))).reshape(
        1, -1
    )
    units = np.eye(n, dtype="float32").reshape(n, *shape)
    matrix = (
        ops.convert_to_numpy(layer(units)).reshape(n, -1).astype("float64") - offset
    )
    mean, covariance = random_moments(shape)
    joint = joint_of(mean, covariance, kept=True)
    if by_channel:
        place = np.arange(n) % channels
        covariance = covariance * (place[:, None] == place[None])
        blocks = np.stack(
            [covariance[:, i::channels, i::channels] for i in range(channels)], -1
        )
        own = Covariance(ops.cast(blocks, "float32"), joint.budget)
        joint.put(0, joint.means[0], own)
    run(layer, joint)
    close(moments_of(joint, 1)[0].reshape(2, -1), mean.reshape(2, -1) @ matrix + offset)
    close(moments_of(joint, 1)[1], matrix.T @ covariance @ matrix)
    close(moments_of(joint, 0, 1)[1], covariance @ matrix)


def test_sums_and_differences_count_what_their_terms_share():
    mean, covariance = random_moments((3,))
    joint = joint_of(mean, covariance, kept=True)
    scale = layers.Rescaling(2.0)
    run(scale, joint)
    joint.kept = {0, 1}
    for i, (layer, factor) in enumerate([(layers.Add(), 3), (layers.Subtract(), -1)]):
        apply_rule(joint, Step(layer, (0, 1), 2 + i, ()), {}, 2)
        close(moments_of(joint, 2 + i)[0], factor * mean)
        close(moments_of(joint, 2 + i)[1], factor**2 * covariance)
        close(moments_of(joint, 1, 2 + i)[1], 2 * factor * covariance)


def by_quadrature(a, b, rho):
    """E, Var of max(x, 0), and Cov(max(x, 0), max(y, 0)), of unit variances."""
    x = np.maximum(a + GRID, 0)
    m, s = b + rho * GRID, np.sqrt(1 - rho**2)
    z = (m[None] + s * GRID[::10, None]).clip(0)
    y = (z * DENSITY[::10, None] * 10).sum(0)
    mean = (DENSITY * x).sum()
    other = (DENSITY * np.maximum(b + GRID, 0)).sum()
    return (
        mean,
        (DENSITY * x**2).sum() - mean**2,
        (DENSITY * x * y).sum() - mean * other,
    )


def test_rectified_gaussians_against_quadrature():
    cases = [(a, b) for a in (-2.0, -0.5, 0.0, 1.0, 3.0) for b in (-1.0, 0.3, 2.0)]
    errors = {}
    for a, b in cases:
        for rho in (-0.6, -0.3, 0.3, 0.6):
            mean, variance, covariance = by_quadrature(a, b, rho)
            # Units of 2 and 3 in place of 1.
            found = rectified(ops.cast(2 * a, "float32"), ops.cast(4.0, "float32"))
            assert abs(float(found[0]) - 2 * mean) < 1e-5
            assert abs(float(found[1]) - 4 * variance) < 1e-5
            for terms in (1, 2, 4):
                series = rectified_covariance(
                    ops.cast(6 * rho, "float32"),
                    [ops.cast(m, "float32") for m in (2 * a, 4.0)],
                    [ops.cast(m, "float32") for m in (3 * b, 9.0)],
                    terms,
                )
                key = (abs(rho), terms)
                errors.setdefault(key, []).append(abs(float(series) / 6 - covariance))
    worst = {key: max(found) for key, found in errors.items()}
    assert worst[0.3, 1] > 20 * worst[0.3, 2] > 20 * worst[0.3, 4]
    assert worst[0.6, 1] > 8 * worst[0.6, 2] > 8 * worst[0.6, 4]
    assert worst[0.3, 1] < 8e-3 and worst[0.3, 2] < 4e-4 and worst[0.6, 2] < 3e-3


def test_constants_are_rectified_exactly():
    mean = ops.convert_to_tensor(np.array([-2.0, 0.0, 3.0, 1e6], "float32"))
    found = rectified(mean, ops.zeros(4))
    np.testing.assert_array_equal(ops.convert_to_numpy(found[0]), [0, 0, 3, 1e6])
    np.testing.assert_array_equal(ops.convert_to_numpy(found[1]), np.zeros(4))
    pairs = rectified_covariance(
        ops.zeros(4), (mean, ops.zeros(4)), (mean, ops.ones(4))
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(pairs), np.zeros(4))


def test_small_noise_beside_a_large_mean_keeps_its_variance():
    # (μ² + σ²)·Φ + μ·σ·φ − E² would be nothing but rounding errors here.
    _, variance, _ = rectified(ops.cast(1e3, "float32"), ops.cast(1e-4, "float32"))
    assert float(variance) == pytest.approx(1e-4, rel=1e-5)


def test_a_relu_with_gradients_in_the_moments_of_the_weights():
    from hwa_keras import backend
    from hwa_keras.analysis.moments import propagated

    layer = hwa_keras.layers.HWADense(3, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(2)])
    steps, [number], [output] = steps_of(model)
    x = {number: ops.cast(RNG.normal(size=(2, 4)), "float32")}
    kernel = ops.convert_to_tensor(layer.kernel)

    def loss(tensors):
        weights = {id(layer.hardware_kernels[0]): (kernel, tensors[0])}
        _, variance = propagated(steps, x, output, weights, Budget(2**20))
        return ops.sum(variance), 0.0

    at = np.full((4, 3), 0.1, "float32")
    _, [gradient] = backend.value_and_gradient(loss, [ops.convert_to_tensor(at)])
    for i, j in ((0, 0), (3, 2)):
        step = np.zeros_like(at)
        step[i, j] = 1e-3
        ends = [float(loss([ops.convert_to_tensor(at + s * step)])[0]) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-3
        assert float(gradient[i, j]) == pytest.approx(slope, rel=2e-2, abs=1e-3)


@pytest.mark.slow
def test_covariances_stay_as_small_as_the_layers_let_them():
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(5, 3, padding="same", activation="relu", name="conv")(x)
    y = layers.Flatten()(layers.AveragePooling2D(2)(layers.BatchNormalization()(y)))
    model = keras.Model(x, layers.Dense(3, activation="relu")(y))
    hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
    kernel = model.get_layer("conv").hardware_kernels[0]
    ones = ops.ones(kernel.variable.shape)
    inputs = [RNG.normal(size=(3, 6, 6, 2)).astype("float32")]
    # The convolution's: 36 · 36 · 5; in full, (36 · 5)² would be five times as much.
    allowed = 4 * 36 * 36 * 5
    mean, variance = output_moments(model, {id(kernel): (ones, ones)}, inputs, allowed)
    assert mean.shape == variance.shape == (3, 3)
    with pytest.raises(
        ValueError, match=r"'conv' takes 25,920 bytes.*max_bytes is 25,9"
    ):
        output_moments(model, {id(kernel): (ones, ones)}, inputs, allowed - 1)
    alone = [
        output_moments(model, {id(kernel): (ones, ones)}, [inputs[0][i : i + 1]], 2**31)
        for i in range(3)
    ]
    close(variance, np.concatenate([a[1] for a in alone]))


def test_the_steps_of_nested_models():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.ReLU()])
    x = keras.Input((4,))
    y = ops.add(inner(x), x)
    steps, inputs, outputs = steps_of(
        keras.Sequential([keras.Input((4,)), keras.Model(x, y)])
    )
    assert [type(s.operation).__name__ for s in steps] == ["Dense", "ReLU", "Add"]
    assert [s.inputs for s in steps] == [(0,), (1,), (2, 0)]
    assert (inputs, outputs, {s.shape for s in steps}) == ([0], [3], {(4,)})
