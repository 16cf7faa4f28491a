"""Unusual environments: a clock that is set back, another time zone, a strict umask, odd folder names."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from builders import empty_store
from faults.backend import assert_uploaded_once
from place import ROOT, Place, epoch_options

from experiments.runs.folder import DONE

FAULT = "clock set back, time zone, read-only source tree, odd folder names, umask 077"
SETTING = epoch_options(2)

# Sets the clock of every process back by two hours after its twentieth look at it.
SET_BACK = """
import time
real_time, calls = time.time, [0]
def time_set_back():
    calls[0] += 1
    return real_time() - (7200 if calls[0] > 20 else 0)
time.time = time_set_back
"""


def check_grid(place: Place, *more: str, seeds=("0",)) -> None:
    """Train and track a grid, then run the commands ``more``."""
    status, output, errors = place.run("experiments grid", "demo", "--methods", "cs-kd", "--seeds", *seeds, *SETTING)
    assert (status, errors) == (0, "")
    assert "All is tracked in MLflow" in output
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())
    for command in more:
        status, _, errors = place.run(command)
        assert (status, errors) == (0, "")


def clock_set_back(place):
    (place.folder / "sitecustomize.py").write_text(SET_BACK)
    place.environment["PYTHONPATH"] = str(place.folder)
    check_grid(place)
    failing = ("--methods", "cs-kd", "--seeds", "0", "--set", "schedule.lr=1e18", *SETTING)
    status, output, _ = place.run("experiments grid", "demo", *failing)
    assert status == 1
    assert "failed: the loss" in output  # the reason, not only that the process ended


def other_time_zone(place):
    place.environment["TZ"] = "Pacific/Kiritimati"
    check_grid(place)
    place.environment["TZ"] = "America/Los_Angeles"
    check_grid(place, "experiments sync", "analysis tables", seeds=("0", "1"))


def odd_folder_names(place):
    odd = Place(place.folder / "two  spaces, é 数 % # and 'quotes'")  # with its own, new store
    check_grid(odd, "experiments sync", "analysis report")
    assert (odd.folder / "results" / "report.html").is_file()


def umask_077(place):
    (place.folder / "mlflow.db").unlink()
    before = os.umask(0o077)
    try:
        check_grid(place)
    finally:
        os.umask(before)
    files = list(place.folder.rglob("*"))
    assert files
    assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]


def read_only_source_tree(place):
    """The sources are mounted read-only, since root may write whatever the file modes are."""
    mount = f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT} {ROOT}"
    can_mount = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode == 0
    if not can_mount:
        pytest.skip("this system does not allow mounts")
    grid = (sys.executable, "-m", "experiments", "grid", "demo", "--methods", "cs-kd", "--seeds", "0", *SETTING)
    script = f'{mount} && ! touch {ROOT}/touched 2>/dev/null && cd {ROOT} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *grid],
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [folder.state()["state"] for folder in place.folders()] == [DONE]
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())


CASES = [clock_set_back, other_time_zone, odd_folder_names, umask_077, read_only_source_tree]


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.slow_fault
def test_grid_is_trained_and_tracked(tally, tmp_path: Path, case):
    place = Place(tmp_path)
    empty_store(tmp_path)
    with tally:
        case(place)
