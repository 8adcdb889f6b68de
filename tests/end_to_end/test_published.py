"""What is published is what the code gives: the schema, the findings of the paper study, and the README's numbers."""

import json
import os
import re
import shutil
import zipfile
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from analysis import frames, text
from analysis.findings import build, schema
from analysis.findings.across import Across
from analysis.findings.schema import Findings
from analysis.report import figures, latex, paper, phrases, published, tables
from analysis.report.figures.style import SUFFIXES
from analysis.stats import paired
from study import config_file
from study.ledger import ledger

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "analysis" / "published" / "paper"
ARCHIVES = published.archives(PUBLISHED.parent)
AGAIN = "make published CLUSTERS=FILE"
CLUSTERS = os.environ.get("CLUSTERS")
"""The file that names the writers of MNIST's test images; it is not ours to publish."""


@cache
def collected(archive):
    """What an archive gives without the clusters of its test images."""
    data = frames.load(archive.relative_to(ROOT))
    return data, build.collect(data)


def percent(x):
    return text.percent(x, sign="")


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def findings():
    return Findings.model_validate_json((PUBLISHED / "findings.json").read_text(encoding="utf-8"))


def test_the_schema_is_the_one_committed():
    committed = (ROOT / "analysis" / "findings" / "findings.schema.json").read_text(encoding="utf-8")
    assert committed == schema.json_schema(), "write it anew, as json_schema says"


def test_every_key_of_the_findings_is_described():
    whole = json.loads(schema.json_schema())
    models = {"Findings": whole, **whole["$defs"]}
    assert len(models) > 30
    described = {f"{m}.{key}": "description" in p for m, d in models.items() for key, p in d["properties"].items()}
    assert not [key for key, there in described.items() if not there]
    assert all(d.get("description") for d in models.values())


@pytest.mark.slow
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_findings_tables_and_paper_come_from_the_ledger_published_with_them(archive, tmp_path):
    clusters = json.loads((archive.parent / "findings.json").read_text())["about"]["clusters"]
    if clusters and not CLUSTERS:
        pytest.skip("CLUSTERS does not name QMNIST's labels")
    data = frames.load(archive.relative_to(ROOT), CLUSTERS if clusters else None)
    found = build.collect(data)
    assert found.to_json() == (archive.parent / "findings.json").read_text(encoding="utf-8"), f"anew: {AGAIN}"
    written = tables.write(found, data, tmp_path / "tables")
    floats = latex.write(found, data, tmp_path / "latex")
    written += [*floats, *paper.write(found, data, tmp_path / "latex", floats)]
    stale = [p for p in written if p.read_bytes() != (archive.parent / p.relative_to(tmp_path)).read_bytes()]
    assert stale == [], f"anew: {AGAIN}"


@pytest.mark.slow
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_what_does_not_speak_of_new_images_comes_from_the_ledger_alone(archive):
    found = json.loads(collected(archive)[1].to_json())
    committed = json.loads((archive.parent / "findings.json").read_text(encoding="utf-8"))
    for ours, theirs in zip(found["comparisons"], committed["comparisons"], strict=True):
        assert {k: ours[k] for k in ours if not k.startswith("images")} == {
            k: theirs[k] for k in theirs if not k.startswith("images")
        }, f"anew: {AGAIN}"
    of_new_images = {"about", "comparisons", "robustness", "images", "planning", "seed_spread", "answer"}
    for key in set(found) - of_new_images:
        assert found[key] == committed[key], f"{key}, anew: {AGAIN}"


@pytest.mark.slow
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_no_table_or_figure_published_is_of_an_earlier_analysis(archive, tmp_path):
    data, found = collected(archive)
    tables.write(found, data, tmp_path / "tables")
    latex.write(found, data, tmp_path / "latex")
    for place in ("tables", "latex/tables", "latex/figures"):
        assert names(archive.parent / place) == names(tmp_path / place), f"{place}, anew: {AGAIN}"
    drawn = [caption.name for caption in figures.captions(found, data) if caption.missing is None]
    assert names(archive.parent / "figures") == {
        *(f"{name}.txt" for name in figures.FIGURES),
        *(f"{name}{suffix}" for name in drawn for suffix in SUFFIXES),
    }


def test_every_study_published_is_linked_with_its_numbers(tmp_path):
    assert PUBLISHED / "paper.zip" in ARCHIVES
    shutil.copytree(PUBLISHED.parent, tmp_path / "published", ignore=shutil.ignore_patterns("figures", "tables"))
    found = [(path, Findings.model_validate_json((path.parent / "findings.json").read_text())) for path in ARCHIVES]
    links = published.write(tmp_path / "published", found)
    assert links.read_text() == (PUBLISHED.parent / published.INDEX).read_text(), f"anew: {AGAIN}"
    assert links.read_text().count("paper.pdf") == len(ARCHIVES)
    for name in ("across.json", "across.md", "across.csv", "across.tex"):
        made, committed = (root / published.ACROSS / name for root in (tmp_path / "published", PUBLISHED.parent))
        assert made.read_bytes() == committed.read_bytes(), f"anew: {AGAIN}"


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_no_archive_published_says_who_wrote_the_test_images(archive):
    with zipfile.ZipFile(archive) as file:
        assert ledger.CLUSTERS not in file.namelist()


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_every_file_that_a_published_page_links_is_there(archive):
    page = (archive.parent / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="((?!https?:|#)[^"]+)"', page.partition("<main>")[0] + page.partition("<main>")[2]))
    assert len(links) > 40
    assert [link for link in sorted(links) if not (archive.parent / link).exists()] == []


def test_the_analysis_published_is_the_one_the_config_declares(findings):
    declared = config_file.load(ROOT / "configs" / "paper.yaml").analysis_sha256()
    assert findings.preregistration.as_declared
    assert findings.preregistration.declared_sha256 == findings.preregistration.used_sha256 == declared


def test_readme_gives_the_gaps_published(findings):
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace("\n>", " ").split())
    always = all(c.seeds.effect.wins == c.pairs for c in findings.comparisons)
    assert ("LeNet-5 was ahead in every pair." in readme) == always
    for c in findings.comparisons:
        mean, images = c.seeds.mean, c.images
        for shown in (
            text.points(mean.estimate),
            text.points_interval(mean.low, mean.high),
            text.points_interval(images.low, images.high),
            text.percent(c.candidate_error_rate),
            text.percent(c.baseline_error_rate),
            text.of(c.pairs, c.planned),
        ):
            assert shown in readme, f"{c.baseline}: {shown}"
        (first, second) = findings.images[c.baseline].crossed.halves
        halves = f"it is {text.points(first.estimate)} points in the first half of the test file and "
        apart = max(first.low, second.low) > min(first.high, second.high)
        assert (f"{halves}{text.points(second.estimate)} in the second" in readme) == apart


def test_readme_says_of_fashion_mnist_no_more_than_was_found():
    path = PUBLISHED.parent / "fashion_mnist" / "findings.json"
    found = Findings.model_validate_json(path.read_text(encoding="utf-8"))
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (said,) = re.findall(r"On Fashion-MNIST, in the recipe above, (.*?)\. \[Across", readme)
    for c, sentence in zip(found.comparisons, re.split(r"(?<=\w)\. ", said), strict=True):
        for e in (c.seeds.mean, c.images):
            assert text.points_interval(e.low, e.high) in sentence
        assert text.points(c.seeds.mean.estimate) in sentence
        assert ("undecided" in sentence) == (not c.unqualified)
        assert text.of(c.pairs, c.planned) in said


def test_readme_says_how_far_the_gap_holds_in_other_recipes():
    found = Across.model_validate_json((PUBLISHED.parent / published.ACROSS / "across.json").read_text("utf-8"))
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (said,) = re.findall(r"Does it hold elsewhere\? (.*?) On Fashion-MNIST", readme)
    recipes = {
        "plain_sgd": "plain SGD",
        "adam": "SGD, Adam",
        "adamw_cosine": "AdamW along a cosine",
        "batch_16": "batches of 16 or 256",
        "batch_256": "batches of 16 or 256",
        "epochs_30": "thirty epochs",
        "no_normalisation": "without normalisation",
        "tanh_1998": "tanh and average pooling as in 1998",
    }
    of_mnist = [group for group in found.groups if group.dataset == "mnist"]
    assert len(of_mnist) == 2
    assert "is more accurate than both, too" in said
    for group in of_mnist:
        assert set(group.ahead) == {"paper", *recipes}, "each has its name in the README"
        assert group.undecided == group.behind == group.unanswered == ()
        gaps = [g for g in found.gaps if g.study in group.ahead and g.made_of[1] == group.baseline]
        assert {g.seeds.planned for g in gaps if g.study != "paper"} == {8}, "as the README says"
        values = [g.seeds.estimate for g in gaps]
        assert f"{text.points(min(values))} to {text.points(max(values))}" in said
    assert [name for name in recipes.values() if name not in said] == []
    at_edge = {
        (study, model)
        for study in recipes
        for model, made in Findings.model_validate_json(
            (PUBLISHED.parent / study / "findings.json").read_text(encoding="utf-8")
        ).selection.items()
        if made.mean.at_edge
    }
    assert at_edge == {("epochs_30", "mlp")}, "as the README says"
    assert "thirty epochs (where the larger MLP does best at the highest rate tried)" in said


def test_readme_gives_the_accuracies_published(findings):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    header, *rows = re.search(r"^\| test accuracy .*\n\|[-|]+\n((\|.*\n)+)", readme, re.M)[0].splitlines()
    rates = [float(cell) for cell in header.strip("|").split("|")[1:]]
    shown = {cells[0].strip(" `"): cells[1:] for cells in (row.strip("|").split("|") for row in rows[1:])}
    assert set(shown) == {model.name for model in findings.about.models}
    assert f"Means of the {findings.about.planned} trainings" in readme
    without = [c.test_accuracy for c in findings.configurations if c.learning_rate not in rates]
    assert f"none of {sum(e.planned for e in without)} learned" in readme
    for c in findings.configurations:
        e = c.test_accuracy
        if c.learning_rate not in rates:
            assert e.estimate is None, f"{c.model} at {c.learning_rate} is left out"
            continue
        cell = shown[c.model][rates.index(c.learning_rate)].replace("*", "").strip()
        if e.estimate is None:
            assert cell == f"0 of {e.planned} converged", f"{c.model} at {c.learning_rate}"
        else:
            mean = percent(e.estimate)
            assert cell.startswith(mean), f"{c.model} at {c.learning_rate}"
            assert e.n == e.planned or text.of(e.n, e.planned) in cell
            # A mean that few runs have drawn away from the others is not shown alone.
            middle, (low, high) = c.test_accuracy_median, c.test_accuracy_range
            told = f"{mean} has a median of {percent(middle)} and a range of {percent(low)} to {percent(high)}"
            assert (told in " ".join(readme.split())) == (abs(e.estimate - middle) > 0.01)


@pytest.mark.parametrize("study", ["variance", "variance-lenet5"])
def test_readme_says_of_the_spread_what_can_be_told_from_0_and_how_much_the_rest_may_be(study):
    path = PUBLISHED.parent / study / "findings.json"
    ((model, found),) = Findings.model_validate_json(path.read_text(encoding="utf-8")).variance.items()
    effects = {c.effect.partition(",")[0]: c for c in found.components.components}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    begins = f"In {effects['init'].variance.n} trainings of `{model}`"
    (said,) = re.findall(rf"{begins} (.*?) \(\[report\]\(analysis/published/{study}/", readme)

    def sd(variance):
        return f"{100 * variance**0.5:.2f}"

    told = {effect for effect, c in effects.items() if c.variance.low > 0}
    assert len(re.findall(r"\d to \d", said)) == len(told)
    for c in (effects[effect] for effect in told):
        limits = f"{sd(c.variance.low)} to {sd(c.variance.high)}"
        assert re.search(rf"\b{sd(c.variance.estimate)} (points )?\([^)]*{limits}\), {text.percent(c.share, 0)}", said)
    assert "init × order × split" in told
    assert ("initial weights × batch order" in said) == ("init × order" in told)
    assert not told & {"init", "order", "split"}
    alone = [sd(effects[effect].variance.high) for effect in ("init", "order", "split")]
    assert f"SDs of up to {text.listed(alone)} points" in said
    assert "split, including nondeterminism" in readme


def test_the_calibration_is_dated_seeded_and_fitted_to_the_published_study():
    text = (PUBLISHED.parent / "calibration.md").read_text()
    assert re.search(r"seed \d+, \d{4}-\d\d-\d\d\.", text)
    cells = pd.read_csv(PUBLISHED.parent / "calibration.csv")
    assert cells["scenario"].str.startswith("fitted to paper: ").any()
    # What was unresolved was simulated anew, more often, before it was called so.
    unresolved = cells[cells["label"] == "unresolved"]
    assert (unresolved["replications"] > 4_000).all()


def test_what_the_bootstrap_is_said_to_cover_is_what_was_simulated():
    cells = pd.read_csv(PUBLISHED.parent / "calibration.csv")
    cells = cells[(cells["method"] == "BCa bootstrap over seeds") & (cells["target"] == "this test set")]
    cells = cells[~cells["scenario"].str.contains("writers, ")]
    kinds = cells["scenario"].str.extract("(bimodal|lognormal|heavy-tailed)")[0]
    normal, few = cells[kinds.isna()].groupby("seeds")["value"].mean(), cells["seeds"] < 50
    said = text.listed(f"{100 * normal[n]:.0f}" for n in (5, 10, 20))
    assert f"at n = 5, 10 and 20 and 95% it covers about {said}% where seeds are normal" in paired.BELOW_NOMINAL
    for kind, words in (("bimodal", "one seed in ten of a model is bad"), ("lognormal", "its luck is lognormal")):
        lowest, highest = (100 * getattr(cells[few & (kinds == kind)]["value"], limit)() for limit in ("min", "max"))
        assert f"{lowest:.0f} to {highest:.0f}% where {words}" in paired.BELOW_NOMINAL


def test_what_reports_say_of_intervals_that_are_too_short_is_what_was_simulated():
    cells = pd.read_csv(PUBLISHED.parent / "calibration.csv")

    def spread(scenario, method, target, seeds=(5, 10, 20, 50)):
        kept = cells[(cells["scenario"] == scenario) & (cells["method"] == method) & (cells["target"] == target)]
        kept = kept[kept["seeds"].isin(seeds)]
        assert len(kept) == len(seeds)
        return f"{100 * kept['value'].min():.0f} to {100 * kept['value'].max():.0f}%"

    bimodal, lognormal = (f"baseline's seeds {kind}, 3 times the SD" for kind in ("bimodal", "lognormal"))
    for scenario, method, target, said in (
        (bimodal, "t over seeds", "this test set", "cover {} where one seed in ten of a model is bad"),
        (lognormal, "t over seeds", "this test set", "and {} where its luck is lognormal"),
        (
            "images by writers",
            "crossed analysis of variance",
            "new images",
            "dependent images as independent cover {},",
        ),
    ):
        assert said.format(spread(scenario, method, target)) in phrases.TOO_SHORT
    for scenario, said in ((bimodal, "in {} of studies where one"), (lognormal, "in {} where its luck is lognormal.")):
        found = spread(scenario, "sign-flip test", "this test set", (10, 20, 50))
        assert said.format(found) in phrases.TOO_SHORT
    luck = cells[cells["method"] == "t over seeds with the luck of selection"]
    ties = luck[luck["scenario"] == "rates tie on validation and test images"]
    assert ties["value"].min() > 0.95
    assert f"as little as {100 * luck['value'].min():.0f}%, the less the more seeds" in phrases.LUCK_COVERS
    crossed = cells[(cells["scenario"] == bimodal) & (cells["method"] == "crossed analysis of variance")]
    (five,) = crossed[crossed["seeds"] == 5]["value"]
    assert f"over 5 seeds, where one in ten is bad, {100 * five:.0f}%." in phrases.TOO_SHORT
