"""The Vision Transformer: its sizes, a forward pass by hand, files, hardware."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from benchmarks import breadth_models
from hwa_keras.core.kernels import find_kernels
from hwa_keras.models import vit

SMALL = {"input_shape": (8, 8, 3), "dim": 12, "depth": 2, "heads": 3, "mlp_dim": 20}
X = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")


def small(**kwargs):
    keras.utils.set_random_seed(0)
    model = vit(**{**SMALL, **kwargs})
    rng = np.random.default_rng(1)
    for w in model.weights:  # Zeros of biases and of the class token would hide faults.
        w.assign(w + 0.1 * rng.normal(size=w.shape))
    return model


def norm(x, layer):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    gamma, beta = np.array(layer.gamma), np.array(layer.beta)
    return (x - mean) / np.sqrt(var + 1e-6) * gamma + beta


def attention(x, layer):
    def projected(name):
        dense = getattr(layer, f"_{name}_dense")
        return np.einsum("btd,dhk->bthk", x, dense.kernel) + np.array(dense.bias)

    q, k, v = (projected(name) for name in ("query", "key", "value"))
    scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhts,bshk->bthk", weights, v)
    dense = layer._output_dense
    return np.einsum("bthk,hkd->btd", mixed, dense.kernel) + np.array(dense.bias)


def gelu(x):
    from scipy.special import erf

    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def by_hand(model, x, pooling, patch=4):
    """The published network in NumPy, in float64."""
    layer = {each.name: each for each in model.layers}
    cut = x.reshape(len(x), 2, patch, 2, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    kernel = np.array(layer["patches"].kernel, "float64").reshape(-1, 12)
    x = cut.reshape(len(x), 4, -1) @ kernel + np.array(layer["patches"].bias)
    if pooling == "token":
        token = np.broadcast_to(np.array(layer["positions"].token), (len(x), 1, 12))
        x = np.concatenate([token, x], 1)
    x = x + np.array(layer["positions"].positions)
    for i in (1, 2):
        name = f"block_{i}"
        y = norm(x, layer[f"{name}_attention_norm"])
        x = x + attention(y, layer[f"{name}_attention"])
        y = norm(x, layer[f"{name}_mlp_norm"])
        hidden, output = layer[f"{name}_mlp_hidden"], layer[f"{name}_mlp_output"]
        y = gelu(y @ np.array(hidden.kernel) + np.array(hidden.bias))
        x = x + y @ np.array(output.kernel) + np.array(output.bias)
    x = norm(x, layer["norm"])
    x = x[:, 0] if pooling == "token" else x.mean(1)
    return x @ np.array(layer["logits"].kernel) + np.array(layer["logits"].bias)


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_logits_are_those_of_the_published_network(pooling, tmp_path):
    model = small(pooling=pooling)
    logits = ops.convert_to_numpy(model(X))
    np.testing.assert_allclose(logits, by_hand(model, X, pooling), atol=2e-4)
    model.save(tmp_path / "vit.keras")
    loaded = keras.saving.load_model(tmp_path / "vit.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(X)), logits)


@pytest.mark.parametrize("pooling, tokens", [("token", 65), ("mean", 64)])
def test_size_is_that_of_its_parts(pooling, tokens):
    d, m, n = 192, 384, 6
    block = 4 * d * (d + 1) + 2 * d * m + m + d + 4 * d
    own = tokens * d + (d if pooling == "token" else 0)
    expected = (3 * 16 + 1) * d + own + n * block + 2 * d + (d + 1) * 10
    assert vit(pooling=pooling).count_params() == expected


def test_every_product_is_on_hardware_and_nothing_changes_at_inference():
    model = small()
    plain = ops.convert_to_numpy(model(X))
    assert len(find_kernels(model)[0]) == 6 * 2 + 2
    hwa_keras.to_hwa(model, kernel_noise="programming_noise", seed=0, verbose=0)
    assert len(hwa_keras.hardware_kernels(model)) == 14
    np.testing.assert_array_equal(ops.convert_to_numpy(model(X)), plain)
    assert not np.allclose(ops.convert_to_numpy(model(X, training=True)), plain)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"patch_size": 5}, "8 × 8 pixels is no whole number of patches"),
        ({"dim": 10}, "multiple of `heads`. Received: dim=10, heads=3"),
        ({"pooling": "max"}, "must be one of 'token', 'mean'"),
        ({"depth": 0}, "`depth` of vit must be an integer ≥ 1"),
    ],
)
def test_bad_sizes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        vit(**{**SMALL, **arguments})


@pytest.mark.slow
@pytest.mark.usefixtures("built_optimizers")
def test_vit_of_keras_hub_converts_trains_and_is_programmed(tmp_path):
    pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    model = breadth_models.build("hub/ViT")
    x = breadth_models.example(model)
    plain = ops.convert_to_numpy(model(x, training=False))
    hwa_keras.to_hwa(model, kernel_noise="programming_noise", seed=0, verbose=0)
    assert len(hwa_keras.hardware_kernels(model)) == 14
    run = model(x, training=False)
    np.testing.assert_array_equal(ops.convert_to_numpy(run), plain)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    y = np.array([0, 1])
    assert np.isfinite(model.fit(x, y, shuffle=False, verbose=0).history["loss"][0])
    chip = hwa_keras.program(model, "pcm", seed=1, read_noise="off", verbose=0)
    chip.t = 3600.0
    model.save(tmp_path / "vit.keras")
    loaded = keras.saving.load_model(tmp_path / "vit.keras")
    assert len(hwa_keras.hardware_kernels(loaded)) == 14
    assert np.all(np.isfinite(ops.convert_to_numpy(chip(x))))
