"""ChipStudy: data of all kinds, executors, early stops, points of one's own."""

import concurrent.futures
import inspect

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras.analysis import (
    ChipStudy,
    DriftPoints,
    ProgrammedPoints,
    QuantizationPoints,
    RobustnessPoints,
    ShiftPoints,
    layer_sensitivity,
    quantization_curve,
    robustness_curve,
    shift_curve,
)
from hwa_keras.analysis.study_data import evaluable
from hwa_keras.results import Result
from tests import fresh

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = RNG.normal(size=(40, 3)).astype("float32")
WEIGHTS = RNG.uniform(size=40).astype("float32")
VARIATION = hwa_keras.noise.ProcessVariation(0.3)


def network():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("adam", "mse", metrics=["mae"], weighted_metrics=["mse"])
    return model


def measured(model, data, chips=2, **options):
    """The losses of chips."""
    found = hwa_keras.monte_carlo(
        model, VARIATION, data, chips=chips, metric="loss", verbose=0, **options
    )
    return found.values()


def by_hand(model, *data, **options):
    """The losses of the first two chips."""
    chips = [hwa_keras.program(model, VARIATION, seed=i, verbose=0) for i in range(2)]
    return [chip.evaluate(*data, verbose=0, **options) for chip in chips]


def batches():
    return ((X[i : i + 15], Y[i : i + 15]) for i in range(0, 40, 15))


class Dataset(keras.utils.PyDataset):
    def __init__(self, count=3):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, i):
        return X[15 * i : 15 * i + 15], Y[15 * i : 15 * i + 15]


def test_pairs_datasets_and_generators_are_the_same_data():
    model = network()
    expected = [row[0] for row in by_hand(model, X, Y)]
    for data in ((X, Y), [X, Y], Dataset(), batches(), iter(list(batches()))):
        np.testing.assert_allclose(measured(model, data), expected, rtol=1e-5)


@pytest.mark.tensorflow_only
def test_tf_datasets_are_read_and_have_an_end():
    import tensorflow as tf

    model = network()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(15)
    expected = measured(model, (X, Y))
    np.testing.assert_allclose(measured(model, dataset), expected, rtol=1e-5)
    iterator = iter(dataset)
    np.testing.assert_allclose(measured(model, iterator), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="`data` has no end.*dataset.take"):
        measured(model, dataset.repeat())
    with pytest.raises(ValueError, match="empty dataset"):
        measured(model, dataset.take(0))


def test_sample_weights_count():
    model = network()
    expected = [row[0] for row in by_hand(model, X, Y, sample_weight=WEIGHTS)]
    found = measured(model, (X, Y, WEIGHTS))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(found, measured(model, (X, Y)), rtol=1e-3)


def test_several_inputs_and_outputs_in_lists_tuples_and_dictionaries():
    inputs = [keras.Input((6,), name=name) for name in ("a", "b")]
    sums = keras.layers.Add()(
        [
            keras.layers.Dense(3, name=n)(x)
            for n, x in zip(("c", "d"), inputs, strict=True)
        ]
    )
    outputs = [sums, keras.layers.Dense(1, name="out")(sums)]
    model = keras.Model(inputs, outputs)
    model.compile("adam", ["mse", "mae"])
    x, y = [X, 2 * X], [Y, Y[:, :1]]
    expected = [row[0] for row in by_hand(model, x, y)]
    named = {"a": x[0], "b": x[1]}
    for data in ((x, y), (tuple(x), tuple(y)), (named, y)):
        np.testing.assert_allclose(measured(model, data), expected, rtol=1e-5)


def test_inputs_alone_are_data_of_a_model_with_a_loss_of_its_own():
    inputs = keras.Input((6,))
    outputs = keras.layers.ActivityRegularization(l2=1.0)(keras.layers.Dense(3)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("adam")
    found = measured(model, X)
    expected = [np.ravel(row)[0] for row in by_hand(model, X, batch_size=40)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_data_that_cannot_be_evaluated_on_is_refused():
    model = network()
    dry = batches()
    list(dry)

    def endless():
        while True:
            yield X, Y

    for data, message in (
        (dry, "a generator that has run dry.*read before"),
        (endless(), "a generator that did not end after"),
        (Dataset(None), "`data` has no end"),
        (Dataset(0), "an empty dataset"),
        (None, "`data` is missing"),
        ((X[:0], Y[:0]), "`data` is empty"),
        ((X, Y[:7]), r"same number of examples. Received: \[7, 40\]"),
        ((X, Y, WEIGHTS, 1), "a triple.*Received 4 parts"),
        ((1, 2), "`data` is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            measured(model, data)


def test_a_generator_is_read_once_and_in_its_batches():
    kept = evaluable(batches())["x"]
    assert len(kept) == 3 and kept[2][0].shape == (10, 6)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([x for x, _ in kept]), X)


def test_every_study_takes_the_same_options_by_name():
    for function in (
        hwa_keras.drift_sweep,
        hwa_keras.monte_carlo,
        robustness_curve,
        layer_sensitivity,
        quantization_curve,
        shift_curve,
    ):
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        rest = kinds[kinds.index(inspect.Parameter.KEYWORD_ONLY) :]
        assert set(rest[:-1]) == {inspect.Parameter.KEYWORD_ONLY}
        assert rest[-1] == inspect.Parameter.VAR_KEYWORD
    with pytest.raises(TypeError, match="repeats"):
        robustness_curve(network(), (X, Y), repeats=3)


def study_of(**options):
    return ChipStudy(network(), (X, Y), **{"verbose": 0, "metric": "loss", **options})


def assert_equal(found, expected):
    assert found.axes == expected.axes and found.settings == expected.settings
    for point, chips in expected.samples.items():
        assert list(found.samples[point]) == list(chips)
        values = [list(v.values()) for v in chips.values()]
        other = [list(v.values()) for v in found.samples[point].values()]
        np.testing.assert_allclose(other, values, rtol=1e-5)


def test_threads_give_what_one_gives():
    keras.utils.set_random_seed(1)
    study = study_of(chips=3, seed=5)
    points = RobustnessPoints([0.0, 0.4])
    expected = study.run(points)
    assert list(expected.samples[0.0,]) == [0]  # All chips are the same there.
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        study.executor = executor
        assert_equal(study.run(points), expected)


@pytest.mark.slow
def test_processes_give_what_one_gives():
    keras.utils.set_random_seed(1)
    study = study_of(chips=range(1, 4, 2), calibration=None)
    points = DriftPoints("pcm", times=[1.0, 1e6], compensation=["measured"])
    expected = study.run(points)
    context = fresh.forkserver()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        study.executor = executor
        assert_equal(study.run(points), expected)


@pytest.mark.slow
def test_a_dask_cluster_gives_what_one_process_gives():
    distributed = pytest.importorskip("distributed")
    keras.utils.set_random_seed(1)
    study = study_of(chips=2)
    expected = study.run(ProgrammedPoints(VARIATION))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client:
            study.executor = client.get_executor()
            assert_equal(study.run(ProgrammedPoints(VARIATION)), expected)


def test_a_stop_is_at_the_same_chip_wherever_chips_run():
    keras.utils.set_random_seed(1)
    study = study_of(chips=40, min_chips=10)
    every = study.run(ProgrammedPoints(VARIATION)).values()
    widths = [
        Result(
            "", "loss", [], {(): {i: {"loss": v} for i, v in enumerate(every[:n])}}
        ).estimate()
        for n in range(10, 41)
    ]
    widths = [max(e.high - e.mean, e.mean - e.low) for e in widths]
    study.tolerance = (widths[0] + min(widths)) / 2
    count = 10 + next(i for i, w in enumerate(widths) if w <= study.tolerance)
    assert 10 < count < 40
    np.testing.assert_allclose(
        study.run(ProgrammedPoints(VARIATION)).values(), every[:count], rtol=1e-5
    )
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        study.executor = executor
        found = study.run(ProgrammedPoints(VARIATION)).values()
    np.testing.assert_allclose(found, every[:count], rtol=1e-5)


def test_what_does_not_pickle_is_told():
    study = study_of(chips=2)
    study.data = batches()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        study.executor = executor
        with pytest.raises(ValueError, match="get the study pickled.*data as arrays"):
            study.run(ProgrammedPoints(VARIATION))
    study.executor = 2
    with pytest.raises(TypeError, match="concurrent.futures.Executor.*Received: 2"):
        study.run(ProgrammedPoints(VARIATION))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "`seed` of ChipStudy"),
        ({"chips": range(5, 0, -1)}, "range of ascending numbers"),
        ({"chips": 2.0}, "`chips` of ChipStudy"),
        ({"min_chips": 5}, "`min_chips` of ChipStudy must be an integer ≥ 10"),
        ({"tolerance": 0.1}, "Allow more `chips`"),
        ({"batch_size": 0}, "`batch_size` of ChipStudy"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        study_of(**options)


def test_what_is_not_compiled_or_no_model_is_refused():
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        ChipStudy(VARIATION, (X, Y))
    with pytest.raises(ValueError, match="not compiled"):
        ChipStudy(keras.Sequential([keras.layers.Dense(3)]), (X, Y))
    for points in (QuantizationPoints(), ShiftPoints()):
        with pytest.raises(ValueError, match="calibrates nothing"):
            study_of(calibration=X).run(points)
