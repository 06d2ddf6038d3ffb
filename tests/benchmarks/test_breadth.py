"""benchmarks.breadth: the table is right about small models."""

import keras
import pytest
from keras import layers

from benchmarks import breadth, breadth_models


def mlp():
    inputs = keras.Input((6,))
    x = layers.Dense(4, activation="relu", name="hidden")(inputs)
    x = layers.LayerNormalization()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


class Forgetful(layers.Dense):
    """A layer that does not come back from its configuration."""

    def __init__(self, *, size):
        super().__init__(size)


def forgetful():
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((2, 3), name="b")}
    x = layers.Concatenate()([inputs["a"], layers.Flatten()(inputs["b"])])
    return keras.Model(inputs, {"one": Forgetful(size=2)(x), "two": layers.Dense(1)(x)})


def test_a_model_of_known_layers_passes_every_check():
    row = breadth.examine("mlp", mlp)
    export = "✓" if keras.backend.backend() == "tensorflow" else "needs TensorFlow"
    assert row.errors == {}
    assert row.cells == {**dict.fromkeys(breadth.CHECKS, "✓"), "export": export}
    assert (row.kernels, row.left_out) == ("2", "1 LayerNormalization")
    assert row.share == f"{(6 * 4 + 4 * 3) / (6 * 4 + 4 * 3 + 4 + 3 + 8):.1%}"


def test_what_fails_in_plain_keras_too_is_no_failure():
    row = breadth.examine("forgetful", forgetful)
    assert row.cells.pop("save → load").startswith("– ")
    assert row.cells.pop("export") in ("✓", "needs TensorFlow")
    assert row.cells == dict.fromkeys(row.cells, "✓")
    assert row.failures == []


def test_what_fails_on_hardware_alone_is_said_with_its_reason(monkeypatch):
    def break_on_hardware(subject):
        if subject.hardware:
            raise breadth.Failed("the loss is nan")

    monkeypatch.setattr(breadth, "CHECKS", {"fit": break_on_hardware})
    row = breadth.examine("mlp", mlp)
    assert row.cells["fit"] == "✗ the loss is nan"
    assert row.failures == ["fit"]
    report = breadth.report([row])
    assert "pass in plain Keras: 1." in report
    assert "### mlp: fit" in report


def test_a_kernel_that_hardware_keeps_from_changing_is_found(monkeypatch):
    def frozen(subject):
        changed = real(subject)
        return [(path, path != "head/kernel") for path, _ in changed]

    real = breadth.check_fit
    monkeypatch.setattr(breadth, "CHECKS", {"fit": frozen})
    assert breadth.examine("mlp", mlp).cells["fit"] == "✗ no change of head/kernel"


def test_the_list_has_all_applications_and_25_families():
    names = breadth_models.names()
    assert len(set(names)) == len(names)
    assert sum(name.startswith("hub/") for name in names) >= 25
    for name in ("ResNet50", "MobileNetV3Small", "NASNetLarge", "ConvNeXtTiny"):
        assert f"applications/{name}" in names


@pytest.mark.parametrize("name", ["hub/Electra"])
def test_a_family_and_its_inputs_fit_together(name):
    pytest.importorskip("keras_hub")
    model = breadth_models.build(name)
    outputs = model(breadth_models.example(model))
    assert outputs["pooled_output"].shape[0] == breadth_models.BATCH


def test_a_search_for_kernels_that_crashes_is_a_failure(monkeypatch):
    monkeypatch.setattr(breadth, "find_kernels", lambda *_: 1 / 0)
    row = breadth.examine("mlp", mlp)
    assert row.cells == dict.fromkeys(
        breadth.CHECKS, "✗ ZeroDivisionError: division by zero"
    )
    assert breadth.report([row]).count("### mlp") == 1
    assert breadth.examine("missing", lambda: 1 / 0).failures == []
