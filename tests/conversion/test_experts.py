"""Mixtures of experts and tied heads of keras-hub, in small, on hardware."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from benchmarks import breadth_models
from hwa_keras.conversion.experts import EXPERTS
from hwa_keras.core.kernels import find_kernels

pytestmark = pytest.mark.slow
pytest.importorskip("keras_hub")

HEADS = keras.layers.ReversibleEmbedding

# Kernels without and with the tied head, and how many of them are experts'.
MIXTURES = {
    "Mixtral": (16, 6),
    "Qwen3Moe": (14, 4),
    "QwenMoe": (22, 4),
    "GptOss": (14, 4),
}
FAMILIES = {**MIXTURES, "Llama": (14, 0)}


def built(family):
    keras.utils.set_random_seed(0)
    model = breadth_models.build(f"hub/{family}")
    return model, breadth_models.example(model)


def logits(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def on_hardware(model):
    """What of which layers is on hardware; keras-hub numbers the names of some."""
    kernels = [k for k in find_kernels(model)[0] if k.hardware is not None]
    return [(type(k.owner).__name__, k.keys, k.view) for k in kernels]


def is_tied(model):
    return any(
        isinstance(layer, HEADS) and layer.tie_weights
        for layer in model._flatten_layers()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_found_and_tied_heads_on_request(family):
    model, _ = built(family)
    count, experts = FAMILIES[family]
    own_head = not is_tied(model)
    kernels = find_kernels(model)[0]
    assert len(kernels) == count + own_head
    banks = [k for k in kernels if len(k.view.shape) == 3 and k.view.columns == (0, 2)]
    assert len([k for k in banks if type(k.owner).__name__ in EXPERTS]) == experts
    with_head = find_kernels(model, HEADS)[0]
    assert len(with_head) == count + 1
    head = with_head[-1]  # Although its layer comes first.
    rows, columns = head.view.matrix_shape
    assert columns == breadth_models.VOCABULARY and rows == head.owner.output_dim


def test_each_expert_has_columns_of_its_own():
    """The matrix of a bank gives, by column, what Keras's einsum gives by expert."""
    model, _ = built("Mixtral")
    bank = next(
        k
        for k in find_kernels(model)[0]
        if "gate_dense" in k.path and k.owner.name == "experts"
    )
    w = ops.convert_to_numpy(bank.variable.value)
    x = np.random.default_rng(0).normal(size=(5, w.shape[1])).astype("float32")
    matrix = ops.convert_to_numpy(bank.view.to_matrix(w))
    by_column = (x @ matrix).reshape(5, w.shape[0], w.shape[2])
    expected = np.einsum("th,ehm->etm", x, w)
    np.testing.assert_allclose(by_column.swapaxes(0, 1), expected, atol=1e-5)


def steps(model, x, **kwargs):
    """Train a model for a step; return the data."""
    shape = model(x, training=False).shape
    y = np.random.default_rng(1).normal(size=shape).astype("float32")
    model.compile(
        keras.optimizers.Adam(1e-3), "mse", metrics=[], weighted_metrics=[], **kwargs
    )
    history = model.fit(x, y, batch_size=len(y), shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"][0])
    return x, y


def assert_saves(model, x, path):
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert on_hardware(loaded) == on_hardware(model)
    np.testing.assert_array_equal(logits(loaded, x), logits(model, x))


@pytest.mark.parametrize("family", FAMILIES)
def test_identity_step_chip_and_file(family, tmp_path):
    model, x = built(family)
    plain = logits(model, x)
    hwa_keras.to_hwa(model, kernels=HEADS, verbose=0)
    np.testing.assert_array_equal(logits(model, x), plain)
    hwa_keras.to_digital(model)
    np.testing.assert_array_equal(logits(model, x), plain)
    hwa_keras.to_hwa(
        model, kernel_noise="programming_noise", kernels=HEADS, seed=0, verbose=0
    )
    np.testing.assert_array_equal(logits(model, x), plain)
    before = [np.array(k.variable) for k in find_kernels(model)[0]]
    steps(model, x, run_eagerly=True)
    after = [np.array(k.variable) for k in find_kernels(model)[0]]
    assert all(not np.array_equal(*w) for w in zip(before, after, strict=True))
    chip = hwa_keras.program(model, "pcm", seed=1, read_noise="off", verbose=0)
    assert len(chip.tiles) == FAMILIES[family][0] + 1
    assert not np.array_equal(logits(chip, x), logits(model, x))
    assert_saves(model, x, tmp_path / "model.keras")


def test_compiled_steps_sweeps_and_files_of_chips(tmp_path):
    model, x = built("Mixtral")
    hwa_keras.to_hwa(
        model, kernel_noise="programming_noise", kernels=HEADS, seed=0, verbose=0
    )
    data = steps(model, x, jit_compile=False)
    result = hwa_keras.drift_sweep(
        model, "pcm", data, times=[3600.0], chips=1, compensation="none", verbose=0
    )
    assert np.isfinite(result.estimate("none", "3600 s").mean)
    chip = hwa_keras.program(model, "pcm", seed=1, read_noise="off", verbose=0)
    assert_saves(chip, x, tmp_path / "chip.keras")


def test_converters_in_experts_are_an_error_that_names_the_rule():
    model, _ = built("Mixtral")
    hardware = hwa_keras.Hardware(dac=hwa_keras.circuits.DAC(8, 4.0))
    with pytest.raises(ValueError, match="'experts' .* of no known family.*rules="):
        hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
