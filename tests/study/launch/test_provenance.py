import importlib.util
import shutil
import subprocess

import pytest

from study.launch import provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def copied(path):
    """The module again, as a file of its own."""
    if not path.exists():
        path.parent.mkdir()
        shutil.copy(provenance.__file__, path)
    spec = importlib.util.spec_from_file_location("copied", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.git()


def test_the_commit_is_that_of_the_code_and_of_no_project_it_is_installed_in(tmp_path):
    path = tmp_path / "installed" / "provenance.py"
    assert copied(path) == (None, None)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "theirs.txt").write_text("another project")
    git(tmp_path, "add", "theirs.txt")
    git(tmp_path, "commit", "--quiet", "-m", "theirs")
    assert copied(path) == (None, None)
    git(tmp_path, "add", "installed/provenance.py")
    git(tmp_path, "commit", "--quiet", "-m", "ours")
    assert copied(path) == (git(tmp_path, "rev-parse", "HEAD"), False)
    path.write_text(path.read_text() + "\n")
    assert copied(path) == (git(tmp_path, "rev-parse", "HEAD"), True)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("a" * 40, ("a" * 40, False)),
        ("a" * 40 + "-dirty", ("a" * 40, True)),
        ("a" * 39, (None, None)),
        ("; rm", (None, None)),
        ("", (None, None)),
    ],
)
def test_a_copy_without_history_is_told_its_commit(tmp_path, monkeypatch, told, expected):
    monkeypatch.setenv("STUDY_COMMIT", told)
    assert copied(tmp_path / "installed" / "provenance.py") == expected
