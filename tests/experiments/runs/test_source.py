"""The recorded version of the code: only from this repository, and never clean by default."""

import os
import subprocess
from pathlib import Path

import pytest

from experiments.runs.source import describe_source


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path):
    """A project with sources, not in a repository."""
    root = tmp_path / "outer" / "project"
    for name in ("cskd/__init__.py", "cskd/methods/a.py", "experiments/grids/demo.yaml", "requirements.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1")
    return root


@pytest.fixture
def commit(root):
    """The only commit of the project's repository."""
    git(root, "init")
    git(root, "add", "--all")
    git(root, "commit", "--message", "one")
    return git(root, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("name", "is_source"),
    [
        *((name, False) for name in ("experiments/recipes/own.yaml", "experiments/grids/demo.yaml", "tests/a.py")),
        *((name, True) for name in ("cskd/methods/a.py", "cskd/methods/new.py", "requirements.lock")),
    ],
)
def test_changed_or_new_sources_are_dirty_and_have_another_digest(root, commit, name, is_source):
    before = describe_source(root)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("2")
    after = describe_source(root)
    assert (after["git_commit"], after["git_dirty"]) == (commit, is_source)
    assert (after["source_digest"] != before["source_digest"]) == is_source


def test_commit_of_a_repository_around_the_project_is_not_recorded(root):
    git(root.parent, "init")
    git(root.parent, "add", "--all")
    git(root.parent, "commit", "--message", "outer")
    source = describe_source(root)
    assert (source["git_commit"], source["git_dirty"], len(source["source_digest"])) == ("unknown", None, 16)


def test_git_of_the_environment_is_ignored_and_without_git_the_digest_stands_in(root, commit, monkeypatch):
    with_git = describe_source(root)
    monkeypatch.setenv("GIT_DIR", str(root.parent / "other"))
    assert describe_source(root) == with_git
    monkeypatch.setenv("PATH", "")
    assert describe_source(root) == with_git | {"git_commit": "unknown", "git_dirty": None}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_checkout_of_another_owner_is_clean_only_if_it_is(root, commit):
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345)
    assert describe_source(root)["git_dirty"] is False
    (root / "cskd/methods/a.py").write_text("2")
    assert describe_source(root)["git_dirty"] is True
