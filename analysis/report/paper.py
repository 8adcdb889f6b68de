"""The draft of a paper: main.tex around the tables and figures, a macro for every number, and its PDF.

Templates are Jinja2 with delimiters that LaTeX does not use: `<% %>` and `<< >>`. What they print is escaped, but for
what is LaTeX already (`Tex`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

import jinja2

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report import page, phrases, provenance
from analysis.report.figures import FIGURES
from analysis.report.tables import TABLES
from analysis.stats.estimate import Frozen
from study.errors import UserError

PDF = "paper.pdf"
"""The compiled paper, in the folder of the report."""

CITED = {
    "lenet5": "lecun1998",
    "mnist": "mnist",
    "qmnist": "yadav2019",
    "fashion_mnist": "xiao2017",
    "cifar10": "krizhevsky2009",
    "cifar100": "krizhevsky2009",
}
"""Built-in model or dataset → its entry in references.bib."""

FIGURES_IN_TEXT = ("gap", "learning_rates", "learning_curves")
TABLES_IN_TEXT = ("gaps", "configurations")
"""What stands in the results; everything else that the report has stands in the appendix."""

LONG, UNIT = 20, 8
"""Longer words, such as checksums and paths, may be broken: after every so many characters."""

ABSENT = (
    "no PDF: neither latexmk nor pdflatex is installed (Debian: apt-get install latexmk texlive-latex-recommended "
    "texlive-fonts-recommended lmodern); give the command again, or compile latex/main.tex elsewhere"
)


class Tex(str):
    """Text that is LaTeX already."""

    __slots__ = ()


@dataclass
class Numbers:
    """The macros of numbers.tex, each for one number of the findings."""

    findings: Findings
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, path: Sequence[str | int], shown: Callable[[Any], str]) -> Tex | None:
        r"""The macro \num<name> for the number at `path` in findings.json; None where that is null."""
        value: Any = self.findings
        for key in path:
            value = getattr(value, str(key)) if isinstance(value, Frozen) else value[key]
        if value is None:
            return None
        at = "".join(f"[{json.dumps(key)}]" for key in path)
        self.lines.append(f"\\newcommand{{\\num{name}}}{{{text.latex(shown(value))}}} % {at} = {json.dumps(value)}")
        return Tex(f"\\num{name}{{}}")


def write(findings: Findings, frames: Frames, folder: Path, floats: Sequence[Path]) -> list[Path]:
    """Write main.tex, numbers.tex and its references into `folder`, where `latex.write` left `floats`; the paths."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        undefined=jinja2.StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        finalize=lambda value: value if isinstance(value, Tex) else breakable(str(value)),
    )
    numbers = Numbers(findings)
    there = {path.relative_to(folder).with_suffix("").as_posix() for path in floats}
    main = environment.get_template("paper.tex.j2").render(_context(findings, frames, numbers, there))
    files = {
        "main.tex": main,
        "numbers.tex": "% A number of the paper a line: its macro, its key in findings.json and its value there.\n"
        + "\n".join(numbers.lines)
        + "\n",
        "references.bib": _template("references.bib"),
        "main.bbl": _template("references.bbl"),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in files]


def compiled(report: Path) -> Path | None:
    """The PDF of `report`/latex/main.tex, written into `report`; None where no LaTeX is installed.

    Raises UserError, with LaTeX's own error, where it does not compile.
    """
    (report / PDF).unlink(missing_ok=True)
    options = ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    if shutil.which("latexmk") and shutil.which("pdflatex"):
        commands = [["latexmk", "-norc", "-pdf", *options]]
    elif shutil.which("pdflatex"):
        commands = [["pdflatex", *options]] * 3
    else:
        return None
    with tempfile.TemporaryDirectory(prefix="paper-") as name:  # so that none of LaTeX's other files stay
        place = Path(name)
        shutil.copytree(report / "latex", place / "latex")
        shutil.copytree(report / "figures", place / "figures", ignore=shutil.ignore_patterns("*.png", "*.svg"))
        for command in commands:
            done = subprocess.run(
                command,
                cwd=place / "latex",
                env={**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "1000"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="latin-1",
                check=False,
            )
            if done.returncode:
                said = re.findall(r"^(?:!|\S+:\d+:) .*", done.stdout, re.MULTILINE) or [f"exit {done.returncode}"]
                raise UserError(f"{report / 'latex' / 'main.tex'}: {command[0]}: {said[0]}")
        shutil.copy(place / "latex" / "main.pdf", report / PDF)
    return report / PDF


def _template(name: str) -> str:
    return (resources.files("analysis.report") / "templates" / name).read_text(encoding="utf-8")


def _context(findings: Findings, frames: Frames, numbers: Numbers, floats: set[str]) -> dict[str, Any]:
    """What the template prints."""
    about, names = findings.about, _words([model.name for model in findings.about.models])
    models = [_model(findings, numbers, i, names) for i in range(len(about.models))]
    inputs = [(f"figures/{f.name}", f.section, f.name in FIGURES_IN_TEXT) for f in FIGURES.values()]
    inputs += [(f"tables/{t.name}", t.section, t.name in TABLES_IN_TEXT) for t in TABLES.values()]
    inputs = [of for of in inputs if of[0] in floats]
    return {
        "title": page.title(findings),
        "headline": page.headline(findings),
        "became": page.became(findings),
        "study": about,
        "settings": about.settings,
        "n": _study(numbers),
        "models": models,
        "comparisons": [_comparison(findings, numbers, i, names) for i in range(len(findings.comparisons))],
        "answer": findings.answer,
        "rates": text.listed(map(text.plain, about.learning_rates)),
        "recipe": [fact for fact in page.recipe(findings) if not fact[0].startswith("Model ")],
        "clusters": page.clusters(findings),
        "cite_clusters": Tex("~\\cite{cameron2011,cameron2015}" if about.clusters else ""),
        "preregistration": findings.preregistration,
        "facts": provenance.facts(findings, frames),
        "commands": {name: shown for name, _, shown in provenance.again(findings, frames)},
        "warnings": findings.warnings,
        "inline": [Tex(name) for name, _, in_text in inputs if in_text],
        "appendix": [
            (title, [Tex(name) for name, of, in_text in inputs if of == section and not in_text])
            for section, title in page.SECTIONS.items()
        ],
        "cite": {name: Tex(f"~\\cite{{{entry}}}") for name, entry in CITED.items()},
        "nothing": Tex(""),
        "points": text.plain(round(100 * about.settings.margin, 9)),
        "level": text.level(about.settings.confidence),
        "verdict_level": text.level(about.settings.verdict_level),
        "splits": text.splits(about.splits),
        "too_short": phrases.TOO_SHORT,
    }


def _study(numbers: Numbers) -> dict[str, Tex | None]:
    """Macros of the study as a whole."""
    keys = {"Train": "n_train", "Val": "n_val", "Test": "n_test", "Classes": "classes", "Planned": "planned"}
    keys |= {"Epochs": "epochs", "Batch": "batch_size"}
    return {name: numbers.add(name, ("about", key), text.count) for name, key in keys.items()}


def _model(findings: Findings, numbers: Numbers, i: int, words: Mapping[str, str]) -> dict[str, Any]:
    """A model, with macros of its size, its learning rate and its accuracy there."""
    name = findings.about.models[i].name
    word, chosen = words[name], ("selection", name, "mean", "learning_rate")
    rate = findings.selection[name].mean.learning_rate if name in findings.selection else None
    at = [k for k, c in enumerate(findings.configurations) if (c.model, c.learning_rate) == (name, rate)]
    accuracy: Sequence[str | int] = ("configurations", at[0], "test_accuracy") if at else ()
    return {
        "name": name,
        "Parameters": numbers.add(f"Parameters{word}", ("about", "models", i, "n_parameters"), text.count),
        "Macs": numbers.add(f"Macs{word}", ("about", "models", i, "macs"), text.count),
        "Rate": None if rate is None else numbers.add(f"Rate{word}", chosen, text.plain),
        "Accuracy": numbers.add(f"Accuracy{word}", (*accuracy, "estimate"), text.percent) if at else None,
        "Runs": numbers.add(f"Runs{word}", (*accuracy, "n"), text.count) if at else None,
    }


def _comparison(findings: Findings, numbers: Numbers, i: int, words: Mapping[str, str]) -> dict[str, Any]:
    """A baseline, with the comparison itself (`c`) and macros of its gap."""
    c = findings.comparisons[i]
    word, mean = words[c.baseline], c.seeds.mean

    def points(of: Any) -> Callable[[float], str]:  # noqa: ANN401
        digits = text.point_digits(of.low, of.high)
        return lambda value: text.points(value, digits)

    def add(name: str, *path: str, shown: Callable[[Any], str]) -> Tex | None:
        return numbers.add(f"{name}{word}", ("comparisons", i, *path), shown)

    ratio = ("seeds", "effect", "error_rate_ratio")
    return {
        "c": c,
        "Gap": add("Gap", "seeds", "mean", "estimate", shown=points(mean)),
        "Low": add("GapLow", "seeds", "mean", "low", shown=points(mean)),
        "High": add("GapHigh", "seeds", "mean", "high", shown=points(mean)),
        "NewLow": add("NewLow", "images", "low", shown=points(c.images)),
        "NewHigh": add("NewHigh", "images", "high", shown=points(c.images)),
        "Ours": add("CandidateError", "candidate_error_rate", shown=text.percent),
        "Theirs": add("BaselineError", "baseline_error_rate", shown=text.percent),
        "Pairs": add("Pairs", "pairs", shown=text.count),
        "PairsPlanned": add("PairsPlanned", "planned", shown=text.count),
        "Wins": add("Wins", "seeds", "effect", "wins", shown=text.count),
        "P": add("P", "seeds", "sign_flip", "p_value", shown=text.p_statement),
        "PHolm": add("PHolm", "p_holm", shown=text.p_statement),
        "Ratio": add("Ratio", *ratio, "estimate", shown="{:.2f}".format),
        "RatioLow": add("RatioLow", *ratio, "low", shown="{:.2f}".format),
        "RatioHigh": add("RatioHigh", *ratio, "high", shown="{:.2f}".format),
    }


def breakable(shown: str) -> Tex:
    """Text for LaTeX, escaped, in which long words, such as paths and checksums, may be broken between lines."""
    words = [
        [word[k : k + UNIT] for k in range(0, len(word), UNIT)] if len(word) > LONG else [word]
        for word in shown.split()
    ]
    return Tex(" ".join(r"\allowbreak{}".join(map(text.latex, parts)) for parts in words))


def _words(models: Sequence[str]) -> dict[str, str]:
    """Model → letters that stand for it in the names of macros: mlp_matched → MlpMatched, lenet5 → LenetFive."""
    digits = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    given: dict[str, str] = {}
    for model, name in text.short_names(models).items():
        parts = re.findall(r"[A-Za-z]+|[0-9]", name)
        word = "".join(digits[int(part)] if part.isdigit() else part[0].upper() + part[1:] for part in parts) or "Model"
        # Names that differ in other characters alone are numbered in letters.
        taken = (word if k == 0 else word + "".join(digits[int(d)] for d in str(k + 1)) for k in count())
        given[model] = next(w for w in taken if w not in given.values())
    return given
