"""SharpnessAwareModel: the formulas, and all that Keras's own step does."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.training import Perturbation, SharpnessAwareModel
from hwa_keras.training.sharpness_aware import SharpnessAwareSteps
from tests import fresh, zoo
from tests.training import reference

METHODS = {
    "sam": {"method": "sam", "rho": 0.3},
    "asam": {"method": "asam", "rho": 0.5},
    "samson_2": {"method": "samson", "rho": 0.5, "norm": 2},
    "samson_inf": {"method": "samson", "rho": 0.5, "norm": "inf"},
}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def ends(dtype=None):
    """The network of `reference`, as inputs and outputs."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(7, dtype=dtype)(inputs)
    x = keras.layers.BatchNormalization(dtype=dtype)(x)
    x = keras.layers.ReLU(dtype=dtype)(x)
    return inputs, keras.layers.Dense(3, dtype=dtype)(x)


def problem(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 5)).astype("float32"), rng.integers(0, 3, count)


def started(model, seed=0):
    """Give a model weights of which none is zero; return those as float64."""
    rng = np.random.default_rng(seed)
    weights = [
        (rng.normal(size=w.shape) + (w.name == "gamma")).astype("float32")
        for w in model.trainable_variables
    ]
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)
    return dict(
        zip(reference.NAMES, (w.astype("float64") for w in weights), strict=True)
    )


def weights_of(model):
    return [ops.convert_to_numpy(v) for v in model.trainable_variables]


def compiled(model, rate=0.1, **kwargs):
    model.compile(keras.optimizers.SGD(rate), LOSS, **kwargs)
    if model.built:  # Otherwise, TensorFlow traces the step twice.
        model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize(
    "name, every",
    [("sam", 1), ("asam", 2), ("samson_2", 1), ("samson_inf", 1)],
)
def test_a_step_is_that_of_the_formulas(name, every):
    x, y = problem()
    arguments = METHODS[name]
    model = compiled(SharpnessAwareModel(*ends(), **arguments, every=every))
    w = started(model)
    logs = model.train_on_batch(x, y, return_dict=True)
    expected, loss, (mean, variance) = reference.step(w, x, y, 0.1, **arguments)
    for found, key in zip(weights_of(model), reference.NAMES, strict=True):
        np.testing.assert_allclose(found, expected[key], atol=1e-6, err_msg=key)
    assert float(logs["loss"]) == pytest.approx(loss, abs=1e-6)  # that of W
    normal = next(a for a in model.layers if "normalization" in a.name)
    # The statistics are those of W, and moved once.
    for found, new, old in (
        (normal.moving_mean, mean, 0.0),
        (normal.moving_variance, variance, 1.0),
    ):
        moved = 0.99 * old + 0.01 * new
        np.testing.assert_allclose(ops.convert_to_numpy(found), moved, atol=1e-6)


def test_the_step_depends_on_eta_biases_and_norm():
    # The tests above would fail without η, with scaled biases, with another norm, or
    # with the norm of the gradient alone: each gives another step.
    x, y = problem()
    arguments = {"method": "samson", "rho": 0.5, "norm": 2}
    model = compiled(SharpnessAwareModel(*ends(), **arguments))
    w = started(model)
    model.train_on_batch(x, y)
    for change in (
        {"eta": 0.0},
        {"scaled": reference.NAMES},
        {"norm": "inf"},
        {"method": "asam"},
        {"method": "sam"},
    ):
        other, _, _ = reference.step(w, x, y, 0.1, **{**arguments, **change})
        difference = max(
            np.abs(found - other[key]).max()
            for found, key in zip(weights_of(model), reference.NAMES, strict=True)
        )
        assert difference > 1e-5, change


def test_which_variables_are_scaled_is_an_argument():
    x, y = problem()
    model = compiled(
        SharpnessAwareModel(
            *ends(), method="asam", scaled=lambda v: v.name in ("kernel", "beta")
        )
    )
    w = started(model)
    model.train_on_batch(x, y)
    expected, _, _ = reference.step(
        w, x, y, 0.1, "asam", 0.5, scaled=("kernel_1", "kernel_2", "beta")
    )
    for found, key in zip(weights_of(model), reference.NAMES, strict=True):
        np.testing.assert_allclose(found, expected[key], atol=1e-6, err_msg=key)


def test_a_quadratic_has_the_closed_form():
    # L = ‖Aw‖²/2 with A = diag(3, 1): g = A²w, and the step goes along A²(w + ε).
    matrix = keras.layers.Dense(2, use_bias=False, name="w")
    inputs = keras.Input((1,))
    model = SharpnessAwareModel(inputs, matrix(inputs), rho=0.5)
    a = np.array([3.0, 1.0])

    def loss(y, y_pred):
        return 0.5 * ops.sum(ops.square(y_pred * a.astype("float32")), axis=-1)

    model.compile(keras.optimizers.SGD(0.01), loss)
    w = np.array([0.4, -1.2])
    matrix.kernel.assign(w[None])
    model.train_on_batch(np.ones((4, 1)), np.zeros((4, 2)))
    g = a**2 * w
    expected = w - 0.01 * a**2 * (w + 0.5 * g / np.linalg.norm(g))
    np.testing.assert_allclose(ops.convert_to_numpy(matrix.kernel)[0], expected, 1e-6)


def test_between_looks_a_step_is_the_plain_one():
    x, y = problem()
    plain, sharp = keras.Model(*ends()), SharpnessAwareModel(*ends(), every=3, rho=0.9)
    for model in (plain, sharp):
        compiled(model)
        started(model)
    sharp.train_on_batch(x, y)  # The first of three looks ahead.
    plain.set_weights(sharp.get_weights())
    for _ in range(2):
        plain.train_on_batch(x, y)
        sharp.train_on_batch(x, y)
    for a, b in zip(weights_of(plain), weights_of(sharp), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    plain.train_on_batch(x, y)
    sharp.train_on_batch(x, y)
    assert (
        max(
            np.abs(a - b).max()
            for a, b in zip(*map(weights_of, (plain, sharp)), strict=True)
        )
        > 1e-4
    )


@pytest.mark.parametrize("m, jit_compile", [(4, True), (5, False)])
def test_parts_of_a_batch_have_an_epsilon_of_their_own(m, jit_compile):
    x, y = problem(12)
    model = SharpnessAwareModel(*ends(), method="asam", m=m)
    compiled(model, rate=1.0, jit_compile=jit_compile)
    w = started(model)
    logs = model.train_on_batch(x, y, return_dict=True)
    total = {key: np.zeros_like(value) for key, value in w.items()}
    losses, means = 0.0, 0.0
    for start in range(0, 12, m):
        part = x[start : start + m], y[start : start + m]
        share = len(part[0]) / 12
        after, loss, (mean, _) = reference.step(w, *part, 1.0, "asam", 0.5)
        losses, means = losses + share * loss, means + share * mean
        for key in w:
            total[key] += share * (w[key] - after[key])
    for found, key in zip(weights_of(model), reference.NAMES, strict=True):
        np.testing.assert_allclose(found, w[key] - total[key], atol=5e-6, err_msg=key)
    assert float(logs["loss"]) == pytest.approx(losses, abs=1e-6)
    normal = next(a for a in model.layers if "normalization" in a.name)
    found = ops.convert_to_numpy(normal.moving_mean)
    np.testing.assert_allclose(found, 0.01 * means, atol=1e-6)


def test_mixed_precision_takes_the_same_step_to_its_precision():
    x, y = problem()
    name = "samson_inf"
    model = SharpnessAwareModel(*ends("mixed_float16"), **METHODS[name])
    scaling = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=256.0
    )
    model.compile(scaling, LOSS)
    w = started(model)
    model.train_on_batch(x, y)
    expected, _, _ = reference.step(w, x, y, 0.1, **METHODS[name])
    for found, key in zip(weights_of(model), reference.NAMES, strict=True):
        np.testing.assert_allclose(found, expected[key], atol=4e-3, err_msg=key)
        moved = np.abs(expected[key] - w[key]).max()
        if key not in ("bias_1",):  # Which batch norm makes ineffective.
            assert np.abs(found - w[key]).max() > 0.5 * moved


@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_that_is_not_finite_changes_no_weight(scaled):
    x, y = problem()
    model = SharpnessAwareModel(*ends(), method="samson")
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, LOSS)
    model.train_on_batch(x, y)
    before = [w.copy() for w in model.get_weights()]
    model.train_on_batch(np.where(np.arange(5) == 2, np.inf, x), y)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.train_on_batch(x, y)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_weights_leave_the_step_as_the_optimizer_left_them():
    # With a learning rate of 0 to the bit, however far the look ahead.
    x, y = problem()
    model = compiled(SharpnessAwareModel(*ends(), rho=1e3), rate=0.0)
    before = weights_of(model)
    model.train_on_batch(x, y)
    for old, new in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


class Echo(keras.layers.Layer):
    """Adds the noise of a seed, and remembers what it added."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)
        self.scale = self.add_weight(shape=(), name="kernel", initializer="ones")

    def call(self, inputs):
        return inputs + self.scale * keras.random.normal((1, 5), seed=self.generator)


@pytest.mark.parametrize("same", [True, False])
def test_both_looks_see_the_same_noise(same):
    # L = mean(z²)/2·s² with noise z alone: the gradient tells which z a look saw.
    model = keras.Sequential([keras.Input((5,)), Echo()])
    sharp = SharpnessAwareModel.wrap(model, rho=0.5, same_noise=same)
    sharp.compile(keras.optimizers.SGD(1.0), "mse")
    generator = keras.random.SeedGenerator(3)
    first, second = (
        ops.convert_to_numpy(keras.random.normal((1, 5), seed=generator))
        for _ in range(2)
    )
    sharp.train_on_batch(np.zeros((4, 5)), np.zeros((4, 5)))
    seen = first if same else second
    expected = 1.0 - 2 * np.mean(seen**2) * 1.5
    found = float(ops.convert_to_numpy(model.layers[-1].scale))
    assert found == pytest.approx(expected, abs=1e-5)
    # The next step goes on where this one stopped.
    left = ops.convert_to_numpy(model.layers[-1].generator.state)
    fresh_generator = keras.random.SeedGenerator(3)
    for _ in range(1 if same else 2):
        fresh_generator.next()
    np.testing.assert_array_equal(left, ops.convert_to_numpy(fresh_generator.state))


def test_metrics_and_dropout_are_those_of_a_plain_step():
    # ρ so small that both models take the same step.
    x, y = zoo.digits_like(64)
    found = []
    for make in (keras.Model, lambda *a: SharpnessAwareModel(*a, rho=1e-9)):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((12,))
        h = keras.layers.Dense(16, kernel_regularizer="l2")(inputs)
        h = keras.layers.Dropout(0.5, seed=4)(h)
        h = keras.layers.BatchNormalization()(h)
        model = make(inputs, keras.layers.Dense(3)(keras.layers.ReLU()(h)))
        compiled(model, metrics=["accuracy"], weighted_metrics=["accuracy"])
        weight = np.linspace(0, 1, 64)
        history = model.fit(x, y, 16, 2, verbose=0, sample_weight=weight, shuffle=False)
        found.append((history.history, model.get_weights()))
    (plain, weights), (sharp, others) = found
    assert plain.keys() == sharp.keys()
    for key in plain:
        np.testing.assert_allclose(plain[key], sharp[key], rtol=1e-5)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2),
    ],
    ids=["accumulation", "ema"],
)
def test_optimizers_see_the_gradient_ahead(optimizer):
    # The same optimizer, told the gradients by hand, must end at the same weights.
    x, y = problem(32)
    model = SharpnessAwareModel(*ends(), rho=0.3)
    model.compile(optimizer(), LOSS)
    w = started(model)
    twin = [
        keras.Variable(value, dtype="float32", name=key) for key, value in w.items()
    ]
    other = optimizer()
    other.build(twin)
    for start in range(0, 32, 8):
        part = x[start : start + 8], y[start : start + 8]
        model.train_on_batch(*part)
        at = {
            k: ops.convert_to_numpy(v).astype("float64")
            for k, v in zip(w, twin, strict=True)
        }
        _, g, _ = reference.loss_and_gradients(at, *part)
        e = reference.worst(at, g, "sam", 0.3)
        point = {k: at[k] + e[k] for k in at}
        _, ahead, _ = reference.loss_and_gradients(point, *part)
        other.apply([ops.convert_to_tensor(ahead[k], "float32") for k in w], twin)
    # Adam divides the gradient of bias_1, which is rounding alone, by itself.
    for found, variable in zip(weights_of(model), twin, strict=True):
        if variable.name != "bias_1":
            np.testing.assert_allclose(found, ops.convert_to_numpy(variable), atol=2e-4)


def test_rho_changes_without_retracing():
    x, y = problem()
    model = compiled(SharpnessAwareModel(*ends(), rho=0.3))
    w = started(model)
    model.train_on_batch(x, y)
    started(model)
    model.rho = 0.7
    model.train_on_batch(x, y)
    expected, _, _ = reference.step(w, x, y, 0.1, "sam", 0.7)
    np.testing.assert_allclose(weights_of(model)[0], expected["kernel_1"], atol=1e-6)


def test_a_schedule_moves_rho_and_says_so():
    x, y = problem()
    model = compiled(SharpnessAwareModel(*ends(), rho=0.3), rate=0.0)
    schedule = hwa_keras.training.RhoSchedule(lambda epoch, rho: rho / 2)
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[schedule]).history
    assert history["rho"] == pytest.approx([0.15, 0.075])
    w = started(model)
    model.optimizer.learning_rate = 0.1
    model.train_on_batch(x, y)
    expected, _, _ = reference.step(w, x, y, 0.1, "sam", 0.075)
    np.testing.assert_allclose(weights_of(model)[0], expected["kernel_1"], atol=1e-6)
    with pytest.raises(ValueError, match="`rho` must be positive"):
        model.fit(
            x, y, verbose=0, callbacks=[hwa_keras.training.RhoSchedule(lambda *_: 0.0)]
        )
    with pytest.raises(TypeError, match="needs a SharpnessAwareModel"):
        compiled(keras.Model(*ends())).fit(x, y, verbose=0, callbacks=[schedule])


@keras.saving.register_keras_serializable("tests")
class Custom(SharpnessAwareModel):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def wrapped_hardware():
    hwa = hwa_keras.to_hwa(
        zoo.mlp(),
        kernel_quantizer="ste_sign",
        kernel_noise="programming_noise",
        seed=1,
        verbose=0,
    )
    return SharpnessAwareModel.wrap(hwa, method="samson", norm="inf", rho=0.2)


def functional():
    inputs = keras.Input((12,))
    hidden = keras.layers.Dense(6, activation="relu", name="hidden")(inputs)
    return SharpnessAwareModel(
        inputs, keras.layers.Dense(3)(hidden), method="asam", every=2, m=8, name="mine"
    )


def subclassed():
    model = Custom(5, method="samson", rho=0.25, scaled=["kernel"])
    model(np.zeros((1, 12), "float32"))
    return model


MADE = {"functional": functional, "subclassed": subclassed, "wrapped": wrapped_hardware}


@pytest.mark.parametrize(
    "name",
    [
        "wrapped",
        *(pytest.param(n, marks=pytest.mark.slow) for n in MADE if n != "wrapped"),
    ],
)
def test_models_of_every_make_train_and_load(name, tmp_path):
    x, y = zoo.digits_like(128)
    model = MADE[name]()
    model.compile(keras.optimizers.Adam(0.02), LOSS, metrics=["accuracy"])
    history = model.fit(x, y, 16, 4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, SharpnessAwareSteps)
    assert type(loaded) is type(model)
    assert loaded.sharpness.get_config() == model.sharpness.get_config()
    # Training goes on as if it had not been interrupted.
    states = []
    for one in (model, loaded):
        one.fit(x, y, 16, 1, shuffle=False, verbose=0)
        states.append(one.get_weights())
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_models_load_in_a_fresh_process(tmp_path):
    models = {"functional": functional(), "wrapped": wrapped_hardware()}
    inputs = {name: zoo.digits_like(8)[0] for name in models}
    fresh.assert_loads_equal(models, inputs, tmp_path)


# Keras 3.9, of one input that the model has in a list.
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_a_model_of_inputs_and_outputs_is_functional():
    model = functional()
    assert model.get_layer("hidden").units == 6
    features = keras.Model(model.inputs, model.get_layer("hidden").output)
    assert features.output_shape == (None, 6)
    # Its weights go into a plain model, and the class still makes other models.
    plain = keras.models.clone_model(keras.Model(model.inputs, model.outputs))
    plain.set_weights(model.get_weights())
    x = zoo.digits_like(8)[0]
    np.testing.assert_allclose(
        model.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-6
    )
    assert subclassed().predict(x, verbose=0).shape == (8, 3)


@pytest.mark.slow
def test_a_wrapped_model_is_programmed_like_the_model():
    x, y = zoo.digits_like(32)
    sharp = wrapped_hardware()
    sharp.compile("sgd", LOSS)
    sharp.fit(x, y, verbose=0)
    plain = hwa_keras.to_hwa(zoo.mlp(), kernel_quantizer="ste_sign", verbose=0)
    pairs = zip(plain.trainable_weights, sharp.trainable_weights, strict=True)
    for own, trained in pairs:
        own.assign(ops.copy(trained.value))
    outputs = [
        hwa_keras.program(m, "pcm", seed=1, read_noise="off").predict(x, verbose=0)
        for m in (sharp, plain)
    ]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("hardware_first", [True, False])
def test_hardware_and_steps_come_in_any_order_and_go_together(hardware_first, tmp_path):
    x, y = zoo.digits_like(32)

    def on_hardware(model):
        return hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)

    order = [on_hardware, SharpnessAwareModel.wrap]
    model = started_from = zoo.subclassed()
    for change in order if hardware_first else order[::-1]:
        model = change(model)
    assert model is started_from and isinstance(model, zoo.Subclassed)
    compiled(model).fit(x, y, verbose=0)
    model.save(tmp_path / "both.keras")
    loaded = keras.models.load_model(tmp_path / "both.keras")
    for one in (model, loaded):
        assert one.rho == 0.05 and len(hwa_keras.hardware_kernels(one)) == 2
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    )
    assert hwa_keras.to_digital(model) is model
    assert type(model) is zoo.Subclassed


@keras.saving.register_keras_serializable("tests")
class Penalized(keras.Model):
    """Has a loss and metrics of its own, as a distiller has."""

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model
        self.penalty = keras.metrics.Mean(name="penalty")
        self.built = True

    def call(self, inputs):
        return self.model(inputs)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        penalty = ops.mean(ops.square(y_pred))
        self.penalty.update_state(penalty)
        return super().compute_loss(x, y, y_pred, sample_weight) + penalty


def test_a_loss_of_ones_own_is_used_and_counted_once():
    x, y = zoo.digits_like(32)
    inner = Penalized(zoo.mlp())
    inner.compile(loss=LOSS)
    expected = inner.evaluate(x, y, return_dict=True, verbose=0)
    sharp = SharpnessAwareModel.wrap(inner)
    sharp.compile(keras.optimizers.SGD(0.0), LOSS)
    data = {"validation_data": (x, y)}
    logs = sharp.fit(x, y, batch_size=32, verbose=0, **data).history
    for prefix in ("", "val_"):
        for name in ("loss", "penalty"):
            found = logs[prefix + name][0]
            assert found == pytest.approx(expected[name], rel=1e-5)


def test_a_model_keeps_what_it_has():
    class Own(keras.Model):
        def test_step(self, *args):
            return {"mine": 1.0} if len(args) == 1 else ({"mine": 1.0}, args[0])

        def answer(self):
            return 42

    own = Own(*ends())
    names = own.output_names
    own.compile(keras.optimizers.SGD(0.1), LOSS)
    x, y = problem()
    own.fit(x, y, verbose=0)  # What was compiled before is forgotten.
    w = started(own)
    sharp = SharpnessAwareModel.wrap(own, **METHODS["asam"])
    sharp.train_on_batch(x, y)
    expected, _, _ = reference.step(w, x, y, 0.1, **METHODS["asam"])
    for found, key in zip(weights_of(own), reference.NAMES, strict=True):
        np.testing.assert_allclose(found, expected[key], atol=1e-6, err_msg=key)
    assert isinstance(sharp, Own) and sharp.answer() == 42
    assert sharp.output_names == names and sharp.get_layer(index=1).units == 7
    assert sharp.evaluate(x, y, verbose=0, return_dict=True) == {"mine": 1.0}


def several_outputs(kind):
    """A model with two outputs, and targets and losses for it."""
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(7, activation="tanh")(inputs)
    a, b = (keras.layers.Dense(3, name=name)(hidden) for name in "ab")
    x, y = problem()
    targets = {"a": y, "b": np.eye(3, dtype="float32")[y]}
    losses = {"a": LOSS, "b": "mse"}
    if kind == "list":
        return (inputs, [a, b]), x, list(targets.values()), list(losses.values())
    return (inputs, {"a": a, "b": b}), x, targets, losses


@pytest.mark.parametrize(
    ("made", "kind", "arguments"),
    [
        ("itself", "list", {"m": 4}),
        ("itself", "dict", {"every": 2}),
        ("wrapped", "dict", {"m": 4}),
    ],
    ids=str,
)
def test_several_outputs(made, kind, arguments):
    # With a tiny ρ the steps are the plain ones, with a large one they are not.
    ends, x, y, loss = several_outputs(kind)
    plain = keras.Model(*ends)
    start = plain.get_weights()
    ends, *_ = several_outputs(kind)
    if made == "wrapped":
        sharp = SharpnessAwareModel.wrap(keras.Model(*ends), rho=1e-7, **arguments)
    else:
        sharp = SharpnessAwareModel(*ends, rho=1e-7, **arguments)
    sharp.set_weights(start)
    metrics = {"b": "mae"} if kind == "dict" else [None, "mae"]
    fit = {"batch_size": 12, "epochs": 2, "shuffle": False, "verbose": 0}
    logs = []
    for model in (plain, sharp):
        model.compile(keras.optimizers.SGD(0.1), loss, metrics=metrics)
        logs.append(model.fit(x, y, **fit).history)
    assert logs[0].keys() == logs[1].keys()
    for key in logs[0]:
        np.testing.assert_allclose(logs[0][key], logs[1][key], rtol=1e-5)
    for expected, tiny in zip(weights_of(plain), weights_of(sharp), strict=True):
        np.testing.assert_allclose(expected, tiny, atol=1e-6)
    sharp.set_weights(start)
    sharp.rho = 0.5
    sharp.fit(x, y, **fit)
    assert np.abs(weights_of(plain)[0] - weights_of(sharp)[0]).max() > 1e-4


@pytest.mark.slow
def test_keras_distiller_trains_sharpness_aware():
    distillation = pytest.importorskip("keras.distillation")
    x, y = zoo.digits_like(64)
    teacher, student = zoo.mlp(), zoo.mlp()
    distiller = distillation.Distiller(
        teacher, student, distillation.LogitsDistillation(), student_loss_weight=0.5
    )
    distiller.compile("adam", LOSS)
    before = teacher.get_weights()
    sharp = SharpnessAwareModel.wrap(distiller, rho=0.1)
    history = sharp.fit(x, y, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_embeddings_and_unused_weights():
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(10, 6)(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = SharpnessAwareModel(inputs, keras.layers.Dense(3)(x), method="asam")
    compiled(model)
    tokens = np.random.default_rng(0).integers(0, 10, (8, 4))
    before = weights_of(model)
    model.train_on_batch(tokens, np.arange(8) % 3)
    assert all(np.any(a != b) for a, b in zip(before, weights_of(model), strict=True))


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("run_eagerly, jit_compile", [(True, False), (False, True)])
def test_eager_and_compiled_steps_agree(run_eagerly, jit_compile):
    x, y = problem()
    arguments = METHODS["samson_inf"]
    model = SharpnessAwareModel(*ends(), **arguments, every=2)
    compiled(model, run_eagerly=run_eagerly, jit_compile=jit_compile)
    w = started(model)
    model.train_on_batch(x, y)
    expected, _, _ = reference.step(w, x, y, 0.1, **arguments)
    for found, key in zip(weights_of(model), reference.NAMES, strict=True):
        np.testing.assert_allclose(found, expected[key], atol=1e-6, err_msg=key)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX's devices")
def test_on_jax_one_epsilon_spans_all_devices():
    fresh.run(
        """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        import keras, numpy as np
        from tests.training import reference, test_sharpness_aware as t

        keras.distribution.set_distribution(keras.distribution.DataParallel())
        x, y = t.problem(12)
        arguments = t.METHODS["asam"]
        model = t.compiled(t.SharpnessAwareModel(*t.ends(), **arguments))
        w = t.started(model)
        model.fit(x, y, batch_size=12, shuffle=False, verbose=0)
        expected, _, _ = reference.step(w, x, y, 0.1, **arguments)
        for found, key in zip(t.weights_of(model), reference.NAMES):
            np.testing.assert_allclose(found, expected[key], atol=1e-6)
        own = t.compiled(t.SharpnessAwareModel(*t.ends(), synchronized=False))
        try:
            own.fit(x, y, batch_size=12, verbose=0)
        except ValueError as error:
            assert "without replicas" in str(error)
        else:
            raise AssertionError("no error")
        """
    )


def test_a_tensor_of_zeros_stays_and_a_flat_loss_moves_nothing():
    weights = [ops.zeros((3,)), ops.array([0.0, 2.0])]
    gradients = [ops.ones((3,)), ops.ones((2,))]
    first, second = Perturbation("samson", 0.5, norm="inf")(weights, gradients)
    np.testing.assert_array_equal(ops.convert_to_numpy(first), 0.0)
    t = (np.array([0.0, 2.0]) + 0.01) / 2.0
    expected = 0.5 * t**2 / np.linalg.norm(t)
    np.testing.assert_allclose(ops.convert_to_numpy(second), expected, rtol=1e-6)
    for epsilon in Perturbation("asam")(weights, [g * 0 for g in gradients]):
        np.testing.assert_array_equal(ops.convert_to_numpy(epsilon), 0.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rho": 0}, "`rho` must be positive and finite. Received: rho=0"),
        ({"rho": -0.1}, "`rho` must be positive"),
        ({"rho": math.inf}, "`rho` must be positive and finite"),
        ({"method": "SAM"}, "`method` must be one of 'sam', 'asam', 'samson'"),
        ({"norm": 1}, "`norm` must be 2 or 'inf'. Received: norm=1"),
        ({"eta": -1.0}, "`eta` must be finite and ≥ 0"),
        ({"every": 0}, "`every` must be an integer ≥ 1. Received: every=0"),
        ({"m": 0}, "`m` must be an integer ≥ 1"),
        ({"m": 4, "synchronized": True}, "Leave one of them out"),
        ({"scaled": "kernel"}, "`scaled` must be a list of names"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SharpnessAwareModel(*ends(), **arguments)


def test_models_that_cannot_be_trained_so():
    x, y = problem()
    frozen = SharpnessAwareModel(*ends())
    frozen.trainable = False
    with pytest.raises(ValueError, match="no trainable weights"):
        compiled(frozen).train_on_batch(x, y)

    class OwnStep(keras.Sequential):
        def train_step(self, *args):
            return {}

    own = OwnStep([keras.Input((5,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="`train_step` of its own"):
        SharpnessAwareModel.wrap(own)
    with pytest.raises(ValueError, match="sharpness-aware already"):
        SharpnessAwareModel.wrap(SharpnessAwareModel(*ends()))
    with pytest.raises(ValueError, match="is not built"):
        SharpnessAwareModel.wrap(zoo.Subclassed())
    named = keras.Model(*ends())
    named.rho = 3
    with pytest.raises(ValueError, match="has an attribute `rho`"):
        SharpnessAwareModel.wrap(named)

    class SAMOptimizer(keras.optimizers.SGD):
        pass

    class Around(keras.optimizers.SGD):
        def __init__(self, inner):
            super().__init__()
            self.base_optimizer = inner

    for optimizer in (SAMOptimizer(), Around(SAMOptimizer())):
        model = SharpnessAwareModel(*ends())
        model.compile(optimizer, LOSS)
        with pytest.raises(ValueError, match="SAMOptimizer takes sharpness-aware"):
            model.train_on_batch(x, y)
