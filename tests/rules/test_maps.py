"""The maps beside the code: every module is in them, and what they name exists."""

import re

import pytest

from study.ledger.records import METRICS
from tests.rules.structure import ROOT, sources

MAPS = ("study", "analysis")
READMES = ["README.md"] + [
    str(path.relative_to(ROOT))
    for folder in ("analysis", "configs", "study", "tests")
    for path in sorted((ROOT / folder).rglob("README.md"))
]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
}


def tree(text):
    """The paths that the tree of a map names: its first block of code, a level for every two spaces."""
    folders, paths = [], []
    for line in re.search(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        del folders[len(indent) // 2 :]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.append("".join([*folders, name]))
    return paths


@pytest.mark.parametrize("package", MAPS)
def test_the_tree_names_every_module_once(package):
    named = tree((ROOT / package / "README.md").read_text(encoding="utf-8"))
    assert sorted(named) == [f for f in sources() if f.startswith(f"{package}/") and not f.endswith("__init__.py")]


@pytest.mark.parametrize("readme", READMES)
def test_links_and_sources_that_are_named_exist(readme):
    text, folder = (ROOT / readme).read_text(encoding="utf-8"), (ROOT / readme).parent
    links = [folder / link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [str(link) for link in links if not link.exists()] == []
    files = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert [file for file in files if not (folder / file).exists() and not (ROOT / file).exists()] == []


@pytest.mark.parametrize("readme", READMES)
def test_tests_that_are_named_exist(readme):
    for name, cut in re.findall(r"`(test_\w+?)(_…)?`", (ROOT / readme).read_text(encoding="utf-8")):
        assert name in METRICS or any(test == name or (cut and test.startswith(name)) for test in TESTS), name


def test_every_helper_of_tests_is_in_their_map():
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    helpers = {path.name for path in (ROOT / "tests").glob("*.py")} - {"__init__.py", "conftest.py"}
    assert {name for name in helpers if f"  {name} " not in text} == set()


def test_the_first_map_names_where_to_begin():
    """Every folder with its own map, and the page of plain PyTorch that says what a run is."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2].partition("\n## ")[0]
    assert {f"{package}/README.md" for package in (*MAPS, "configs", "tests")} <= set(text.split())
    assert "independent_loop.py" in text


def test_a_tree_is_read_by_its_indentation():
    assert tree("```\na/\n  b.py   first\n  c/     second\n    d.py\n  e.py\n```\n") == ["a/b.py", "a/c/d.py", "a/e.py"]
