"""The draft of a paper: main.tex around the tables and figures, macros for its numbers, and its PDF.

Templates are Jinja2 with delimiters that LaTeX does not use: `<% %>` and `<< >>`. What they print is escaped, but for
what is LaTeX already (`Tex`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel

from analysis import text
from analysis.findings import summary
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report import latex, page, phrases, provenance
from analysis.report.figures import FIGURES
from analysis.report.tables import TABLES
from analysis.stats.variance import Component
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

WRITERS = "82c40c7a84484a76038eb66cacd3bd8f27304ee4e064431cf0980d2938368c10"
"""The checksum of the clusters of MNIST's test images that are their writers, as QMNIST names them."""

IN_TEXT = (
    "figures/gap",
    "figures/variance",
    "figures/learning_rates",
    "figures/learning_curves",
    "tables/gaps",
    "tables/variance",
    "tables/configurations",
)
"""What stands in the text; everything else that the report has stands in the appendix."""

UNIT = 8
"""Characters of a long word without parts, such as a checksum, after each of which it may be broken."""

PART = re.compile(r".+?(?:[/_-]|(?<=[A-Za-z])[.:](?=[A-Za-z])|$)")
"""What of a long word stays together: parts of a path, of a name and of a Python path."""

FITS = 1.0
"""Points by which a line or a page may be too long: nobody sees them."""

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
            value = getattr(value, str(key)) if isinstance(value, BaseModel) else value[key]
        return (
            None if value is None else self._line(name, "".join(f"[{json.dumps(key)}]" for key in path), value, shown)
        )

    def total(self, name: str, key: str) -> Tex:
        r"""The macro \num<name> for how many of all planned runs became what `key` says."""
        value = sum(getattr(counts, key) for counts in self.findings.completeness)
        return self._line(name, f'sum of ["completeness"][*][{json.dumps(key)}]', value, text.count)

    def _line(self, name: str, at: str, value: object, shown: Callable[[Any], str]) -> Tex:
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
        "main.bbl": _references(main),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in files]


def compiled(report: Path) -> Path | None:
    """The PDF of `report`/latex/main.tex, written into `report`; None where no LaTeX is installed.

    On stderr a line says how long that took, and another what of it does not fit its page. Raises UserError, with
    LaTeX's own error, where it does not compile.
    """
    began = time.monotonic()
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
        found = too_large((place / "latex" / "main.log").read_text(encoding="latin-1"))
    print(f"{report / PDF}: compiled in {time.monotonic() - began:.1f} s", file=sys.stderr)
    if found:
        print(f"warning: {report / PDF}: not everything fits its page: {'; '.join(found)}", file=sys.stderr)
    return report / PDF


def too_large(log: str) -> list[str]:
    """What LaTeX's log says of lines, pages and floats that are larger than there is room for."""
    found = re.findall(r"Float too large for page by ([\d.]+)pt|Overfull \\([hv])box \(([\d.]+)pt too", log)
    lines = {"h": "a line is %spt too wide", "v": "a page is %spt too high", "": "a float is %spt too high"}
    return [lines[box] % (points or high) for high, box, points in found if float(points or high) > FITS]


def _template(name: str) -> str:
    return (resources.files("analysis.report") / "templates" / name).read_text(encoding="utf-8")


def _references(main: str) -> str:
    """The references that `main` cites, as BibTeX would set them, where there is no BibTeX."""
    cited = {key for keys in re.findall(r"\\cite\{([\w,]+)\}", main) for key in keys.split(",")}
    item = re.compile(r"\\bibitem\{(\w+)\}.*?\n\n", re.DOTALL)
    return item.sub(lambda found: found[0] if found[1] in cited else "", _template("references.bbl"))


def _context(findings: Findings, frames: Frames, numbers: Numbers, floats: set[str]) -> dict[str, Any]:
    """What the template prints."""
    about, names = findings.about, _words([model.name for model in findings.about.models])
    models = [_model(findings, numbers, i, names) for i in range(len(about.models))]
    inputs = [(f"figures/{f.name}", f.section) for f in FIGURES.values()]
    inputs += [(f"tables/{t.name}", t.section) for t in TABLES.values()]
    others = [of for of in inputs if of[0] in floats.difference(IN_TEXT)]
    n = _study(findings, numbers)
    return {
        "title": page.title(findings),
        "headline": page.headline(findings),
        "study": about,
        "settings": about.settings,
        "tuned": len(about.learning_rates) > 1,
        "names": Tex(" ".join(_letters([about.dataset, *(model.name for model in about.models)]))),
        "n": n,
        "models": models,
        "comparisons": [_comparison(findings, numbers, i, names) for i in range(len(findings.comparisons))],
        "methods": _methods(findings),
        "spreads": [_spread(findings, numbers, model, names[model]) for model in summary.spreads(findings)],
        "factorial": isinstance(frames.config["seeds"], Mapping),
        "answer": findings.answer.split("\n\n")[-1],
        "recipe": _recipe(findings, n),
        "writers": about.dataset == "mnist" and about.clusters is not None and about.clusters.sha256 == WRITERS,
        "clusters_file": frames.clusters_file and as_command(frames.clusters_file),
        "preregistration": findings.preregistration,
        "published": _published(findings),
        "facts": provenance.facts(findings, frames),
        "commands": {name: as_command(shown) for name, _, shown in provenance.again(findings, frames)},
        "warnings": findings.warnings,
        "floats": floats,
        "inline": [Tex(name) for name in IN_TEXT if name in floats],
        "computed": _computed(findings),
        "appendix": [
            (title, [Tex(name) for name, of in others if of == section]) for section, title in page.SECTIONS.items()
        ],
        "cite": {name: Tex(f"~\\cite{{{entry}}}") for name, entry in CITED.items()},
        "nothing": Tex(""),
        "verdict_level": text.level(about.settings.verdict_level),
        "too_short": phrases.TOO_SHORT,
    }


def _letters(names: Sequence[str]) -> list[str]:
    """What of names LaTeX would take for words, and break with a hyphen."""
    return list(dict.fromkeys(re.findall("[a-z]+", " ".join(names).lower())))


def _study(findings: Findings, numbers: Numbers) -> dict[str, Tex | None]:
    """Macros of the study as a whole."""
    about = findings.about
    keys = {"Train": "n_train", "Val": "n_val", "Test": "n_test", "Classes": "classes", "Planned": "planned"}
    keys |= {"Epochs": "epochs", "Batch": "batch_size", "Splits": "splits"}
    found = {name: numbers.add(name, ("about", key), text.count) for name, key in keys.items()}
    states = ("finished", "collapsed", "diverged", "failed", "missing")
    found |= {state.capitalize(): numbers.total(state.capitalize(), state) for state in states}
    shown: dict[str, tuple[tuple[str, ...], Callable[[Any], str]]] = {
        "Rates": (("learning_rates",), lambda rates: text.listed(map(text.plain, rates))),
        "Level": (("settings", "confidence"), text.level),
        "Margin": (("settings", "margin"), lambda margin: text.plain(text.hundredfold(margin))),
        "Resamples": (("settings", "resamples"), text.count),
    }
    found |= {name: numbers.add(name, ("about", *key), how) for name, (key, how) in shown.items()}
    levels = [i for i, c in enumerate(findings.comparisons) if c.seeds.verdict.interval.level is not None]
    at: Sequence[str | int] = ("comparisons", *levels[:1], "seeds", "verdict", "interval", "level")
    found["VerdictLevel"] = numbers.add("VerdictLevel", at, text.level) if levels else None
    for key in ("count", "smallest", "largest") if about.clusters else ():
        name = f"Clusters{key.capitalize()}"
        found[name] = numbers.add(name, ("about", "clusters", key), text.count)
    return found


def _recipe(findings: Findings, n: Mapping[str, Tex | None]) -> list[tuple[str, str]]:
    """What all runs share, with macros where there are any."""
    macros = {
        "Images": Tex(f"{n['Train']} train, {n['Val']} validation, {n['Test']} test"),
        "Learning rates": n["Rates"],
        "Epochs, batch size": Tex(f"{n['Epochs']}, {n['Batch']}"),
    }
    facts = [fact for fact in page.recipe(findings) if not fact[0].startswith("Model ")]
    return [(term, macros.get(term) or value) for term, value in facts]


def _methods(findings: Findings) -> list[tuple[str, str]]:
    """What was computed, and how: each method once, with its baselines where these differ in it."""
    asked = {
        "Over seeds": [c.seeds.mean for c in findings.comparisons],
        "Over seeds and test images": [c.images for c in findings.comparisons],
        "The test": [c.seeds.sign_flip for c in findings.comparisons],
    }
    said = []
    for what, found in asked.items():
        groups: dict[str, list[str]] = {}
        for c, e in zip(findings.comparisons, found, strict=True):
            if e.interval or e.p_value is not None:
                groups.setdefault(e.method, []).append(c.baseline)
        several = len(groups) > 1
        methods = [f"{method} ({text.listed(of)})" if several else method for method, of in groups.items()]
        said += [(what, "; ".join(methods))] if methods else []
    return said


def _computed(findings: Findings) -> dict[str, bool]:
    """What has come out of the data of at least one comparison: no other method is described."""
    over_seeds, crossed = [c.seeds for c in findings.comparisons], [i.crossed for i in findings.images.values()]
    return {
        "seeds": phrases.over_seeds(findings),
        "images": any(c.images.interval for c in findings.comparisons),
        "tests": any(c.p_holm is not None for c in findings.comparisons),
        "verdicts": any(gap.verdict.words for gap in over_seeds),
        "outperforming": any(gap.effect.bouthillier for gap in over_seeds),
        "bca": any(gap.checks.bca.interval for gap in over_seeds),
        "pigeonhole": any(found.bootstrap.interval for found in crossed if found),
    }


def _published(findings: Findings) -> Tex:
    """Citations of the published results beside ours, as far as the references have them: "LeCun et al. 1998"."""
    entries = re.findall(r"^@\w+\{(\w+),", _template("references.bib"), re.MULTILINE)
    sources = [re.match(r"(\w+).*\b(\d{4})$", result.source) for result in findings.literature]
    keys = dict.fromkeys(f"{found[1].lower()}{found[2]}" for found in sources if found)
    known = [key for key in keys if key in entries]
    return Tex(f"~\\cite{{{','.join(known)}}}" if known else "")


def _spread(findings: Findings, numbers: Numbers, model: str, word: str) -> dict[str, Any]:
    """A model of a factorial, with macros of its spread and of the components of it."""
    found = findings.variance[model].components
    at: Sequence[str | int] = ("variance", model, "components")

    def component(i: int, c: Component) -> dict[str, Any]:
        name = word + "".join(factor.capitalize() for factor in re.findall(r"\w+", c.effect.partition(",")[0]))
        of = (*at, "components", i)
        return {
            "effect": summary.effect(c),
            "told": summary.told_from_0(c),
            "Share": numbers.add(f"Share{name}", (*of, "share"), lambda share: text.percent(share, 0)),
            "Sd": numbers.add(f"Sd{name}", (*of, "variance", "estimate"), summary.root),
            "Low": numbers.add(f"SdLow{name}", (*of, "variance", "low"), summary.root),
            "High": numbers.add(f"SdHigh{name}", (*of, "variance", "high"), summary.root),
        }

    components = [component(i, c) for i, c in enumerate(found.components)]
    return {
        "name": model,
        "Sd": numbers.add(f"Spread{word}", (*at, "standard_deviation"), text.sd),
        "crossed": " × ".join(f"{n} {factor}" for factor, n in found.levels.items()),
        "told": [c for c in components if c["told"]],
        "others": [c for c in components if not c["told"]],
        "method": found.components[0].variance.method,
        "declined": found.components[0].variance.declined,
        "Runs": numbers.add(f"SpreadRuns{word}", (*at, "components", 0, "variance", "n"), text.count),
        "Planned": numbers.add(f"SpreadPlanned{word}", (*at, "components", 0, "variance", "planned"), text.count),
    }


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
        "n": findings.configurations[at[0]].test_accuracy.n if at else 0,
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
    return Tex(" ".join(_parts(word, "/_") if len(word) > latex.LONG else latex.prose(word) for word in shown.split()))


def as_command(shown: str) -> Tex:
    """The same for a command: broken between its words and after slashes; a hyphen could seem to be put there."""
    escaped = (_parts(word, "/") if len(word) > latex.LONG else text.latex(word) for word in shown.split())
    return Tex(" ".join(escaped).replace(r"{-}\allowbreak{}", "{-}").replace(r"\_\allowbreak{}", r"\_"))


def _parts(word: str, free: str) -> str:
    """A long word for LaTeX: broken after what is `free` and in checksums; elsewhere where no other way is left."""
    shown = ""
    for part in PART.findall(word):
        units = [part[k : k + UNIT] for k in range(0, len(part), UNIT)] if len(part) > latex.LONG else [part]
        within = r"\allowbreak{}" if re.fullmatch("[0-9a-f]+", part) else latex.AVOIDED
        shown += within.join(text.latex(unit).replace(r"\allowbreak{}", "") for unit in units)
        shown += r"\allowbreak{}" if part[-1] in free else latex.AVOIDED
    return shown.removesuffix(latex.AVOIDED)


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
