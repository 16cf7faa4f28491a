"""Folders from the environment, and exit codes."""

import os
import subprocess
import sys

import pytest

from cskd.utils import cli
from cskd.utils.errors import UserError


@pytest.mark.parametrize(("value", "expected"), [("", "runs"), ("a/b", "a/b"), ("~/x", "home/x")])
def test_folder_is_absolute_and_need_not_exist(tmp_path, monkeypatch, value, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNS_DIR", value)
    assert cli.runs_dir() == tmp_path / expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("~nobody-has-this-name/x", "RUNS_DIR=~nobody-has-this-name/x: this home folder does not exist"),
        ("x" * 300, r"RUNS_DIR=x+ cannot be used \(File name too long\): give another folder"),
    ],
)
def test_unusable_folder_raises_error_with_its_variable(monkeypatch, value, message):
    monkeypatch.setenv("RUNS_DIR", value)
    with pytest.raises(UserError, match=message):
        cli.runs_dir()


@pytest.mark.parametrize(
    ("error", "status", "output"),
    [
        (UserError("two\nlines"), 2, "error: two\\nlines\n"),
        (KeyboardInterrupt(), 130, f"{cli.STOPPED}\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_run_turns_exceptions_into_exit_codes_and_one_line(capsys, monkeypatch, error, status, output):
    def main():
        raise error

    monkeypatch.setattr("sys.stdout", open(os.devnull, "w"))  # noqa: PTH123, SIM115 - run() unsets it after BrokenPipeError
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert (caught.value.code, capsys.readouterr().err) == (status, output)


def test_stop_that_arrives_in_a_destructor_is_not_lost():
    code = """
import os, signal, time
from cskd.utils import cli

class Stopped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # Python handles the signal here, in the destructor

def main():
    Stopped()
    time.sleep(30)

cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stderr.decode()) == (130, f"{cli.STOPPED}\n")


def test_check_writable_leaves_no_file_and_names_unwritable_folder(tmp_path):
    cli.check_writable(RUNS_DIR=tmp_path / "not" / "there", RESULTS_DIR=tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"RUNS_DIR={tmp_path}/dangling/runs cannot be written"):
        cli.check_writable(RUNS_DIR=tmp_path / "dangling" / "runs")


def test_output_works_in_any_encoding():
    code = "from cskd.utils import cli; cli.run(lambda: print('cs-kd \u2020 1.0 \xb1 0.2'))"
    environment = os.environ | {"PYTHONIOENCODING": "iso-8859-1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.decode("iso-8859-1") == "cs-kd ? 1.0 \xb1 0.2\n"
