"""The Makefile: its commands, the variables of each target, exit statuses, and make setup."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.config.grid import grid_names

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z_]+) \?=.*## ", MAKEFILE, re.MULTILINE))
READY = "--assume-old=.venv/.ready"
FAKE_PYTHON = """#!/bin/sh
echo "$2 $3" >> commands
case "$2 $3" in "experiments grid") exit {grid} ;; *) exit {tables} ;; esac
"""


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def commands(*arguments: str) -> str:
    """Return the commands that a target would run, in one line."""
    return " ".join(make("--dry-run", READY, *arguments).stdout.replace("\\\n", " ").split())


def test_help_lists_every_target_and_variable():
    output = make("help").stdout
    for name in TARGETS | VARIABLES:
        assert re.search(rf"^  {name} ", output, re.MULTILINE), name


def test_every_table_has_its_target():
    assert {f"reproduce-{name}" for name in grid_names() if name.startswith(("table", "figure"))} <= TARGETS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["train", "DATASET=cifar100", "METHOD=cs-kd", "SEED=3", "PROFILE=mini"],
            "-m experiments train --dataset cifar100 --method cs-kd --seed 3 --profile mini --workers 1",
        ),
        (
            ["reproduce-table1", "DATASETS=cifar100 cub200", "SEEDS=0 1", "DRY_RUN=1", "SET=width=8 seed=2"],
            "-m experiments grid table1 --datasets cifar100 cub200 --seeds 0 1 --set 'width=8' --set 'seed=2' "
            "--workers 1 --dry-run",
        ),
        (["reproduce-table1", "TUNED=1"], "-m experiments grid table1 --workers 1 --tuned"),
        (
            [
                "tune",
                "DATASET=mit67",
                "TRIALS=5",
                "WORKERS=2",
                "OBJECTIVE=error,ece",
                "TIMEOUT=9",
                "STUDY=b",
                "PRUNE=1",
            ],
            "-m experiments tune --dataset mit67 --seeds 1 --timeout 9 --study 'b' --workers 2 --trials 5 "
            "--objective error,ece --prune",
        ),
        (
            ["ablate", "DATASET=cifar100", "PROFILE=mini", "TUNE_SEEDS=3", "DRY_RUN=1", "RETRY=1"],
            "-m experiments ablate --dataset cifar100 --seeds 3 --profile mini --workers 1 --dry-run --retry",
        ),
        (
            ["bench", "PARTS=pipelines reference", "REFERENCE=../clone", "SET=precision=fp32", "KEEP=1"],
            "-m experiments bench --parts pipelines reference --reference '../clone' --set 'precision=fp32' --keep",
        ),
        (["dashboard", "PORT=9"], "-m experiments dashboard --port 9"),
        (["data", "DATASET=tinyimagenet", "PARTIAL=1"], "-m experiments data tinyimagenet --partial"),
        (["status", "GRID=table1"], "-m experiments status table1"),
        (["tables", "EXPERIMENT=demo"], "-m analysis tables --experiment demo"),
    ],
)
def test_targets_pass_their_variables_on(arguments, expected):
    assert expected in commands(*arguments)


@pytest.mark.parametrize("target", ["reproduce-table1", "tune DATASET=digits PRUNE=0", "data DATASET=digits PARTIAL=0"])
def test_switch_that_is_0_is_off(target):
    command = commands(*target.split(), "DRY_RUN=0", "RETRY=0", "TUNED=0")
    assert not re.search(r"--(dry-run|retry|tuned|prune|partial)", command)


@pytest.mark.parametrize("arguments", [["train", "DATASET=digits"], ["train", "METHOD=cs-kd"], ["data"], ["tune"]])
def test_missing_variable_is_named_with_an_example(arguments):
    done = make("--dry-run", READY, *arguments)
    assert done.returncode == 2
    assert re.search(r"give DATASET.*: make \w+ DATASET=", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["reproduce-table1", "DATASET=digits", "METHOD=cs-kd", "SEED=5"],
            "reproduce-table1 takes DATASETS, METHODS, ARCHITECTURES, SEEDS, not DATASET, METHOD, SEED.",
        ),
        (["train", "DATASET=digits", "METHOD=cs-kd", "SEEDS=5 6"], "ARCHITECTURE, SEED, not SEEDS."),
        (["demo", "METHODS=cs-kd"], "demo does not take METHODS."),
        (["tune", "DATASET=digits", "SEEDS=3"], "ARCHITECTURE, TUNE_SEEDS, not SEEDS."),
        (["status", "EXPERIMENT=demo"], "status takes GRID, not EXPERIMENT."),
    ],
)
def test_variable_that_a_target_does_not_use_is_rejected(monkeypatch, arguments, message):
    target, *variables = arguments
    attempts = [make("--dry-run", *arguments)]
    for name, _, value in (variable.partition("=") for variable in variables):
        monkeypatch.setenv(name, value)
    attempts.append(make("--dry-run", target))
    for done in attempts:
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_empty_variables_and_targets_without_runs_are_not_rejected(monkeypatch):
    monkeypatch.setenv("SEEDS", "")
    monkeypatch.setenv("METHOD", "cs-kd")
    for arguments in (["train", "DATASET=digits"], ["lint"], ["test"]):
        assert make("--dry-run", READY, *arguments).returncode == 0


@pytest.fixture
def copied(tmp_path):
    """A folder with a copy of the Makefile."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_setup_does_not_empty_the_target_of_a_linked_venv(copied):
    file = copied / "shared" / "bin" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (copied / ".venv").symlink_to(copied / "shared")
    done = make("setup", "PYTHON=true", folder=copied)
    assert done.returncode == 2
    assert done.stderr.startswith("error: .venv is a symbolic link, ")
    assert file.exists()


@pytest.mark.parametrize(
    ("grid", "tables", "expected"), [(0, 0, 0), (0, 3, 3), (1, 0, 1), (1, 3, 1), (2, 0, 2), (130, 0, 130)]
)
def test_exit_status_is_that_of_the_grid_or_else_of_the_tables(copied, grid, tables, expected):
    python = copied / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON.format(grid=grid, tables=tables))
    python.chmod(0o755)
    done = make(READY, "demo", folder=copied)
    ran = ["experiments grid"] + (["analysis tables"] if grid < 2 else [])
    assert (copied / "commands").read_text().splitlines() == ran
    assert done.returncode == (2 if expected else 0)  # make's status for every failed command
    assert (f"Error {expected}" in done.stderr) is bool(expected)


def test_dry_run_makes_no_tables():
    assert "analysis tables" in commands("demo")
    assert "analysis tables" not in commands("demo", "DRY_RUN=1")
