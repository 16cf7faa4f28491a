"""What the Makefile's own rules do, in a folder with a copy of it and a Python that only plays its part."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GRID_THEN_TABLES = """#!/bin/sh
echo "$2" >> told
case $2 in experiments.grid) exit {grid} ;; *) exit {tables} ;; esac
"""


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "copied"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_setup_refuses_a_linked_venv_whose_target_it_would_empty(copied, tmp_path):
    kept = tmp_path / "shared" / "bin" / "kept"
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    (copied / ".venv").symlink_to(tmp_path / "shared")
    done = make(copied, "setup", "PYTHON=true")  # "true" builds nothing, so that a rule without the check ends at once
    assert done.returncode == 2
    assert done.stderr.startswith("error: .venv is a symbolic link, ")
    assert len(done.stderr.splitlines()) == 2  # and make's own
    assert kept.exists()


@pytest.mark.parametrize(
    ("grid", "tables", "expected", "message"),
    [
        (0, 0, 0, ["experiments grid", "analysis tables"]),
        (0, 3, 3, ["experiments grid", "analysis tables"]),
        (1, 0, 1, ["experiments grid", "analysis tables"]),
        (1, 3, 1, ["experiments grid", "analysis tables"]),
        (2, 0, 2, ["experiments grid"]),
        (130, 0, 130, ["experiments grid"]),
    ],
)
def test_a_grids_status_is_its_own_and_else_its_tables(copied, grid, tables, expected, message):
    python = copied / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(GRID_THEN_TABLES.format(grid=grid, tables=tables))
    python.chmod(0o755)
    done = make(copied, "--assume-old=.venv/.ready", "demo")
    assert (copied / "message").read_text().split() == message
    assert done.returncode == (2 if expected else 0)  # make's own, for every failed line
    assert (f"Error {expected}" in done.stderr) is bool(expected)


def test_a_dry_run_has_no_tables(copied):
    assert "analysis tables" not in make(copied, "--dry-run", "--assume-old=.venv/.ready", "demo", "DRY_RUN=1").stdout
