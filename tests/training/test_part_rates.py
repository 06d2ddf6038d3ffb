"""Learning rates per part of a model, against NumPy's Adam and SGD."""

import keras
import numpy as np
import pytest
from keras import ops

from hwa_keras.training import PartRates, PartwiseAdam, PartwiseSGD

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(8, 4)).astype("float32"), RNG.normal(size=(8, 2))


def model_of(optimizer, **compilation):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="frontend"),
            keras.layers.Dense(2, name="core"),
        ]
    )
    model.compile(optimizer, "mse", **compilation)
    return model


def moved(optimizer, steps=1, **compilation):
    """By how much each weight moves in some steps."""
    model = model_of(optimizer, **compilation)
    before = model.get_weights()
    model.fit(X, Y, batch_size=8, epochs=steps, shuffle=False, verbose=0)
    return [b - a for a, b in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize(
    ("make", "plain", "jit_compile"),
    [
        (PartwiseAdam, keras.optimizers.Adam, True),
        (PartwiseSGD, keras.optimizers.SGD, False),
    ],
)
def test_each_part_moves_by_its_factor(make, plain, jit_compile):
    compilation = {"jit_compile": jit_compile}
    reference = moved(plain(0.01), **compilation)
    parts = {"frontend": 0.25, "*/bias": 3.0}
    found = moved(make(0.01, parts=parts), **compilation)
    # The first pattern counts, and the kernel of the core has none.
    for factor, a, b in zip((0.25, 0.25, 1, 3), reference, found, strict=True):
        np.testing.assert_allclose(b, factor * a, rtol=2e-3, atol=1e-8)


def test_without_parts_it_is_keras():
    for a, b in zip(
        moved(keras.optimizers.Adam(0.01), 3), moved(PartwiseAdam(0.01), 3), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_part_with_factor_zero_stays_and_others_do_as_alone():
    found = moved(PartwiseAdam(0.01, parts={"frontend": 0.0}), 4)
    assert not found[0].any() and not found[1].any()
    model = model_of(keras.optimizers.Adam(0.01))
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(0.01), "mse")
    before = model.get_weights()
    model.fit(X, Y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    for a, b, step in zip(before, model.get_weights(), found, strict=True):
        np.testing.assert_allclose(b - a, step, rtol=1e-4, atol=1e-7)


def test_schedules_and_accumulation_act_on_all_parts():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.0])
    found = moved(PartwiseSGD(schedule, parts={"core": 0.5}), 3)
    once = moved(keras.optimizers.SGD(0.1), 1)  # Those after it move nothing.
    for factor, a, b in zip((1, 1, 0.5, 0.5), once, found, strict=True):
        np.testing.assert_allclose(b, factor * a, rtol=1e-5, atol=1e-7)
    accumulated = PartwiseAdam(0.01, parts={"core": 0.5}, gradient_accumulation_steps=2)
    reference = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    pairs = zip(
        (1, 1, 0.5, 0.5), moved(reference, 2), moved(accumulated, 2), strict=True
    )
    for factor, a, b in pairs:
        np.testing.assert_allclose(b, factor * a, rtol=2e-3, atol=1e-8)


def test_a_saved_model_goes_on_with_its_rates(tmp_path):
    model = model_of(PartwiseAdam(0.01, parts={"frontend": 0.1}))
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.parts == {"frontend": 0.1}
    for each in (model, again):
        each.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@keras.saving.register_keras_serializable(package="test_part_rates")
class PartwiseNadam(PartRates, keras.optimizers.Nadam):
    pass


def test_any_optimizer_takes_the_mixin():
    reference = moved(keras.optimizers.Nadam(0.01))
    found = moved(PartwiseNadam(0.01, parts={"core": 0.5}))
    for factor, a, b in zip((1, 1, 0.5, 0.5), reference, found, strict=True):
        np.testing.assert_allclose(b, factor * a, rtol=2e-3, atol=1e-8)


def test_bad_parts_are_named():
    with pytest.raises(TypeError, match="`parts` of PartwiseAdam must be a dictionary"):
        PartwiseAdam(parts=["frontend"])
    with pytest.raises(ValueError, match=r"`parts\['a'\]` of PartwiseAdam.*-1"):
        PartwiseAdam(parts={"a": -1})
    with pytest.raises(ValueError, match="no `weight_decay` beside `parts`.*0.1"):
        PartwiseSGD(parts={"a": 1}, weight_decay=0.1)
    model = model_of(PartwiseAdam(parts={"fronted": 0.1}))
    with pytest.raises(ValueError, match="'fronted', which no trainable.*frontend/ker"):
        model.optimizer.build(model.trainable_variables)
    assert ops.convert_to_numpy(model.optimizer.learning_rate) == np.float32(0.001)
