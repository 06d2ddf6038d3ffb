"""Files of converted models whose layers know nothing of their hardware."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import quantizers
from hwa_keras.noise import AdditiveGaussian
from tests import fresh, zoo
from tests.conversion.blocks import Block, Branching

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")

LOAD = """
    import keras, numpy as np, hwa_keras
    from tests.conversion import blocks
    keras.layers.Dense(3), keras.layers.Dense(3)  # The names that follow are others.
    inputs = dict(np.load(inputs_path))
    model = keras.models.load_model(path)
    x = inputs.pop("x", None)
    x = inputs if x is None else x
    found = {}
    for key, options in calls.items():
        found[key] = keras.ops.convert_to_numpy(model(x, **options))
    np.savez(outputs_path, **found)
    print(*(k.path for k in hwa_keras.hardware_kernels(model)), sep="\\n")
"""


def assert_loads(model, x, folder, **calls):
    """Save a model, load it in a fresh process and compare what calls give."""
    calls = {"inference": {}, "training": {"training": True}, **calls}
    inputs = x if isinstance(x, dict) else {"x": x}
    np.savez(folder / "inputs.npz", **inputs)
    model.save(folder / "model.keras")
    expected = {}
    for name, options in calls.items():
        expected[name] = ops.convert_to_numpy(model(x, **options))
    printed = fresh.run(
        LOAD,
        path=str(folder / "model.keras"),
        inputs_path=str(folder / "inputs.npz"),
        outputs_path=str(folder / "outputs.npz"),
        calls=calls,
    )
    found = np.load(folder / "outputs.npz")
    for name in calls:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert len(printed.splitlines()) == len(hwa_keras.hardware_kernels(model))
    assert np.any(expected["training"] != expected["inference"])


OPTIONS = {
    "kernel_quantizer": quantizers.Uniform(16, "learned", axis=-1),
    "kernel_noise": AdditiveGaussian(0.05),
    "seed": 3,
    "verbose": 0,
}


@pytest.mark.slow
def test_a_backbone_whose_blocks_make_their_layers(tmp_path):
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        dropout=0.0,
        max_sequence_length=10,
    )
    inputs = zoo.inputs_for(zoo.bert())
    pooled = backbone(backbone.input)["pooled_output"]
    outer = keras.Model(backbone.input, pooled)
    hwa = hwa_keras.to_hwa(outer, **OPTIONS)
    assert len(hwa_keras.hardware_kernels(hwa)) == 13
    assert_loads(hwa, inputs, tmp_path)


@pytest.mark.slow
def test_a_classifier_around_a_backbone(tmp_path):
    hwa = hwa_keras.to_hwa(zoo.bert(), **OPTIONS)
    assert_loads(hwa, zoo.inputs_for(hwa), tmp_path)


def branching(**options):
    model = Branching()
    model(X, everything=True)
    return hwa_keras.to_hwa(model, **OPTIONS, **options)


@pytest.mark.slow
def test_a_branch_that_is_not_built_when_the_model_is_loaded(tmp_path):
    hwa = branching()
    assert len(hwa_keras.hardware_kernels(hwa)) == 7
    assert_loads(hwa, X, tmp_path, everything={"everything": True})


def test_layers_are_found_again_whatever_their_names_are(tmp_path):
    hwa = branching(rules=[(lambda layer: getattr(layer, "units", 0) == 5, None)])
    hwa.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] != [la.name for la in hwa.layers]
    ours, theirs = map(hwa_keras.hardware_kernels, (hwa, loaded))
    assert [k.path for k in theirs] == [k.path for k in ours]
    assert len(ours) == 3
    for kwargs in ({}, {"everything": True}, {"training": True}):
        np.testing.assert_array_equal(loaded(X, **kwargs), hwa(X, **kwargs))
    # And once more, and back.
    loaded.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again(X), hwa(X))
    digital = hwa_keras.to_digital(again)
    assert type(digital) is Branching
    assert {type(layer) for layer in digital._flatten_layers()} == {
        Branching,
        Block,
        layers.Dense,
    }


def test_a_chip_of_such_a_model_is_loaded_as_it_is(tmp_path):
    chip = hwa_keras.program(branching(), "pcm", seed=1, read_noise="frozen")
    chip.t = 1e5
    chip.save(tmp_path / "chip.keras")
    again = keras.models.load_model(tmp_path / "chip.keras")
    for kwargs in ({}, {"everything": True}, {"t": 1e7}):
        np.testing.assert_array_equal(again(X, **kwargs), chip(X, **kwargs))
    assert again.t == chip.t and len(again.tiles) == 7


def test_a_layer_that_the_class_no_longer_makes_is_named(tmp_path):
    hwa = branching()
    config = hwa.get_config()
    config["model"]["config"]["depth"] = 1
    with pytest.raises(
        ValueError, match="'block_.*' of '.*' is on hardware in the file"
    ):
        type(hwa).from_config(config)


def test_weights_are_saved_and_loaded_by_themselves(tmp_path):
    hwa, other = branching(), branching()
    hwa(X, training=True)  # Its seeds move on.
    hwa.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for kwargs in ({}, {"training": True}):
        np.testing.assert_array_equal(other(X, **kwargs), hwa(X, **kwargs))


def test_a_model_with_a_converted_one_inside_is_saved(tmp_path):
    inner = hwa_keras.to_hwa(
        keras.Sequential([keras.Input((6,)), layers.Dense(5)]), **OPTIONS
    )
    outer = keras.Sequential([keras.Input((6,)), inner, layers.Dense(3)])
    outer.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), outer(X))
    assert len(hwa_keras.hardware_kernels(loaded)) == 1
    hwa_keras.to_digital(loaded)
    assert not hwa_keras.hardware_kernels(loaded)
