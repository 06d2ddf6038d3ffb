import math

import keras
import numpy as np
import pytest

from hwa_keras.training import Budget
from hwa_keras.training.callbacks import budget as module


def fitted(budget, batches=10, epochs=1):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros((batches, 2), "float32")
    rates = []

    def note(batch, logs):
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        rates.append(float(model.optimizer.learning_rate))

    watch = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    history = model.fit(
        x, x[:, :1], batch_size=1, epochs=epochs, verbose=0, callbacks=[budget, watch]
    )
    return rates, history.history


def test_the_rate_warms_up_and_falls_as_a_cosine():
    rates, _ = fitted(Budget(0.1, steps=10, warmup=3))
    cosine = [0.05 * (1 + math.cos(math.pi * i / 10)) for i in range(10)]
    warm = [0.1 * (i + 1) / 3 for i in range(3)] + [1.0] * 7
    np.testing.assert_allclose(rates, np.minimum(cosine, warm), rtol=1e-5)


def test_it_stops_at_its_last_step():
    rates, history = fitted(Budget(0.1, steps=5), batches=3, epochs=4)
    assert len(rates) == 5
    assert len(history["loss"]) == 2


def test_minutes_end_a_fit_and_its_rate(monkeypatch):
    clock = iter(range(0, 10_000, 6))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    budget = Budget(0.1, steps=10_000, minutes=1.0, warmup=0)
    rates, _ = fitted(budget, batches=4, epochs=100)
    assert rates[0] == pytest.approx(0.1, rel=0.02) and rates[-1] < 0.02
    assert budget.step < 20


def test_it_goes_on_where_it_was():
    budget = Budget(0.1, steps=10, warmup=0, done=(5, 12.0))
    assert budget.learning_rate() == pytest.approx(0.05)
    assert budget.seconds == 12.0
    fitted(budget, batches=5)
    assert budget.step == 10


def test_the_speed_is_logged():
    _, history = fitted(Budget(0.1, steps=10, per_step=512))
    assert history["per_second"][0] > 0


@pytest.mark.parametrize(
    "arguments",
    [{"peak": 0.0}, {"steps": 0}, {"minutes": -1.0}, {"warmup": -1}, {"steps": True}],
)
def test_bad_arguments_are_told(arguments):
    with pytest.raises(ValueError, match="Budget"):
        Budget(**{"peak": 0.1, "steps": 3, **arguments})
