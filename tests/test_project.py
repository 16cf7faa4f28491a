"""What holds the project together: one lock, arrows in one direction, a README that tells the truth."""

import ast
import csv
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from cskd.data.sources.registry import SOURCES
from cskd.methods import METHODS
from cskd.models import ARCHITECTURES
from experiments.config.recipe import recipe_names
from experiments.runs.plan import grid_names

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()


def locked() -> dict[str, list[str]]:
    """Versions by package; several where they differ between Python versions."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", LOCK, re.MULTILINE):
        versions.setdefault(name, []).append(version)
    return versions


def test_the_lock_has_a_version_within_bounds_for_every_dependency():
    wanted = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    for requirement in map(Requirement, wanted):
        versions = locked()[requirement.name]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_lock_has_hashes_for_everything_and_no_address():
    entries = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert "index-url" not in LOCK


def test_conda_users_get_the_locks_versions():
    """environment.yml brings Python and pip, and leaves every package to the lock."""
    parts = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    from_pip = [part for part in parts if isinstance(part, dict)]
    assert from_pip == [{"pip": ["--requirement requirements.lock"]}]
    conda = [part.split("=")[0] for part in parts if isinstance(part, str)]
    assert conda == ["python", "pip", "make", "git"]
    (python,) = [part for part in parts if str(part).startswith("python=")]
    version = python.removeprefix("python=")
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415

    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def imports(folder: str) -> set[tuple[str, str]]:
    """(file, top-level package) of every import in a folder."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            found |= {(str(path.relative_to(ROOT)), name.split(".")[0]) for name in names}
    return found


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("cskd", {"mlflow", "optuna", "pandas", "pydantic", "rich", "experiments", "analysis"}),
        ("experiments", {"analysis", "pandas"}),
        ("analysis", {"experiments", "optuna"}),
    ],
)
def test_the_arrows_go_one_way(folder, forbidden):
    assert [(path, name) for path, name in imports(folder) if name in forbidden] == []


@pytest.mark.parametrize(("package", "place"), [("mlflow", "tracking"), ("optuna", "tuning")])
def test_mlflow_and_optuna_are_imported_in_one_place_of_the_experiments_each(package, place):
    found = {Path(path).parent for path, name in imports("experiments") if name == package}
    assert found == {Path("experiments", place)}


def test_a_run_starts_without_what_takes_seconds_to_import():
    """A user waits for both processes of a run, one after the other."""
    message = (
        "import sys, experiments.run, experiments.worker; print(*{'torchvision', 'mlflow', 'optuna'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", message], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def variables() -> set[str]:
    return set(re.findall(r"^([A-Z_]+) \?=.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_help_shows_every_target_and_variable():
    message = make("help").stdout
    for name in targets() | variables():
        assert re.search(rf"^  {name} ", message, re.MULTILINE), name


def test_the_readme_tells_of_every_target_and_of_no_other():
    message = set(re.findall(r"(?:^    |`)make ([a-z][a-z0-9-]*)", README, re.MULTILINE))
    assert targets() - {"help", "lock", "lint"} <= message
    assert message <= targets()


def test_the_readme_names_every_dataset_and_method():
    for name in [*METHODS, *ARCHITECTURES, *SOURCES, *recipe_names()]:
        assert f"`{name}`" in README, name


def test_every_table_has_its_target():
    assert {f"reproduce-{name}" for name in grid_names() if name.startswith(("table", "figure"))} <= targets()


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
        (
            ["tune", "DATASET=mit67", "TRIALS=5", "WORKERS=2", "OBJECTIVE=error,ece", "TIMEOUT=9", "STUDY=b"],
            "-m experiments tune --dataset mit67 --seeds 1 --timeout 9 --study 'b' --workers 2 --trials 5 "
            "--objective error,ece",
        ),
        (
            ["tune", "DATASET=digits", "METHOD=cs-kd", "SPACE=paper", "PRUNE=1", "TUNE_SEEDS=2", "SET=width=8"],
            "-m experiments tune --dataset digits --method cs-kd --set 'width=8' --seeds 2 --workers 1 --space paper "
            "--prune",
        ),
        (
            ["ablate", "DATASET=cifar100", "PROFILE=mini", "TUNE_SEEDS=3", "WORKERS=2", "DRY_RUN=1", "RETRY=1"],
            "-m experiments ablate --dataset cifar100 --profile mini --seeds 3 --workers 2 --retry --dry-run",
        ),
        (
            ["bench", "PARTS=pipelines reference", "REFERENCE=../theirs", "PROFILE=mini", "SET=precision=fp32"],
            "-m experiments bench --parts pipelines reference --reference '../theirs' --profile mini "
            "--set 'precision=fp32'",
        ),
        (["bench", "PARTS=steps", "KEEP=1"], "-m experiments bench --parts steps --keep"),
        (["tuned", "DATASET=mit67"], "-m experiments tuned --dataset mit67"),
        (["dashboard", "PORT=9"], "-m experiments dashboard --port 9"),
        (["reproduce-table1", "TUNED=1"], "-m experiments grid table1 --workers 1 --tuned"),
        (["data", "DATASET=tinyimagenet", "PARTIAL=1"], "-m experiments data tinyimagenet --partial"),
        (["status", "GRID=table1"], "-m experiments status table1"),
        (["tables", "EXPERIMENT=demo"], "-m analysis tables --experiment demo"),
    ],
)
def test_a_target_is_one_line_that_a_user_could_type(arguments, expected):
    message = " ".join(make("--dry-run", "--assume-old=.venv/.ready", *arguments).stdout.replace("\\\n", " ").split())
    assert expected in message


@pytest.mark.parametrize(
    ("target", "dataset", "switches"),
    [
        ("reproduce-table1", "DATASETS", "DRY_RUN RETRY TUNED"),
        ("tune", "DATASET", "PRUNE RETRY DRY_RUN"),
        ("data", "DATASET", "PARTIAL"),
        ("bench", "DATASETS", "KEEP"),
    ],
)
def test_a_switch_that_is_0_is_off(target, dataset, switches):
    def message(value: str) -> str:
        given = (f"{name}={value}" for name in switches.split())
        return make("--dry-run", "--assume-old=.venv/.ready", target, f"{dataset}=digits", *given).stdout

    options = [f"--{name.lower().replace('_', '-')}" for name in switches.split()]
    assert all(option in message("1") for option in options)
    assert not any(option in message("0") for option in options)


def test_a_missing_variable_is_said():
    for arguments in (["train", "DATASET=digits"], ["train", "METHOD=cs-kd"], ["data"], ["tune"], ["ablate"]):
        done = make("--dry-run", "--assume-old=.venv/.ready", *arguments)
        assert done.returncode != 0
        assert "say which: make" in done.stderr


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
        (["bench", "METHOD=cs-kd"], "bench takes DATASETS, METHODS, ARCHITECTURES, not METHOD."),
        (["status", "EXPERIMENT=demo"], "status takes GRID, not EXPERIMENT."),
    ],
)
def test_a_variable_that_a_target_would_drop_is_refused_before_anything_runs(monkeypatch, arguments, message):
    target, *given = arguments
    assert_refused(make("--dry-run", *arguments), message)
    for name, _, value in (each.partition("=") for each in given):
        monkeypatch.setenv(name, value)
    assert_refused(make("--dry-run", target), message)


def assert_refused(done: subprocess.CompletedProcess, message: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_variable_that_is_empty_or_that_chooses_no_runs_is_refused_by_no_target(monkeypatch):
    monkeypatch.setenv("SEEDS", "")
    monkeypatch.setenv("METHOD", "cs-kd")
    for arguments in (["train", "DATASET=digits"], ["lint"], ["test"]):
        assert make("--dry-run", "--assume-old=.venv/.ready", *arguments).returncode == 0


def test_the_table_of_faults_in_the_docs_is_the_measured_one():
    """Where this fails: a whole ``make test-faults`` writes results/faults.csv, which belongs in results/measured/."""
    with (ROOT / "results" / "measured" / "faults.csv").open(newline="") as file:
        measured = [[row[name] for name in ("fault", "tried", "survived", "lost")] for row in csv.DictReader(file)]
    text = (ROOT / "docs" / "reliability.md").read_text()
    figures = text[text.index("## Figures") : text.index("## How much is lost")]
    lines = [line for line in figures.splitlines() if line.startswith("|")]
    shown = [[cell.strip() for cell in line.strip("|").split("|")][:4] for line in lines]
    assert shown[2:] == measured


def test_nothing_that_is_generated_or_downloaded_is_in_git():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    kinds = {".whl", ".gz", ".tgz", ".zip", ".pt", ".npz", ".npy", ".db", ".pkl"}
    assert [name for name in listed if Path(name).suffix in kinds] == []
