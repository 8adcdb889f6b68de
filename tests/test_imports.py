"""Who may import whom. The rules are read from the source, so that no import needs to happen."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUDY = sorted((ROOT / "study").glob("*.py"))
ANALYSIS = sorted((ROOT / "analysis").glob("*.py"))
LIGHT = {"records.py", "runs.py", "seeding.py"}
HEAVY = {"torch", "torchvision", "ray", "wandb", "pandas", "scipy", "matplotlib", "seaborn", "pyarrow", "omegaconf"}
SHARED = {"study.records", "study.ledger", "study.storage", "study.errors", "study.runs", "study.command"}
"""What analysis may import of study: the schema and the ledger, what those are made of, and how a command ends."""

ONLY_IN = {
    "ray": {"study/launch.py"},
    "wandb": {"study/tracking.py", "analysis/wandb_report.py"},
    "wandb_workspaces": {"analysis/wandb_report.py"},
    "matplotlib": {"analysis/figures.py", "analysis/style.py"},
    "seaborn": {"analysis/figures.py", "analysis/style.py"},
}


def imported(source: str) -> set[str]:
    """Every module that a source imports, anywhere in it, also for type checking."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(file: str, source: str) -> list[str]:
    """The rules that a file breaks."""
    names = imported(source)
    tops = {name.split(".")[0] for name in names}
    broken = [f"{file} imports {top}" for top, allowed in ONLY_IN.items() if top in tops and file not in allowed]
    package, name = file.split("/")
    if package == "study" and "analysis" in tops:
        broken.append(f"{file} imports analysis")
    if package == "analysis":
        broken += [f"{file} imports {top}" for top in ("torch", "torchvision") if top in tops]
        own = {n for n in names if n.startswith("study.") and n.count(".") == 1}
        broken += [f"{file} imports {n}" for n in sorted(own - SHARED)]
    if package == "study" and name in LIGHT:
        broken += [f"{file} imports {top}" for top in sorted(tops & HEAVY)]
    if file in ("study/training.py", "study/fusion.py", "study/models.py") and "study.tracking" in names:
        broken.append(f"{file} imports study.tracking")
    return broken


@pytest.mark.parametrize("path", STUDY + ANALYSIS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_rules_hold(path):
    assert violations(f"{path.parent.name}/{path.name}", path.read_text()) == []


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
    ],
)
def test_rules_can_fail(file, source):
    assert violations(file, source)
