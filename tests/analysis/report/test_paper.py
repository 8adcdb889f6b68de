"""The draft of a paper: it compiles without a fault, its numbers are those of the findings, its names are escaped."""

import json
import re
import shutil
import subprocess
import sys
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
TWO = {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}
TEN = {f"model_number_{k}": synthetic.Truth(8.3 - 0.3 * k) for k in range(10)}
STATES = {("lenet5", 0.03, seed): "collapsed" for seed in range(8)} | {("mlp", 0.01, 2): "failed"}
STUDIES = {
    "quick": {"seeds": 8, "states": STATES},
    "two seeds": {"seeds": 2},
    "one seed": {"seeds": 1},
    "two models": {"models": TWO, "seeds": 3},
    "one model": {"models": {"lenet5": synthetic.LENET}, "seeds": 3},
    "nothing learned": {"seeds": 2, "states": {("mlp", r, s): "diverged" for r in (0.003, 0.01, 0.03) for s in (0, 1)}},
    "factorial": {"models": {"lenet5": synthetic.LENET}, "seeds": {"init": 3, "order": 3, "split": 2}},
    "hostile": {"models": {"lenet5": synthetic.LENET, LONG: synthetic.MLP}, "seeds": 3, "dataset": HOSTILE},
    "all diverged": {
        "models": TWO,
        "seeds": 3,
        "states": {(m, r, s): "diverged" for m in TWO for r in (0.003, 0.01, 0.03) for s in range(3)},
    },
    "ten models": {"models": TEN, "seeds": 4},
    "many rates": {"models": TWO, "seeds": 1, "learning_rates": [0.0001 * 2**k for k in range(14)]},
}
DRAWN = {"ten models"}
"""Whose figures are drawn for the test of what fits, as their height is in question."""


def said_in(folder):
    """main.tex as one line, with the numbers that its macros stand for."""
    macros = dict(re.findall(r"\\newcommand\{(\\num\w+)\}\{(.*)\} % ", (folder / "latex" / "numbers.tex").read_text()))
    said = " ".join((folder / "latex" / "main.tex").read_text().split())
    return re.sub(r"(\\num[A-Z]\w+)\{\}", lambda found: macros[found[1]], said)


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
    findings, data = written(study_of(name, tmp_path), tmp_path)
    (tmp_path / "figures").mkdir()
    if name in DRAWN:
        figures.draw(findings, data, tmp_path / "figures")
    for figure in (tmp_path / "latex" / "figures").iterdir() if name not in DRAWN else ():
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
    """Figures and tables that are printed above the abstract or outside their section, in the order of LaTeX's list.

    The home of those in the text is every section before the references; of those in the appendix, one section each.
    """
    home = {f"fig:{name}": f.section for name, f in figures.FIGURES.items()}
    home |= {f"tab:{name}": t.section for name, t in tables.TABLES.items()}
    in_text = {f"{name[:3]}:{name.partition('/')[2]}" for name in paper.IN_TEXT} | {"tab:recipe"}
    section, found = "", []
    for title, label in re.findall(r"\{section\}\{(?:\\numberline \{\w+\})?(.*?)\}\{|\\newlabel\{(.*?)\}", aux):
        section = title or section
        if label in in_text:
            if section in ("", "References", *page.SECTIONS.values()):
                found.append((label, section))
        elif label in home and page.SECTIONS[home[label]] != section:
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
def test_the_command_writes_a_pdf_in_which_everything_fits_and_no_name_is_broken(tmp_path):
    study, report = study_of("quick", tmp_path), tmp_path / "report"
    command = [sys.executable, "-m", "analysis", study, "--paper", "--out", report]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"paper: {report / paper.PDF}"
    assert re.fullmatch(rf"{re.escape(str(report / paper.PDF))}: compiled in \d+\.\d s\n", done.stderr)
    assert (report / paper.PDF).read_bytes().startswith(b"%PDF")
    for _ in range(2):  # references are known the second time
        run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
        again = subprocess.run(run, cwd=report / "latex", capture_output=True, encoding="latin-1")
    assert faults(again.stdout) == []
    if shutil.which("pdftotext"):
        said = subprocess.run(["pdftotext", report / paper.PDF, "-"], capture_output=True, text=True, check=True).stdout
        assert said.count("mlp_matched") > 20
        assert re.findall(r".*mlp_\n.*", said) == []


@needs_latex
@pytest.mark.parametrize(
    ("added", "words"),
    [
        (r"\noindent\rule{30in}{1pt}", r"a line is \d{4}\.\d+pt too wide"),
        (r"\begin{table}\rule{1pt}{12in}\end{table}", r"a float is \d{3}\.\d+pt too high"),
        ("", None),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(added, words, tmp_path, picture, capsys):
    written(study_of("one seed", tmp_path), tmp_path)
    (tmp_path / "figures").mkdir()
    for figure in (tmp_path / "latex" / "figures").iterdir():
        shutil.copy(picture, tmp_path / "figures" / f"{figure.stem}.pdf")
    main = tmp_path / "latex" / "main.tex"
    main.write_text(main.read_text().replace(r"\section{Limitations}", rf"{added} \section{{Limitations}}"))
    paper.compiled(tmp_path)
    pdf = re.escape(str(tmp_path / paper.PDF))
    warning = rf"warning: {pdf}: not everything fits its page: {words}\n" if words else ""
    assert re.fullmatch(rf"{pdf}: compiled in \d+\.\d s\n{warning}", capsys.readouterr().err)


def test_a_point_too_much_is_not_worth_a_line():
    log = "Overfull \\hbox (0.9pt too wide)\nOverfull \\vbox (166.1pt too high)\nFloat too large for page by 57.8pt on"
    assert paper.too_large(log) == ["a page is 166.1pt too high", "a float is 57.8pt too high"]


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
    assert ({"numMargin", "numResamples"} <= used) == (name == "quick")
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
    for work in ("holm1979", "simonsohn2020,steegen2016", "efron1987", "miller2024", "bouthillier2021", "virtanen2020"):
        assert f"cite{{{work}}}" in said
    # No method is taken for another's: clustering is not the pigeonhole bootstrap.
    assert re.search(r"pigeonhole bootstrap~\\cite\{owen2007\}, which draws both factors anew, is a check", said)


def test_nothing_is_described_that_was_not_computed(tmp_path):
    for name in ("one seed", "all diverged"):
        findings, _ = written(study_of(name, tmp_path / name), tmp_path / name)
        said = said_in(tmp_path / name).partition(r"\section{Results}")[0]
        for c in findings.comparisons:
            for e in (c.seeds.mean, c.images, c.seeds.sign_flip):
                computed = bool(e.interval) or e.p_value is not None
                assert (f": {paper.breakable(e.method)}." in said) == computed, (name, e.method)
        for words in ("Over seeds", "crossed", "pigeonhole", "Verdicts", "Bonferroni", "Bootstrap", "SciPy"):
            assert words not in said, (name, words)
        assert ("Holm" in said) == ("specification curve" in said) == (name == "one seed")
        limits = said_in(tmp_path / name).partition(r"\section{Limitations}")[2]
        assert "there is no interval" in limits
        assert "in simulation" not in limits


def test_components_that_could_not_be_computed_have_no_methods(tmp_path):
    said = {}
    failed = {"states": {("lenet5", 0.01, 0): "failed"}}
    for name, changes in {"whole": {}, "lacking": failed, "half": failed | {"models": TWO}}.items():
        study = SMALL | STUDIES["factorial"] | changes
        written(synthetic.write(tmp_path / name, **study), tmp_path / name)
        said[name] = said_in(tmp_path / name)
    assert r"\subsection{Statistics} Components of the variance" in said["whole"]
    assert r"\subsection{Statistics}" not in said["lacking"]
    assert "Where the spread of lenet5 comes from has no answer" in said["lacking"]
    assert "variance of the test accuracy of mlp: " in said["half"]
    assert "variance of the test accuracy of lenet5: " not in said["half"]


@pytest.mark.parametrize("name", ["one seed", "all diverged", "two seeds"])
def test_one_thing_is_spoken_of_in_the_singular(name, tmp_path):
    study = synthetic.write(tmp_path, **SMALL | {"epochs": 1} | STUDIES[name])
    written(study, tmp_path)
    said = said_in(tmp_path)
    assert re.findall(r".{20}(?<![\d,.])1 (?:runs|seeds|pairs|planned pairs|epochs|baselines|splits)\b", said) == []
    assert "trained for 1 epoch in" in said
    assert ("(1 run)." in said) == ("from 1 of 1 planned pair of trainings" in said) == (name == "one seed")
    # A table is one thing too.
    gap = {
        "one seed": r"\ref{tab:gaps} has every gap, and Figure~\ref{fig:gap} draws them.",
        "two seeds": r"\ref{tab:gaps} has every gap with its intervals, and Figure~\ref{fig:gap} draws them.",
        "all diverged": r"\ref{tab:gaps} says of every baseline why there is no gap.",
    }
    assert gap[name] in said


def test_paths_are_broken_after_slashes_and_commands_between_words():
    free, avoided = r"\allowbreak{}", latex.AVOIDED
    path = f"analysis/{free}published/{free}paper/{free}paper.{avoided}zip"
    assert paper.breakable("analysis/published/paper/paper.zip") == path
    options = (
        "{-}{-}clusters qmnist{-}" + avoided + "test{-}" + avoided + "labels{-}" + avoided + "idx2{-}" + avoided + "int"
    )
    given = "python -m analysis analysis/published/paper/paper.zip --clusters qmnist-test-labels-idx2-int"
    assert paper.as_command(given) == f"python {{-}}m analysis {path} {options}"
    # What has no parts is broken where it must be: a checksum anywhere, a name as a last resort.
    assert paper.breakable("ab12" * 8) == free.join(["ab12ab12"] * 4)
    assert paper.breakable("name" * 8) == avoided.join(["namename"] * 4)
    assert paper.breakable("0.67 mlp_matched two-way") == rf"0.67 mlp\_{avoided}matched two{{-}}{free}way"


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
    assert "There was one learning rate, so that nothing was chosen." in said
    assert "in which nothing was tuned" in said
    assert "fused" not in said


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


def test_references_are_those_that_are_cited_as_bibtex_would_set_them(tmp_path):
    for name in ("quick", "all diverged"):
        written(study_of(name, tmp_path / name), tmp_path / name)
        folder = tmp_path / name / "latex"
        given = (folder / "main.bbl").read_text()
        cited = re.findall(r"\\cite\{([\w,]+)\}", (folder / "main.tex").read_text())
        assert set(re.findall(r"bibitem\{(\w+)\}", given)) == {key for keys in cited for key in keys.split(",")}
        if shutil.which("bibtex"):
            citations = "".join(f"\\citation{{{keys}}}\n" for keys in cited)
            (folder / "main.aux").write_text(f"{citations}\\bibstyle{{plain}}\n\\bibdata{{references}}\n")
            subprocess.run(["bibtex", "main"], cwd=folder, capture_output=True, check=True)
            # The widest label is one of two digits in the file given: a matter of half an em.
            assert (folder / "main.bbl").read_text().partition("\n")[2] == given.partition("\n")[2]


def test_names_are_not_hyphenated(tmp_path):
    written(study_of("quick", tmp_path), tmp_path)
    assert r"\hyphenation{mnist lenet mlp matched}" in (tmp_path / "latex" / "main.tex").read_text()


def test_names_of_macros_are_letters_and_differ():
    words = paper._words(["lenet5", "mlp_matched", "mlp-matched", "a.b:Wide", "π"])
    assert list(words.values()) == ["LenetFive", "MlpMatched", "MlpMatchedTwo", "Wide", "Model"]
