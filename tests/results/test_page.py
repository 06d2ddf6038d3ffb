"""hwa_keras.results.report: one page, whole, self-contained and right."""

import html
import html.parser
import re
import sys

import keras
import numpy as np
import pytest

import hwa_keras
from hwa_keras.analysis.drift import drift_axes
from hwa_keras.results import Axis, Result, Section, report

pytestmark = pytest.mark.slow  # A page of text, the same on any backend.

TIMES = {"1 s": 1.0, "1 year": 31_536_000.0}


def drift_result(name="digital", chips=5, compensations=("none", "measured")):
    rng = np.random.default_rng(len(name))
    samples = {
        (compensation, time): {
            i: {"loss": 1.0, "accuracy": float(rng.uniform(0.9, 1.0))}
            for i in range(chips)
        }
        for compensation in compensations
        for time in TIMES
    }
    axes = drift_axes(compensations, TIMES)
    return Result(name, "accuracy", axes, samples, {"device": "PCM()", "seed": 3})


def hardware_aware_model():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    return hwa_keras.to_hwa(
        model,
        kernel_quantizer=hwa_keras.quantizers.Uniform(levels=16, scale="max"),
        kernel_noise="programming_noise",
        skip="last",
        verbose=0,
    )


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the table cells as text."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.tags, self.rows, self.open = [], [], []
        self.feed(self.text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def test_tables_hold_the_estimates_of_the_results(tmp_path):
    results = [drift_result("digital"), drift_result("hwa")]
    report(tmp_path / "report.html", "A year", results)
    rows = Page(tmp_path / "report.html").rows
    found = [row for row in rows if row[0] in TIMES]
    expected = []
    for result in results:
        for time in TIMES:
            estimates = [result.estimate(*series, time) for series in result.series]
            cells = [
                [f"{e.mean:.4f}", "±", f"{e.half_width:.4f}", "σ", f"{e.std:.4f}"]
                for e in estimates
            ]
            expected.append([time, *cells])
    assert [[row[0], *map(str.split, row[1:])] for row in found] == expected
    assert ["no compensation", "measured GDC"] in rows


def test_one_chip_has_no_interval(tmp_path):
    result = drift_result(chips=1, compensations=("oracle",))
    report(tmp_path / "report.html", "One chip", result)
    page = Page(tmp_path / "report.html")
    mean = result.estimate("oracle", "1 s").mean
    assert ["1 s", f"{mean:.4f}"] in [[c.strip() for c in row] for row in page.rows]
    assert "nan" not in " ".join(sum(page.rows, []))


def test_conversions_settings_notes_and_versions_are_told(tmp_path):
    model = hardware_aware_model()
    model.noises()[0].scale.assign(3.0)
    report(
        tmp_path / "report.html",
        "A year",
        drift_result(),
        conversions=model,
        settings={"epochs": 7, "training": {"rate": 0.5}},
        notes=["First.", "Second."],
    )
    page = Page(tmp_path / "report.html")
    quantizer = "Uniform(levels=16, axis=None, scale='max')"
    noise = "ProgrammingNoise(device=PCM, scale=3)"
    assert ["hidden/kernel", "8 × 6", quantizer, noise] in page.rows
    assert ["logits", "skipped: the last layer"] in page.rows
    assert any(row[0] == "norm" for row in page.rows)
    assert ["epochs", "7"] in page.rows and ["training.rate", "0.5"] in page.rows
    assert ["Keras", keras.__version__] in page.rows
    assert ["hwa_keras", hwa_keras.__version__] in page.rows
    assert any(keras.backend.backend() in row[-1] for row in page.rows)
    assert "<p>First.</p>" in page.text and "<p>Second.</p>" in page.text


def test_circuits_are_told_where_there_are_some(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, name="hidden")])
    hardware = hwa_keras.Hardware(
        kernel_noise="programming_noise",
        dac=hwa_keras.circuits.DAC(8, range="learned"),
        adc=hwa_keras.circuits.ADC(6, range=4.0),
    )
    hwa_keras.to_hwa(model, hardware=hardware, verbose=0)
    report(tmp_path / "report.html", "A year", drift_result(), conversions=model)
    page = Page(tmp_path / "report.html")
    (row,) = [row for row in page.rows if row[0] == "hidden/kernel"]
    assert row[-1].startswith("DAC(bits=8, range='learned'")
    assert "ADC(bits=6, range=[-4.0, 4.0]" in row[-1]
    # The noise's scale and the DAC's range are no weights of the model: 48 of 54.
    assert "48 weights, 88.9 % of the model’s" in page.text


def test_text_of_the_user_is_escaped(tmp_path):
    nasty = '<script>alert("1")</script> & "quoted"'
    report(
        tmp_path / "report.html",
        nasty,
        drift_result(name=nasty),
        settings={nasty: nasty},
        figures=[(drift_result().plot().figure, nasty)],
        notes=[nasty],
    )
    page = Page(tmp_path / "report.html")
    assert "script" not in [tag for tag, _ in page.tags]
    assert html.escape(nasty).replace("&quot;", "&#34;") in page.text
    assert [nasty, nasty] in page.rows
    assert nasty in [attributes.get("alt") for _, attributes in page.tags]


def test_the_page_needs_nothing_else(tmp_path):
    drift_result().plot(tmp_path / "figure.png")
    report(
        tmp_path / "page" / "report.html",
        "A year",
        drift_result(),
        conversions=[hardware_aware_model()],
        figures=[(tmp_path / "figure.png", "A figure from a file.")],
    )
    page = Page(tmp_path / "page" / "report.html")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert "href" not in attributes
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/png;base64,iVBOR")
    assert not re.search(r"url\(|@import|https?://", page.text)
    assert [p.name for p in (tmp_path / "page").iterdir()] == ["report.html"]


def test_the_page_is_accessible(tmp_path):
    report(tmp_path / "report.html", "A year", drift_result())
    page = Page(tmp_path / "report.html")
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("h1") == 1 and "title" in tags and "main" in tags
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    mean = drift_result().estimate("none", "1 year").mean
    assert "digital" in image["alt"] and f"{mean:.4f} at 1 year" in image["alt"]
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


def test_a_page_is_replaced_whole_or_kept(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    report(path, "The first page", drift_result())
    report(path, "The second page", drift_result())
    whole = path.read_text(encoding="utf-8")
    assert "The second page" in whole and "The first page" not in whole

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        report(path, "The third page", drift_result())
    assert path.read_text(encoding="utf-8") == whole
    assert list(tmp_path.iterdir()) == [path]


def test_sections_stand_as_they_are_given(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    sections = [
        Section("Few & fewer bits", "A <text>.", ["net", "bits"], [["a", 1], ["b", 2]]),
        Section("Noise", figure=figure),
    ]
    path = tmp_path / "report.html"
    report(path, "A study", sections=sections)
    page = path.read_text(encoding="utf-8")
    assert "Few &amp; fewer bits" in page and "A &lt;text&gt;." in page
    assert re.search(r'<th scope="row">b</th><td class="number">2</td>', page)
    assert page.count("data:image/png;base64,") == 1
    assert "over time" not in page and "drift compensation" not in page
    assert page.index("Few &amp;") < page.index(">Noise<")


def test_any_number_of_results_of_any_kind_stand_on_one_page(tmp_path):
    model = hardware_aware_model()
    axis = Axis("bits", [8, 4], label="bits per weight")
    samples = {8: {"accuracy": [0.9]}, 4: {"accuracy": [0.8]}}
    curves = [
        Result.from_curve(name, "accuracy", axis, samples) for name in ("a_net", "b")
    ]
    one = Result("c", "loss", [], {(): {i: {"loss": 0.5 + i} for i in range(3)}})
    results = [drift_result(), *curves, one, hwa_keras.memory_energy(model)]
    report(tmp_path / "report.html", "All", results)
    page = Page(tmp_path / "report.html")
    for heading in (
        "Accuracy over time since programming",
        "Accuracy over bits per weight",
        "Loss of chips",
        "MemoryEnergy",
    ):
        assert page.text.count(f"<h2>{heading}</h2>") == 1
    assert page.text.count("data:image/png;base64,") == 3  # The curves share one.
    assert ["8", "0.9000"] in [[c.strip() for c in row] for row in page.rows]
    assert any(row[0] == "hidden/kernel" for row in page.rows)
    assert any(row[0] == "total" for row in page.rows)


def test_bad_input_is_told(tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match="Both `results` and `sections` are empty"):
        report(path, "A year", [])
    with pytest.raises(ValueError, match="'Bits' has 2 columns, and a row of 3 cells"):
        report(path, "A year", sections=[Section("Bits", "", ["a", "b"], [[1, 2, 3]])])
    with pytest.raises(TypeError, match="`results` must be a Tabular.*'x'"):
        report(path, "A year", ["x"])
    with pytest.raises(TypeError, match="`conversions` must be a HardwareModel"):
        report(path, "A year", drift_result(), conversions=[keras.Sequential()])
    with pytest.raises(TypeError, match="A figure must be .* Received: 3"):
        report(path, "A year", drift_result(), figures=[(3, "caption")])
    path.write_text("no PNG")
    with pytest.raises(ValueError, match="is no PNG"):
        report(path, "A year", drift_result(), figures=[(path, "caption")])
    with pytest.raises(ValueError, match="is a folder"):
        report(tmp_path, "A year", drift_result())
    assert path.read_text() == "no PNG"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"hwa_keras\[examples\]"):
        report(tmp_path / "report.html", "A year", drift_result())
