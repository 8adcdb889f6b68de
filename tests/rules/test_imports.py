"""Who may import whom. The rules are read from the source, so that no import needs to happen."""

import pytest

from tests.rules.structure import ROOT, arrows, cycles, floors, imported, sources

SOURCES = sources()
ORDER = {
    "study": [
        "redaction",
        "errors",
        "wandb_access",
        "seeding",
        "config",
        "config_file",
        "cli",
        "ledger",
        "training",
        "launch",
    ],
    "analysis": ["frames", "grid", "stats", "text", "findings", "report", "calibration", "examples"],
}
"""Each package imports only from those above it; `__main__` stands at the end and may import all of them."""

SHARED = {"study.ledger", "study.config", "study.errors", "study.cli", "study.wandb_access"}
"""What analysis may import of study: the ledger, the config, how a command ends, and which W&B to write a report to."""

ONLY_IN = {
    "ray": ["study/launch/ray_tune.py", "study/launch/cluster.py"],
    "wandb": [
        "study/wandb_access.py",
        "study/launch/tracking.py",
        "study/launch/sync.py",
        "analysis/report/wandb_report.py",
    ],
    "wandb_workspaces": ["analysis/report/wandb_report.py"],
    "torch": ["study/training/", "study/launch/"],
    "torchvision": ["study/training/"],
    "matplotlib": ["analysis/report/figures/", "analysis/examples/"],
    "seaborn": ["analysis/report/figures/"],
}
"""Libraries, and the only files or folders that import them."""


def rooms(names: set[str], package: str) -> set[str]:
    """The first-level modules and packages of `package` among the imported names."""
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


def violations(file: str, source: str) -> list[str]:
    """The rules that a file breaks."""
    names = imported(file, source)
    package, room = file.removesuffix(".py").split("/")[:2]
    tops = {name.split(".")[0] for name in names}
    broken = [
        f"{file} imports {library}"
        for library, places in ONLY_IN.items()
        if library in tops
        and not any(file == place or (place[-1] == "/" and file.startswith(place)) for place in places)
    ]
    order = ORDER[package]
    if room in order:
        later = set(order[order.index(room) + 1 :])
        broken += [f"{file} imports {package}.{other}" for other in sorted(rooms(names, package) & later)]
    if package == "study":
        broken += [f"{file} imports analysis"] * ("analysis" in tops)
    else:
        shared = {name.split(".")[1] for name in SHARED}
        broken += [f"{file} imports study.{other}" for other in sorted(rooms(names, "study") - shared)]
    return broken


@pytest.mark.parametrize("file", SOURCES)
def test_rules_hold(file):
    assert violations(file, (ROOT / file).read_text()) == []


def test_no_module_imports_itself_through_others():
    found = arrows()
    assert sum(len(targets) for targets in found.values()) > len(found) > 0
    assert cycles(found) == set()
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {"a", "b", "c"}


def test_floors_are_counted_along_the_longest_chain():
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}) == 3


def test_every_module_and_package_has_its_place_in_the_order():
    for package, order in ORDER.items():
        rooms = {file.removesuffix(".py").split("/")[1] for file in SOURCES if file.startswith(f"{package}/")}
        assert rooms - {"__init__", "__main__"} == set(order)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("study/training/loop.py", "import ray"),
        ("study/training/loop.py", "from ray import tune"),
        ("study/training/loop.py", "def f():\n    from ray.tune import Tuner"),
        ("study/launch/recorder.py", "import wandb"),
        ("study/ledger/runs.py", "import torch.nn as nn"),
        ("study/launch/ray_tune.py", "from analysis.stats import paired"),
        ("study/training/loop.py", "from study import launch"),
        ("study/training/loop.py", "from study.launch import tracking"),
        ("study/training/loop.py", "from ..launch.tracking import Tracker"),
        ("study/ledger/ledger.py", "from study.training import data"),
        ("study/errors.py", "from study.config import StudyConfig"),
        ("analysis/stats/paired.py", "import torch"),
        ("analysis/stats/paired.py", "from study.training.loop import train"),
        ("analysis/stats/paired.py", "def f():\n    from analysis.findings.schema import Findings"),
        ("analysis/frames.py", "from study.launch import plan"),
        ("analysis/report/tables/gap.py", "import matplotlib.pyplot as plt"),
        ("analysis/report/page.py", "import seaborn as sns"),
        ("analysis/report/figures_too.py", "import matplotlib"),
        ("analysis/findings/build.py", "from analysis import report"),
    ],
)
def test_rules_can_fail(file, source):
    assert violations(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "analysis/report/figures/gap.py",
            "import matplotlib.pyplot as plt\nfrom analysis.report.figures import style",
        ),
        (
            "analysis/report/page.py",
            "from analysis.findings.schema import Findings\nfrom study.ledger.records import Study",
        ),
        ("study/launch/ray_tune.py", "import ray\nimport torch\nfrom study.launch import worker"),
        ("study/__main__.py", "from study.launch import session"),
    ],
)
def test_rules_allow_what_they_should(file, source):
    assert violations(file, source) == []


def test_no_test_file_imports_another():
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py"))
    found = {file: imported(file, (ROOT / file).read_text()) for file in tests}
    assert any("tests.examples" in names for names in found.values())
    assert {file for file, names in found.items() if any(".test_" in name for name in names)} == set()
