import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import layers as hwa
from hwa_keras.noise import AdditiveGaussian, Noise
from tests import fresh, zoo

pytestmark = pytest.mark.usefixtures("built_optimizers")

SHAPES = {1: (6, 4), 2: (6, 6, 4), 3: (5, 5, 5, 4)}


def case(hardware, plain, shape, marks=(), **kwargs):
    name = hardware.__name__
    return pytest.param(hardware, plain, shape, kwargs, id=name, marks=marks)


# Another one of these has the same kernel and the same call.
ALIKE = pytest.mark.slow


ATTENTION = {"num_heads": 2, "key_dim": 3}
CASES = [
    case(hwa.HWADense, layers.Dense, (4,), units=3),
    case(hwa.HWAConv1D, layers.Conv1D, SHAPES[1], ALIKE, filters=3, kernel_size=2),
    case(hwa.HWAConv2D, layers.Conv2D, SHAPES[2], filters=3, kernel_size=2),
    case(hwa.HWAConv3D, layers.Conv3D, SHAPES[3], ALIKE, filters=3, kernel_size=2),
    case(
        hwa.HWADepthwiseConv1D, layers.DepthwiseConv1D, SHAPES[1], ALIKE, kernel_size=2
    ),
    case(hwa.HWADepthwiseConv2D, layers.DepthwiseConv2D, SHAPES[2], kernel_size=2),
    case(
        hwa.HWASeparableConv2D,
        layers.SeparableConv2D,
        SHAPES[2],
        ALIKE,
        filters=3,
        kernel_size=2,
    ),
    case(
        hwa.HWAConv2DTranspose,
        layers.Conv2DTranspose,
        SHAPES[2],
        ALIKE,
        filters=3,
        kernel_size=2,
    ),
    case(
        hwa.HWAEinsumDense,
        layers.EinsumDense,
        (5, 6),
        equation="abc,cd->abd",
        output_shape=(5, 3),
        bias_axes="d",
    ),
    case(hwa.HWALSTM, layers.LSTM, SHAPES[1], units=3),
    case(hwa.HWAGRU, layers.GRU, SHAPES[1], ALIKE, units=3),
    case(hwa.HWAMultiHeadAttention, layers.MultiHeadAttention, (6, 4), **ATTENTION),
]
CELLS = [
    pytest.param(hwa.HWALSTMCell, layers.LSTMCell, id="HWALSTMCell"),
    pytest.param(hwa.HWAGRUCell, layers.GRUCell, id="HWAGRUCell"),
]


def batch(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


def call(layer, x, **kwargs):
    if isinstance(layer, layers.MultiHeadAttention):
        return ops.convert_to_numpy(layer(x, x, **kwargs))
    return ops.convert_to_numpy(layer(x, **kwargs))


def model_with(layer, shape):
    inputs = keras.Input(shape)
    attends = isinstance(layer, layers.MultiHeadAttention)
    x = layer(inputs, inputs) if attends else layer(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.parametrize(("hardware", "plain", "shape", "kwargs"), CASES)
def test_with_nothing_asked_for_it_is_the_keras_layer(hardware, plain, shape, kwargs):
    x = batch(shape)
    ours, theirs = hardware(**kwargs), plain(**kwargs)
    call(ours, x), call(theirs, x)
    ours.set_weights(theirs.get_weights())
    for training in (False, True):
        np.testing.assert_array_equal(
            call(ours, x, training=training), call(theirs, x, training=training)
        )
    assert len(ours.weights) == len(theirs.weights)


@pytest.mark.parametrize(("cell", "plain"), CELLS)
def test_with_nothing_asked_for_a_cell_is_the_keras_cell(cell, plain):
    x = batch((6, 4))
    ours, theirs = layers.RNN(cell(3)), layers.RNN(plain(3))
    call(ours, x), call(theirs, x)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(call(ours, x), call(theirs, x))


def equipped(hardware, kwargs):
    return hardware(
        **kwargs,
        kernel_quantizer=hwa_keras.quantizers.Uniform(8, scale="learned", axis=-1),
        kernel_noise=AdditiveGaussian(0.1),
        input_quantizer=hwa_keras.quantizers.Uniform(128, scale="max"),
        output_quantizer=hwa_keras.quantizers.Uniform(128, scale=8.0),
        output_noise=AdditiveGaussian(0.01),
        noise_seed=3,
    )


@pytest.mark.parametrize(("hardware", "plain", "shape", "kwargs"), CASES)
def test_trains_is_noisy_in_training_alone_and_keeps_its_config(
    hardware, plain, shape, kwargs, request
):
    x = batch(shape)
    layer = equipped(hardware, kwargs)
    model = model_with(layer, shape)
    np.testing.assert_array_equal(call(layer, x), call(layer, x))
    assert np.any(call(layer, x, training=True) != call(layer, x, training=True))
    before = [np.array(w) for w in layer.get_weights()]
    names = [w.path for w in layer.weights]
    is_alike = request.node.get_closest_marker("slow") is not None
    model.compile("adam", "mse", run_eagerly=is_alike)
    loss = model.fit(x, np.ones((2, 2)), epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(loss))
    for name, old, new in zip(names, before, layer.get_weights(), strict=True):
        kernel = name.endswith("kernel")
        learned = name.endswith("alpha")
        if kernel or learned:
            assert np.any(old != new), name
    clone = type(layer).from_config(layer.get_config())
    assert clone.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("hardware", "kwargs", "shape", "policy"),
    [
        (hwa.HWADense, {"units": 3}, (4,), "mixed_bfloat16"),
        (hwa.HWADense, {"units": 3}, (4,), "mixed_float16"),
        (hwa.HWALSTM, {"units": 3}, (6, 4), "mixed_float16"),
        # JAX has no float16 attention on a CPU.
        (hwa.HWAMultiHeadAttention, ATTENTION, (6, 4), "mixed_bfloat16"),
    ],
)
def test_quantizes_in_float32_under_mixed_precision(hardware, kwargs, shape, policy):
    seen = []

    def spy(w):
        seen.append(keras.backend.standardize_dtype(w.dtype))
        return w

    keras.config.set_dtype_policy(policy)
    try:
        layer = hardware(
            **kwargs, kernel_quantizer=spy, kernel_noise=AdditiveGaussian(0.1)
        )
        model = model_with(layer, shape)
        model.compile("adam", "mse")
        history = model.fit(batch(shape), np.ones((2, 2)), epochs=2, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.all(np.isfinite(history.history["loss"]))
    assert set(seen) == {"float32"}
    assert layer.compute_dtype == policy.removeprefix("mixed_")


class Recording(Noise):
    """Adds the number of draws so far, to see how often a layer draws."""

    draws = []

    def call(self, inputs, seed):
        Recording.draws.append(1)
        return inputs


@pytest.mark.parametrize(
    ("build", "kernels"),
    [
        (lambda: hwa.HWALSTM(3, kernel_noise=Recording(), unroll=True), 2),
        (lambda: layers.RNN(hwa.HWALSTMCell(3, kernel_noise=Recording())), 2),
        (
            lambda: layers.RNN(
                hwa.HWAGRUCell(3, dropout=0.3, kernel_noise=Recording())
            ),
            2,
        ),
    ],
    ids=["HWALSTM", "RNN(HWALSTMCell)", "RNN(HWAGRUCell, dropout)"],
)
def test_a_recurrent_layer_draws_once_a_pass(build, kernels):
    layer = build()
    x = batch((6, 4))
    call(layer, x)
    Recording.draws.clear()
    call(layer, x, training=True)
    assert len(Recording.draws) == kernels


def test_dac_adc_and_output_noise_act_at_the_ends():
    halve, double = (lambda x: x * 0.5), (lambda x: x * 2.0)
    layer = hwa.HWADense(2, input_quantizer=halve, output_quantizer=double)
    x = batch((3,))
    y = call(layer, x)
    kernel = ops.convert_to_numpy(layer.kernel)
    np.testing.assert_allclose(y, 2.0 * (0.5 * x @ kernel), rtol=1e-5)
    noisy = hwa.HWADense(
        2000, output_noise=AdditiveGaussian(0.3, relative_to="absolute")
    )
    clean = call(noisy, x)
    error = call(noisy, x, training=True) - clean
    assert np.std(error) == pytest.approx(0.3, rel=0.08)


def test_attention_scores_and_recurrent_states_come_along():
    x = batch((6, 4))
    scores = hwa.HWAMultiHeadAttention(2, 3)(x, x, return_attention_scores=True)[1]
    assert tuple(scores.shape) == (2, 2, 6, 6)
    outputs, h, c = hwa.HWALSTM(3, return_state=True)(x)
    assert tuple(outputs.shape) == tuple(h.shape) == tuple(c.shape) == (2, 3)


def test_bidirectional_and_time_distributed_take_hardware_layers(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 4)),
            layers.Bidirectional(
                hwa.HWALSTM(3, kernel_quantizer="ste_sign", return_sequences=True)
            ),
            layers.TimeDistributed(hwa.HWADense(2, kernel_quantizer="ste_sign")),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = batch((6, 4))
    np.testing.assert_array_equal(call(model, x), call(loaded, x))


@pytest.mark.slow
def test_every_layer_loads_bit_equal_in_a_fresh_process(tmp_path):
    models, inputs = {}, {}
    for parameters in CASES:
        hardware, _, shape, kwargs = parameters.values
        name = hardware.__name__
        models[name] = model_with(equipped(hardware, kwargs), shape)
        inputs[name] = batch(shape)
    for parameters in CELLS:
        cell = parameters.values[0]
        rnn = layers.RNN(equipped(cell, {"units": 3}))
        models[cell.__name__] = model_with(rnn, (6, 4))
        inputs[cell.__name__] = batch((6, 4))
    fresh.assert_loads_equal(models, inputs, tmp_path)


def test_a_chip_takes_hardware_layers_as_quantized():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            hwa.HWADense(4, kernel_quantizer="ste_sign", use_bias=False),
        ]
    )
    perfect = hwa_keras.devices.PCM(programming_scale=0, drift_scale=0, read_scale=0)
    chip = hwa_keras.program(model, perfect, seed=1)
    x = zoo.inputs_for(zoo.mlp())
    np.testing.assert_allclose(call(chip, x), call(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"kernel_quantizer": "sign"}, ValueError, "Known names: .*ste_sign"),
        ({"kernel_quantizer": 4}, TypeError, "quantizer"),
        ({"kernel_noise": "gauss"}, ValueError, "Known names: .*additive_gaussian"),
        ({"kernel_noise": AdditiveGaussian}, TypeError, "is a class"),
    ],
)
def test_bad_input(kwargs, error, message):
    with pytest.raises(error, match=message):
        hwa.HWADense(3, **kwargs)
