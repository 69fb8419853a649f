"""The pages: well-formed, self-contained, accessible, and saying what the data say."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import sample_report
from sample_report import PUZZLES, parts, record, report, trial

from hrm_edge.bundle.quantization import Site
from hrm_edge.data.puzzles import PuzzleSet
from hrm_edge.errors import InputError
from hrm_edge.measure.gate import compare
from hrm_edge.report import plots, read_report, render
from hrm_edge.report.layer_plots import short_name
from hrm_edge.report.plot import Plot, Table
from hrm_edge.report.plots import figures
from hrm_edge.runtimes import Answers
from hrm_edge.tasks import get_task

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects them with their texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def html():
    return render(report(), "html")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_nothing_from_outside(html, page):
    assert not re.findall("https?:", html)
    assert not re.findall(r"@import|<script|<link|<img|<iframe|<object|@font-face|javascript:", html)
    assert not re.findall(r"url\((?!#)", html)
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")


def test_ids_are_there_and_unique(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {attributes["href"][1:] for _, attributes in page.elements if "href" in attributes}
    used |= set(re.findall(r"url\(#([^)]+)\)", " ".join(str(attributes) for _, attributes in page.elements)))
    assert used <= set(ids)


def test_plots_and_boards_have_names_and_no_colours_of_their_own(html, page):
    pictures = page.all("svg")
    assert len([svg for svg in pictures if svg["class"] == "plot"]) == 9
    assert len([svg for svg in pictures if "board" in svg["class"]]) == 2 * 5
    assert all(svg["aria-label"] and svg["role"] == "img" for svg in pictures)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert not [found for drawing in drawings for found in re.findall(r"#[0-9a-f]{6}\b", drawing)]
    assert "var(--low)" in html


def test_every_colour_is_defined_for_light_dark_and_print(html):
    style = re.search(r"<style>(.*?)</style>", html, flags=re.DOTALL)[1]
    used = set(re.findall(r"var\((--[a-z]+)\)", html)) - {"--c"}
    light, dark, printed = (
        set(re.findall(r"(--[a-z]+):", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert used <= light
    assert light - dark == set()
    assert light - printed == set()


def test_tables_have_scopes(page):
    heads = page.all("th")
    assert len(heads) > 60
    assert all(head.get("scope") in ("row", "col") for head in heads)


def test_the_verdict_comes_first(page):
    text = page.text
    assert text.index("✓ Passed") < text.index("McNemar’s test") < text.index("Drift, segment by segment")
    for shown in ("60.00 %", "float 70.00 %, n = 20", "10.00 points", "p = 0.62", "3.5× smaller", "6 of 6", "3.0×"):
        assert shown in text


def test_a_failure_is_no_pass():
    failed = render(report(gate={**parts()["gate"], "passed": False, "reason": "it dropped"}), "html")
    assert "✗ Failed" in failed
    assert "Passed" not in failed


def test_names_are_text_not_markup():
    attack = "<script>alert(1)</script>|*x*"
    gate = {**parts()["gate"], "puzzles": attack}
    made = report(gate=gate, quantization=record(notes=(attack,), sensitivity=(trial(attack, 1, 0),)))
    assert "<script" not in render(made, "html")
    markdown = render(made, "md")
    assert "<script" not in markdown.replace("\\<", "")
    assert "|*x" not in markdown


# -- what is missing is left out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "section"),
    [
        ({"drift": ()}, "Drift, segment by segment"),
        ({"quantization": None}, "Ranges and clipping"),
        ({"quantization": None, "speed": ()}, "Size, speed and memory"),
        ({"quantization": record(sites=())}, "Ranges and clipping"),
        ({"quantization": record(sensitivity=())}, "Each layer quantized alone"),
        ({"quantization": record(calibration=None, comparison=())}, "Candidates, re-rolled"),
        ({"quantization": record(products=None)}, "Matrix products as compiled"),
    ],
)
def test_sections_without_data_are_left_out(change, section, page):
    assert section in page.text
    made = report(**change)
    assert section not in Page(render(made, "html")).text
    assert render(made, "md")


def test_equal_answers_have_no_boards():
    same = parts()["reference"]
    gate = compare(same, same, PUZZLES, max_think_steps=8).to_dict()
    made = report(candidate=same, gate=gate)
    text = Page(render(made, "html")).text
    assert "Every answer is the same, cell for cell." in text
    assert "Lost: 0" in render(made, "md")


# -- Markdown says the same ------------------------------------------------------------------------------


def rows_of(markdown, heading):
    """The cells of the first table under a heading, escapes taken off."""
    part = markdown.split(f"## {heading}", 1)[1].split("\n## ")[0]
    lines = [unescape(line) for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("\\", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def near(text, value, digits):
    return float(text.replace("%", "").replace("−", "-").replace("×", "")) == pytest.approx(
        value, abs=0.51 * 10**-digits
    )


def test_every_number_in_markdown_is_the_reports():
    made = report()
    markdown = render(made, "md")
    drift = rows_of(markdown, "Drift, segment by segment")
    assert len(drift) == 3
    for cells, d in zip(drift, made.drift, strict=True):
        assert int(cells[0]) == d.segment
        for first, state in zip((1, 4), d.states, strict=True):
            assert near(cells[first], state.cosine, 4)
            assert near(cells[first + 1], state.cosine_low, 4)
            assert near(cells[first + 2], 100 * state.error, 2)
        for text, name in zip((8, 9, 10), ("cells_differ", "puzzles_differ", "halt_agree"), strict=True):
            assert near(cells[text], 100 * getattr(d, name), 2)
        assert near(cells[7], d.logit_rmse, 3)
    for cells, s in zip(rows_of(markdown, "Activation ranges"), made.quantization.sites, strict=True):
        assert cells[0] == s.name
        assert near(cells[1], s.absmax, 2)
        assert near(cells[2], 127 * s.scale, 2)
        assert near(cells[3], 100 * s.clipped, 4)
    sensitivity = sorted(made.quantization.sensitivity, key=lambda t: -t.drop_points)
    for cells, t in zip(rows_of(markdown, "Sensitivity"), sensitivity, strict=True):
        assert cells[0] == t.what
        assert near(cells[1], 100 * (t.lost - t.won) / t.n, 2)
    for cells, r in zip(rows_of(markdown, "Speed and memory"), made.speed.rows, strict=True):
        assert near(cells[4], r.ms_per_segment, 2)
        assert cells[7] == "–"
    for cells, layer in zip(rows_of(markdown, "Layers"), made.quantization.layers, strict=True):
        assert (cells[0], cells[1], cells[5]) == (layer.name, layer.dtype, layer.kept or "")
        assert near(cells[3], layer.absmax, 2)
    for cells, r in zip(rows_of(markdown, "Accuracy by number"), made.by_segments, strict=True):
        assert near(cells[1], 100 * r.reference.exact, 2)
        assert near(cells[2], 100 * r.candidate.exact, 2)


def test_boards_in_markdown():
    markdown = render(report(), "md")
    assert markdown.count("```text") == 5
    assert "This bundle is wrong at r1c1, r1c2." in markdown


# -- a maze ----------------------------------------------------------------------------------------------


def maze_report():
    task = get_task("maze-30x30")
    questions, answers = task.generate(2, np.random.default_rng(0))
    puzzles = PuzzleSet(task, questions, answers, ["made"] * 2, "mazes")
    steps, halted, q = np.array([2, 3], np.int32), np.ones(2, bool), np.zeros((2, 2), np.float32)
    broken = answers.copy()
    way = np.flatnonzero(answers[0] == task.vocabulary.index("o"))
    broken[0, way[:3]] = task.blank
    broken[0, np.flatnonzero(questions[0] == task.vocabulary.index("#"))[0]] = 0
    before, after = Answers(answers, steps, halted, q), Answers(broken, steps, halted, q)
    gate = compare(before, after, puzzles, max_drop=100, max_think_steps=4).to_dict()
    manifest = sample_report.toys.manifest(task="maze-30x30", vocabulary=task.vocabulary)
    made = report(
        manifest=manifest, puzzles=puzzles, reference=before, candidate=after, gate=gate, drift=(), differences=()
    )
    return made, way


def test_a_maze_is_drawn():
    made, way = maze_report()
    assert made.puzzles.lost.total == 1
    entry = made.puzzles.lost.shown[0]
    assert set(way[:3]) < set(entry.candidate.wrong)
    text = render(made, "html")
    assert 'class="puzzles wide"' in text
    assert "S start G goal path" in Page(text).text
    assert render(made, "md")


# -- plots and strangers' texts ------------------------------------------------------------------------


def test_ranges_have_one_row_a_layer():
    """96 quantizers of 32 layers stay legible: 32 labels, all calls as marks in their rows."""
    names = [
        f"{level}_level.layers.{i}.mlp.{part}_proj" for level in "HL" for i in range(8) for part in ("up", "down")
    ]
    sites = tuple(Site(f"{name}/{k}", 2.0, 0.01, 0.0) for name in names for k in range(3))
    ranges, clipping = figures(report(quantization=record(sites=sites, layers=())))["ranges"]
    for plot in (ranges, clipping):
        assert re.findall(r">([HL]\.\d \w+)<", plot.svg) == [short_name(name) for name in names]


def test_a_new_plot_is_one_object(monkeypatch):
    """Both pages show it in its section, and neither where its data are empty."""
    plot = Plot(
        "drift",
        "Halting heads that agree",
        data=lambda report: report.drift,
        draw=lambda ax, rows: ax.plot([row.halt_agree for row in rows]),
        label=lambda rows: f"Line plot: {len(rows)} segments.",
        legend=(("first", "both heads"),),
        table=Table("Halting heads", (("segment", lambda row: row.segment), ("agree", lambda row: row.halt_agree))),
    )
    monkeypatch.setattr(plots, "PLOTS", (*plots.PLOTS, plot))
    made = report()
    assert "Halting heads that agree" in Page(render(made, "html")).text
    rows = rows_of(render(made, "md"), "Halting heads")
    assert rows == [[str(row.segment), str(row.halt_agree)] for row in made.drift]
    assert "Halting heads" not in render(report(drift=()), "html") + render(report(drift=()), "md")


def test_no_field_of_a_report_is_markup_in_its_pages(tmp_path):
    """Every text that a stranger's report.json may hold, whatever field it stands in."""
    attack = "<script>x</script>|*b*[l](http://e)`c`::error::d ##[error]e {{ 7 * 7 }} $f$"
    content = json.loads(report().to_json())

    def accepts(changed):
        (tmp_path / "r.json").write_text(json.dumps(changed))
        try:
            return read_report(tmp_path / "r.json")
        except InputError:
            return None

    def leaves(value, path=()):
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            yield from leaves(inner, (*path, key))
        if isinstance(value, str):
            yield path

    attacked = 0
    for *path, last in list(leaves(content)):
        holder = content
        for key in path:
            holder = holder[key]
        before, holder[last] = holder[last], attack
        if accepts(content) is None:
            holder[last] = before
        else:
            attacked += 1
    assert attacked > 50
    content["bundle"]["tools"][attack] = content["bundle"]["source"][attack] = "1"
    content["quantization"]["products"]["kinds"][attack] = 1
    made = accepts(content)
    page, text = render(made, "html"), render(made, "md")
    assert "<script" not in page
    assert "<script" not in text
    assert "49" not in re.findall(r"error::d[^<]{0,40}", page)[0]
    for line in text.splitlines():
        assert not re.search(r"(?<!\\)(?:\\\\)*(?:\*b|\[l|`c|\$f)", line)
        assert "##[" not in line
        assert "http://" not in line
