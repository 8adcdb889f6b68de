"""A tiny committed study, and the tables it must give, checked by hand before they were committed.

Two models × two learning rates × four seeds, 100 test images; one run diverged, one collapsed, one missing.
"""

from pathlib import Path

import numpy as np
import pytest

from analysis.findings.build import collect
from analysis.frames import load
from analysis.report import tables

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def study():
    frames = load(GOLDEN / "study.zip")
    return frames, collect(frames)


@pytest.mark.parametrize("name", ["completeness", "configurations", "gaps"])
def test_the_tables_are_exactly_these(study, name, tmp_path):
    frames, findings = study
    tables.write(findings, frames, tmp_path)
    assert (tmp_path / f"{name}.md").read_text() == (GOLDEN / f"{name}.md").read_text()


def test_the_gap_by_hand(study):
    """Right images 99, 99, 99, 99 against 99, 97, 98, 97: differences of 0, 2, 1, 2 images of 100, in some order."""
    frames, findings = study
    runs = frames.runs[frames.runs["learning_rate"] == 0.01]
    right = {m: (100 * part["final_test_accuracy"]).round().astype(int).tolist() for m, part in runs.groupby("model")}
    assert right["lenet5"] == [99, 99, 99, 99]
    assert sorted(right["mlp"]) == [97, 97, 98, 99]
    gap = findings.comparisons[0].seeds
    mean = (0 + 2 + 1 + 2) / 4 / 100
    sd = (((0.00 - mean) ** 2 + 2 * (0.02 - mean) ** 2 + (0.01 - mean) ** 2) / 3) ** 0.5
    half = 3.182446305284263 * sd / 2  # t quantile at 97.5%, 3 degrees of freedom, from a printed table
    np.testing.assert_allclose(
        [gap.mean.estimate, gap.mean.low, gap.mean.high], [mean, mean - half, mean + half], rtol=1e-10
    )
    # Of the 8 signs of {2, 1, 2}, two reach a sum of 5.
    assert gap.sign_flip.p_value == 2 / 8
    assert (gap.effect.wins, gap.effect.ties, gap.effect.losses) == (3, 1, 0)


def test_what_did_not_learn_stays_visible(study):
    _, findings = study
    counts = {(c.model, c.learning_rate): c for c in findings.completeness}
    assert (counts["mlp", 0.1].finished, counts["mlp", 0.1].diverged, counts["mlp", 0.1].missing) == (2, 1, 1)
    assert (counts["lenet5", 0.1].finished, counts["lenet5", 0.1].collapsed) == (4, 1)
    accuracy = {(c.model, c.learning_rate): c.test_accuracy for c in findings.configurations}
    assert (accuracy["lenet5", 0.1].n, accuracy["lenet5", 0.1].planned) == (3, 4)


def test_median_and_range_are_those_of_the_runs_that_learned(study):
    frames, findings = study
    runs = frames.runs[frames.runs["learned"]].groupby(["model", "learning_rate"])["final_test_accuracy"]
    for c in findings.configurations:
        own = sorted(runs.get_group((c.model, c.learning_rate)))
        assert c.test_accuracy_range == (own[0], own[-1])
        assert c.test_accuracy_median == pytest.approx((own[(len(own) - 1) // 2] + own[len(own) // 2]) / 2)
