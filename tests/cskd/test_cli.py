"""Folders named by the environment and by arguments."""

import os
from pathlib import Path

import pytest

from cskd.utils import cli
from cskd.utils.errors import UserError


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("~nobody-has-this-name/x", "RUNS_DIR=~nobody-has-this-name/x: there is no such home folder"),
        ("x" * 300, r"RUNS_DIR=x+ cannot be used \(File name too long\): give another folder"),
        ("x/" * 3000, "cannot be used"),
    ],
)
def test_a_folder_in_which_nothing_can_be_looked_up_is_named(monkeypatch, value, message):
    monkeypatch.setenv("RUNS_DIR", value)
    with pytest.raises(UserError, match=message):
        cli.runs_dir()


def test_a_folder_that_is_closed_to_us_is_named(monkeypatch):
    """Stands in for the rights of another user, whom root does not have."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", refuse)
    monkeypatch.setenv("DATA_DIR", "/closed")
    with pytest.raises(UserError, match=r"DATA_DIR=/closed cannot be used \(Permission denied\)"):
        cli.data_dir()


@pytest.mark.parametrize(
    ("value", "expected"), [("", "runs"), ("a/b", "a/b"), ("~/x", "home/x"), ("/dev/null/x", None)]
)
def test_others_are_absolute_and_need_not_exist(tmp_path, monkeypatch, value, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNS_DIR", value)
    assert cli.runs_dir() == (Path(value) if expected is None else tmp_path / expected)


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
@pytest.mark.parametrize(
    ("value", "left"),
    [("0", None), ("000", None), ("", None), ("-1", None), ("²", None), ("9" * 5000, None), ("80", "80")],
)
def test_a_size_of_the_terminal_that_is_none_is_as_good_as_unset(monkeypatch, name, value, left):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        cli.run(lambda: 0)
    assert os.environ.get(name) == left


def test_a_folder_is_written_to_only_to_find_out_whether_it_can_be(tmp_path):
    cli.check_writable(RUNS_DIR=tmp_path / "not" / "there", RESULTS_DIR=tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"RUNS_DIR={tmp_path}/dangling/runs cannot be written"):
        cli.check_writable(RUNS_DIR=tmp_path / "dangling" / "runs")
