"""The map of analysis keeps its word: its example runs, and its columns are those of the frames."""

import re

import pytest

from analysis import frames
from study.ledger.records import METRICS
from tests.rules.structure import ROOT

README = (ROOT / "analysis" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs(monkeypatch, capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    names = {}
    exec(example, names)
    study = names["study"]
    assert len(study.runs) == 360
    assert study.findings.answer in capsys.readouterr().out
    assert names["figure"].axes


def test_every_column_is_explained():
    section = README[README.index("## In Python") :]
    rows, sentence = section[: section.index("`epochs` has")], section[section.index("`epochs` has") :]
    named = [name for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(frames.COLUMNS)
    assert set(re.findall(r"`(\w+)`", sentence)) >= {"run_id", "epoch", *METRICS}
