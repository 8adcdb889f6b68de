"""Who may import whom. The rules are read from the source, so that no import needs to happen."""

import ast
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(str(p.relative_to(ROOT)) for package in ("study", "analysis") for p in (ROOT / package).rglob("*.py"))
LIGHT = {"study/records.py", "study/runs.py", "study/seeding.py"}
HEAVY = {"torch", "torchvision", "ray", "wandb", "pandas", "scipy", "matplotlib", "seaborn", "pyarrow", "omegaconf"}
SHARED = {"study.records", "study.ledger", "study.storage", "study.errors", "study.runs", "study.command"}
"""What analysis may import of study: the schema and the ledger, what those are made of, and how a command ends."""

ONLY_IN = {
    "ray": {"study/launch.py", "study/cluster.py"},
    "wandb": {"study/tracking.py", "analysis/wandb_report.py"},
    "wandb_workspaces": {"analysis/wandb_report.py"},
    "matplotlib": {"analysis/figures/", "analysis/style.py"},
    "seaborn": {"analysis/figures/", "analysis/style.py"},
}
"""Files, and folders with all that is in them."""


def imported(file: str, source: str) -> set[str]:
    """Every module that a file's source imports, anywhere in it, also for type checking and relative to itself."""
    package = file.rpartition("/")[0].replace("/", ".")
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def violations(file: str, source: str) -> list[str]:
    """The rules that a file breaks."""
    names = imported(file, source)
    tops = {name.split(".")[0] for name in names}
    broken = [
        f"{file} imports {top}"
        for top, allowed in ONLY_IN.items()
        if top in tops and not any(file == place or (place[-1] == "/" and file.startswith(place)) for place in allowed)
    ]
    package = file.split("/")[0]
    if package == "study" and "analysis" in tops:
        broken.append(f"{file} imports analysis")
    if package == "analysis":
        broken += [f"{file} imports {top}" for top in ("torch", "torchvision") if top in tops]
        own = {".".join(name.split(".")[:2]) for name in names if name.startswith("study.")}
        broken += [f"{file} imports {name}" for name in sorted(own - SHARED)]
    if file in LIGHT:
        broken += [f"{file} imports {top}" for top in sorted(tops & HEAVY)]
    if file in ("study/training.py", "study/fusion.py", "study/models.py") and "study.tracking" in names:
        broken.append(f"{file} imports study.tracking")
    return broken


@pytest.mark.parametrize("file", SOURCES)
def test_rules_hold(file):
    assert violations(file, (ROOT / file).read_text()) == []


def test_all_sources_are_read():
    assert {"study/launch.py", "study/__main__.py", "analysis/__main__.py"} <= set(SOURCES)
    assert len(SOURCES) > 50


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("study/training.py", "import ray"),
        ("study/training.py", "from ray import tune"),
        ("study/training.py", "def f():\n    from ray.tune import Tuner"),
        ("study/driver.py", "import wandb"),
        ("study/launch.py", "from analysis import gap"),
        ("study/runs.py", "import torch.nn as nn"),
        ("analysis/gap.py", "import torch"),
        ("analysis/gap.py", "from study import training"),
        ("analysis/gap.py", "from study.training import train"),
        ("analysis/tables.py", "import seaborn as sns"),
        ("study/training.py", "from study import tracking"),
        ("study/training.py", "from . import tracking"),
        ("study/training.py", "from .tracking import Tracker"),
        ("study/inner/deep.py", "import ray"),
        ("analysis/tables/main.py", "import matplotlib.pyplot as plt"),
        ("analysis/tables/main.py", "import study.training.inner"),
        ("analysis/figures/gap.py", "import torch"),
        ("analysis/figures_too.py", "import matplotlib"),
        ("study/records.py", "import pandas as pd"),
    ],
)
def test_rules_can_fail(file, source):
    assert violations(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "analysis/figures/gap.py",
            "import matplotlib.pyplot as plt\nfrom . import parts\nfrom ..style import COLOURS",
        ),
        ("analysis/tables/main.py", "from study.records import Study\nfrom .. import formats"),
        ("study/launch.py", "import ray\nfrom . import worker"),
    ],
)
def test_rules_allow_what_they_should(file, source):
    assert violations(file, source) == []
