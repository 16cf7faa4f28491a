"""Surroundings that nobody promised: a clock that is set back, another time zone, few rights, odd folders."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from faults.backend import assert_uploaded_once
from place import ROOT, Place

from experiments.runs.folder import DONE

FAULT = "clock set back, time zone, read-only source tree, odd folder names, umask 077"
SETTING = ("--set", "schedule.epochs=4", "--set", "schedule.milestones=[2]")

# Takes two hours off the time of every process that asks often enough: in the middle of what it does.
SET_BACK = """
import time
true, asked = time.time, [0]
def set_back():
    asked[0] += 1
    return true() - (7200 if asked[0] > 20 else 0)
time.time = set_back
"""


def grid(place: Place, *more: str, seeds=("0", "1")) -> None:
    """A grid of two runs is trained and tracked whole, and its tables are made."""
    status, output, errors = place.run("experiments grid", "demo", "--methods", "cs-kd", "--seeds", *seeds, *SETTING)
    assert (status, errors) == (0, "")
    assert "All is tracked in MLflow" in output
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())
    for module in more:
        status, _, errors = place.run(module)
        assert (status, errors) == (0, "")


def the_clock_is_set_back(place):
    (place.folder / "sitecustomize.py").write_text(SET_BACK)
    place.environment["PYTHONPATH"] = str(place.folder)
    grid(place)
    failing = ("--methods", "cs-kd", "--seeds", "0", "--set", "schedule.lr=1e18", *SETTING)
    status, output, _ = place.run("experiments grid", "demo", *failing)
    assert status == 1
    assert "failed: the loss" in output  # its reason, not only that its process ended


def the_time_zone_changes(place):
    place.environment["TZ"] = "Pacific/Kiritimati"
    grid(place, seeds=("0",))
    place.environment["TZ"] = "America/Los_Angeles"
    grid(place, "experiments sync", "analysis tables")
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())


def odd_folder_names(place):
    odd = Place(place.folder / "two  spaces, é 数 % # and 'quotes'")
    grid(odd, "experiments sync", "analysis report")
    assert (odd.folder / "results" / "report.html").is_file()


def umask_077(place):
    before = os.umask(0o077)
    try:
        grid(place)
    finally:
        os.umask(before)
    files = [path for path in place.folder.rglob("*") if path.name != "sitecustomize.py"]
    assert files
    assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]


def a_read_only_source_tree(place):
    """Mounted so, since root may write whatever the modes say; the commands stand in a folder of their own."""
    mount = f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT} {ROOT}"
    able = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode == 0
    if not able:
        pytest.skip("this system lets nothing be mounted")
    run = f"{sys.executable} -m experiments grid demo --methods cs-kd --seeds 0 {' '.join(SETTING)}"
    refused = f"! touch {ROOT}/touched 2>/dev/null"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && {refused} && cd {ROOT} && {run.replace('[', chr(92) + '[')}"],
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [folder.state()["state"] for folder in place.folders()] == [DONE]
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())


CASES = [the_clock_is_set_back, the_time_zone_changes, odd_folder_names, umask_077, a_read_only_source_tree]


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.slow_fault
def test_works_nevertheless(tally, tmp_path: Path, case):
    place = Place(tmp_path)
    with tally:
        case(place)
