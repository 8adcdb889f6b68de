"""The page: answer first, everything inside one file, nothing in it taken for markup."""

import base64
import dataclasses
import hashlib
import re
import shutil
from html.parser import HTMLParser

import pytest

from analysis import frames, text
from analysis.findings import build, summary
from analysis.findings.schema import Findings
from analysis.report import figures, latex, page, tables
from analysis.report.figures import style
from tests import synthetic

NASTY = "my_pkg.nets:My<Net>&%_<script>alert(1)</script>"
STATES = {("lenet5", 0.01, 0): "diverged", ("lenet5", 0.01, 1): "collapsed", ("mlp", 0.01, 2): "failed"}
VOID = {"meta", "img", "br", "link", "hr", "input"}


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
        if not {"style", "script"} & set(self.open):
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
    for name in ("findings.json", "costs.json"):
        (folder / name).touch()
    tables.write(findings, data, folder / "tables")
    latex.write(findings, data, folder / "latex")
    figures.draw(findings, data, folder / "figures")
    return page.write(findings, data, folder)


@pytest.fixture(scope="module")
def written(file):
    return file.read_text(encoding="utf-8")


def test_the_first_screen_holds_the_answer_and_its_figure(study, written):
    findings, _ = study
    (c,) = findings.comparisons
    shown = " ".join(" ".join(Page(written).text).split())
    words = [
        page.headline(findings),
        f"{text.points(c.seeds.mean.estimate)} points",
        f"no interval for new images: {c.images.declined}",
        "n = 1 of 4 pairs of trainings",
        "planned runs finished",
        "Gap of lenet5 to each baseline",
        findings.answer.split("\n\n")[0],
        "How large is the gap?",
    ]
    places = [shown.index(word) for word in words]
    assert places == sorted(places)
    assert places[0] < 200


def test_a_tile_gives_the_interval_for_new_images_at_its_level(study):
    findings, _ = study
    (c,) = findings.comparisons
    images = c.images.changed(estimate=0.01, low=0.004, high=0.016, level=0.95, declined=None)
    tile = page.tile(findings, c.model_copy(update=dict(images=images)))
    assert tile.lines[0] == "+0.40 to +1.60 for new images, taken as independent (95%)"


def test_a_tile_says_its_verdict_in_short_at_the_level_that_it_is_held_to(study):
    findings, _ = study
    (c,) = findings.comparisons
    why = "the interval excludes 0, but the exact test has p = 0.047, above 0.025"

    def said(here, new):
        verdict = c.seeds.verdict.model_copy(update=dict(words=here))
        seeds = c.seeds.model_copy(update=dict(verdict=verdict))
        return page.tile(findings, c.model_copy(update=dict(seeds=seeds, verdict_for_new_images=new))).verdict

    assert said(None, None) == f"no verdict: {c.seeds.verdict.interval.declined}"
    assert said("better", "better") == "better for these test images and for new ones, at 95%"
    assert said(f"undecided: {why}", f"undecided: {why}") == (
        f"undecided for these test images and for new ones ({why}), at 95%"
    )
    # For new images the interval does not exclude 0.
    assert said(f"undecided: {why}", "undecided") == (
        f"undecided for these test images ({why}), undecided for new ones, at 95%"
    )
    assert said("better", None) == "better for these test images, no verdict for new ones, at 95%"


@pytest.fixture(scope="module")
def factorial(tmp_path_factory):
    folder = synthetic.write(
        tmp_path_factory.mktemp("factorial"),
        models={"lenet5": synthetic.LENET},
        learning_rates=[0.01],
        seeds={"init": 3, "order": 3, "split": 2},
        n_test=200,
        analysis={"resamples": 200},
    )
    data = frames.load(folder)
    return build.collect(data), data


def test_a_factorial_opens_with_the_components_of_its_spread(factorial, tmp_path):
    findings, data = factorial
    found = findings.variance["lenet5"].components
    (tile,) = [page.spread_tile(findings, model) for model in summary.spreads(findings)]
    assert tile.value == f"{100 * found.standard_deviation:.3f} points"
    assert tile.lines[-1] == "n = 18 of 18 trainings"
    told = [c for c in found.components if c.variance.low]
    assert len(tile.lines) == len(told) + (len(told) < len(found.components)) + 1
    assert "for new images" not in page.lead(findings)
    assert page.lead(findings).startswith(f"Of the estimated variance of lenet5's test accuracy (SD {tile.value}) ")
    figures.draw(findings, data, tmp_path / "figures")
    shown = " ".join(" ".join(Page(page.write(findings, data, tmp_path).read_text(encoding="utf-8")).text).split())
    assert shown.index(page.lead(findings)) < shown.index(tile.value + " ") < shown.index("planned runs finished")
    assert "only model of this study" not in shown


def test_the_headline_calls_a_model_better_only_where_both_intervals_do(study):
    findings, _ = study
    (c,) = findings.comparisons
    gap = c.seeds.mean.changed(estimate=0.01, low=None, high=None)

    def said(unqualified, mean):
        seeds = c.seeds.model_copy(update=dict(mean=mean))
        changed = c.model_copy(update=dict(unqualified=unqualified, seeds=seeds))
        return page.headline(findings.model_copy(update=dict(comparisons=(changed,))))

    assert "lenet5 is more accurate than mlp" in said(True, gap)
    assert "lenet5 is less accurate than mlp" in said(True, gap.changed(estimate=-0.01))
    assert "not shown to be more or less accurate than mlp" in said(False, gap)
    nothing = gap.changed(estimate=None, declined="no pair")
    assert "there is no answer against mlp" in said(False, nothing)


def test_the_headline_speaks_of_new_images_only_where_it_decides(study):
    findings, _ = study
    (c,) = findings.comparisons
    seeds = c.seeds.model_copy(update=dict(mean=c.seeds.mean.changed(estimate=0.01, low=None, high=None)))

    def said(**unqualified):
        changed = [c.model_copy(update=dict(baseline=b, unqualified=u, seeds=seeds)) for b, u in unqualified.items()]
        return page.headline(findings.model_copy(update=dict(comparisons=tuple(changed))))

    undecided = "lenet5 is not shown to be more or less accurate than"
    decided = "is more accurate than mlp, for new images of the same kind too (95% confidence)"
    assert said(mlp=False, other=False) == f"On mnist, {undecided} mlp and other."
    assert said(mlp=True, other=False) == f"On mnist, lenet5 {decided}; {undecided} other."
    assert said(other=False, mlp=True) == f"On mnist, {undecided} other; lenet5 {decided}."


def test_page_is_one_file_and_its_script_is_the_one_it_allows(written):
    parsed = Page(written)
    assert "link" not in parsed.tags
    for name, value in parsed.attributes:
        if name == "src":
            assert value.startswith("data:image/svg+xml;base64,"), value[:60]
        assert not name.startswith("on")
    assert not re.search(r"@import|url\((?!#)", written)
    (allowed,) = re.findall(r"script-src 'sha256-([^']+)'", written)
    script = written.rpartition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed
    assert not re.search(r"\b(fetch|XMLHttpRequest|eval|import)\(|innerHTML", script)


def test_links_lead_somewhere(file, written):
    parsed = Page(written)
    ids = {value for name, value in parsed.attributes if name == "id"}
    links = {value for name, value in parsed.attributes if name in ("href", "xlink:href")}
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    outside = {link for link in links if not link.startswith("#")}
    assert {"findings.json", "costs.json", "figures/gap.pdf", "figures/gap.png", "tables/gaps.csv"} <= outside
    assert not [link for link in outside if (file.parent / link).is_dir()]
    assert not [link for link in outside if not (file.parent / link).exists()]


def test_the_foot_links_every_file_of_the_report_and_no_other(study, file, tmp_path):
    findings, data = study
    folder = tmp_path / "report"
    shutil.copytree(file.parent, folder)
    for name in ("paper.pdf", "synthetic.zip", "latex/main.tex", "other.zip", "mine.txt"):
        (folder / name).touch()
    source = page.write(findings, data, folder).read_text(encoding="utf-8")
    foot = Page(re.search("<footer>.*</footer>", source, re.S)[0])
    links = {value for name, value in foot.attributes if name == "href"}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert links == there - {"index.html", "other.zip", "mine.txt"}


def test_figures_are_described_and_missing_ones_explained(study, written):
    parsed = Page(written)
    text = " ".join(parsed.text)
    pictures = sum(value is not None for name, value in parsed.attributes if name in ("alt", "aria-label"))
    assert pictures > sum(caption.missing is None for caption in figures.captions(*study)) > 5
    assert all(value for name, value in parsed.attributes if name == "alt")
    assert "There is only one learning rate to choose." in text


def test_origin_commands_and_citation_are_on_the_page(study, written):
    _, data = study
    text = " ".join(" ".join(Page(written).text).split())
    launch = data.study.launches[-1]
    assert f"python -m analysis {data.source}" in text
    assert "@software{lenet5_vs_mlp," in text
    for words in (*(f"{name} {version}" for name, version in launch.versions.items()), data.study.dataset.sha256):
        assert words in text


def test_a_run_is_linked_to_where_it_is_published_only_when_it_is(study):
    _, data = study

    def links(project):
        details = page.run_details(dataclasses.replace(data, wandb=project))
        return {run_id: run["links"].get("Weights & Biases") for run_id, run in details.items()}

    own = "http://wandb.example:8080/me/digits"
    assert links(own) == {run_id: f"{own}/runs/{data.study.name}-{run_id}" for run_id in links(own)}
    assert set(links(None).values()) == {None}


def test_every_table_and_figure_is_shown_exactly_once(study, written):
    ids = [value for name, value in Page(written).attributes if name == "id"]
    shown = sorted(i for i in ids if i.startswith(("table-", "figure-")))
    expected = ["table-runs", *(f"table-{table.name}" for table in tables.build(*study))]
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
    assert parsed.tags.count("script") == 3, "those of the template"
    assert "net" not in parsed.tags
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
