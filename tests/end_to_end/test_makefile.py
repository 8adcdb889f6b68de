"""make study and make paper, with a stand-in for Python that only notes what it is asked to do."""

import re
import subprocess

import pytest

from tests.processes import ROOT

PYTHON = """#!/bin/sh
echo "$@" >> calls
exit {code}
"""


def make(folder, *arguments, target="study", code=0):
    """Exit code that make's recipe ended with (0 if it went well), and the commands it gave."""
    python = folder / "python"
    python.write_text(PYTHON.format(code=code))
    python.chmod(0o755)
    command = ["make", "--silent", "--old-file=.venv/ready", f"--file={ROOT / 'Makefile'}", target, f"BIN={folder}"]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    recipe = int(done.stderr.split("Error ")[1].split()[0]) if done.returncode else 0
    return recipe, (folder / "calls").read_text().splitlines()


def test_a_study_is_trained_and_reported_by_one_command(tmp_path):
    assert make(tmp_path) == (0, ["-m study run configs/quick.yaml --report"])


def test_storage_is_given_where_the_user_gives_it(tmp_path):
    _, calls = make(tmp_path, "CONFIG=a.yaml", "STORAGE=/there")
    assert calls == ["-m study run a.yaml storage=/there --report"]


def test_a_paper_is_that_of_a_study_which_is_trained_first(tmp_path):
    _, calls = make(tmp_path, "CONFIG=a.yaml", target="paper")
    assert calls == ["-m study run a.yaml", "-m study where a.yaml", "-m analysis  --paper"]


def test_a_paper_of_a_ledger_trains_nothing(tmp_path):
    assert make(tmp_path, "LEDGER=a.zip", target="paper") == (0, ["-m analysis a.zip --paper"])


STRANGE = "/my  place/it's?endpoint_override=minio:9000&scheme=http"
"""Two spaces, since one would look the same in two arguments."""


@pytest.mark.parametrize(
    ("target", "variable", "expected"),
    [
        ("study", "STORAGE", f"-m study run configs/quick.yaml storage={STRANGE} --report"),
        ("paper", "STORAGE", f"-m study run configs/quick.yaml storage={STRANGE}"),
        ("paper", "STORAGE", f"-m study where configs/quick.yaml storage={STRANGE}"),
        ("paper", "LEDGER", f"-m analysis {STRANGE} --paper"),
        ("calibration", "LEDGER", f"--ledger {STRANGE}"),
        ("published", "CLUSTERS", f"-m analysis published analysis/published --clusters {STRANGE}"),
    ],
)
def test_a_place_of_any_name_is_one_argument(tmp_path, target, variable, expected):
    code, calls = make(tmp_path, f"{variable}={STRANGE}", target=target)
    assert code == 0
    assert [call for call in calls if call.endswith(expected)]


@pytest.mark.parametrize("code", [1, 2, 130])
def test_the_study_says_how_it_ended(tmp_path, code):
    assert make(tmp_path, code=code)[0] == code


def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    command = ["make", "--silent", f"--file={ROOT / 'Makefile'}"]
    for arguments in ([], ["help"]):
        said = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout
        assert re.findall(r"^  make ([a-z]+)  ", said, re.MULTILINE) == targets


def test_installing_says_what_it_does(tmp_path):
    python = tmp_path / "python"
    python.write_text(PYTHON.format(code=0))
    python.chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "constraints.txt").write_text("a==1\nb==2\n")
    command = [
        "make",
        "--no-print-directory",
        f"--file={ROOT / 'Makefile'}",
        ".venv/ready",
        f"BIN={tmp_path}",
        f"PYTHON={python}",
    ]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[0] == "1/2 Making .venv"
    assert said.splitlines()[1].startswith("2/2 Installing into .venv: 2 packages")
    installed = (tmp_path / "calls").read_text().splitlines()[-1]
    assert installed.startswith("-m pip install")
    assert "--quiet" not in installed, "pip shows its progress"
