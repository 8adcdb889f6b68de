"""The analysis declared against the one made."""

import dataclasses

import pytest

from analysis.findings import preregistration
from analysis.findings.build import collect
from study.errors import UserError


def test_preregistration_knows_what_was_declared(loaded, findings):
    assert findings.preregistration.as_declared
    assert findings.preregistration.deviations == ()
    assert findings.preregistration.declared_sha256 == loaded.study.launches[0].analysis_sha256
    other = collect(loaded, {"margin": 0.002, "baselines": ["mlp"]}).preregistration
    assert not other.as_declared
    assert [(d.key, d.declared, d.used) for d in other.deviations] == [
        ("baselines", ["mlp", "mlp_matched"], ["mlp"]),
        ("margin", 0.001, 0.002),
    ]
    assert not collect(loaded, {"margin": 0.001, "candidate": "lenet5"}).preregistration.deviations


def test_a_margin_chosen_later_is_not_called_preset(loaded, findings):
    other = collect(loaded, {"margin": 0.05})
    assert "Against a threshold of 5 points, not the one declared (0.1), the verdict is" in other.answer
    assert "preset" not in other.answer
    assert "Against the preset threshold of 0.1 points the verdict is" in findings.answer
    assert "the analysis made is not the one declared: margin 0.05, not 0.001" in other.warnings


def relaunched(loaded, **changes):
    """The same study launched again with these changes to its config, by which its last launch goes."""
    (first,) = loaded.study.launches
    again = first.model_copy(update=dict(config=first.config | changes))
    return dataclasses.replace(loaded, study=loaded.study.model_copy(update=dict(launches=[first, again])))


def test_models_that_come_later_change_what_was_declared(loaded):
    order = ["mlp", "lenet5", "mlp_matched"]
    runs = loaded.runs.sort_values("model", key=lambda m: m.map(order.index), kind="stable")
    found = collect(dataclasses.replace(relaunched(loaded, models=order), runs=runs)).preregistration
    assert found.declared_sha256 == found.used_sha256
    assert not found.as_declared
    assert [(d.key, d.declared, d.used) for d in found.deviations] == [
        ("baselines", ["mlp", "mlp_matched"], ["lenet5", "mlp_matched"]),
        ("candidate", "lenet5", "mlp"),
    ]
    assert preregistration.compare(loaded.study.launches, loaded.config["analysis"], loaded.models).as_declared


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 8}, "seeds added after the first launch: 6, 7"),
        ({"seeds": [2, 9]}, "seeds added after the first launch: 9"),
        ({"learning_rates": [0.01, 0.1, 0.3]}, "learning_rates added after the first launch: 0.1, 0.3"),
        ({"models": ["lenet5", "mlp", "new", "mlp_matched"]}, "models added after the first launch: new"),
    ],
)
def test_what_was_planned_after_the_first_launch_is_a_deviation(loaded, changes, words):
    found = collect(relaunched(loaded, **changes))
    assert not found.preregistration.as_declared
    assert f"the analysis made is not the one declared: {words}" in found.warnings
    assert collect(relaunched(loaded, seeds=3)).preregistration.as_declared


@pytest.mark.parametrize(
    "block",
    [
        {"candidate": "nobody"},
        {"baselines": ["lenet5"]},
        {"baselines": ["mlp", "mlp"]},
        {"baselines": ["nobody"]},
        {"confidence": 0.5},
    ],
)
def test_an_analysis_that_cannot_be_is_one_line(loaded, block):
    with pytest.raises(UserError, match="analysis"):
        collect(loaded, block)


def test_the_lowest_confidence_that_is_allowed_gives_intervals(loaded):
    found = collect(loaded, {"confidence": preregistration.LOWEST, "baselines": ["mlp"]}).comparisons[0].seeds.verdict
    assert found.equivalence_interval.low < found.equivalence_interval.high
    with pytest.raises(UserError, match=r"confidence: found 0\.5000000000000001; allowed: from 0\.500001 to"):
        collect(loaded, {"confidence": 0.5000000000000001, "baselines": ["mlp"]})
