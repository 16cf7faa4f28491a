"""The project: its lock file, import directions, documents, and what is in git."""

import csv
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from setuptools import find_packages
from test_makefile import TARGETS

from analysis.paper.published import published_methods, published_numbers

ROOT = Path(__file__).resolve().parent.parent
CLUSTER_EXTRAS = ("ray", "stores", "test-clusters")  # in a lock file of their own
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-clusters.lock"])
def test_lock_has_hashes_and_a_valid_version_of_every_dependency(name):
    lock, clusters = (ROOT / name).read_text(), name != "requirements.lock"
    entries = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock
    locked: dict[str, list[str]] = {}  # several versions if they differ between Python versions
    for entry in entries:
        package, version = re.match(r"([a-z0-9-]+)==([^ ;\\]+)", entry).groups()
        locked.setdefault(package, []).append(version)
    extras = PROJECT["optional-dependencies"].items()
    required = [text for extra, texts in extras for text in texts if (extra in CLUSTER_EXTRAS) == clusters]
    for requirement in map(Requirement, required if clusters else [*PROJECT["dependencies"], *required]):
        assert all(requirement.specifier.contains(version) for version in locked[requirement.name]), requirement


def test_conda_environment_installs_the_lock():
    parts = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["--requirement requirements.lock"]} in parts
    (python,) = [part for part in parts if str(part).startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


def test_pip_installs_the_library_alone():
    found = find_packages(str(ROOT), **SETTINGS["tool"]["setuptools"]["packages"]["find"])
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "cskd").rglob("*.py")}
    assert sorted(found) == sorted(".".join(folder.parts) for folder in folders)


def test_import_contracts_hold():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_documents_name_every_target_and_no_other():
    command = re.compile(r"(?:^ *|[`$] ?)make ([a-z][a-z0-9-]*)", re.MULTILINE)
    assert {name for path in DOCUMENTS for name in command.findall(path.read_text())} == TARGETS


def test_documents_name_every_dataset_and_method():
    """A dataset or method of your own needs no documentation here."""
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    datasets = {*published_numbers().dataset, "merged", "digits"} - {"imagenet"}
    for name in published_methods() | datasets:
        assert f"`{name}`" in text, name


def test_links_of_the_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_measured_faults_are_those_in_the_documentation():
    """``make test-faults`` writes results/faults.csv, whose place is results/measured/."""
    with (ROOT / "results" / "measured" / "faults.csv").open(newline="") as file:
        measured = [[row[name] for name in ("fault", "tried", "survived", "lost")] for row in csv.DictReader(file)]
    lines = (ROOT / "docs" / "reliability.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")][:4] for line in lines if line.startswith("|")]
    assert all(row in rows for row in measured)


def test_git_holds_nothing_generated_or_downloaded():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    kinds = {".whl", ".gz", ".tgz", ".zip", ".pt", ".npz", ".npy", ".db", ".pkl"}
    assert [name for name in listed if Path(name).suffix in kinds] == []
