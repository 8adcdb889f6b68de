"""The draft of a paper: it compiles without a fault, its numbers are those of the findings, its names are escaped."""

import json
import re
import shutil
import subprocess
from functools import reduce
from importlib import resources
from pathlib import Path

import pytest

from analysis import frames
from analysis.findings import build
from analysis.findings.schema import Findings
from analysis.report import figures, latex, page, paper, tables
from study.errors import UserError
from tests import synthetic

ROOT = Path(__file__).parents[3]
needs_latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
LONG = "my_laboratory.experiments.convolutional_networks_of_2026:A_rather_long_name_of_a_network_2"
HOSTILE = r"my_pkg.nets:My<Net>&%_#$~^\{}|\"[x]--``"
SMALL = {"n_test": 200, "n_val": 100, "analysis": {"resamples": 100}}
STATES = {("lenet5", 0.03, seed): "collapsed" for seed in range(8)} | {("mlp", 0.01, 2): "failed"}
STUDIES = {
    "quick": {"seeds": 8, "states": STATES},
    "two seeds": {"seeds": 2},
    "one seed": {"seeds": 1},
    "two models": {"models": {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}, "seeds": 3},
    "one model": {"models": {"lenet5": synthetic.LENET}, "seeds": 3},
    "nothing learned": {"seeds": 2, "states": {("mlp", r, s): "diverged" for r in (0.003, 0.01, 0.03) for s in (0, 1)}},
    "factorial": {"models": {"lenet5": synthetic.LENET}, "seeds": {"init": 3, "order": 3, "split": 2}},
    "hostile": {"models": {"lenet5": synthetic.LENET, LONG: synthetic.MLP}, "seeds": 3, "dataset": HOSTILE},
}


def written(study, report, clusters=None):
    """The study's findings and its paper, written into `report`."""
    data = frames.load(study, clusters)
    findings = build.collect(data)
    folder = report / "latex"
    paper.write(findings, data, folder, latex.write(findings, data, folder))
    return findings, data


def study_of(name, folder):
    """The path of a study's ledger."""
    if name == "paper":
        return ROOT / "analysis" / "published" / "paper" / "paper.zip"
    return synthetic.write(folder, **{**SMALL, **STUDIES[name]})


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    """Any figure, where those of the study are not drawn: how large one is printed, its float says."""
    folder = tmp_path_factory.mktemp("picture")
    findings, data = written(study_of("one model", folder), folder)
    with figures.style.applied():
        pdf, *_ = figures.style.save(figures.plot(findings, data, "learning_rates"), folder, "any")
    return pdf


@needs_latex
@pytest.mark.slow
@pytest.mark.parametrize("name", [*STUDIES, "paper"])
def test_it_compiles_in_one_column_and_in_two_and_everything_fits(name, tmp_path, picture):
    written(study_of(name, tmp_path), tmp_path)
    (tmp_path / "figures").mkdir()
    for figure in (tmp_path / "latex" / "figures").iterdir():
        drawn = ROOT / "analysis" / "published" / name / "figures" / f"{figure.stem}.pdf"
        shutil.copy(drawn if drawn.exists() else picture, tmp_path / "figures" / f"{figure.stem}.pdf")
    main = tmp_path / "latex" / "main.tex"
    two = main.read_text()
    assert two.count("twocolumn]{") == 1
    for columns in ("two", "two", "one"):  # references are known the second time
        main.write_text(two.replace("twocolumn]{", f"{columns}column]{{"))
        run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", main.name]
        done = subprocess.run(run, cwd=main.parent, capture_output=True, encoding="latin-1")
        assert done.returncode == 0, done.stdout[-2000:]
        found = faults(done.stdout)
        assert found == [] or (columns == "two" and all("ndefined" in fault for fault in found))
        assert strayed((main.parent / "main.aux").read_text()) == []
        assert headings_alone(main.with_suffix(".pdf")) == []
    assert found == []


def strayed(aux):
    """Figures and tables of the appendix that are printed outside their section, in the order of LaTeX's own list."""
    home = {f"fig:{name}": f.section for name, f in figures.FIGURES.items() if f"figures/{name}" not in paper.IN_TEXT}
    home |= {f"tab:{name}": t.section for name, t in tables.TABLES.items() if f"tables/{name}" not in paper.IN_TEXT}
    section, found = "", []
    for title, label in re.findall(r"\{section\}\{\\numberline \{\w+\}(.*?)\}\{|\\newlabel\{(.*?)\}", aux):
        section = title or section
        if label in home and page.SECTIONS[home[label]] != section:
            found.append((label, section))
    return found


def headings_alone(pdf):
    """Pages on which nothing follows a heading, by their text: neither a caption nor forty words."""
    if shutil.which("pdftotext") is None:
        return []
    pages = subprocess.run(["pdftotext", pdf, "-"], capture_output=True, text=True, check=True).stdout.split("\f")[:-1]
    return [text for text in pages if len(text.split()) < 40 and not re.search(r"^(Figure|Table) \d+:", text, re.M)]


def faults(log):
    """What LaTeX complains of: boxes more than a point too wide, floats too large, and labels that nothing has."""
    wide = [points for points in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt too", log) if float(points) > 1]
    return wide + re.findall(r".*[Uu]ndefined.*|Float too large.*", log)


@needs_latex
@pytest.mark.slow
def test_the_pdf_is_the_same_wherever_it_is_made_and_says_what_the_findings_say(tmp_path):
    study = study_of("hostile", tmp_path)
    made = []
    for place in (tmp_path / "here", tmp_path / "elsewhere"):
        findings, data = written(study, place)
        figures.draw(findings, data, place / "figures")
        made.append(paper.compiled(place).read_bytes())
        assert not [path for path in (place / "latex").iterdir() if path.suffix in (".aux", ".log", ".pdf")]
    assert made[0] == made[1]
    if shutil.which("pdftotext"):
        pdf = tmp_path / "here" / paper.PDF
        said = subprocess.run(["pdftotext", pdf, "-"], capture_output=True, text=True, check=True).stdout
        assert HOSTILE in re.sub("-?\n", "", said)


@needs_latex
def test_what_does_not_compile_is_one_line_with_the_error_of_latex(tmp_path):
    written(study_of("one seed", tmp_path), tmp_path)
    (tmp_path / "figures").mkdir()
    with pytest.raises(UserError, match=r"main\.tex: latexmk: .*gap\.pdf.* not found") as error:
        paper.compiled(tmp_path)
    assert "\n" not in str(error.value)


def test_without_latex_nothing_is_compiled_and_an_older_pdf_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (tmp_path / paper.PDF).write_bytes(b"old")
    assert paper.compiled(tmp_path) is None
    assert not (tmp_path / paper.PDF).exists()


@pytest.mark.parametrize("name", ["quick", "one seed", "factorial"])
def test_every_number_is_that_of_its_key_in_the_findings(name, tmp_path):
    findings, _ = written(study_of(name, tmp_path), tmp_path)
    tree = json.loads(findings.to_json())
    first, *lines = (tmp_path / "latex" / "numbers.tex").read_text().splitlines()
    assert first.startswith("%")
    macros = []
    for line in lines:
        macro, shown, summed, keys, value = re.fullmatch(
            r"\\newcommand\{\\(num[A-Za-z]+)\}\{(.*)\} % (sum of )?((?:\[.*?\])+) = (.*)", line
        ).groups()
        path = [key for (key,) in json.loads(f"[{keys.replace('[*]', '[null]').replace('][', '],[')}]")]
        if summed:
            found = sum(part[path[-1]] for part in tree[path[0]])
        else:
            found = reduce(lambda part, key: part[key], path, tree)
        assert found == json.loads(value)
        numbers = re.findall(r"[+-]?\d[\d.]*(?:,\d{3})*", shown.replace("$-$", "-"))
        for number, exact in zip(numbers, found if isinstance(found, list) else [found], strict=True):
            number = number.replace(",", "")
            rounding = 0.501 * 10.0 ** -len(number.partition(".")[2])
            if "less" in shown:
                assert exact < float(number)
                continue
            root = macro.startswith("numSd")  # a component of variance, shown as an SD
            scale = 100 if "%" in shown or re.search("Gap|New|Margin|Sd|Spread(?!Runs|Planned)", macro) else 1
            assert abs(scale * (exact**0.5 if root else exact) - float(number)) <= rounding, line
        macros.append(macro)
    assert len(set(macros)) == len(macros) > 10
    used = set(re.findall(r"\\(num[A-Z]\w+)\{\}", (tmp_path / "latex" / "main.tex").read_text()))
    assert used <= set(macros)
    assert {f"num{name}" for name in ("Planned", "Finished", "Diverged", "Rates")} <= used
    if findings.comparisons:
        assert {"numMargin", "numResamples"} <= used
    said = " ".join((tmp_path / "latex" / "main.tex").read_text().split())
    assert "of this text are macros of" in said
    assert (
        "Descriptions of methods, verdicts, warnings, tables and captions are written from the same findings as text"
        in said
    )


def test_the_methods_name_what_was_computed_and_say_it_once(tmp_path):
    findings, _ = written(study_of("quick", tmp_path), tmp_path)
    said = " ".join((tmp_path / "latex" / "main.tex").read_text().partition("Pre-registration")[0].split())
    for c in findings.comparisons:
        for method in (c.seeds.mean.method, c.images.method, c.seeds.sign_flip.method):
            assert said.count(paper.breakable(method)) == 1
    # No method is taken for another's: clustering is not the pigeonhole bootstrap.
    assert re.search(r"pigeonhole bootstrap~\\cite\{owen2007\}, which draws both factors anew, is a check", said)


def test_a_seed_fixes_the_split_only_where_it_does(tmp_path):
    said = {}
    for name in ("two seeds", "factorial"):
        written(study_of(name, tmp_path / name), tmp_path / name)
        said[name] = " ".join((tmp_path / name / "latex" / "main.tex").read_text().split())
    assert "A seed fixes initial weights and the order of the batches; the same seed" in said["two seeds"]
    assert "All runs share one split" in said["two seeds"]
    assert "and the split;" not in said["two seeds"]
    assert "A seed fixes" not in said["factorial"]
    assert (
        r"set apart from one another and crossed, so that each varies by itself; there are \numSplits{} splits."
        in (said["factorial"])
    )


def test_a_factorial_leads_with_its_components(tmp_path):
    findings, _ = written(study_of("factorial", tmp_path), tmp_path)
    said = " ".join((tmp_path / "latex" / "main.tex").read_text().split())
    abstract = said.partition(r"\begin{abstract}")[2].partition(r"\end{abstract}")[0]
    assert r"has a standard deviation of \numSpreadLenetFive{} percentage points" in abstract
    assert "only model" not in said
    for c in findings.variance["lenet5"].components.components:
        name = "".join(map(str.capitalize, c.effect.partition(",")[0].split(" × ")))
        assert (rf"\numShareLenetFive{name}{{}} of the variance" in abstract) == bool(c.variance.low)
    assert r"(Table~\ref{tab:variance}, Figure~\ref{fig:variance})" in said
    assert r"\input{tables/variance}" in said.partition(r"\appendix")[0]


def test_one_learning_rate_is_no_list_of_rates(tmp_path):
    written(synthetic.write(tmp_path, **SMALL, learning_rates=[0.01], seeds=2), tmp_path)
    said = " ".join((tmp_path / "latex" / "main.tex").read_text().split())
    assert r"at a learning rate of \numRates{}, with" in said


def test_the_results_refer_to_what_stands_in_them(tmp_path):
    written(study_of("quick", tmp_path), tmp_path)
    said = (tmp_path / "latex" / "main.tex").read_text()
    shown = re.findall(r"\\input\{((?:figures|tables)/\w+)\}", said.partition(r"\appendix")[0])
    assert len(shown) == 5
    for name in shown:
        assert rf"\ref{{{name[:3]}:{name.partition('/')[2]}}}" in said


@pytest.mark.parametrize("writers", [True, False])
def test_clusters_are_writers_where_qmnist_says_so(writers, tmp_path, monkeypatch):
    file = tmp_path / "ids.txt"
    file.write_text("".join(f"{image // 4}\n" for image in range(200)))
    study = study_of("two models", tmp_path)
    if writers:
        found = build.collect(frames.load(study, file))
        monkeypatch.setattr(paper, "WRITERS", found.about.clusters.sha256)
    written(study, tmp_path, file)
    said = " ".join((tmp_path / "latex" / "main.tex").read_text().split())
    assert (r"the work of \numClustersCount{} writers, whom QMNIST names~\cite{yadav2019}" in said) == writers
    assert (r"They come in \numClustersCount{} clusters of \numClustersSmallest{}" in said) != writers
    assert r"\item[Clusters] \texttt{ids.txt} names" in said
    assert ("QMNIST(" in said) == writers


def test_the_writers_are_those_of_the_study_published():
    path = ROOT / "analysis" / "published" / "paper" / "findings.json"
    assert Findings.model_validate_json(path.read_text(encoding="utf-8")).about.clusters.sha256 == paper.WRITERS


def test_published_results_are_cited_as_far_as_the_references_have_them(tmp_path):
    sources = [
        {"source": name, "accuracy": 0.97, "note": ""} for name in ("LeCun et al. 1998", "Nobody 2001", "a page")
    ]
    block = {"resamples": 100, "references": {"lenet5": sources}}
    written(synthetic.write(tmp_path, **SMALL | {"analysis": block}, seeds=2), tmp_path)
    said = " ".join((tmp_path / "latex" / "main.tex").read_text().split())
    assert r"Table~\ref{tab:literature} sets published results~\cite{lecun1998} beside ours." in said


def test_every_work_cited_is_in_the_references_and_these_are_as_bibtex_sets_them(tmp_path):
    folder = resources.files("analysis.report") / "templates"
    bib, bbl = ((folder / f"references.{kind}").read_text() for kind in ("bib", "bbl"))
    entries = set(re.findall(r"^@\w+\{(\w+),", bib, re.MULTILINE))
    assert entries == set(re.findall(r"\\bibitem\{(\w+)\}", bbl))
    cited = re.findall(r"\\cite\{([\w,]+)\}", (folder / "paper.tex.j2").read_text())
    assert {key for keys in cited for key in keys.split(",")} | set(paper.CITED.values()) <= entries
    if shutil.which("bibtex"):
        (tmp_path / "references.bib").write_text(bib)
        (tmp_path / "main.aux").write_text("\\citation{*}\n\\bibstyle{plain}\n\\bibdata{references}\n")
        subprocess.run(["bibtex", "main"], cwd=tmp_path, capture_output=True, check=True)
        assert (tmp_path / "main.bbl").read_text() == bbl


def test_names_of_macros_are_letters_and_differ():
    words = paper._words(["lenet5", "mlp_matched", "mlp-matched", "a.b:Wide", "π"])
    assert list(words.values()) == ["LenetFive", "MlpMatched", "MlpMatchedTwo", "Wide", "Model"]
