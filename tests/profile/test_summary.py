import io
import json
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import layers as hwa
from hwa_keras import noise, quantizers
from hwa_keras.quantizers import DoReFa, SteSign, SteTern

pytestmark = pytest.mark.slow  # Counts, the same on any backend.


def counted(model):
    return hwa_keras.summary(model, verbose=0)


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def test_perceptron_by_hand():
    model = sequential(
        (20,),
        layers.Dense(16, name="plain"),
        layers.ReLU(name="relu"),
        hwa.HWADense(8, kernel_quantizer=SteTern(), name="ternary"),
        hwa.HWADense(
            4, kernel_quantizer=SteSign(), input_quantizer=DoReFa(2), name="two_bit"
        ),
        hwa.HWADense(
            3, kernel_quantizer=SteSign(), input_quantizer=SteSign(), name="binary"
        ),
    )
    found = counted(model)
    by_name = {layer.name: layer for layer in found.layers}
    assert list(by_name) == ["plain", "relu", "ternary", "two_bit", "binary"]
    assert [row.params for row in found.layers] == [
        {32: 20 * 16 + 16},
        {},
        {2: 16 * 8, 32: 8},
        {1: 8 * 4, 32: 4},
        {1: 4 * 3, 32: 3},
    ]
    assert [row.macs for row in found.layers] == [
        {32: 20 * 16},
        {},
        {32: 16 * 8},  # 32-bit inputs
        {2: 8 * 4},
        {1: 4 * 3},
    ]
    assert [row.input_precision for row in found.layers] == [None, None, None, 2, 1]
    assert by_name["two_bit"].output_shape == (None, 4)
    assert by_name["plain"].layer_type == "Dense"
    assert found.params == {1: 44, 2: 128, 32: 351}
    assert found.total_params == found.trainable_params == model.count_params() == 523
    assert found.non_trainable_params == 0
    assert found.memory_bits == 44 + 2 * 128 + 32 * 351
    assert found.memory_bits_with_8_bit_floats == 44 + 2 * 128 + 8 * 351
    assert found.float32_memory_bits == 32 * 523
    assert found.compression_ratio == found.memory_bits / found.float32_memory_bits
    assert found.macs == {1: 12, 2: 32, 32: 448}
    assert found.total_macs == 492
    assert found.macs_share(1) == 12 / 492
    assert found.macs_share(2) == 32 / 492
    assert found.low_precision_share == 44 / 492
    assert found.uncounted == []


COUNTED = {
    # layer, input shape, parameters, MACs
    "dense on a sequence": (lambda: layers.Dense(3), (7, 5), 18, 7 * 15),
    "conv1d": (lambda: layers.Conv1D(4, 3, strides=2), (11, 5), 64, 5 * 60),
    "conv2d": (lambda: layers.Conv2D(4, 3), (8, 9, 3), 112, 6 * 7 * 108),
    "conv2d grouped": (lambda: layers.Conv2D(4, 3, groups=2), (8, 8, 6), 112, 36 * 108),
    "conv3d": (lambda: layers.Conv3D(4, 2), (5, 4, 3, 2), 68, 24 * 64),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3), (8, 5), 20, 6 * 15),
    "depthwise2d": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        (8, 8, 5),
        100,
        36 * 90,
    ),
    "separable2d": (
        lambda: layers.SeparableConv2D(4, 3),
        (8, 8, 5),
        45 + 20 + 4,
        36 * 65,
    ),
    "transposed2d": (
        lambda: layers.Conv2DTranspose(4, 3, strides=2),
        (5, 6, 2),
        76,
        30 * 72,
    ),
    "einsum": (
        lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3)),
        (7, 5),
        30,
        7 * 30,
    ),
    "einsum over two axes": (
        lambda: layers.EinsumDense("abcd,cde->abe", output_shape=(None, 4)),
        (7, 2, 3),
        24,
        7 * 24,
    ),
    "einsum with dots": (
        lambda: layers.EinsumDense("...x,xy->...y", output_shape=3),
        (7, 6, 5),
        15,
        42 * 15,
    ),
    "normalization": (lambda: layers.LayerNormalization(), (7, 5), 10, 0),
    "embedding": (lambda: layers.Embedding(10, 4), (7,), 40, 0),
    "pooling": (lambda: layers.MaxPooling2D(), (8, 8, 5), 0, 0),
    "a quantizer": (lambda: SteSign(), (5,), 0, 0),
}


@pytest.mark.parametrize("case", COUNTED)
def test_operations_by_hand(case):
    make, shape, params, macs = COUNTED[case]
    model = sequential(shape, make())
    found = counted(model)
    assert (found.total_params, found.total_macs) == (params, macs)
    assert found.uncounted == []
    assert found.layers[0].output_shape == model.output_shape


@pytest.mark.tensorflow_only
def test_channels_first():
    layer = layers.Conv2D(4, 3, data_format="channels_first")
    assert counted(sequential((3, 8, 9), layer)).total_macs == 6 * 7 * 108


class OwnLayer(layers.Layer):
    def call(self, inputs):
        return ops.matmul(inputs, inputs)


class OwnDense(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)


NOT_COUNTED = {
    "lstm": (lambda: layers.LSTM(3), (7, 5)),
    "hwa_gru": (lambda: hwa.HWAGRU(3, kernel_quantizer="ste_sign"), (7, 5)),
    "bidirectional": (lambda: layers.Bidirectional(layers.LSTM(3)), (7, 5)),
    "own layer without weights": (OwnLayer, (5, 5)),
    "own layer": (OwnDense, (5,)),
    "lambda": (lambda: layers.Lambda(lambda x: 2 * x), (5,)),
    "a length that is not known": (lambda: layers.Dense(3), (None, 5)),
    "convolved length that is not known": (lambda: layers.Conv1D(3, 2), (None, 5)),
    "einsum, same": (
        lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 3)),
        (None, 5),
    ),
    "einsum that sums the input alone": (
        lambda: layers.EinsumDense("abc,cd->ad", output_shape=(3,)),
        (7, 5),
    ),
}


@pytest.mark.parametrize("case", NOT_COUNTED)
def test_what_cannot_be_counted_is_said(case):
    make, shape = NOT_COUNTED[case]
    model = sequential(shape, make(), layers.Activation("relu", name="last"))
    found = counted(model)
    assert found.layers[0].macs is None
    assert found.uncounted == [model.layers[0].name]
    assert found.total_params == model.count_params()
    assert "?" in str(found)
    assert f"not counted: {model.layers[0].name}" in str(found)


def test_attention_and_products_written_in_python_are_not_counted():
    x = inputs = keras.Input((7, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
    x = layers.Dot(axes=1, name="dot")([x, x])
    found = counted(keras.Model(inputs, x + 1.0))
    assert len(found.uncounted) == 3
    assert {"attention", "dot"} < set(found.uncounted)
    assert found.total_macs == 0


def test_batch_normalization_counts_as_fused():
    found = counted(sequential((4, 4, 5), layers.BatchNormalization()))
    assert (found.total_params, found.trainable_params) == (10, 0)
    # Without a scale there is nothing to fold the variance into.
    found = counted(sequential((4, 4, 5), layers.BatchNormalization(scale=False)))
    assert (found.total_params, found.trainable_params) == (10, 0)
    found = counted(sequential((4, 4, 5), layers.LayerNormalization()))
    assert (found.total_params, found.trainable_params) == (10, 10)


def test_frozen_layers():
    frozen = layers.Dense(3, trainable=False)
    found = counted(sequential((4,), frozen, layers.Dense(2)))
    assert (found.trainable_params, found.non_trainable_params) == (8, 15)


def test_model_from_to_hwa():
    plain = sequential(
        (6, 6, 2), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)
    )
    count = plain.count_params()
    model = hwa_keras.to_hwa(
        plain,
        kernel_quantizer=quantizers.Uniform(levels=8),
        kernel_noise="programming_noise",
        rules=[("dense*", {"kernel_noise": None})],
        verbose=0,
    )
    found = counted(model)
    conv, flatten, dense = found.layers
    assert conv.params == {4: 72, 32: 4}
    assert conv.noise == "ProgrammingNoise"
    assert (flatten.params, flatten.noise) == ({}, None)
    assert (dense.params, dense.noise) == ({4: 192, 32: 3}, None)
    assert found.macs == {32: 16 * 72 + 192}
    assert found.total_params == count


@pytest.mark.parametrize("nested", (False, True))
def test_learned_scales_count_and_variables_of_noises_do_not(nested):
    plain = sequential((5,), layers.Dense(3))
    learned = quantizers.Uniform(levels=8, scale="learned")
    model = hwa_keras.to_hwa(
        plain, learned, noise.MultiplicativeGaussian(0.1), verbose=0
    )
    if nested:
        model = sequential((5,), model)
    assert counted(model).params == {4: 15, 32: 3 + 1}
    layer = hwa.HWADense(3, kernel_quantizer=learned, kernel_noise="programming_noise")
    assert counted(sequential((5,), layer)).params == {4: 15, 32: 3 + 1}


def test_noises_are_named():
    several = noise.Compose([noise.ProgrammingNoise("pcm"), noise.DropConnect(0.1)])
    layer = hwa.HWADense(
        3, kernel_noise=several, output_noise=noise.AdditiveGaussian(0.1)
    )
    found = counted(sequential((5,), layer))
    expected = "ProgrammingNoise + DropConnect, AdditiveGaussian (output)"
    assert found.layers[0].noise == expected
    assert expected in str(found)
    assert "noise" not in str(counted(sequential((5,), layers.Dense(3))))


def test_a_callable_without_precision_has_32_bits():
    layer = hwa.HWADense(3, kernel_quantizer=ops.tanh, input_quantizer=ops.tanh)
    found = counted(sequential((5,), layer))
    assert found.params == {32: 18}
    assert (found.macs, found.layers[0].input_precision) == ({32: 15}, None)


def test_nested_models_and_layers_called_twice():
    block = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="in")], name="b")
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    outputs = block(block(shared(shared(shared(inputs)))))
    model = keras.Model(inputs, outputs)
    found = {layer.name: layer for layer in counted(model).layers}
    assert set(found) == {"shared", "b/in"}
    assert found["shared"].macs == {32: 3 * 16}
    assert found["b/in"].macs == {32: 2 * 16}
    assert counted(model).total_params == model.count_params()
    # What else calls the layer is another model's.
    assert counted(keras.Model(inputs, shared(inputs))).total_macs == 16


def test_a_layer_in_two_nested_models_has_its_weights_once():
    shared = layers.Dense(4)
    a, b = (keras.Sequential([keras.Input((4,)), shared]) for _ in range(2))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, b(a(inputs)))
    found = counted(model)
    assert (found.total_params, found.total_macs) == (model.count_params(), 32)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = hwa.HWAConv2D(4, 3, kernel_quantizer="ste_sign")
        self.flat = layers.Flatten()
        self.inner = keras.Sequential([layers.Dense(3)])

    def call(self, inputs):
        return self.inner(self.flat(self.conv(inputs)))


def test_subclassed_model():
    model = Subclassed()
    model(np.ones((2, 6, 6, 2)))
    found = counted(model)
    assert [row.output_shape for row in found.layers] == [
        (None, 4, 4, 4),
        (None, 64),
        (None, 3),
    ]
    assert found.macs == {32: 16 * 72 + 192}
    assert found.params == {1: 72, 32: 4 + 195}


def test_printed_and_written(capsys, tmp_path):
    long_name = "a_name_that_is_longer_than_the_narrow_terminal_of_anyone_" * 3
    model = sequential((5,), layers.Dense(3, name=long_name))
    assert hwa_keras.summary(model, verbose=0) == hwa_keras.summary(model)
    printed = capsys.readouterr().out
    assert long_name in printed
    assert "compression ratio" in printed
    with open(tmp_path / "summary.txt", "w", encoding="utf-8") as file:
        hwa_keras.summary(model, file=file)
    assert capsys.readouterr().out == ""
    written = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    assert written == printed
    assert str(counted(model)) == printed.rstrip("\n")
    assert "\x1b" not in written  # No colors in a file.
    stream = io.StringIO()
    hwa_keras.summary(model, file=stream)
    assert stream.getvalue() == printed


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    terminal = Terminal()
    hwa_keras.summary(sequential((5,), layers.Dense(3, name="n" * 80)), file=terminal)
    shown = terminal.getvalue()
    assert "\x1b[1m" in shown  # Bold headings.
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert max(map(len, lines)) <= 60


def test_names_are_no_markup():
    model = sequential((5,), layers.Dense(3, name="[bold]name"))
    model.name = "[red]model"
    assert "[bold]name" in str(counted(model))
    assert "[red]model" in str(counted(model))


def test_dictionary_is_plain_json():
    inputs = keras.Input((None, 5))
    model = keras.Model(inputs, layers.LSTM(3)(hwa.HWADense(4)(inputs)))
    found = counted(model).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["layers"][1]["macs"] is None
    assert found["params"] == {"32": model.count_params()}
    assert found["memory_bits"] == sum(row["memory_bits"] for row in found["layers"])


def test_summary_cannot_be_changed():
    found = counted(sequential((5,), layers.Dense(3)))
    with pytest.raises(AttributeError):
        found.name = "other"
    with pytest.raises(AttributeError):
        found.layers[0].name = "other"


def test_a_model_without_operations():
    found = counted(sequential((5,), layers.ReLU()))
    assert found.total_params == found.total_macs == 0
    assert found.compression_ratio == found.low_precision_share == 0
    assert "MACs" in str(found)


def test_unbuilt_model():
    with pytest.raises(ValueError, match="not built.*keras.Input"):
        hwa_keras.summary(keras.Sequential([layers.Dense(3)]))


def test_what_is_no_model():
    with pytest.raises(TypeError, match="takes a Keras model"):
        hwa_keras.summary(layers.Dense(3))
    model = hwa_keras.to_hwa(sequential((5,), layers.Dense(3)), verbose=0)
    with pytest.raises(TypeError, match="the model that was programmed"):
        hwa_keras.summary(hwa_keras.program(model, "pcm", seed=0))
