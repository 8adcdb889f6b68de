"""What a study cost stands apart from what it found."""

import json
import shutil

from analysis import frames
from analysis.findings import costs
from analysis.findings.build import collect
from analysis.report import provenance
from tests.analysis.findings.studies import strict


def test_time_and_machine_are_in_the_costs_alone(written, findings, tmp_path):
    moved = shutil.copytree(written, tmp_path / "moved")
    for k, path in enumerate((moved / "runs").iterdir()):
        record = json.loads(path.read_text())
        record["provenance"] |= {"train_seconds": 5.0, "node": "elsewhere", "attempts": 2}
        record["provenance"]["machine"] = "EPYC, 2 cores, Linux" if k else None
        path.write_text(json.dumps(record))
    other = frames.load(moved)
    assert collect(other).to_json() == findings.to_json()
    cost = strict(costs.to_json(other, findings))
    n = int((other.runs["state"] != "missing").sum())
    assert cost["train_seconds"] == 5.0 * n
    assert cost["nodes"] == ["elsewhere"]
    assert cost["machines"] == ["EPYC, 2 cores, Linux"]
    # A report says what the machine is, or its name where the record says no more.
    assert dict(provenance.facts(findings, other))["Machines"] == "EPYC, 2 cores, Linux; elsewhere"
    assert cost["runs_with_several_attempts"] == n
    assert sum(m["runs"] for m in cost["by_model"].values()) == n
    for plan in cost["hours_of_training_for"]:
        # Two runs of 5 seconds a seed at the selected rates, six on the whole grid of both models.
        assert plan["hours_at_selected_rates"] == round(plan["seeds"] * 10 / 3600, 3)
        assert plan["hours_of_whole_grid"] == round(plan["seeds"] * 30 / 3600, 3)
    assert cost["hours_of_training_for"]
