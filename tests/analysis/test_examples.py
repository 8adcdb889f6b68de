"""The examples run, on the study that they name and on one of the user's."""

import runpy
import sys

import pytest

from tests import synthetic
from tests.rules.structure import ROOT

EXAMPLE = ROOT / "analysis" / "examples" / "own_questions.py"


@pytest.mark.parametrize("seeds", [1, 4])
def test_own_questions_are_answered_of_any_study(seeds, tmp_path, monkeypatch, capsys):
    states = {("lenet5", 0.03, 0): "diverged", ("mlp", 0.003, 0): "failed"}
    study = synthetic.write(tmp_path, seeds=seeds, n_test=200, n_val=60, states=states, analysis={"resamples": 100})
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(study)])
    names = runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert names["own"].axes[0].get_lines()
    assert names["figure"].axes[0].get_title(loc="center").startswith("The same")
    assert [c.baseline for c in names["findings"].comparisons] == list(names["medians"])
    for c in names["findings"].comparisons:
        shown = f"{100 * names['medians'][c.baseline]:+.3f}"
        assert f"against {c.baseline}, {c.pairs} pairs: median {shown} points" in printed
    if seeds > 1:
        assert printed.count("95% ") == 2


@pytest.mark.slow
def test_own_questions_are_answered_of_the_published_study(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE)])
    names = runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert len(names["runs"]) == 360
    assert names["medians"]["mlp"] == pytest.approx(names["findings"].comparisons[0].seeds.mean.estimate, abs=0.0005)
    assert "lenet5 against mlp_matched, 20 pairs" in capsys.readouterr().out
