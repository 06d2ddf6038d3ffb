"""Faults that a wrapper around a model had, and relatives of each of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras import quantizers
from hwa_keras.noise import AdditiveGaussian, Noise

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = RNG.normal(size=(64, 3)).astype("float32")
IDEAL = hwa_keras.devices.PCM(programming_scale=0.0, drift_scale=0.0, read_scale=0.0)


def net(**options):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, name="a", **options),
            layers.Dense(3, name="b", **options),
        ]
    )


def as_numpy(x):
    return np.array(ops.convert_to_numpy(x))


def sign(w):
    return np.where(w < 0, -1.0, 1.0)


def signed(x, *dense, adapted=()):
    """What a chain of dense layers gives whose kernels are signs."""
    for i, layer in enumerate(dense):
        kernel = sign(as_numpy(layer._kernel))
        if i < len(adapted):
            kernel = kernel + adapted[i]
        x = x @ kernel + as_numpy(layer.bias)
    return x


# --- A kernel is the layer's, not a position in `model.weights`


def with_low_rank(model):
    """Enable LoRA, with numbers that are not zero, and return what it adds."""
    added = []
    for layer in model.layers:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(RNG.normal(size=layer.lora_kernel_b.shape))
        added.append(as_numpy(layer.lora_kernel_a) @ as_numpy(layer.lora_kernel_b))
    return added


def test_lora_after_the_conversion_is_added_to_the_quantized_product():
    hwa = hwa_keras.to_hwa(net(), "ste_sign", verbose=0)
    added = with_low_rank(hwa)
    expected = signed(X, *hwa.layers, adapted=added)
    np.testing.assert_allclose(as_numpy(hwa(X)), expected, rtol=1e-4, atol=1e-4)


def test_lora_before_the_conversion_is_added_to_the_quantized_product(tmp_path):
    model = net()
    added = with_low_rank(model)
    hwa = hwa_keras.to_hwa(model, "ste_sign", verbose=0)
    expected = signed(X, *hwa.layers, adapted=added)
    np.testing.assert_allclose(as_numpy(hwa(X)), expected, rtol=1e-4, atol=1e-4)
    hwa.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(as_numpy(loaded(X)), as_numpy(hwa(X)))
    assert len(loaded.trainable_variables) == len(hwa.trainable_variables)


def test_layers_that_are_popped_and_added_after_the_conversion_are_taken_as_they_are():
    hwa = hwa_keras.to_hwa(net(), "ste_sign", verbose=0)
    first = hwa.layers[0]
    hwa.pop()
    hwa.add(layers.Dense(4, name="c"))
    hidden = signed(X, first)
    plain = hwa.layers[1]
    expected = hidden @ as_numpy(plain.kernel) + as_numpy(plain.bias)
    np.testing.assert_allclose(as_numpy(hwa(X)), expected, rtol=1e-4, atol=1e-4)
    assert [k.path for k in hwa_keras.hardware_kernels(hwa)] == ["a/kernel"]


def test_keras_cannot_turn_kernels_on_hardware_into_codes():
    hwa = hwa_keras.to_hwa(net(), "ste_sign", verbose=0)
    with pytest.raises(ValueError, match="to_digital"):
        hwa.quantize("int8")
    model = hwa_keras.to_digital(hwa)
    for layer in model.layers:
        layer.quantize("int8")
    assert [layer.quantization_mode for layer in model.layers] == ["int8", "int8"]


# --- What a layer assigns in its call is computed from W


class Centered(layers.Wrapper):
    """Takes the mean off the kernel of a layer, for good, at each training call."""

    def call(self, inputs, training=None):
        if training:
            kernel = self.layer.kernel
            kernel.assign(kernel - ops.mean(kernel))
        return self.layer(inputs)


class Counting(layers.Layer):
    """A layer of no known family that keeps statistics beside its kernel."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        self.largest = self.add_weight(shape=(), trainable=False, name="largest")

    def call(self, inputs, training=None):
        if training:
            self.largest.assign(ops.max(ops.abs(self.kernel)))
        return ops.matmul(inputs, self.kernel)


def still(make):
    """Kernels after a training at learning rate 0: in Keras, and on noisy hardware."""
    kernels = []
    for noise in (None, AdditiveGaussian(0.3)):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((6,)), make()])
        if noise is not None:
            hwa_keras.to_hwa(model, kernel_noise=noise, verbose=0)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(X, Y, epochs=20, verbose=0)
        found, _ = hwa_keras.core.kernels.find_kernels(model)
        kernels.append(as_numpy(found[0].variable))
    return model, *kernels


def test_spectral_normalization_does_not_write_noise_into_the_weights():
    _, right, found = still(
        lambda: layers.SpectralNormalization(layers.Dense(3, use_bias=False))
    )
    np.testing.assert_allclose(found, right, rtol=1e-4)
    if keras.backend.backend() != "jax":  # Whose trainer keeps no such assignment.
        assert np.linalg.norm(right, 2) == pytest.approx(1.0, rel=0.1)


def test_a_wrapper_that_assigns_the_kernel_inside_sees_the_weights_as_they_are():
    _, right, found = still(lambda: Centered(layers.Dense(3, use_bias=False)))
    np.testing.assert_allclose(found, right, rtol=1e-4)
    if keras.backend.backend() != "jax":
        assert np.mean(found) == pytest.approx(0.0, abs=1e-6)


def test_a_layer_may_assign_what_is_no_kernel_of_it():
    model, right, found = still(Counting)
    np.testing.assert_array_equal(found, right)
    largest = as_numpy(model.layers[0].largest)
    assert largest != np.abs(found).max()  # Of W̃, with which it computed.
    assert largest == pytest.approx(np.abs(found).max(), rel=1.0)


class SelfScaling(Counting):
    def call(self, inputs, training=None):
        if training:
            self.kernel.assign(0.5 * self.kernel)
        return ops.matmul(inputs, self.kernel)


def test_a_layer_of_no_known_family_that_assigns_its_own_kernel_is_refused():
    model = keras.Sequential([keras.Input((6,)), SelfScaling()])
    hwa = hwa_keras.to_hwa(model, kernel_noise=AdditiveGaussian(0.3), verbose=0)
    with pytest.raises(ValueError, match="assigns .*kernel.*Leave the layer digital"):
        hwa(X, training=True)


def test_statistics_of_a_batch_normalization_inside_move_as_they_do_in_keras():
    moved = []
    for convert in (lambda m: m, lambda m: hwa_keras.to_hwa(m, verbose=0)):
        keras.utils.set_random_seed(3)
        inner = [keras.Input((6,)), layers.Dense(3), layers.BatchNormalization()]
        model = convert(keras.Sequential([keras.Input((6,)), keras.Sequential(inner)]))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(X, Y, batch_size=16, shuffle=False, epochs=3, verbose=0)
        moved.append(as_numpy(model.layers[0].layers[1].moving_mean))
    assert np.abs(moved[0]).max() > 0
    np.testing.assert_allclose(*moved, rtol=1e-5)


# --- The model stays the user's own


class Mine(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class OwnLoss(Mine):
    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        return super().compute_loss(x, y, y_pred, sample_weight, training) + 10.0


class OwnTestStep(Mine):
    def test_step(self, *args):
        # On JAX: the state and the data, in and out.
        found = super().test_step(*args)
        logs, rest = (found[0], found[1:]) if isinstance(found, tuple) else (found, ())
        logs = {"doubled": 2.0 * logs["loss"]}
        return (logs, *rest) if rest else logs


class OwnTrainStep(Mine):
    def train_step(self, *args):
        found = super().train_step(*args)
        logs, rest = (found[0], found[1:]) if isinstance(found, tuple) else (found, ())
        logs = {**logs, "seven": 7.0 + 0.0 * logs["loss"]}
        return (logs, *rest) if rest else logs


def built(cls):
    model = cls()
    model(X)
    model.compile("sgd", "mse")
    return model


def on_hardware_and_on_a_chip(model, evaluate):
    """What an evaluation gives for a Keras model, on hardware and on an ideal chip."""
    right = evaluate(model)
    chip = hwa_keras.program(model, IDEAL, seed=0, compensation="none", verbose=0)
    hwa = hwa_keras.to_hwa(model, verbose=0)
    again = hwa_keras.program(hwa, IDEAL, seed=0, compensation="none", verbose=0)
    return right, [evaluate(hwa), evaluate(chip), evaluate(again)]


def test_a_loss_of_the_models_own_is_the_loss():
    right, found = on_hardware_and_on_a_chip(
        built(OwnLoss), lambda m: m.evaluate(X, Y, verbose=0)
    )
    assert right > 10
    np.testing.assert_allclose(found, right, rtol=1e-4)


def test_a_test_step_of_the_models_own_evaluates():
    model = built(OwnTestStep)
    right, found = on_hardware_and_on_a_chip(
        model, lambda m: m.evaluate(X, Y, verbose=0, return_dict=True)
    )
    assert set(right) == {"doubled"}
    for each in found:
        assert each["doubled"] == pytest.approx(right["doubled"], rel=1e-4)


def test_a_train_step_of_the_models_own_trains():
    hwa = hwa_keras.to_hwa(
        built(OwnTrainStep), kernel_noise=AdditiveGaussian(0.05), verbose=0
    )
    logs = hwa.fit(X, Y, epochs=2, verbose=0).history
    np.testing.assert_array_equal(logs["seven"], [7.0, 7.0])
    assert logs["loss"][1] < logs["loss"][0]


class TwoInputs(keras.Model):
    def __init__(self):
        super().__init__()
        self.supports_masking = True
        self.dense = layers.Dense(3)
        self.gate = layers.Dense(3)

    def call(self, x, scale, mask=None, training=None):
        found = self.dense(x) * self.gate(scale)
        return found if mask is None else ops.where(mask, found, 0.0)


def test_second_arguments_and_masks_reach_the_call():
    model, mask = TwoInputs(), np.arange(3) == 1
    model(X, X)
    right, found = on_hardware_and_on_a_chip(
        model, lambda m: as_numpy(m(X, 2 * X, mask=mask))
    )
    assert np.all(right[:, 0] == 0) and np.all(right[:, 1] != 0)
    for each in found:
        np.testing.assert_allclose(each, right, rtol=1e-4, atol=1e-5)


def test_masks_of_an_embedding_reach_a_recurrent_layer_and_the_loss():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            layers.LSTM(3, return_sequences=True),
            layers.Dense(2),
        ]
    )
    tokens = RNG.integers(0, 3, (16, 5))
    targets = RNG.normal(size=(16, 5, 2)).astype("float32")
    model.compile("sgd", "mse")
    right, found = on_hardware_and_on_a_chip(
        model, lambda m: m.evaluate(tokens, targets, verbose=0)
    )
    np.testing.assert_allclose(found, right, rtol=1e-4)


def test_outputs_keep_their_names_and_their_losses():
    x = keras.Input((6,))
    outputs = {name: layers.Dense(3, name=name)(x) for name in ("a", "b")}
    model = keras.Model(x, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": 3.0})
    right, found = on_hardware_and_on_a_chip(
        model,
        lambda m: m.evaluate(X, {"a": Y, "b": Y}, verbose=0, return_dict=True),
    )
    assert {"a_loss", "b_loss"} <= set(right)
    for each in found:
        assert set(each) == set(right)
        np.testing.assert_allclose(
            [each[name] for name in right], list(right.values()), rtol=1e-4
        )
    assert set(model(X)) == {"a", "b"}


# --- Live objects are copied as they are


class Forgetful(Noise):
    """Its configuration does not tell its argument."""

    def __init__(self, std=0.1, **kwargs):
        super().__init__(**kwargs)
        self.std = std

    def perturb(self, w, seed, strength):
        return w + self.std * strength * hwa_keras.random.normal(ops.shape(w), seed)


class Required(quantizers.Quantizer):
    """Cannot be made from its configuration at all."""

    def __init__(self, step, **kwargs):
        super().__init__(**kwargs)
        self.step = step

    def quantized(self, inputs):
        return ops.round(inputs / self.step) * self.step


def noise_of(kernel_noise):
    """The standard deviation of what a noise adds to 99 × 99 weights."""
    model = keras.Sequential([keras.Input((99,)), layers.Dense(99, use_bias=False)])
    hwa = hwa_keras.to_hwa(model, kernel_noise=kernel_noise, verbose=0)
    x = np.eye(99, dtype="float32")
    return np.std(as_numpy(hwa(x, training=True)) - as_numpy(hwa(x)))


def test_a_noise_of_ones_own_keeps_its_arguments():
    assert noise_of(Forgetful(2.0)) == pytest.approx(2.0, rel=0.05)


def test_a_noise_that_is_a_closure_keeps_what_it_closes_over():
    std = 3.0

    def noise(w, seed):
        return w + std * hwa_keras.random.normal(ops.shape(w), seed)

    assert noise_of(noise) == pytest.approx(3.0, rel=0.05)


def test_a_quantizer_of_ones_own_keeps_its_arguments():
    hwa = hwa_keras.to_hwa(net(), Required(0.25), verbose=0)
    for kernel in hwa_keras.hardware_kernels(hwa):
        quarters = 4 * as_numpy(kernel.quantized())
        np.testing.assert_allclose(quarters, np.round(quarters), atol=1e-6)
        assert np.any(quarters != 0)
    chip = hwa_keras.program(hwa, IDEAL, seed=0, verbose=0)
    np.testing.assert_allclose(
        as_numpy(chip(X)), as_numpy(hwa(X)), rtol=1e-4, atol=1e-4
    )


# --- Outputs are where they are, not on the last axis

CHANNELS = [
    pytest.param(layers.Conv2DTranspose(4, 3), 4, (2,), id="Conv2DTranspose"),
    pytest.param(layers.DepthwiseConv2D(3), 6, (2, 3), id="DepthwiseConv2D"),
    pytest.param(
        layers.DepthwiseConv2D(3, depth_multiplier=2), 12, (2, 3), id="multiplier"
    ),
    pytest.param(
        layers.EinsumDense("abcd,def->abcef", (8, 8, 3, 5)),
        15,
        (1, 2),
        id="EinsumDense",
    ),
]


def with_channels(layer, **options):
    """A model of a copy of a layer, on hardware, and its kernel."""
    copy = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input((8, 8, 6)), copy])
    [kernel] = hwa_keras.hardware_kernels(hwa_keras.to_hwa(model, verbose=0, **options))
    return model, kernel


@pytest.mark.parametrize(("layer", "outputs", "axes"), CHANNELS)
def test_there_is_one_learned_scale_for_each_output(layer, outputs, axes):
    quantizer = quantizers.Uniform(4, "learned", axis=-1)
    _, kernel = with_channels(layer, kernel_quantizer=quantizer)
    alpha, w = as_numpy(kernel.quantizer.alpha), as_numpy(kernel.variable)
    assert alpha.size == outputs
    others = tuple(i for i in range(w.ndim) if i not in axes)
    np.testing.assert_allclose(alpha, np.abs(w).max(axis=others, keepdims=True))


@pytest.mark.parametrize(("layer", "outputs", "axes"), CHANNELS)
def test_process_variation_of_columns_is_that_of_outputs(layer, outputs, axes):
    noise = hwa_keras.noise.ProcessVariation(0.1, granularity="column")
    _, kernel = with_channels(layer, kernel_noise=noise)
    w = as_numpy(kernel.variable)
    factors = as_numpy(kernel.value(training=True)) / w
    others = tuple(i for i in range(w.ndim) if i not in axes)
    assert np.ptp(factors, axis=others).max() < 1e-4
    assert len(np.unique(factors.round(5))) == outputs


@pytest.mark.parametrize(("layer", "outputs", "axes"), CHANNELS)
def test_conductances_per_column_are_those_of_outputs(layer, outputs, axes):
    device = hwa_keras.devices.PCM(per="column")
    model, kernel = with_channels(layer)
    [tile] = hwa_keras.program(model, device, seed=0, verbose=0).tiles
    w = as_numpy(kernel.variable)
    others = tuple(i for i in range(w.ndim) if i not in axes)
    units = as_numpy(tile.state["largest"])
    largest = np.abs(w).max(axis=others).reshape(-1)
    np.testing.assert_allclose(units.reshape(-1), largest, rtol=1e-5)


# --- Freezing a layer freezes what belongs to its kernel


def moved_by_training(freeze_before=(), freeze_after=()):
    """How far quantized kernels move in a training, by the names of their layers."""
    model = net()
    freeze(model, freeze_before)
    hwa = hwa_keras.to_hwa(model, quantizers.Uniform(4, "learned"), verbose=0)
    freeze(hwa, freeze_after)
    kernels = hwa_keras.hardware_kernels(hwa)
    before = [as_numpy(k.quantized()) for k in kernels]
    hwa.compile(keras.optimizers.SGD(0.01), "mse")
    hwa.fit(X, Y, epochs=5, verbose=0)
    return {
        k.path.partition("/")[0]: np.abs(as_numpy(k.quantized()) - old).max()
        for k, old in zip(kernels, before, strict=True)
    }, hwa


def freeze(model, names):
    for name in names:
        (model if name == "model" else model.get_layer(name)).trainable = False


def test_a_layer_frozen_before_the_conversion_does_not_move():
    moved, _ = moved_by_training(freeze_before=["a"])
    assert moved["a"] == 0 and moved["b"] > 0


def test_a_layer_frozen_after_the_conversion_does_not_move():
    moved, hwa = moved_by_training(freeze_after=["b"])
    assert moved["b"] == 0 and moved["a"] > 0
    hwa.get_layer("b").trainable = True
    assert len(hwa.trainable_variables) == 6


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("when", ["freeze_before", "freeze_after"])
def test_a_frozen_model_does_not_move(when):
    moved, hwa = moved_by_training(**{when: ["model"]})
    assert moved == {"a": 0, "b": 0}
    assert not hwa.trainable_variables
    hwa.trainable = True
    assert len(hwa.trainable_variables) == 6


# --- The ADC stands at the array


def relu(adc, bias=10.0, **options):
    """relu(ADC(0.5·x) + bias) of one input, as a layer."""
    layer = hwa_keras.layers.HWADense(
        1, activation="relu", output_quantizer=adc, **options
    )
    layer.build((None, 1))
    layer.set_weights([np.array([[0.5]], "float32"), np.array([bias], "float32")])
    return lambda x: float(as_numpy(layer(np.array([[x]], "float32")))[0, 0])


def test_the_bias_is_added_behind_the_adc():
    assert relu(hwa_keras.circuits.ADC(8, 2.0))(1.0) == pytest.approx(10.5, abs=0.02)


def test_the_adc_clips_the_product_and_not_the_sum():
    layer = relu(hwa_keras.circuits.ADC(8, 2.0))
    assert layer(100.0) == pytest.approx(12.0)
    assert layer(-100.0) == pytest.approx(8.0)


def test_the_activation_acts_behind_the_adc():
    # In front of it, relu(-0.5) = 0 would stay 0, and the bias lift it to 0.25.
    layer = relu(hwa_keras.circuits.ADC(8, 2.0), bias=0.25)
    assert layer(-1.0) == 0.0
    assert layer(-0.25) == pytest.approx(0.125, abs=0.02)
