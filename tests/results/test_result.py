"""Result: a labelled table of chips, its files, tables and figures."""

import csv
import io
import itertools
import math
import sys

import numpy as np
import pytest
import rich.console
import scipy.stats

from hwa_keras.results import Axis, Result

pytestmark = pytest.mark.slow  # Numbers and text, the same on any backend.

NASTY = '=[red]_$x$, "y"\n[/red]'


def curve_of(samples, name="net", quantity="bits per weight"):
    axis = Axis("level", list(samples), label=quantity)
    return Result.from_curve(name, "accuracy", axis, samples)


SAMPLES = {
    8: {"loss": [0.1], "accuracy": [0.97]},
    4: {"loss": [0.3, 0.5, 0.4], "accuracy": [0.9, 0.8, 0.85]},
}


def swept(chips=range(3), name="net", settings=None, **more):
    """A result over compensations and times; values tell chip and point apart."""
    axes = (
        Axis("compensation", ["none", "measured"], titles=["no GDC", "GDC"]),
        Axis("time", {"1 s": 1.0, "1 year": 3e7}, unit="seconds", is_log=True),
    )
    points = itertools.product(*(axis.levels for axis in axes))
    samples = {
        point: {i: {"loss": 10.0 * k + i, "accuracy": 0.9 - 0.1 * i} for i in chips}
        for k, point in enumerate(points)
    }
    return Result(name, "loss", axes, samples | more, settings)


def test_values_are_asked_for_by_the_levels_of_each_axis():
    result = swept()
    assert result.values("measured", "1 s").tolist() == [20.0, 21.0, 22.0]
    assert result.values("none", "1 s", metric="accuracy").tolist() == pytest.approx(
        [0.9, 0.8, 0.7]
    )
    assert result.series == [("none",), ("measured",)]
    assert result.levels == ["1 s", "1 year"] and result.metrics == ["loss", "accuracy"]
    assert result.chips == 3 and result.numbers == [0, 1, 2]
    assert result.quantile(0.5, "none", "1 year") == 11.0
    for point, message in (
        (("none", "1 day"), "no point .*compensation 'none', 'measured'; time '1 s'"),
        (("none",), "no point"),
    ):
        with pytest.raises(ValueError, match=message):
            result.values(*point)
    with pytest.raises(ValueError, match="'f1' was not measured .* loss, accuracy"):
        result.values("none", "1 s", metric="f1")


def test_a_result_without_axes_has_one_point():
    result = Result("net", "loss", [], {(): {4: {"loss": 0.5}, 2: {"loss": 0.25}}})
    assert result.values().tolist() == [0.25, 0.5] and result.numbers == [2, 4]
    assert result.estimate().mean == 0.375
    assert "0.375" in str(result) and result.plot().patches
    with pytest.raises(ValueError, match="one point, without levels"):
        result.values("1 s")


def test_yields_are_shares_with_clopper_and_pearson_s_interval():
    values = [0.95] * 18 + [0.1, math.nan]
    result = curve_of({8: {"accuracy": values}})
    found = result.yield_above(0.9, 8)
    ends = scipy.stats.binomtest(18, 20).proportion_ci(0.95)
    assert found.mean == 0.9 and found.count == 20
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert result.yield_below(0.9, 8).mean == 0.05


def test_files_are_read_again_with_what_is_not_finite(tmp_path):
    result = swept(settings={"device": "PCM()", "times": (1, 2)})
    result.samples["none", "1 s"][1]["loss"] = math.inf
    result.samples["none", "1 s"][2]["loss"] = math.nan
    result.to_json(tmp_path / "result.json")
    again = Result.from_json(tmp_path / "result.json")
    np.testing.assert_equal(again.samples, result.samples)
    assert (again.axes, again.settings) == (result.axes, result.settings)
    np.testing.assert_equal(again.to_dict(), result.to_dict())
    result.to_csv(tmp_path / "result.csv")
    with (tmp_path / "result.csv").open(newline="", encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert math.isnan(float(first["mean"])) and math.isnan(float(first["std"]))
    assert "nan" in str(result) and result.plot(tmp_path / "result.png")


def test_rows_of_different_studies_stand_in_one_file(tmp_path):
    curve, other = curve_of(SAMPLES), swept()
    curve.to_csv(tmp_path / "curve.csv", other)
    with (tmp_path / "curve.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows[:5]] == ["8", "8", "4", "4", ""]
    for row in rows[2:4]:
        found = curve.estimate(int(row["level"]), metric=row["metric"])
        assert float(row["mean"]) == found.mean
        assert float(row["std"]) == found.std
        assert float(row["low95"]) == found.low
        assert float(row["high95"]) == found.high
        assert float(row["median"]) == found.median
        assert int(row["chips"]) == 3
    assert [float(row["seconds"]) for row in rows[4:]] == [1.0, 1.0, 3e7, 3e7] * 2
    assert "0.9700" in str(curve) and "0.8500 ± 0.1242" in str(curve)


def test_pandas_gets_the_rows_where_it_is():
    pandas = pytest.importorskip("pandas")
    frame = swept().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("records") == swept().rows()


def test_without_pandas_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        swept().to_pandas()


def test_chips_have_rows_of_their_own():
    rows = swept(range(2)).chip_rows()
    assert len(rows) == 8
    assert rows[1] == {
        "model": "net",
        "compensation": "none",
        "time": "1 s",
        "seconds": 1.0,
        "chip": 1,
        "loss": 1.0,
        "accuracy": 0.8,
    }


def test_shares_join_and_no_chip_counts_twice():
    whole = swept(range(5))
    joined = Result.join(swept([0, 2, 4]), swept([1, 3]))
    assert joined.to_dict() == whole.to_dict()
    assert Result.join(joined).rows() == joined.rows()
    with pytest.raises(ValueError, match="count them twice: 1, 3"):
        Result.join(joined, swept([1, 3, 7]))
    with pytest.raises(ValueError, match="no results to join"):
        Result.join()
    with pytest.raises(ValueError, match="different studies: their `settings`"):
        Result.join(swept(), swept([7], settings={"seed": 1}))
    with pytest.raises(ValueError, match="different studies: their `name`"):
        Result.join(swept(), swept([7], name="other"))


def test_names_are_escaped_in_tables_files_and_figures(tmp_path):
    axis = Axis("level", [NASTY, "[b]b"], label=NASTY)
    samples = {level: {NASTY: [1.0, 2.0]} for level in axis.levels}
    result = Result.from_curve(NASTY, NASTY, axis, samples)
    text = io.StringIO()
    rich.console.Console(file=text, width=300).print(result.table())
    assert "[red]_$x$" in text.getvalue() and "[b]b" in text.getvalue()
    result.to_csv(tmp_path / "result.csv")
    with (tmp_path / "result.csv").open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert row["model"] == row["metric"] == row["level"] == f"'{NASTY}"
    result.plot(tmp_path / "result.png")  # Would be a formula that cannot be parsed.
    hidden = curve_of(SAMPLES, name="_net $\\foo$").plot(tmp_path / "hidden.png")
    [label] = hidden.get_legend().get_texts()
    assert label.get_text() == r" _net \$\foo\$"
    result.to_json(tmp_path / "result.json")
    assert Result.from_json(tmp_path / "result.json").samples == result.samples


def test_a_table_has_a_column_for_each_series():
    text = str(swept())
    assert "no GDC" in text and "GDC" in text and "1 year" in text
    axes = swept().plot()
    lines = [(line.get_linestyle(), line.get_marker()) for line in axes.lines]
    assert len(set(lines)) == 2
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 s", "1 year"]


def test_crowded_places_keep_the_labels_that_fit():
    axis = Axis("time", {f"{t} seconds": float(t) for t in range(1, 60)})
    samples = {level: {"accuracy": [0.5]} for level in axis.levels}
    axes = Result.from_curve("net", "accuracy", axis, samples).plot()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "1 seconds" and 2 < len(labels) < 12


def test_plots_curves_on_one_figure(tmp_path):
    axes = curve_of(SAMPLES).plot()
    curve_of(SAMPLES, "other").plot(tmp_path / "curves.png", axes=axes)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [line.get_label() for line in axes.get_lines()] == ["net", "other"]
    assert axes.get_xlabel() == "bits per weight"
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [4, 8])
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.85, 0.97])
    low, high = np.sort(axes.collections[0].get_paths()[0].vertices[:, 1])[[0, -1]]
    found = curve_of(SAMPLES).estimate(4)
    assert (low, high) == pytest.approx((found.low, found.high))


def test_plots_levels_with_names(tmp_path):
    named = {"none": SAMPLES[8], "rotation 20°": SAMPLES[4]}
    axes = curve_of(named).plot()
    curve_of(named, "other").plot(tmp_path / "shifts.png", axes=axes)
    assert (tmp_path / "shifts.png").read_bytes().startswith(b"\x89PNG")
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["none", "rotation\n20°"]
    assert len({line.get_color() for line in axes.lines}) == 2


def test_crowded_names_are_turned_and_nothing_lies_on_them(tmp_path):
    names = [f"block{i // 7}_unit{i % 7}_conv/kernel" for i in range(28)]
    curve = curve_of({name: SAMPLES[4] for name in ["all at 0.01", *names]})
    axes = curve.plot(tmp_path / "layers.png")
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == curve.levels
    assert {label.get_rotation() for label in labels} == {90.0}
    ends = [label.get_window_extent() for label in labels]
    assert all(a.x1 <= b.x0 for a, b in zip(ends, ends[1:], strict=False))
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.get_window_extent().y1


def test_boxes_reach_from_quartile_to_quartile_and_whiskers_to_the_extremes(tmp_path):
    samples = [0.1, 0.5, 0.6, 0.7, 0.9]
    levels = {"a": {"accuracy": samples}, "b": {"accuracy": [0.2, 0.4]}}
    axes = curve_of(levels).plot(boxes=True)
    curve_of({"b": levels["b"]}, "other").plot(
        tmp_path / "boxes.png", axes=axes, boxes=True
    )
    assert (tmp_path / "boxes.png").read_bytes().startswith(b"\x89PNG")
    low, high = axes.patches[0].get_path().vertices[:, 1][[0, 2]]
    assert (low, high) == pytest.approx(tuple(np.quantile(samples, [0.25, 0.75])))
    drawn = np.concatenate([line.get_ydata() for line in axes.lines[:5]])
    assert {0.1, 0.6, 0.9} <= set(drawn.round(6))
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b"]
    # A box of the second curve stands beside that of the first at its level.
    middles = [p.get_path().vertices[:2, 0].mean() for p in axes.patches]
    assert middles[:2] == pytest.approx([0, 1]) and 1.3 < middles[2] < 1.7
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["net", "other"]
    axes = curve_of(SAMPLES).plot(boxes=True)  # Of numbers: at equal distances.
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "4"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "axis 'level' has no levels"),
        ({8: {"loss": [1.0]}}, r"'accuracy' was not measured at \(8,\).*loss"),
        ({8: {"accuracy": []}}, r"The point \(8,\) has no chips"),
        ({math.nan: {"accuracy": [1.0]}}, "must be finite numbers or strings.*nan"),
        ({None: {"accuracy": [1.0]}}, "must be a number or a string.*None"),
        ({True: {"accuracy": [1.0]}}, "must be a number or a string.*True"),
    ],
)
def test_bad_samples_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        curve_of(samples)


def test_levels_and_points_are_each_there_once():
    with pytest.raises(ValueError, match="has a level twice: 1, 1.0"):
        Axis("level", [1, 1.0])
    with pytest.raises(ValueError, match="Give each point once"):
        Result("net", "loss", [Axis("bits", [8, 4])], {(8,): {0: {"loss": 1.0}}})
