"""What the command line prints: sentences whole, tables never wider than a terminal."""

import io

import pytest
from rich.console import Console

from analysis import frames
from analysis.findings import build
from analysis.findings.schema import Findings
from analysis.report import terminal
from tests import synthetic


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    models = {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}
    folder = synthetic.write(tmp_path_factory.mktemp("ledger"), models=models, seeds=3, analysis={"resamples": 100})
    return build.collect(frames.load(folder))


def printed(findings, **console):
    file = io.StringIO()
    terminal.show(findings, Console(file=file, color_system=None, **console))
    return file.getvalue()


def test_prose_is_folded_on_a_terminal_alone(findings):
    assert findings.answer in printed(findings, width=80)
    on_screen = printed(findings, width=200, force_terminal=True)
    assert " ".join(findings.answer.split()) in " ".join(on_screen.split())
    assert max(map(len, on_screen.splitlines())) <= 80


@pytest.mark.parametrize("name", ["mlp", "my_package.networks:A_wide_net", f"x:{'long' * 30}"])
@pytest.mark.parametrize("width", [80, 300, 40])
def test_no_table_is_wider_than_80_columns_and_none_is_cut(findings, name, width):
    renamed = Findings.model_validate_json(findings.to_json().replace('mlp"', f'{name}"'))
    lines = printed(renamed, width=width).splitlines()
    rows = [line for line in lines if " of 3" in line and not line.startswith(("On ", "warning"))]
    assert len(rows) == len(findings.comparisons) + len(findings.configurations)
    assert max(map(len, rows)) <= 80
    numbers = [line.split()[-1] for line in rows[1:]]
    assert numbers == ["0"] * len(findings.configurations), "the last column is there"
