"""LaNMax against a NumPy transcription of algorithm 1, and how it lives in `fit`."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.layers import HWADense
from hwa_keras.noise import BitFlip
from hwa_keras.profile.stored_kernels import stored_kernels
from hwa_keras.training import LaNMax, UniformNoise
from hwa_keras.training.callbacks.lanmax import regression_slopes
from tests import fresh

pytestmark = pytest.mark.usefixtures("built_optimizers")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 12)).astype("float32")
Y = np.argmax(X @ RNG.normal(size=(12, 3)), axis=1)
WEIGHTS = np.array([12 * 16, 16 * 8, 8 * 3])
BITS = np.array([1, 1, 4])


def network(p=0.01, compiled=True, **kwargs):
    """Two binary kernels and one of four bits, in three layers."""
    keras.utils.set_random_seed(3)
    quantizers = ["binary_connect", "binary_connect"]
    quantizers.append(hwa_keras.quantizers.Uniform(8, "max"))
    layers = [
        HWADense(
            units,
            kernel_quantizer=quantizer,
            kernel_noise=BitFlip(p),
            noise_seed=i,
            name=f"dense_{i}",
        )
        for i, (units, quantizer) in enumerate(zip((16, 8, 3), quantizers, strict=True))
    ]
    relu = keras.layers.ReLU
    inputs = keras.Input((12,))
    outputs = layers[2](relu()(layers[1](relu()(layers[0](inputs)))))
    model = keras.Model(inputs, outputs, name="net")
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss, **kwargs)
    return model


def fit(model, callbacks, epochs=4, batch_size=8, **kwargs):
    return model.fit(
        X,
        Y,
        batch_size=batch_size,
        epochs=epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
        **kwargs,
    ).history


class OfLabels(keras.losses.Loss):
    """A loss that depends on the labels alone."""

    def call(self, y_true, y_pred):
        y_true = ops.cast(ops.reshape(y_true, (-1, 1)), y_pred.dtype)
        return 1.0 + ops.mean(y_true + 0.0 * y_pred, axis=-1)


def rates(model):
    noises = [kernel.noise for kernel in stored_kernels(model)]
    return np.array([ops.convert_to_numpy(noise.p) for noise in noises])


class Recorder(keras.callbacks.Callback):
    """What happens in a fit, seen by another: rates of each batch, and after epochs."""

    def __init__(self):
        super().__init__()
        self.tried, self.after, self.in_tests = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.tried.append([])

    def on_train_batch_begin(self, batch, logs=None):
        self.tried[-1].append(rates(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.after.append(rates(self.model))

    def on_test_begin(self, logs=None):
        self.in_tests.append(rates(self.model))


def energy(p):
    return np.sum(BITS * WEIGHTS * -np.log(p) / 12.8) / np.sum(BITS * WEIGHTS)


def algorithm_1(p, tried, losses, alpha, rate, until):
    """The thesis's update of p, with the normal equations, from what was recorded."""
    velocity, best, after = np.zeros(len(p)), math.inf, []
    for epoch, (perturbed, batch_losses) in enumerate(zip(tried, losses, strict=True)):
        if epoch < until:
            outer, best = [], min(best, *batch_losses)
            for p_tried, loss in zip(perturbed, batch_losses, strict=True):
                outer.append(
                    loss / best
                    + alpha * np.sqrt(energy(p_tried))
                    + 5e-4 * p_tried.sum()
                )
            design = np.column_stack([np.ones(len(outer)), perturbed])
            slopes = np.linalg.solve(design.T @ design, design.T @ np.array(outer))[1:]
            gradient = slopes / np.sqrt(np.sum(slopes**2))
            velocity = 0.2 * velocity + gradient
            p = np.clip(p - rate * (gradient + 0.2 * velocity), 1e-4, 0.5)
        after.append(p)
    return after


@pytest.mark.tensorflow_only  # JAX has no eager step, whose losses could be noted.
def test_equals_a_transcription_of_the_algorithm():
    alpha = 5.0

    class Losses(keras.losses.SparseCategoricalCrossentropy):
        """Notes the loss of each batch as it is computed."""

        def __call__(self, *args, **kwargs):
            loss = super().__call__(*args, **kwargs)
            noted[-1].append(float(ops.convert_to_numpy(loss)))
            return loss

    class NewEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            noted.append([])

    noted: list = []
    model = network(compiled=False)
    model.compile(
        keras.optimizers.SGD(0.02), Losses(from_logits=True), run_eagerly=True
    )
    recorder = Recorder()
    history = fit(
        model,
        [NewEpoch(), LaNMax(alpha, until=0.75, learning_rate=0.01), recorder],
        batch_size=16,
    )
    assert len(noted[0]) == 8
    tried = np.array(recorder.tried, "float64")
    expected = algorithm_1(np.full(3, 0.01), tried, noted, alpha, rate=0.01, until=3)
    np.testing.assert_allclose(recorder.after, expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(
        history["memory_energy"], [energy(p) for p in recorder.after], rtol=1e-6
    )
    # What was tried lies around p: at one of three places, and in epoch 4 at p.
    start = np.array([np.full(3, 0.01), *recorder.after[:-1]])
    steps = np.unique(np.round(tried[1:3] - start[1:3, None], 6))
    assert steps.min() >= -0.010001
    assert steps.max() <= 0.010001
    assert len(np.unique(np.round(tried[0] - 0.01, 6))) == 3
    np.testing.assert_array_equal(tried[3], np.tile(start[3], (8, 1)))


def test_logs_rates_and_slopes_of_each_kernel():
    history = fit(network(), [LaNMax(until=0.5)], epochs=4)
    for i in range(3):
        assert len(history[f"p/dense_{i}/kernel"]) == 4
        assert len(history[f"p_slope/dense_{i}/kernel"]) == 2
    slopes = [history[f"p_slope/dense_{i}/kernel"] for i in range(3)]
    np.testing.assert_allclose(np.sum(np.square(slopes), axis=0), 1.0, rtol=1e-6)


def test_the_regression_recovers_planted_slopes():
    rng = np.random.default_rng(1)
    x = 0.05 + 0.01 * rng.integers(-1, 2, size=(390, 29))
    slopes = rng.normal(size=29) * 10
    np.testing.assert_allclose(regression_slopes(x, 3.0 + x @ slopes), slopes)
    # With noise, within five standard errors of each: σ/√(n·var x).
    noisy = 3.0 + x @ slopes + rng.normal(scale=0.1, size=390)
    error = 0.1 / np.sqrt(390 * (2 / 3) * 1e-4)
    assert np.abs(regression_slopes(x, noisy) - slopes).max() < 5 * error
    x[:, 4] = 0.1  # Not varied: nothing is known of it.
    assert regression_slopes(x, noisy)[4] == pytest.approx(0.0, abs=1e-9)


def test_a_planted_loss_moves_the_rates_as_it_must():
    """A loss that grows with one rate, falls with another, and has no third."""

    class Planted(keras.layers.Layer):
        def __init__(self, noises):
            super().__init__()
            self.noises = noises

        def call(self, x):
            first, second, _ = (noise.p.value for noise in self.noises)
            self.add_loss(5.0 + 3.0 * first - 4.0 * second + 0.0 * ops.sum(x))
            return x

    hidden = network(compiled=False)
    noises = [
        layer.kernel_noise for layer in hidden.layers if isinstance(layer, HWADense)
    ]
    model = keras.Model(hidden.inputs, Planted(noises)(hidden.outputs[0]))
    model.compile(keras.optimizers.SGD(0.0), loss=None)
    history = fit(model, [LaNMax(0.0, p=0.1, decay=0.0, learning_rate=0.01)], epochs=5)
    for i, slope in enumerate([0.6, -0.8, 0.0]):
        found = history[f"p_slope/dense_{i}/kernel"]
        np.testing.assert_allclose(found, slope, atol=2e-3)
    assert rates(model)[0] < 0.1 < rates(model)[1]


def test_energy_alone_raises_the_rates_of_large_kernels_most():
    model = network(compiled=False)
    target = np.zeros(128)
    model.compile(keras.optimizers.SGD(0.0), OfLabels())
    model.fit(
        X,
        target,
        batch_size=8,
        epochs=1,
        verbose=0,
        callbacks=[LaNMax(1.0, p=0.05, decay=0.0, until=1.0, learning_rate=0.01)],
    )
    gained = rates(model) - 0.05
    order = np.argsort(BITS * WEIGHTS)
    assert np.all(gained > 0)
    assert np.all(np.argsort(gained) == order)


def test_rates_never_leave_their_bounds():
    recorder = Recorder()
    callback = LaNMax(1.0, learning_rate=30.0, h=0.2, until=1.0)
    fit(network(), [callback, recorder], epochs=4)
    seen = np.concatenate([np.array(recorder.tried).reshape(-1, 3), recorder.after])
    assert seen.min() >= np.float32(1e-4)
    assert seen.max() <= 0.5
    assert len(np.unique(seen)) > 4


def test_rates_that_begin_outside_of_the_bounds_are_brought_in():
    recorder = Recorder()
    callback = LaNMax(p=None, h=1e-9, p_min=1e-3, until=0.5)
    model = network(p=0.0)
    fit(model, [callback, recorder], epochs=2)
    np.testing.assert_allclose(recorder.tried[0], 1e-3, rtol=1e-5)


def test_validation_sees_the_rates_not_what_is_tried():
    recorder = Recorder()
    fit(network(), [LaNMax(), recorder], validation_data=(X, Y), epochs=2)
    # Validation comes before the update at the end of the epoch.
    np.testing.assert_array_equal(recorder.in_tests[0], np.full(3, np.float32(0.01)))
    np.testing.assert_array_equal(recorder.in_tests[1], recorder.after[0])


@pytest.mark.slow
def test_the_step_size_is_that_of_the_optimizer_at_the_end_of_the_epoch():
    def first_move(callback, schedule):
        model = network(compiled=False)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(schedule), loss)
        fit(model, [callback], epochs=2)
        return rates(model)

    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([15], [0.02, 0.005])
    left_out = first_move(LaNMax(until=0.5), schedule)
    given = first_move(LaNMax(until=0.5, learning_rate=0.005), schedule)
    np.testing.assert_allclose(left_out, given, rtol=1e-6)


@pytest.mark.parametrize(
    "backup",
    ["whole model", pytest.param("backup and restore", marks=pytest.mark.slow)],
)
def test_resumed_equals_uninterrupted(backup, tmp_path):
    def lanmax():
        return LaNMax(2.0, learning_rate=0.01)

    model = network()
    if backup == "whole model":
        saves = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
        expected = fit(model, [lanmax(), saves], epochs=4)
        resumed = keras.models.load_model(tmp_path / "2.keras")
        found = fit(resumed, [lanmax()], epochs=4, initial_epoch=2)
    else:

        class Killed(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    raise KeyboardInterrupt

        def callbacks():
            saves = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
            return [lanmax(), saves]

        expected = fit(model, [lanmax()], epochs=4)
        with pytest.raises(KeyboardInterrupt):
            fit(network(), [*callbacks(), Killed()], epochs=4)
        resumed = network()
        found = fit(resumed, callbacks(), epochs=4)
    assert found["memory_energy"] == expected["memory_energy"][2:]
    np.testing.assert_array_equal(rates(resumed), rates(model))
    for a, b in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_new_fit_begins_anew_and_keeps_the_rates_if_asked():
    model = network()
    fit(model, [LaNMax(until=1.0)], epochs=2)
    learned = rates(model)
    recorder = Recorder()
    fit(model, [LaNMax(p=None, h=1e-9, until=1.0), recorder], epochs=1)
    np.testing.assert_allclose(recorder.tried[0][0], learned, rtol=1e-5)
    fit(model, [LaNMax(h=1e-9, until=1.0), recorder], epochs=1)
    np.testing.assert_allclose(recorder.tried[1][0], 0.01, rtol=1e-6)


def test_nothing_is_compiled_again():
    traced = []

    class Counted(keras.losses.SparseCategoricalCrossentropy):
        def call(self, y_true, y_pred):
            traced.append(1)
            return super().call(y_true, y_pred)

    counts = []
    for callbacks in ([], [LaNMax(learning_rate=0.05)]):
        model = network(compiled=False)
        model.compile(keras.optimizers.SGD(0.02), Counted(from_logits=True))
        fit(model, callbacks, epochs=3)
        counts.append(len(traced))
        traced.clear()
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "options",
    [
        {"steps_per_execution": 2, "jit_compile": True},
        {"steps_per_execution": 2, "jit_compile": False},
    ],
    ids=str,
)
def test_lives_in_every_kind_of_fit(options):
    recorder = Recorder()
    history = fit(network(**options), [LaNMax(learning_rate=0.02), recorder])
    executions = 16 // options.get("steps_per_execution", 1)
    assert [len(tried) for tried in recorder.tried] == [executions] * 4
    assert len(set(history["memory_energy"])) > 1


def test_executions_of_several_steps_measure_their_mean_loss():
    """One measurement of two batches, as of one batch that is twice as large."""

    def first_step(**kwargs):
        model = network(compiled=False)
        steps = kwargs.pop("steps_per_execution", 1)
        model.compile(keras.optimizers.SGD(0.0), OfLabels(), steps_per_execution=steps)
        return fit(model, [LaNMax(3.0, learning_rate=0.01)], epochs=2, **kwargs)

    two = first_step(steps_per_execution=2, batch_size=8)
    one = first_step(batch_size=16)
    for i in range(3):
        name = f"p_slope/dense_{i}/kernel"
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-4)


def test_converted_models_and_sharpness_aware_ones_learn_their_rates():
    inputs = keras.Input((12,))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    plain = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    model = hwa_keras.to_hwa(
        plain, kernel_quantizer="ste_sign", kernel_noise=BitFlip(0.01), verbose=0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.02), loss)
    fit(model, [LaNMax(learning_rate=0.02)])
    assert len(set(rates(model))) == 2
    sharp = hwa_keras.training.SharpnessAwareModel.wrap(model, method="sam", rho=0.05)
    sharp.compile(keras.optimizers.SGD(0.02), loss)
    fit(sharp, [LaNMax(learning_rate=0.02, seed=4)])
    energy = hwa_keras.memory_energy(model).relative
    assert energy != pytest.approx(hwa_keras.devices.relative_energy(0.01), rel=1e-3)


@pytest.mark.tensorflow_only
def test_two_replicas_learn_the_rates_of_one_device():
    """Both see the same rates, and their mean loss comes back."""
    fresh.run(
        """
        import contextlib
        import keras, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        from hwa_keras.training import LaNMax
        from tests.training import test_lanmax

        def learned(scope):
            with scope:
                model = test_lanmax.network(compiled=False)
                # Replicas draw different flips, which must not change the loss.
                model.compile(keras.optimizers.SGD(0.0), test_lanmax.OfLabels())
            test_lanmax.fit(model, [LaNMax(3.0, learning_rate=0.01)])
            return test_lanmax.rates(model)

        one = learned(contextlib.nullcontext())
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        two = learned(strategy.scope())
        np.testing.assert_allclose(two, one, rtol=1e-3)
        assert len(set(one)) == 3
        """
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -0.1}, "`alpha` of LaNMax must be a finite number and not negative"),
        ({"decay": math.nan}, "`decay` of LaNMax"),
        ({"p": 0.6}, "`p` must lie from `p_min` to `p_max`"),
        ({"p_max": 0.7}, "`p_max` of LaNMax is the probability"),
        ({"p_min": 0.0}, "`p_min` of LaNMax must be a positive"),
        ({"p_min": 0.2, "p_max": 0.1}, "`p` must lie"),
        ({"h": 0.0}, "`h` of LaNMax must be a positive"),
        ({"momentum": 1.0}, "`momentum` must be below 1"),
        ({"until": 1.5}, "`until` a share of the epochs"),
        ({"learning_rate": -1.0}, "`learning_rate` of LaNMax must be a positive"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LaNMax(**arguments)


@pytest.mark.parametrize("callback", [LaNMax(), UniformNoise(0.1)], ids=["LaNMax", "U"])
def test_a_model_without_bit_flips_is_refused(callback):
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="found no BitFlip in the model"):
        fit(model, [callback])


@pytest.mark.parametrize("batch_size", [128, 32])
def test_too_few_batches_are_refused_at_the_start(batch_size):
    with pytest.raises(ValueError, match="at least 5 batches an epoch"):
        fit(network(), [LaNMax()], batch_size=batch_size)


def test_executions_count_where_there_are_several_steps_in_one():
    with pytest.raises(ValueError, match="There are 4"):
        fit(network(steps_per_execution=4), [LaNMax()])


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_too_few_batches_of_a_generator_are_refused_at_the_end_of_the_epoch():
    def batches():
        for i in range(4):
            yield X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]

    with pytest.raises(ValueError, match="There are 4"):
        network().fit(
            batches(), epochs=2, callbacks=[LaNMax()], shuffle=False, verbose=0
        )


def test_too_few_epochs_to_learn_in_are_refused():
    with pytest.raises(ValueError, match="first 0.8 of the epochs, .* one of 1"):
        fit(network(), [LaNMax()], epochs=1)


def test_weights_of_another_epoch_are_refused():
    model = network()
    with pytest.raises(ValueError, match="begins with epoch 2, .* after epoch 0"):
        fit(model, [LaNMax()], epochs=4, initial_epoch=2)


def test_a_loss_that_cannot_be_compared_is_refused():
    model = network(compiled=False)
    model.compile("sgd", lambda y, y_pred: ops.mean(y_pred, axis=-1) - 100.0)
    with pytest.raises(ValueError, match="finite and not negative"):
        fit(model, [LaNMax()])


def test_a_scale_beside_the_rates_is_refused():
    model = network()
    stored_kernels(model)[1].noise.scale.assign(2.0)
    with pytest.raises(ValueError, match="That of 'dense_1/kernel' is 2.0"):
        fit(model, [LaNMax()])


def test_uniform_noise_gives_all_kernels_one_rate():
    model = network()
    recorder = Recorder()
    schedule = UniformNoise(lambda epoch: 0.1 * epoch)
    history = fit(model, [schedule, recorder], epochs=3)
    for epoch in range(3):
        np.testing.assert_allclose(recorder.after[epoch], 0.1 * epoch, rtol=1e-6)
    np.testing.assert_allclose(history["error_rate"], [0.0, 0.1, 0.2])
    with pytest.raises(ValueError, match="`p` of UniformNoise is the probability"):
        UniformNoise(0.6)
    with pytest.raises(ValueError, match="`p` of UniformNoise is the probability"):
        fit(model, [UniformNoise(lambda epoch: 0.6)])
