"""The encoder–decoder Transformer: masks, teacher forcing, hardware, bad input."""

import sys

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.models import transformer_translation

pytestmark = pytest.mark.slow

SMALL = {"dim": 8, "depth": 1, "heads": 2, "mlp_dim": 12, "dropout": 0.0}
SOURCE = np.array([[3, 4, 5, 6, 0, 0]], "int32")
TARGET = np.array([[1, 7, 8, 9, 0]], "int32")


def small(**kwargs):
    pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    return transformer_translation(10, 12, 6, 5, **{**SMALL, **kwargs})


def logits(model, source=SOURCE, target=TARGET, **kwargs):
    inputs = {"source": source, "target": target}
    return ops.convert_to_numpy(model(inputs, **kwargs))[0]


def changed(tokens, position, value):
    tokens = tokens.copy()
    tokens[0, position] = value
    return tokens


def test_a_logit_sees_all_of_the_source_and_the_target_before_it():
    model = small()
    plain = logits(model)
    assert plain.shape == (5, 12)
    later = logits(model, target=changed(TARGET, 2, 10))
    np.testing.assert_allclose(later[:2], plain[:2], atol=1e-6)
    assert np.abs(later[2:4] - plain[2:4]).min(axis=-1).max() > 1e-6
    source = logits(model, source=changed(SOURCE, 3, 9))
    assert np.all(np.abs(source[:4] - plain[:4]).max(axis=-1) > 1e-6)


def test_padding_is_not_attended_to():
    longer = transformer_translation(10, 12, 9, 5, **SMALL)
    model = small()
    for w in longer.weights:
        same = next(v for v in model.weights if v.path == w.path)
        value = np.array(w)
        value[tuple(slice(n) for n in same.shape)] = same
        w.assign(value)
    padded = np.pad(SOURCE, [(0, 0), (0, 3)])
    found = logits(longer, source=padded)
    np.testing.assert_allclose(found[:4], logits(model)[:4], atol=1e-5)


@pytest.mark.usefixtures("built_optimizers")
def test_it_trains_on_hardware_and_comes_back_from_a_file(tmp_path):
    model = small()
    plain = logits(model, training=False)
    hwa_keras.to_hwa(model, kernel_noise="programming_noise", seed=0, verbose=0)
    # Four projections of each of three attentions, two networks of two, the logits.
    assert len(hwa_keras.hardware_kernels(model)) == 3 * 4 + 2 * 2 + 1
    np.testing.assert_array_equal(logits(model, training=False), plain)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    y = np.array([[7, 8, 9, 2, 0]])
    inputs = {"source": SOURCE, "target": TARGET}
    history = model.fit(inputs, y, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(loaded), logits(model))


def test_without_keras_hub_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'hwa_keras\[nlp\]'"):
        transformer_translation(10, 12, 6, 5, **SMALL)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"heads": 3}, "multiple of `heads`. Received: dim=8, heads=3"),
        ({"depth": 0}, "`depth` of transformer_translation must be an integer ≥ 1"),
    ],
)
def test_bad_sizes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        transformer_translation(10, 12, 6, 5, **{**SMALL, **arguments})
    with pytest.raises(ValueError, match="`source_vocabulary` .* ≥ 2"):
        transformer_translation(1, 12, 6, 5)
