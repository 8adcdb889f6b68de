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
from analysis.report import figures, latex, paper
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
    "hostile": {"models": {"lenet5": synthetic.LENET, LONG: synthetic.MLP}, "seeds": 3, "dataset": HOSTILE},
}


def written(study, report):
    """The study's findings and its paper, written into `report`."""
    data = frames.load(study)
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
    """Any figure: how large one is printed, its float says."""
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
        shutil.copy(picture, tmp_path / "figures" / f"{figure.stem}.pdf")
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
    assert found == []


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


@pytest.mark.parametrize("name", ["quick", "one seed"])
def test_every_number_is_that_of_its_key_in_the_findings(name, tmp_path):
    findings, _ = written(study_of(name, tmp_path), tmp_path)
    tree = json.loads(findings.to_json())
    first, *lines = (tmp_path / "latex" / "numbers.tex").read_text().splitlines()
    assert first.startswith("%")
    macros = []
    for line in lines:
        macro, shown, keys, value = re.fullmatch(
            r"\\newcommand\{\\(num[A-Za-z]+)\}\{(.*)\} % ((?:\[.*?\])+) = (.*)", line
        ).groups()
        path = json.loads(f"[{keys.replace('][', '],[')}]")
        found = reduce(lambda part, key: part[key[0]], path, tree)
        assert found == json.loads(value)
        number = re.search(r"[+-]?[\d.,]+", shown.replace("$-$", "-"))[0].replace(",", "")
        rounding = 0.501 * 10.0 ** -len(number.partition(".")[2])
        if "less" in shown:
            assert found < float(number)
        else:
            scale = 100 if "%" in shown or re.search("Gap|New", macro) else 1
            assert abs(scale * found - float(number)) <= rounding, line
        macros.append(macro)
    assert len(set(macros)) == len(macros) > 10
    used = set(re.findall(r"\\(num[A-Z]\w+)\{\}", (tmp_path / "latex" / "main.tex").read_text()))
    assert used <= set(macros)


def test_the_methods_name_what_was_computed(tmp_path):
    findings, _ = written(study_of("quick", tmp_path), tmp_path)
    said = (tmp_path / "latex" / "main.tex").read_text()
    for c in findings.comparisons:
        for method in (c.seeds.mean.method, c.images.method, c.seeds.sign_flip.method):
            assert paper.breakable(method) in " ".join(said.split())


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
