"""The command line itself: its help, its version, and what follows a study; nothing is trained."""

import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

from study.__main__ import cli
from study.errors import UserError
from study.launch import session
from study.ledger.ledger import CLUSTERS, Ledger
from study.ledger.storage import Storage

COMMANDS = sorted(cli.commands)


def said(*arguments):
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_whole_with_an_example_and_the_exit_codes(command):
    text = said(command, "--help")
    assert re.search(rf"^  Examples:\n    .*python -m study {command}\b", text, re.MULTILINE)
    assert "130  interrupted" in text
    assert "..." not in text.replace("[ARGS]...", "")


def test_the_list_of_commands_is_not_cut_off():
    text = said("--help")
    listed = re.findall(r"^  (\w+) +\S.*\.$", text, re.MULTILINE)
    assert listed == COMMANDS


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r"lenet5-vs-mlp \d+\.\d+\.\d+\n", said("--version"))


@pytest.mark.parametrize(
    ("code", "analysis", "ended", "reported"),
    [
        (0, 0, 0, True),
        (1, 0, 1, True),
        (1, 3, 1, True),
        (0, 3, 3, True),
        (2, 0, 2, False),
        (130, 0, 130, False),
        (0, -9, 137, True),
    ],
)
def test_a_report_follows_a_study_that_came_to_its_end(monkeypatch, tmp_path, code, analysis, ended, reported):
    commands = []

    def analyse(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, analysis)

    monkeypatch.setattr(session, "run", lambda *_: code)
    monkeypatch.setattr(subprocess, "run", analyse)
    found = cli(["run", "configs/quick.yaml", f"storage={tmp_path}", "--report"], standalone_mode=False)
    assert found == ended
    assert commands == [[sys.executable, "-m", "analysis", f"{tmp_path}/quick"]] * reported
    assert cli(["run", "configs/quick.yaml"], standalone_mode=False) == code
    assert len(commands) == reported


@pytest.mark.parametrize(("before", "code"), [("SIG_DFL", 130), ("SIG_IGN", 0)])
def test_a_terminal_that_closes_ends_a_command_as_ctrl_c_does_unless_under_nohup(before, code):
    closes = f"import os, signal, click; from study import cli; signal.signal(signal.SIGHUP, signal.{before}); "
    closes += "cli.run(click.Command('x', callback=lambda: os.kill(os.getpid(), signal.SIGHUP)))"
    assert subprocess.run([sys.executable, "-c", closes], capture_output=True).returncode == code


def test_where_only_ascii_can_be_written_a_question_mark_is_better_than_nothing():
    """As wrappers of schedulers set it."""
    command = "import click, rich\nfrom study.cli import run\n@click.command()\ndef c(): rich.print('3 × 4')\nrun(c)"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "3 ? 4\n"), done.stderr


def test_a_width_of_packs_is_told_by_an_option_and_kept_to_resume(monkeypatch):
    seen = []
    monkeypatch.setattr(session, "run", lambda studies, console, options: seen.append((studies, options)) or 0)
    assert cli(["run", "configs/quick.yaml", "--pack", "auto"], standalone_mode=False) == 0
    (((study,), options),) = seen
    assert study.launch.pack == "auto"
    assert options.again == "python -m study run configs/quick.yaml launch.pack=auto"
    with pytest.raises(UserError, match=r"launch\.pack: found 'wide'; allowed: learning_rates, auto, or a number"):
        cli(["run", "configs/quick.yaml", "--pack", "wide"], standalone_mode=False)


def test_an_export_says_what_it_leaves_out(tmp_path):
    kept = Ledger(Storage(tmp_path / "mine"))
    kept.storage.write("study.json", b"{}")
    assert said("export", str(kept.storage), str(tmp_path / "a.zip")).count("\n") == 1
    kept.write_dataset({"test_clusters": np.arange(3)})
    assert "test_clusters.npy is left out" in said("export", str(kept.storage), str(tmp_path / "a.zip"))
    assert "left out" not in said("export", str(kept.storage), str(tmp_path / "b.zip"), "--with-clusters")
    for name, there in (("a.zip", False), ("b.zip", True)):
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert (CLUSTERS in archive.namelist()) == there


def test_several_studies_are_one_launch(monkeypatch, tmp_path):
    launched, analysed = [], []
    monkeypatch.setattr(session, "run", lambda studies, _, options: launched.append((studies, options)) or 0)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: analysed.append(command[-1]) or subprocess.CompletedProcess(command, 0)
    )
    given = ["configs/quick.yaml", "configs/smoke.yaml", f"storage={tmp_path}"]
    assert cli(["run", *given, "--report"], standalone_mode=False) == 0
    ((studies, options),) = launched
    assert [study.name for study in studies] == ["quick", "smoke"]
    assert analysed == [f"{tmp_path}/quick", f"{tmp_path}/smoke"]
    assert options.again == " ".join(["python -m study run", *given, "--report"])
    with pytest.raises(UserError, match="found the studies quick, quick; allowed: each name once"):
        cli(["run", "configs/quick.yaml", "configs/quick.yaml"], standalone_mode=False)
