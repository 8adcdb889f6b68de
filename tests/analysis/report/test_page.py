"""The page: answer first, everything inside one file, nothing in it taken for markup."""

import dataclasses
import re
import shutil
from html.parser import HTMLParser

import pytest

from analysis import frames
from analysis.findings import build
from analysis.findings.schema import Findings
from analysis.report import figures, page, tables
from analysis.report.figures import style
from tests import synthetic

NASTY = "my_pkg.nets:My<Net>&%_<script>alert(1)</script>"
STATES = {("lenet5", 0.01, 0): "diverged", ("lenet5", 0.01, 1): "collapsed", ("mlp", 0.01, 2): "failed"}
VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Collects what a page consists of, and fails on tags that do not match."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.text, self.attributes = [], [], [], []
        self.feed(source)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = synthetic.write(
        tmp_path_factory.mktemp("ledger"),
        models={"lenet5": synthetic.LENET, "mlp": synthetic.MLP},
        learning_rates=[0.01],
        seeds=4,
        n_test=200,
        states=STATES,
        analysis={"resamples": 100},
    )
    (folder / "runs" / "stray.json").write_text("{}")
    data = frames.load(folder)
    return build.collect(data), data


@pytest.fixture(scope="module")
def file(study, tmp_path_factory):
    findings, data = study
    folder = tmp_path_factory.mktemp("report")
    figures.draw(findings, data, folder / "figures")
    return page.write(findings, data, folder)


@pytest.fixture(scope="module")
def written(file):
    return file.read_text(encoding="utf-8")


def test_answer_comes_first(study, written):
    findings, _ = study
    text = " ".join(" ".join(Page(written).text).split())
    assert text.index(findings.answer.split("\n\n")[0]) < 200


def test_page_is_one_file_without_scripts(written):
    parsed = Page(written)
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    for name, value in parsed.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:image/svg+xml;base64,", "#")), value[:60]
        assert not name.startswith("on")
    assert not re.search(r"@import|url\(", written)


def test_links_lead_somewhere(written):
    parsed = Page(written)
    ids = {value for name, value in parsed.attributes if name == "id"}
    assert {value[1:] for name, value in parsed.attributes if name == "href"} <= ids


def test_figures_are_described_and_missing_ones_explained(study, written):
    parsed = Page(written)
    text = " ".join(parsed.text)
    assert parsed.tags.count("img") == sum(caption.missing is None for caption in figures.captions(*study)) > 5
    assert all(value for name, value in parsed.attributes if name == "alt")
    assert "There is only one learning rate to choose." in text


def test_every_table_and_figure_is_shown_exactly_once(study, written):
    ids = [value for name, value in Page(written).attributes if name == "id"]
    shown = sorted(i for i in ids if i.startswith(("table-", "figure-")))
    expected = [f"table-{table.name}" for table in tables.build(*study)]
    expected += [f"figure-{caption.name}" for caption in figures.captions(*study) if caption.missing is None]
    assert shown == sorted(expected)


def test_every_figure_and_table_stands_in_a_section_of_the_page():
    assert {made.section for made in [*figures.FIGURES.values(), *tables.TABLES.values()]} == set(page.SECTIONS)


def test_failures_and_problems_are_visible(written):
    text = " ".join(" ".join(Page(written).text).split())
    assert "RuntimeError: broken" in text
    assert "not finite in epoch" in text
    assert "1 of 8 planned runs have no outcome" in text
    assert "stray.json" in text


def test_names_are_never_markup(study, file, tmp_path):
    findings, data = study
    renamed = Findings.model_validate_json(findings.to_json().replace('mlp"', f'{NASTY}"').replace("mlp ", f"{NASTY} "))
    runs = data.runs.replace({"model": {"mlp": NASTY}})
    data = dataclasses.replace(data, runs=runs)
    shutil.copytree(file.parent / "figures", tmp_path / "figures")
    scene = figures.Scene(renamed, data, None, style.looks(["lenet5", NASTY]))
    with style.applied():
        style.save(figures.FIGURES["gap"].draw(scene), tmp_path / "figures", "gap")
    source = page.write(renamed, data, tmp_path).read_text(encoding="utf-8")
    parsed = Page(source)
    assert not {"script", "net"} & set(parsed.tags)
    assert NASTY in " ".join(parsed.text)
    assert "<script" not in (tmp_path / "figures" / "gap.svg").read_text()


def test_same_findings_give_the_same_bytes(study, file):
    before = file.read_bytes()
    assert page.write(*study, file.parent).read_bytes() == before


def test_a_study_without_any_outcome_has_a_page(tmp_path):
    states = {("lenet5", 0.01, 0): "missing", ("mlp", 0.01, 0): "missing"}
    models = {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}
    data = frames.load(synthetic.write(tmp_path, models=models, learning_rates=[0.01], seeds=1, states=states))
    findings = build.collect(data)
    figures.draw(findings, data, tmp_path / "figures")
    text = " ".join(Page(page.write(findings, data, tmp_path).read_text(encoding="utf-8")).text)
    assert "no answer" in text
    assert "is not drawn:" in text
