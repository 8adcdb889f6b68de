import importlib.util
import os
import shutil
import subprocess

import pytest

from study.errors import UserError
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
        ("", (None, None)),
    ],
)
def test_a_copy_without_history_is_told_its_commit(tmp_path, monkeypatch, told, expected):
    monkeypatch.setenv("STUDY_COMMIT", told)
    assert copied(tmp_path / "installed" / "provenance.py") == expected


@pytest.mark.parametrize("told", ["a" * 39, "a" * 7 + "-dirty", "v1.0", "; rm"])
def test_a_commit_that_is_told_otherwise_is_a_mistake(tmp_path, monkeypatch, told):
    monkeypatch.setenv("STUDY_COMMIT", told)
    with pytest.raises(UserError, match=r"^STUDY_COMMIT: found .*; allowed: a commit's 40 hex digits"):
        copied(tmp_path / "installed" / "provenance.py")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("linked", [False, True])
def test_the_commit_is_known_where_the_checkout_is_another_users(tmp_path, monkeypatch, linked):
    for settings in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(settings, os.devnull)
    path = tmp_path / "ours" / "installed" / "provenance.py"
    path.parent.mkdir(parents=True)
    shutil.copy(provenance.__file__, path)
    git(tmp_path / "ours", "init", "--quiet")
    git(tmp_path / "ours", "add", ".")
    git(tmp_path / "ours", "commit", "--quiet", "-m", "ours")
    commit = git(tmp_path / "ours", "rev-parse", "HEAD")
    if linked:
        git(tmp_path / "ours", "worktree", "add", "--quiet", str(tmp_path / "linked"))
        path = tmp_path / "linked" / "installed" / "provenance.py"
    watch = tmp_path / "watch"
    watch.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    watch.chmod(0o755)
    git(tmp_path / "ours", "config", "core.fsmonitor", str(watch))
    for given in (tmp_path, *tmp_path.rglob("*")):
        os.chown(given, 65534, 65534)
    with pytest.raises(subprocess.CalledProcessError):
        git(path.parent, "rev-parse", "HEAD")
    assert copied(path) == (commit, False)
    path.write_text(path.read_text() + "\n")
    assert copied(path) == (commit, True)
    assert not (tmp_path / "started").exists()
    assert {kept.stat().st_uid for kept in (tmp_path / "ours" / ".git").rglob("*")} == {65534}, "nothing is written"
