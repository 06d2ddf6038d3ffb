import csv

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras.devices import PCM, SimplePCM
from hwa_keras.results import Result
from tests import zoo

pytestmark = pytest.mark.usefixtures("built_optimizers")

TIMES = {"1 s": 1.0, "1 year": 31_536_000.0}


def trained():
    x, y = zoo.digits_like(120)
    model = zoo.mlp()
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=5, verbose=0)
    return model, (x, y)


@pytest.fixture(scope="module")
def swept():
    keras.utils.set_random_seed(0)
    model, data = trained()
    result = hwa_keras.drift_sweep(model, "pcm", data, times=TIMES, chips=3, verbose=0)
    return model, data, result


def test_every_number_is_that_of_the_chip_of_its_seed(swept):
    model, data, result = swept
    for i in range(3):
        chip = hwa_keras.program(model, "pcm", seed=i, read_noise="frozen")
        for (compensation, label), chips in result.samples.items():
            chip.compensation, chip.t = compensation, TIMES[label]
            found = chip.evaluate(*data, verbose=0, return_dict=True)
            assert chips[i]["accuracy"] == pytest.approx(found["accuracy"])
            assert chips[i]["loss"] == pytest.approx(found["loss"], rel=1e-4)


def test_batches_of_different_sizes_are_evaluated_to_the_last(swept):
    model, data, result = swept
    times = {"1 s": 1.0}
    options = {"chips": 1, "verbose": 0, "compensation": "none"}
    found = hwa_keras.drift_sweep(
        model, "pcm", data, times=times, batch_size=50, **options
    )
    whole = result.samples["none", "1 s"][0]
    assert found.samples["none", "1 s"][0] == pytest.approx(whole, rel=1e-4)


def test_a_model_that_runs_eagerly_is_swept(swept):
    model, data, result = swept
    eager = keras.models.clone_model(model)
    eager.set_weights(model.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    eager.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
    found = hwa_keras.monte_carlo(eager, "pcm", data, chips=1, batch_size=50, verbose=0)
    whole = result.samples["none", "1 s"][0]
    assert found.estimate().mean == pytest.approx(whole["accuracy"], abs=0.1)


def test_drift_costs_and_compensation_gains(swept):
    _, _, result = swept
    loss = {
        point: result.estimate(*point, metric="loss").mean for point in result.samples
    }
    assert loss["none", "1 year"] > 1.2 * loss["none", "1 s"]
    assert loss["measured", "1 year"] < loss["none", "1 year"]
    assert loss["oracle", "1 year"] < loss["none", "1 year"]


def test_writes_csv_json_table_and_plot(swept, tmp_path):
    _, _, result = swept
    result.to_csv(tmp_path / "result.csv")
    with (tmp_path / "result.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2
    for row in rows:
        point = row["compensation"], row["time"]
        assert float(row["seconds"]) == TIMES[row["time"]]
        found = result.estimate(*point, metric=row["metric"])
        assert float(row["mean"]) == found.mean
        assert float(row["low95"]) == found.low
        assert int(row["chips"]) == 3
    result.to_json(tmp_path / "result.json")
    again = Result.from_json(tmp_path / "result.json")
    assert again.samples == result.samples and again.axes == result.axes
    assert again.settings == result.settings
    assert again.settings["seed"] == 0 and again.settings["device"].startswith("PCM(")
    assert "no compensation" in str(result) and "1 year" in str(result)
    result.plot(tmp_path / "result.png")
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")
    axes = result.plot()
    assert len(axes.get_lines()) == 3
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 s", "1 year"]


def test_stops_early_once_the_interval_is_narrow(swept):
    model, data, _ = swept
    common = {"times": [1.0], "compensation": "none", "metric": "loss", "verbose": 0}
    common |= {"min_chips": 10, "chips": 12}
    wide = hwa_keras.drift_sweep(model, "pcm", data, tolerance=50.0, **common)
    assert wide.chips == 10
    full = hwa_keras.drift_sweep(model, "pcm", data, tolerance=1e-9, **common)
    assert full.chips == 12


@pytest.mark.slow
def test_warns_when_nothing_drifted(swept):
    model, data, _ = swept
    still = PCM(drift_scale=0)
    with pytest.warns(UserWarning, match="Nothing drifted: up to t = 3600 s"):
        hwa_keras.drift_sweep(model, still, data, times=[3600.0], chips=1, verbose=0)
    with pytest.warns(UserWarning, match="Nothing drifted"):
        early = {"1 s": 1.0}
        hwa_keras.drift_sweep(model, SimplePCM(), data, times=early, chips=1, verbose=0)


@pytest.mark.tensorflow_only
def test_takes_a_tf_dataset(swept):
    import tensorflow as tf

    model, data, result = swept
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(50)
    found = hwa_keras.drift_sweep(
        model, "pcm", dataset, times=TIMES, chips=1, verbose=0
    )
    np.testing.assert_allclose(
        found.values("none", "1 year"), result.values("none", "1 year")[:1]
    )
    with pytest.raises(ValueError, match="empty dataset"):
        hwa_keras.drift_sweep(model, "pcm", dataset.take(0), chips=1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"chips": 0}, "`chips` of ChipStudy must be an integer"),
        ({"chips": True}, "chips=True"),
        ({"chips": range(0)}, "empty range"),
        ({"batch_size": True}, "`batch_size` of ChipStudy must be an integer"),
        ({"tolerance": 0}, "`tolerance` of ChipStudy must be a positive"),
        ({"tolerance": True}, "tolerance=True"),
        ({"tolerance": 0.1}, "after min_chips=30 chips at the earliest.*there are 1"),
        ({"min_chips": 9}, "`min_chips` of ChipStudy must be an integer ≥ 10"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"compensation": "gdc"}, "'none', 'oracle', 'measured'.*'gdc'"),
        ({"compensation": []}, "`compensation` is empty"),
        ({"times": []}, "`times` is empty"),
        ({"times": [-1.0]}, "not negative"),
        ({"times": [1.0, float("nan")]}, "t=nan"),
        ({"times": [1e39]}, r"32-bit float too, .*t=1e\+39"),
        ({"times": {"now": True}}, "t=True"),
        ({"times": [1.0, 1.0]}, "the same time twice"),
        ({"times": {"a": 2.0**24, "b": 2.0**24 + 1}}, "'a'.*'b'.*one 32-bit number"),
        ({"times": [1e6 + 1, 1e6 + 2]}, r"both called '1e\+06 s'.*dictionary"),
        ({"times": {1: 1.0, "1": 2.0}}, "both called '1'"),
        ({"metric": "f1"}, "not among the compiled ones: .*accuracy"),
        ({"data": None}, "`data` is missing"),
        ({"data": (np.zeros((0, 12)), np.zeros(0))}, "`data` is empty"),
        ({"data": (1, 2, 3, 4)}, "pair"),
        ({"device": "flash"}, "Unknown device 'flash'"),
    ],
)
def test_bad_input(swept, kwargs, message):
    model, data, _ = swept
    arguments = {"device": "pcm", "data": data, "chips": 1, "verbose": 0, **kwargs}
    with pytest.raises(ValueError, match=message):
        hwa_keras.drift_sweep(model, **arguments)


@pytest.mark.parametrize("name", ["chips", "batch_size", "tolerance"])
def test_a_monte_carlo_run_refuses_what_is_no_number(swept, name):
    model, data, _ = swept
    with pytest.raises(ValueError, match=f"`{name}` of ChipStudy .*{name}=True"):
        hwa_keras.monte_carlo(model, "pcm", data, **{name: True})


def test_an_uncompiled_model_is_refused():
    with pytest.raises(ValueError, match="not compiled"):
        hwa_keras.drift_sweep(zoo.mlp(), "pcm", (np.zeros((1, 12)), np.zeros(1)))


def test_shares_of_the_chips_join_to_the_whole(swept, tmp_path):
    model, data, result = swept
    shares = [
        hwa_keras.drift_sweep(
            model, "pcm", data, times=TIMES, chips=range(j, 3, 2), verbose=0
        )
        for j in range(2)
    ]
    shares[1].to_json(tmp_path / "share.json")
    joined = Result.join(shares[0], Result.from_json(tmp_path / "share.json"))
    assert shares[0].numbers == [0, 2] and shares[1].numbers == [1]
    assert joined.to_dict() == result.to_dict()
    other = hwa_keras.drift_sweep(model, "pcm", data, times=[1.0], chips=1, verbose=0)
    with pytest.raises(ValueError, match="different studies: their `axes`"):
        Result.join(shares[0], other)
