import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.noise import AdditiveGaussian, Noise
from tests import fresh, zoo


class Doubling(Noise):
    """A deterministic noise: W̃ = 2W, to see what reaches the layers."""

    def perturb(self, w, seed, scale):
        return 2.0 * w


def compiled(hwa, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    hwa.compile(keras.optimizers.Adam(0.01), loss, **kwargs)
    return hwa


def as_numpy(values):
    return [np.array(ops.convert_to_numpy(v)) for v in values]


def test_noise_acts_in_training_only_and_on_kernels_alone():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.layers[0].bias.assign([1.0, 2.0, 3.0])
    hwa = hwa_keras.to_hwa(model, kernel_noise=Doubling(), verbose=0)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    clean = ops.convert_to_numpy(hwa(x))
    noisy = ops.convert_to_numpy(hwa(x, training=True))
    np.testing.assert_allclose(clean, x @ kernel + [1, 2, 3], rtol=1e-5)
    np.testing.assert_allclose(noisy, x @ (2 * kernel) + [1, 2, 3], rtol=1e-5)


def test_gradient_passes_straight_through_noise():
    """One SGD step: the gradient is taken at W̃ and applied to W."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    hwa = hwa_keras.to_hwa(model, kernel_noise=Doubling(), verbose=0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4)).astype("float32")
    y = rng.normal(size=(5, 3)).astype("float32")
    w = ops.convert_to_numpy(model.layers[0].kernel).astype("float64")
    hwa.compile(keras.optimizers.SGD(0.5), "mse")
    hwa.train_on_batch(x, y)
    gradient = 2 * x.T @ (x @ (2 * w) - y) / y.size
    expected = w - 0.5 * gradient
    np.testing.assert_allclose(
        ops.convert_to_numpy(model.layers[0].kernel), expected, atol=1e-6
    )


def test_calls_draw_fresh_noise_and_the_seed_fixes_the_sequence():
    x = zoo.inputs_for(zoo.mlp())
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        hwa = hwa_keras.to_hwa(
            zoo.mlp(), kernel_noise=AdditiveGaussian(0.1), seed=7, verbose=0
        )
        runs.append([ops.convert_to_numpy(hwa(x, training=True)) for _ in range(2)])
    assert not np.array_equal(runs[0][0], runs[0][1])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_batch_norm_moves_as_in_plain_keras():
    x = zoo.inputs_for(zoo.residual_cnn(), batch=16)
    y = np.arange(16) % 3
    moved = []
    for wrap in (lambda m: m, lambda m: hwa_keras.to_hwa(m, verbose=0)):
        keras.utils.set_random_seed(5)
        model = zoo.residual_cnn()
        trained = compiled(wrap(model))
        trained.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        moved.append(as_numpy(model.weights))
    for plain, hardware in zip(*moved, strict=True):
        np.testing.assert_allclose(plain, hardware, rtol=2e-4, atol=2e-5)


def test_losses_of_the_model_reach_the_fit():
    regularizer = keras.regularizers.L2(0.5)
    inputs = keras.Input((12,))
    layer = keras.layers.Dense(
        3, kernel_regularizer=regularizer, activity_regularizer=regularizer
    )
    model = keras.Model(inputs, layer(inputs))
    hwa = hwa_keras.to_hwa(model, verbose=0)
    x = zoo.inputs_for(zoo.mlp())
    y = np.zeros((4, 3), "float32")
    found = []
    for m in (model, hwa):
        m.compile("sgd", "mse")
        found.append(m.evaluate(x, y, verbose=0))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] > np.mean(ops.convert_to_numpy(model(x)) ** 2) * 1.2


def test_masks_reach_the_layers_inside():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(10, 4, mask_zero=True),
            keras.layers.LSTM(3),
        ]
    )
    x = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0]])
    hwa = hwa_keras.to_hwa(model, verbose=0)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model(x)), ops.convert_to_numpy(hwa(x))
    )


def test_mixed_precision_trains_and_quantizes_in_float32():
    seen = []

    def spy(w):
        seen.append(keras.backend.standardize_dtype(w.dtype))
        return w

    x, y = zoo.digits_like(96)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = zoo.mlp()
    finally:
        keras.config.set_dtype_policy("float32")
    hwa = hwa_keras.to_hwa(
        model, kernel_quantizer=spy, kernel_noise=AdditiveGaussian(0.02), verbose=0
    )
    compiled(hwa, metrics=["accuracy"])
    assert isinstance(hwa.optimizer, keras.optimizers.LossScaleOptimizer)
    history = hwa.fit(x, y, epochs=12, verbose=0)
    assert set(seen) == {"float32"}
    assert history.history["accuracy"][-1] > 0.9
    assert model.compute_dtype == "float16"


def hardware_mlp(seed=1):
    return hwa_keras.to_hwa(
        zoo.mlp(),
        kernel_quantizer=hwa_keras.quantizers.Uniform(16, scale="learned"),
        kernel_noise=hwa_keras.noise.Compose(
            [AdditiveGaussian(0.05), hwa_keras.noise.DropConnect(0.01)]
        ),
        rules=[("dense*", {})],
        seed=seed,
        verbose=0,
    )


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    x, y = zoo.digits_like(64)
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    keras.utils.set_random_seed(11)
    straight = compiled(hardware_mlp())
    saves = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    straight.fit(x, y, epochs=4, callbacks=[saves], **fit)
    resumed = keras.models.load_model(tmp_path / "2.keras")
    resumed.fit(x, y, epochs=4, initial_epoch=2, **fit)
    for a, b in zip(as_numpy(straight.weights), as_numpy(resumed.weights), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_saved_models_load_bit_equal_in_a_fresh_process(tmp_path):
    models = {
        "mlp": hardware_mlp(),
        "cnn": hwa_keras.to_hwa(
            zoo.residual_cnn(), "ste_sign", "programming_noise", verbose=0
        ),
        "recurrent": hwa_keras.to_hwa(zoo.recurrent(), "uniform", verbose=0),
        "attention": hwa_keras.to_hwa(zoo.attention(), "uniform", verbose=0),
    }
    inputs = {name: zoo.inputs_for(m) for name, m in models.items()}
    compiled(models["mlp"])
    fresh.assert_loads_equal(models, inputs, tmp_path)


def test_a_subclassed_model_loads_with_its_class_registered(tmp_path):
    hwa = hwa_keras.to_hwa(zoo.subclassed(), kernel_quantizer="ste_sign", verbose=0)
    x = zoo.inputs_for(hwa)
    hwa.save(tmp_path / "subclassed.keras")
    loaded = keras.models.load_model(tmp_path / "subclassed.keras")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(hwa(x)), ops.convert_to_numpy(loaded(x))
    )


def test_a_clone_has_the_quantizers_and_the_noise():
    hwa = hwa_keras.to_hwa(
        zoo.residual_cnn(), "ste_sign", AdditiveGaussian(0.1), skip="last", verbose=0
    )
    clones = [keras.models.clone_model(hwa), type(hwa).from_config(hwa.get_config())]
    assert clones[1].digital == hwa.digital
    kernels = hwa_keras.hardware_kernels(hwa)
    for clone in clones:
        cloned = hwa_keras.hardware_kernels(clone)
        assert [k.path for k in cloned] == [k.path for k in kernels]
        for name in ("quantizer", "noise"):
            ours, theirs = [
                [getattr(kernel, name).get_config() for kernel in each]
                for each in (kernels, cloned)
            ]
            assert ours == theirs


def test_a_foreign_or_cut_file_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    hardware_mlp().save(path)
    cut = tmp_path / "cut.keras"
    cut.write_bytes(path.read_bytes()[:1000])
    foreign = tmp_path / "foreign.keras"
    foreign.write_text("not a model")
    for bad in (cut, foreign):
        with pytest.raises(ValueError, match=str(bad)):
            keras.models.load_model(bad)


@pytest.mark.tensorflow_only
def test_the_noise_is_the_same_compiled_or_not():
    x = zoo.inputs_for(zoo.mlp())
    found = []
    for how in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}):
        keras.utils.set_random_seed(3)
        hwa = compiled(hardware_mlp(seed=7), **how)
        hwa.train_on_batch(x, np.array([0, 1, 2, 0]))
        found.append(as_numpy(hwa.weights))
    for expected, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_allclose(other, expected, atol=2e-5)
