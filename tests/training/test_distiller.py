"""Distiller: the formulas, and one draw of noise for outputs and hidden states."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.training import Distiller, SharpnessAwareModel
from tests import fresh, zoo
from tests.training import reference

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SHAPES = {"kernel_1": (5, 4), "bias_1": (4,), "kernel_2": (4, 3), "bias_2": (3,)}
FORMS = {
    "soft_labels": {"temperature": 3.0},
    "logits": {"form": "logits"},
    "hidden_states": {"form": "hidden_states", "layers": [("hidden", "features")]},
}


def student(ends=None, dtype=None, **kwargs):
    """A hidden layer (tanh) and a head: the network of `outputs`."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, "tanh", name="hidden", dtype=dtype, **kwargs)(inputs)
    x = keras.layers.Dense(3, ends, name="head", dtype=dtype)(x)
    return keras.Model(inputs, x, name="small")


def teacher(ends=None, features=4):
    """One with statistics to move, masks to draw and losses to add, if it trained."""
    layers = [
        keras.Input((5,)),
        keras.layers.Dense(8, "relu", activity_regularizer="l2"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(features, "tanh", name="features", kernel_regularizer="l2"),
        keras.layers.Dense(3, ends),
    ]
    return keras.Sequential(layers, name="large")


def problem(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 5)).astype("float32"), rng.integers(0, 3, count)


def started(model, scale=1.0):
    """Give a student weights, returned as float64."""
    rng = np.random.default_rng(1)
    values = [scale * rng.normal(size=s).astype("float32") for s in SHAPES.values()]
    model.set_weights(values)
    return {n: v.astype("float64") for n, v in zip(SHAPES, values, strict=True)}


def outputs(w, x):
    """Hidden states and logits of the student."""
    hidden = np.tanh(x @ w["kernel_1"] + w["bias_1"])
    return hidden, hidden @ w["kernel_2"] + w["bias_2"]


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def divergences(theirs, mine, temperature):
    t, s = log_softmax(theirs / temperature), log_softmax(mine / temperature)
    return temperature**2 * (np.exp(t) * (t - s)).sum(-1)


def squares(theirs, mine):
    return ((mine - theirs) ** 2).mean(-1)


def numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def theirs_of(model, x):
    """What a teacher makes of inputs: the states of `features`, and the logits."""
    return numpy(cut(model, "features")(x)), numpy(model(x, training=False))


def cut(model, name):
    """The part of a model that ends with a layer."""
    return keras.Model(model.inputs[0], model.get_layer(name).output)


def parts(form, w, x, y, theirs, weights=1.0):
    """D and L in float64."""
    hidden, logits = outputs(w, x)
    if form == "soft_labels":
        distance = divergences(theirs[1], logits, 3.0)
    elif form == "logits":
        distance = squares(theirs[1], logits)
    else:
        distance = squares(theirs[0], hidden)
    entropy = -log_softmax(logits)[np.arange(len(y)), y]
    return (weights * distance).mean(), (weights * entropy).mean()


def gradient(loss, w, step=1e-6):
    """Central differences of a function of the weights."""
    found = {}
    for name, value in w.items():
        found[name] = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            move = np.zeros_like(value)
            move[index] = step
            up, down = ({**w, name: value + s * move} for s in (1, -1))
            found[name][index] = (loss(up) - loss(down)) / (2 * step)
    return found


def loss_of(distiller, x, y, weights=None, training=True):
    y_pred = distiller(x, training=training)
    return float(distiller.compute_loss(x, y, y_pred, weights, training=training))


def compiled(model, rate=0.1, loss=LOSS, **kwargs):
    model.compile(keras.optimizers.SGD(rate), loss, **kwargs)
    return model


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_that_of_the_formulas(form, weighted):
    x, y = problem()
    weights = np.linspace(0, 2, 12).astype("float32") if weighted else None
    distiller = compiled(Distiller(student(), teacher(), weight=0.3, **FORMS[form]))
    w = started(distiller.student)
    theirs = theirs_of(distiller.teacher, x)
    distance, loss = parts(form, w, x, y, theirs, 1.0 if weights is None else weights)
    mixed = loss_of(distiller, x, y, weights)
    assert mixed == pytest.approx(0.7 * loss + 0.3 * distance, rel=1e-5)
    assert loss_of(distiller, x, y, weights, False) == pytest.approx(loss, rel=1e-5)
    tracked = float(distiller.distillation_tracker.result())
    assert tracked == pytest.approx(distance, rel=1e-5)


def test_probabilities_are_as_good_as_logits():
    x, y = problem()
    models = student("softmax"), teacher("softmax")
    distiller = Distiller(*models, weight=1, temperature=3.0, from_logits=False)
    started(distiller.student)
    mine, theirs = (numpy(m(x)) for m in models)
    expected = divergences(np.log(theirs), np.log(mine), 3.0).mean()
    assert loss_of(distiller, x, y) == pytest.approx(expected, rel=1e-5)
    distiller = Distiller(*models, form="logits", weight=1, from_logits=False)
    expected = squares(np.log(theirs), np.log(mine)).mean()
    assert loss_of(distiller, x, y) == pytest.approx(expected, rel=1e-5)
    # Of nothing there is no logarithm.
    for model in models:
        model.layers[-1].bias.assign([0.0, 200.0, 0.0])
    assert loss_of(distiller, x, y) == pytest.approx(0.0, abs=1e-6)


def language_model(units, name):
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, units, mask_zero=True)(tokens)
    x = keras.layers.Dense(6, "tanh", name="states")(x)
    return keras.Model(tokens, keras.layers.Dense(9)(x), name=name)


@pytest.mark.parametrize("form", ["soft_labels", "hidden_states"])
def test_language_models(form):
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, (4, 7))
    tokens[1, 4:] = tokens[2, 6:] = 0  # Padding, masked.
    kept = tokens != 0
    models = language_model(5, "student"), language_model(8, "teacher")
    for model in models:
        model.layers[-1].kernel.assign(40 * model.layers[-1].kernel)
    layers = ["states"] if form == "hidden_states" else None
    distiller = Distiller(*models, form, weight=1, temperature=1.5, layers=layers)
    if layers:
        mine, theirs = (numpy(cut(m, "states")(tokens)) for m in models)
        d = squares(theirs, mine)
    else:
        mine, theirs = (numpy(m(tokens)) for m in models)
        d = divergences(theirs, mine, 1.5)
    for weights in (np.ones((4, 7)), rng.uniform(0, 2, (4, 7)), rng.uniform(0, 2, 4)):
        w = weights.reshape(4, -1)
        expected = (w * d * kept).sum() / kept.sum()
        found = loss_of(distiller, tokens, tokens, weights.astype("float32"))
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_sample_weights_of_states_with_other_axes():
    def build(filters):
        return keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(filters, 3, name="first"),
                keras.layers.Conv2D(2, 3, name="maps"),
                keras.layers.GlobalAveragePooling2D(name="pool"),
            ]
        )

    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6, 6, 1)).astype("float32")
    models = build(3), build(4)
    w = rng.uniform(0, 2, (5, 6)).astype("float32")
    for name in ("maps", "pool"):
        mine, theirs = (numpy(cut(m, name)(x)) for m in models)
        d = squares(theirs, mine).reshape(5, -1).mean(1)
        distiller = Distiller(*models, "hidden_states", weight=1, layers=[name])
        for weights in (w[:, 0], w[:, :1], w):
            expected = (d * weights.reshape(5, -1).mean(1)).mean()
            assert loss_of(distiller, x, None, weights) == pytest.approx(
                expected, rel=1e-5
            )


@pytest.mark.slow
def test_distances_of_several_layers_are_averaged():
    x, y = problem()
    models = student(), teacher()
    pairs = [("hidden", "features"), ("head", models[1].layers[-1].name)]
    found = [
        loss_of(Distiller(*models, "hidden_states", weight=1, layers=layers), x, y)
        for layers in (pairs, pairs[:1], pairs[1:])
    ]
    assert found[0] == pytest.approx((found[1] + found[2]) / 2, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_step_is_that_of_the_formulas(form):
    x, y = problem()
    distiller = compiled(Distiller(student(), teacher(), weight=0.3, **FORMS[form]))
    w = started(distiller.student)
    theirs = theirs_of(distiller.teacher, x)
    logs = distiller.train_on_batch(x, y, return_dict=True)

    def mixed(w):
        distance, loss = parts(form, w, x, y, theirs)
        return 0.7 * loss + 0.3 * distance

    assert float(logs["loss"]) == pytest.approx(mixed(w), rel=1e-5)
    distance, _ = parts(form, w, x, y, theirs)
    assert float(logs["distillation_loss"]) == pytest.approx(distance, rel=1e-5)
    g = gradient(mixed, w)
    for found, name in zip(distiller.student.get_weights(), w, strict=True):
        np.testing.assert_allclose(found, w[name] - 0.1 * g[name], atol=1e-6)


def test_a_sharpness_aware_step_is_that_of_the_formulas():
    x, y = problem()
    form = "hidden_states"
    distiller = compiled(Distiller(student(), teacher(), weight=0.3, **FORMS[form]))
    sharp = SharpnessAwareModel.wrap(distiller, rho=0.3)
    assert sharp is distiller
    compiled(sharp, metrics=["accuracy"])
    w = started(distiller.student)
    before = distiller.teacher.get_weights()
    theirs = theirs_of(distiller.teacher, x)
    logs = sharp.fit(x, y, batch_size=12, verbose=0).history

    def mixed(w):
        distance, loss = parts(form, w, x, y, theirs)
        return 0.7 * loss + 0.3 * distance

    e = reference.worst(w, gradient(mixed, w), "sam", 0.3)
    g = gradient(mixed, {k: w[k] + e[k] for k in w})
    for found, name in zip(distiller.student.get_weights(), w, strict=True):
        np.testing.assert_allclose(found, w[name] - 0.1 * g[name], atol=1e-6)
    distance, _ = parts(form, w, x, y, theirs)
    assert logs["loss"][0] == pytest.approx(mixed(w), rel=1e-5)
    assert logs["distillation_loss"][0] == pytest.approx(distance, rel=1e-5)
    assert set(logs) == {"loss", "distillation_loss", "accuracy"}
    w = dict(zip(w, distiller.student.get_weights(), strict=True))
    tested = sharp.evaluate(x, y, return_dict=True, verbose=0)
    distance, loss = parts(form, w, x, y, theirs)
    assert tested["loss"] == pytest.approx(loss, rel=1e-5)
    assert tested["distillation_loss"] == pytest.approx(distance, rel=1e-5)
    assert_equal(before, distiller.teacher.get_weights())


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_no_weight_it_is_a_plain_fit():
    x, y = problem()
    plain, taught = student(), student()
    for model in (plain, taught):
        started(model)
    distiller = Distiller(taught, teacher(), weight=0)
    for model in (plain, distiller):
        compiled(model)
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    assert_equal(plain.get_weights(), taught.get_weights())
    assert_equal(distiller.get_weights(), taught.get_weights())


def test_with_all_the_weight_labels_do_not_count():
    x, y = problem()
    found, same = [], teacher().get_weights()
    for labels, loss in ((y, LOSS), (2 - y, LOSS), (None, None)):
        distiller = Distiller(student(), teacher(), weight=1)
        started(distiller.student)
        distiller.teacher.set_weights(same)
        compiled(distiller, loss=loss)
        distiller.fit(x, labels, batch_size=4, shuffle=False, verbose=0)
        found.append(distiller.student.get_weights())
    assert_equal(found[0], found[1])
    assert_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("weight", "form"),
    [(0, "soft_labels"), (1, "soft_labels"), (0.4, "hidden_states")],
)
def test_penalties_of_the_student_count_once_and_of_the_teacher_never(weight, form):
    x, y = problem()
    penalized = student(
        kernel_regularizer=keras.regularizers.L2(0.5),
        activity_regularizer=keras.regularizers.L2(0.25),
    )
    distiller = compiled(Distiller(penalized, teacher(), weight=weight, **FORMS[form]))
    w = started(penalized)
    theirs = theirs_of(distiller.teacher, x)
    distance, loss = parts(form, w, x, y, theirs)
    penalty = 0.5 * (w["kernel_1"] ** 2).sum()
    penalty += 0.25 * (outputs(w, x)[0] ** 2).sum() / len(x)
    expected = (1 - weight) * loss + weight * distance + penalty
    for _ in range(2):
        started(penalized)
        logs = distiller.train_on_batch(x, y, return_dict=True)
        assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    started(penalized)
    tested = distiller.test_on_batch(x, y, return_dict=True)
    assert float(tested["loss"]) == pytest.approx(loss + penalty, rel=1e-5)


def test_the_teacher_stays_as_it_is():
    x, y = problem()
    large = teacher()
    large.compile("sgd", LOSS)
    large.fit(x, y, verbose=0)
    before = [numpy(v) for v in large.variables]
    distiller = Distiller(student(), large, **FORMS["hidden_states"])
    compiled(distiller)
    clip = hwa_keras.training.ConstrainKernels(lambda w: 0.5 * w)
    distiller.fit(x, y, epochs=2, verbose=0, callbacks=[clip])
    assert_equal(before, [numpy(v) for v in large.variables])
    assert large.trainable and len(large.trainable_variables) == 8
    for layer in [*large.layers, *distiller.student.layers]:
        assert "call" not in vars(layer) and type(layer).__module__.startswith("keras")
    assert [v.path for v in distiller.trainable_variables] == [
        v.path for v in distiller.student.trainable_variables
    ]
    assert distiller.count_params() == distiller.student.count_params()


def test_losses_of_evaluation_are_those_of_the_labels():
    x, y = problem()
    form = "soft_labels"
    distiller = compiled(Distiller(student(), teacher(), **FORMS[form]))
    w = started(distiller.student)
    theirs = theirs_of(distiller.teacher, x)
    distance, loss = parts(form, w, x, y, theirs)
    found = distiller.evaluate(x, y, batch_size=6, return_dict=True, verbose=0)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["distillation_loss"] == pytest.approx(distance, rel=1e-5)


class Watched(Distiller):
    """Keeps what D was computed of."""

    def _compare(self, name, mine, other, theirs, sample_weight):
        self._untracked.seen = mine
        return super()._compare(name, mine, other, theirs, sample_weight)


@pytest.mark.parametrize("noise", ["kernel", "dropout", "hardware_layer"])
def test_hidden_states_are_of_the_pass_of_the_outputs(noise):
    x, y = problem()
    disturbing = hwa_keras.noise.AdditiveGaussian(1.0)
    if noise == "kernel":
        model = hwa_keras.to_hwa(
            student(), kernel_noise=disturbing, skip=("last",), verbose=0
        )
        head = model.get_layer("head")
    else:
        hidden = (
            hwa_keras.layers.HWADense(4, kernel_noise=disturbing, name="hidden")
            if noise == "hardware_layer"
            else keras.layers.Dropout(0.5, name="hidden")
        )
        layers = [keras.Input((5,)), keras.layers.Dense(4), hidden]
        model = keras.Sequential([*layers, keras.layers.Dense(3, name="head")])
        head = model.get_layer("head")
    distiller = compiled(Watched(model, teacher(), **FORMS["hidden_states"]))
    states = []
    for _ in range(2):
        y_pred = distiller(x, training=True)
        distiller.compute_loss(x, y, y_pred, training=True)
        states.append(numpy(distiller._untracked.seen))
        np.testing.assert_allclose(numpy(head(states[-1])), numpy(y_pred), atol=1e-5)
    assert np.abs(states[0] - states[1]).max() > 0.1


def test_of_a_layer_called_twice_the_last_outputs_count():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="hidden")
    twice = keras.Model(inputs, keras.layers.Dense(3)(shared(shared(inputs))))
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="hidden")])
    distiller = Distiller(twice, other, "hidden_states", weight=1, layers=["hidden"])
    x = problem()[0][:, :4]
    expected = squares(numpy(other(x)), numpy(shared(shared(x)))).mean()
    assert loss_of(distiller, x, None) == pytest.approx(expected, rel=1e-5)


def test_layers_are_found_at_any_depth():
    x = zoo.digits_like(8)[0]
    model = hwa_keras.to_hwa(zoo.nested(), verbose=0)
    names = [layer.name for layer in model.get_layer("inner").layers]
    other = zoo.subclassed()  # Its hidden layer has 8 units too.
    for name in (names[0], f"inner/{names[0]}"):
        layers = [(name, other.hidden.name)]
        distiller = Distiller(model, other, "hidden_states", weight=1, layers=layers)
        mine = numpy(model.get_layer("inner").layers[0](x))
        expected = squares(numpy(other.hidden(x)), mine).mean()
        assert loss_of(distiller, x, None) == pytest.approx(expected, rel=1e-5)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("sharp", [False, True])
def test_eager_and_compiled_steps_agree(sharp):
    x, y = problem()
    found = []
    keep = teacher().get_weights()
    for kwargs in ({"run_eagerly": True}, {"jit_compile": True}):
        model = compiled(Distiller(student(), teacher(), **FORMS["hidden_states"]))
        model.teacher.set_weights(keep)
        started(model.student)
        trained = SharpnessAwareModel.wrap(model, every=2) if sharp else model
        compiled(trained, **kwargs)
        trained.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        found.append(model.student.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "policy"),
    [("soft_labels", "mixed_float16"), ("hidden_states", "mixed_bfloat16")],
)
def test_mixed_precision(form, policy):
    x, y = problem()
    distiller = Distiller(student(dtype=policy), teacher(), weight=0.5, **FORMS[form])
    w = started(distiller.student)
    compiled(distiller, metrics=["accuracy"])
    theirs = theirs_of(distiller.teacher, x)
    distance, _ = parts(form, w, x, y, theirs)
    assert distiller.compute_loss(x, y, distiller(x, training=True)).dtype == "float32"
    distiller.reset_metrics()
    logs = distiller.fit(x, y, epochs=3, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(distance, rel=0.05)
    assert np.isfinite(logs["loss"]).all() and logs["loss"][-1] < logs["loss"][0]


@pytest.mark.parametrize("sharp", [False, True])
def test_no_step_is_traced_twice(sharp):
    traces = []

    def linear(x):
        traces.append(1)
        return x

    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, linear, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    hwa_keras.to_hwa(model, kernel_noise="programming_noise", verbose=0)
    distiller = Distiller(model, teacher(), **FORMS["hidden_states"])
    if sharp:
        SharpnessAwareModel.wrap(distiller)
    compiled(distiller)
    distiller.optimizer.build(distiller.trainable_variables)
    x, y = problem()
    fit = {"batch_size": 4, "verbose": 0}
    distiller.fit(x, y, **fit)
    before = len(traces)
    ramp = hwa_keras.training.NoiseRamp(epochs=2)
    distiller.fit(x, y, epochs=3, callbacks=[ramp], **fit)
    assert len(traces) == before


def test_a_student_may_change_between_fits():
    x, y = problem()
    distiller = compiled(Distiller(student(), teacher(), **FORMS["hidden_states"]))
    distiller.fit(x, y, verbose=0)
    small = distiller.student
    noise = hwa_keras.noise.AdditiveGaussian(0.5)
    hwa_keras.to_hwa(small, kernel_noise=noise, verbose=0)
    draws = [numpy(distiller(x, training=True)) for _ in range(2)]
    assert np.abs(draws[0] - draws[1]).max() > 0.1
    compiled(distiller).fit(x, y, verbose=0)
    hwa_keras.to_digital(small)
    small.get_layer("hidden").trainable = False
    before = small.get_weights()
    compiled(distiller).fit(x, y, verbose=0)
    assert_equal(before[:2], small.get_weights()[:2])
    assert np.any(before[2] != small.get_weights()[2])


@pytest.mark.tensorflow_only
def test_two_replicas_train_to_the_result_of_one_device():
    fresh.run(
        """
import contextlib
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, halves)
from tests.training import test_distiller as t

form = t.FORMS["hidden_states"]

def trained(scope):
    keras.utils.set_random_seed(3)
    with scope:
        model = t.compiled(t.Distiller(t.student(), t.teacher(), **form))
        t.started(model.student)
    logs = model.fit(*t.problem(), batch_size=12, epochs=2, verbose=0).history
    return model.student.get_weights(), logs

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one, logs = trained(contextlib.nullcontext())
two, others = trained(mirrored.scope())
for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
for name in ("loss", "distillation_loss"):
    np.testing.assert_allclose(logs[name], others[name], rtol=1e-4)
"""
    )


def test_saving_and_loading(tmp_path):
    x, y = problem()
    noisy = hwa_keras.noise.AdditiveGaussian(0.1)
    hwa = hwa_keras.to_hwa(student(), kernel_noise=noisy, seed=4, verbose=0)
    distiller = Distiller(hwa, teacher(), weight=0.25, **FORMS["hidden_states"])
    distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS)
    distiller.fit(x, y, verbose=0)
    distiller.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    states = [[numpy(v) for v in m.optimizer.variables] for m in (distiller, loaded)]
    assert_equal(*states)
    sharp = compiled(SharpnessAwareModel.wrap(distiller))
    sharp.save(tmp_path / "sharp.keras")
    again = keras.models.load_model(tmp_path / "sharp.keras")
    for one in (loaded, again):
        assert_equal(one.teacher.get_weights(), distiller.teacher.get_weights())
        assert_equal(one.get_weights(), distiller.get_weights())
        assert one.layer_names == [("hidden", "features")]
        assert (one.weight, one.form) == (0.25, "hidden_states")
    for one in (sharp, again):  # The loss and the seeds are the same.
        one.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(sharp.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert hwa_keras.to_digital(sharp) is distiller
    assert type(distiller) is Distiller and distiller.student is hwa
    assert not hwa_keras.hardware_kernels(hwa)
    assert type(hwa) is type(student())


@pytest.mark.slow
def test_it_loads_in_a_fresh_process(tmp_path):
    plain, sharp = (
        Distiller(
            hwa_keras.to_hwa(student(), kernel_quantizer="ste_sign", verbose=0),
            teacher(),
            **FORMS["hidden_states"],
        )
        for _ in range(2)
    )
    models = {"plain": plain, "sharp": SharpnessAwareModel.wrap(sharp)}
    inputs = dict.fromkeys(models, problem()[0])
    fresh.assert_loads_equal(models, inputs, tmp_path)


@pytest.mark.slow
def test_a_small_student_learns_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype("float32")

    def build(units):
        layers = [keras.Input((64,)), keras.layers.Dense(units, "relu")]
        return keras.Sequential([*layers, keras.layers.Dense(10)])

    large = build(128)
    large.compile("adam", LOSS)
    large.fit(x[:1200], y[:1200], epochs=10, verbose=0)
    noisy = hwa_keras.noise.AdditiveGaussian(0.05)
    hwa = hwa_keras.to_hwa(build(16), kernel_noise=noisy, verbose=0)
    distiller = Distiller(hwa, large, weight=0.9, temperature=3.0)
    distiller.compile(keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
    test = x[1200:], y[1200:]
    logs = distiller.fit(
        x[:1200], y[:1200], epochs=10, validation_data=test, verbose=0
    ).history
    assert logs["val_accuracy"][-1] > 0.87
    assert logs["distillation_loss"][-1] < 0.2 * logs["distillation_loss"][0]


@pytest.mark.slow
def test_a_distiller_is_programmed_like_its_student():
    hwa = hwa_keras.to_hwa(student(), kernel_quantizer="ste_sign", verbose=0)
    distiller = compiled(Distiller(hwa, teacher()))
    x, y = problem()
    distiller.fit(x, y, verbose=0)
    found = []
    for model in (distiller, hwa):
        chip = hwa_keras.program(model, "pcm", seed=1, read_noise="off")
        found.append(numpy(chip(x)))
    assert_equal(*found)


def test_a_chip_of_a_distiller_tells_its_own_hidden_states():
    hwa = hwa_keras.to_hwa(student(), kernel_quantizer="ste_sign", verbose=0)
    distiller = compiled(Distiller(hwa, teacher(), **FORMS["hidden_states"]))
    x, y = problem()
    distiller.train_on_batch(x, y)
    chip = hwa_keras.program(distiller, "pcm", seed=1, read_noise="off")
    mine = numpy(cut(chip.student, "hidden")(x))
    expected = squares(theirs_of(distiller.teacher, x)[0], mine).mean()
    found = chip.evaluate(x, y, verbose=0, return_dict=True)
    assert found["distillation_loss"] == pytest.approx(expected, rel=1e-5)


# --- Refusals


def hidden(*layers, **kwargs):
    return {"form": "hidden_states", "layers": list(layers), **kwargs}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weight": 1.5}, r"`weight` must be in \[0, 1\]. Received: weight=1.5"),
        ({"weight": float("nan")}, "`weight` must be in"),
        ({"temperature": 0}, "`temperature` must be positive and finite"),
        ({"form": "labels"}, "'soft_labels', 'logits', 'hidden_states'. Rec.*'labels'"),
        ({"form": "hidden_states"}, "`layers` must be a list .*layers=None"),
        ({"form": "hidden_states", "layers": "hidden"}, "`layers` must be a list"),
        ({"layers": ["hidden"]}, "be left out otherwise. .*form='soft_labels'"),
        (hidden(("a", "b", "c")), r"pairs .*Received: \('a', 'b', 'c'\)"),
        (hidden("hidden"), "teacher 'large' has no layer called 'hidden'.*features"),
        (hidden("features"), "student 'small' has no layer called 'feat.* hidden, he"),
    ],
)
def test_settings_out_of_range(kwargs, message):
    large = teacher()
    with pytest.raises(ValueError, match=message):
        Distiller(student(), large, **kwargs)
    assert large.trainable


def test_ambiguous_layers():
    def block(name):
        return keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(5, name="dense")], name=name
        )

    deep = keras.Sequential([keras.Input((5,)), block("a"), block("b")], name="deep")
    with pytest.raises(ValueError, match="Several .*'dense': a/dense, b/dense. Give"):
        Distiller(deep, teacher(), **hidden(("dense", "features")))
    Distiller(deep, teacher(features=5), **hidden(("b/dense", "features")))
    # What runs step by step has no outputs of the pass.
    stepped = keras.layers.TimeDistributed(keras.layers.Dense(5, name="inside"))
    text = keras.Sequential([keras.Input((3, 5)), stepped], name="text")
    with pytest.raises(ValueError, match="'text' has no layer called 'inside'"):
        Distiller(text, teacher(), **hidden(("inside", "features")))


def test_models_that_cannot_be_distilled():
    small, large = student(), teacher()
    with pytest.raises(TypeError, match="teacher must be a Keras model.*str"):
        Distiller(small, "large")
    unbuilt = keras.Sequential([keras.layers.Dense(3)], name="raw")
    with pytest.raises(ValueError, match="The student 'raw' is not built"):
        Distiller(unbuilt, large)
    with pytest.raises(ValueError, match="The teacher 'raw' is not built"):
        Distiller(small, unbuilt)
    sharing = keras.Model(small.inputs, small.get_layer("hidden").output)
    for model in (small, sharing):
        with pytest.raises(ValueError, match="share variables.*clone_model"):
            Distiller(small, model)
    sharp = SharpnessAwareModel.wrap(student())
    with pytest.raises(ValueError, match=r"SharpnessAwareModel.wrap\(distiller\)"):
        Distiller(sharp, large)
    with pytest.raises(ValueError, match="has a `compute_loss` of its own"):
        Distiller(Distiller(small, large), teacher())
    with pytest.raises(ValueError, match="has a `train_step` of its own"):
        Distiller(OwnStep(small.inputs, small.outputs), large)


class OwnStep(keras.Model):
    def train_step(self, *args):
        return {}


def test_shapes_that_differ():
    x, y = problem()
    wide = Distiller(student(), teacher(features=7), **FORMS["hidden_states"])
    with pytest.raises(ValueError, match=r"'hidden' and 'features': .*\(12, 4\).* 7\)"):
        loss_of(compiled(wide), x, y)
    head = keras.layers.Dense(2)
    fewer = keras.Sequential([keras.Input((5,)), head], name="fewer")
    with pytest.raises(ValueError, match=r"'small' and 'fewer': .*3\).* 2\)"):
        compiled(Distiller(student(), fewer)).fit(x, y, verbose=0)
    ones = [keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)]) for _ in "ab"]
    with pytest.raises(ValueError, match="Soft labels are about two classes or more"):
        loss_of(Distiller(*ones), x, y)


def test_steps_that_lack_something():
    x, y = problem()
    distiller = Distiller(student(), teacher(), **FORMS["hidden_states"])
    with pytest.raises(ValueError, match="compile"):
        distiller.fit(x, y, verbose=0)
    compiled(distiller)
    y_pred = distiller(x, training=True)
    distiller.compute_loss(x, y, y_pred)
    with pytest.raises(
        ValueError, match="'hidden' of the student must .* put out nothing"
    ):
        distiller.compute_loss(x, y, y_pred)


class Skipping(keras.Model):
    def __init__(self):
        super().__init__(name="skipping")
        self.used = keras.layers.Dense(4, name="used")
        self.idle = keras.layers.Dense(4, name="hidden")

    def build(self, shape):
        self.used.build(shape)
        self.idle.build(shape)

    def call(self, inputs):
        return self.used(inputs)


def test_a_layer_that_is_not_called():
    model = Skipping()
    model.build((None, 5))
    distiller = Distiller(model, teacher(), weight=1, **FORMS["hidden_states"])
    with pytest.raises(ValueError, match="'hidden' of the student .* nothing"):
        loss_of(distiller, *problem())
