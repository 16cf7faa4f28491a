"""Unusual environments: clocks, time zones, a strict umask, read-only sources, odd folders, names that are code."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.disturbed import Disturbed, assert_uploaded_once
from PIL import Image
from place import ROOT, Place, epoch_options

from experiments.runs.folder import DONE

FAULT = "clock set back, time zone, read-only source tree, odd folder names, umask 077"
SETTINGS = ("--methods", "cs-kd", *epoch_options(2), "--seeds")

# Sets the clock of every process back by two hours after its twentieth look at it.
SET_BACK = """
import time
real_time, calls = time.time, [0]
def time_set_back():
    calls[0] += 1
    return real_time() - (7200 if calls[0] > 20 else 0)
time.time = time_set_back
"""


def run_all(place: Place, *commands: tuple[str, ...]) -> None:
    for command in commands:
        status, output, errors = place.run(*command)
        assert (status, errors) == (0, ""), output


def check_grid(place: Place, *more: str, seeds=("0",)) -> None:
    """Train and track a grid, then run the commands ``more``."""
    run_all(place, ("experiments grid", "demo", *SETTINGS, *seeds))
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())
    run_all(place, *((command,) for command in more))


def clock_set_back(place):
    (place.folder / "sitecustomize.py").write_text(SET_BACK)
    place.environment["PYTHONPATH"] = str(place.folder)
    check_grid(place)
    status, output, _ = place.run("experiments grid", "demo", *SETTINGS, "0", "--set", "schedule.lr=1e18")
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
    place.database.unlink()
    before = os.umask(0o077)
    try:
        check_grid(place)
    finally:
        os.umask(before)
    assert not [path for path in place.folder.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]


def read_only_source_tree(place):
    """The sources are mounted read-only, since root may write whatever the file modes are."""
    mount = f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT} {ROOT}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this system does not allow mounts")
    script = f'{mount} && ! touch {ROOT}/touched 2>/dev/null && cd {ROOT} && exec "$@"'
    grid = (sys.executable, "-m", "experiments", "grid", "demo", *SETTINGS, "0")
    command = ["unshare", "-m", "sh", "-c", script, "sh", *grid]
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [folder.state()["state"] for folder in place.folders()] == [DONE]
    assert_uploaded_once(place.database, place.folders())


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
@pytest.mark.parametrize(
    "surround",
    [clock_set_back, other_time_zone, odd_folder_names, umask_077, read_only_source_tree],
    ids=lambda case: case.__name__,
)
def test_grid_is_trained_and_tracked(tally, tmp_path: Path, surround):
    with tally:
        surround(Disturbed(tmp_path))


CLASSES = ("<img src=x onerror=alert(1)>", "$\\frac{1}$", "\\input{x}", "a|b _c_ `d`", "=1+1", "%s {} &amp; '\"")
RECIPE = """
data: {reader: image-folder, folder: flowers}
inputs: {image_size: 8, train: pad-crop, padding: 1}
architectures: {resnet18: resnet10}
width: 8
batch_size: 12
precision: fp32
schedule: {epochs: 2, milestones: [1]}
methods: {cs-kd: {temperature: 4, lambda_cls: 1}}
"""
# An element with an attribute that runs code, or an image from outside the page.
INJECTED = re.compile(r"<\w[^<>]*\son\w+\s*=|<img(?![^<>]*\ssrc=[\"']data:)", re.IGNORECASE)


def draw_images(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for image in range(4):
                pixels = random.integers(0, 255, size=(8, 8, 3), dtype=np.uint8)
                pixels[number % 8] = 255
                Image.fromarray(pixels).save(folder / split / name / f"{image} <b onclick=x>.png")


@pytest.mark.fault("names that are code: HTML, TeX, formulas, paths")
@pytest.mark.slow_fault
def test_names_of_classes_and_files_are_escaped_in_every_output(tally, tmp_path):
    place = Place(tmp_path)
    place.sources = tmp_path / "sources"  # a copy, with a recipe of its own
    for package in ("cskd", "experiments", "analysis"):
        shutil.copytree(ROOT / package, place.sources / package, ignore=shutil.ignore_patterns("__pycache__"))
    (place.sources / "experiments" / "recipes" / "flowers.yaml").write_text(RECIPE)
    draw_images(tmp_path / "data" / "flowers")
    grid = ("experiments grid", "table1", "--datasets", "flowers", "--seeds", "0", "1")
    with tally:
        run_all(place, ("experiments data", "flowers"), grid, ("analysis tables",), ("analysis report",))
    files = [path for path in tmp_path.rglob("*") if place.sources not in path.parents]
    assert place.folder / "results" / "report.html" in files
    for path in files:
        if path.suffix in (".html", ".svg", ".md"):
            with tally:
                assert not INJECTED.search(path.read_text()), path
        if path.suffix == ".tex":
            with tally:
                assert "\\input" not in path.read_text()
                assert "\\frac" not in path.read_text()


def test_injected_elements_are_found():
    for text in ("<p onclick=x>", "<IMG src=x onerror=alert(1)>", "<img src='http://x'>", "<svg><g onload=x>"):
        assert INJECTED.search(f"<body>{text}</body>")
    assert not INJECTED.search("<img alt='x' src='data:image/png;base64,xx'>&lt;img src=x onerror=alert(1)&gt;")
