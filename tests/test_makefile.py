"""The Makefile: its commands, the variables of each target, exit statuses, and make setup."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.config.grid import grid_names

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z_]+) \?=.*## ", MAKEFILE, re.MULTILINE))
READY = ("LOCKED=here", "--assume-old=.venv/.ready-here")


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def commands(*arguments: str) -> str:
    """Return the commands that a target would run, in one line."""
    return " ".join(make("--dry-run", *READY, *arguments).stdout.replace("\\\n", " ").split())


def test_help_lists_every_target_and_variable():
    output = make("help").stdout
    for name in TARGETS | VARIABLES:
        assert re.search(rf"^  {name} ", output, re.MULTILINE), name


def test_every_table_has_its_target():
    assert {f"reproduce-{name}" for name in grid_names() if name.startswith(("table", "figure"))} <= TARGETS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("demo", "grid demo --workers auto --tables"),
        ("reproduce-table1 TUNED=1 DRY_RUN=0 RETRY=0", "grid table1 --workers auto --tuned --tables"),
        ("reproduce-table6", "grid table6 --workers auto --tables top5_error ece recall_at_1"),
        (
            "reproduce-table1 'DATASETS=cifar100 cub200' 'SEEDS=0 1' DRY_RUN=1 'SET=width=8 seed=2'",
            "grid table1 --datasets cifar100 cub200 --seeds 0 1 --set 'width=8' --set 'seed=2' --workers auto "
            "--dry-run --tables",
        ),
        ("train DATASET=digits METHOD=cs-kd SEED=3 PROFILE=demo",
         "train --dataset digits --method cs-kd --seed 3 --profile demo --workers auto"),
        ("tune DATASET=mit67 TRIALS=5 WORKERS=2 OBJECTIVE=error,ece TIMEOUT=9 STUDY=b PRUNE=1",
         "tune --dataset mit67 --seeds 1 --workers 2 --timeout 9 --study 'b' --trials 5 --objective error,ece --prune"),
        ("ablate DATASET=cifar100 PROFILE=mini TUNE_SEEDS=3 DRY_RUN=1 RETRY=1",
         "ablate --dataset cifar100 --seeds 3 --profile mini --workers auto --dry-run --retry"),
        ("tune-all DATASET=cifar100 PROFILE=mini 'METHODS=cross-entropy cs-kd' TRIALS=3",
         "tune-all --dataset cifar100 --seeds 1 --profile mini --workers auto --trials 3 "
         "--methods cross-entropy cs-kd"),
        ("bench 'PARTS=pipelines reference' REFERENCE=../clone SET=precision=fp32 KEEP=1",
         "bench --parts pipelines reference --reference '../clone' --set 'precision=fp32' --keep"),
        ("data DATASET=tinyimagenet PARTIAL=1", "data tinyimagenet --partial"),
        ("status GRID=table1", "status table1"),
    ],
)  # fmt: skip
def test_targets_pass_their_variables_on(arguments, expected):
    assert commands(*shlex.split(arguments)).endswith(f"-m experiments {expected}")


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("SEDS=0", "did you mean SEEDS?"),
        ("DRYRUN=1", "did you mean DRY_RUN?"),
        ("EPOCHS=2", 'SET="schedule.epochs=10"'),
    ],
)
def test_unknown_variable_is_refused_with_advice(variable, advice):
    done = make("--dry-run", *READY, "reproduce-table1", variable)
    assert done.returncode == 2
    assert advice in done.stderr


def test_lists_may_have_commas():
    assert "--datasets cifar100 cub200 --seeds 0 1 " in commands(
        "reproduce-table1", "DATASETS=cifar100,cub200", "SEEDS=0,1"
    )


@pytest.mark.parametrize("arguments", [["train", "DATASET=digits"], ["data"], ["tune"]])
def test_missing_variable_is_named_with_an_example(arguments):
    done = make("--dry-run", *READY, *arguments)
    assert done.returncode == 2
    assert re.search(r"give DATASET.*: make \w+ DATASET=", done.stderr)


@pytest.mark.parametrize("by_environment", [False, True])
def test_variable_that_a_target_does_not_use_is_rejected(monkeypatch, by_environment):
    for name, value in {"DATASET": "digits", "SEED": "5"}.items() if by_environment else ():
        monkeypatch.setenv(name, value)
    done = make("--dry-run", "reproduce-table1", *(() if by_environment else ("DATASET=digits", "SEED=5")))
    message = "reproduce-table1 takes DATASETS, METHODS, ARCHITECTURES, SEEDS, not DATASET, SEED."
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
    for other in ("lint", "test"):  # they run nothing that a variable could select
        assert make("--dry-run", *READY, other).returncode == 0


@pytest.fixture
def copied(tmp_path):
    """A folder with a copy of the Makefile."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


# A Python whose environments hold a copy of the lock file, and whose pip does what the file "pip" says.
FAKE_BUILDER = """#!/bin/sh
[ "$1" = -c ] && exit 0
echo "$*" >> commands
[ "$2" = venv ] || exit 0
rm -rf $4 && mkdir -p $4/bin && cp python3 pip $4/bin && cp requirements.lock $4 && ln -s python3 $4/bin/python
"""
WITHOUT_INDEX = "echo no index >&2; exit 1"
KILLED = "kill -9 $PPID"


@pytest.fixture
def setup(copied):
    """Runs ``make setup`` with a pip that executes a line of shell; returns its process."""

    def run(pip: str = "", goal: str = "setup") -> subprocess.CompletedProcess:
        for name, text in {"python3": FAKE_BUILDER, "pip": f"#!/bin/sh\n{pip}\n"}.items():
            (copied / name).write_text(text)
            (copied / name).chmod(0o755)
        return make(goal, "PYTHON=./python3", folder=copied)

    return run


def test_setup_builds_again_only_for_another_content_of_the_lock(copied, setup):
    for lock, builds in (("one", 1), ("one", 1), ("other", 2)):
        (copied / "requirements.lock").write_text(lock)
        assert setup().returncode == 0
        assert (copied / "commands").read_text().count("-m venv") == builds
        assert (copied / ".venv" / "requirements.lock").read_text() == lock


def test_environment_stays_in_use_while_another_cannot_be_built(copied, setup):
    setup()
    before = (copied / ".venv").resolve()
    (copied / "requirements.lock").write_text("other")
    done = setup(WITHOUT_INDEX, goal="status")
    assert (done.returncode, done.stderr.count("warning: ")) == (0, 1)
    assert "requirements.lock (see above): the old one is used" in done.stderr
    assert (copied / ".venv").resolve() == before
    assert "-m experiments status" in (copied / "commands").read_text()
    assert setup("test -e .venv/bin/python").returncode == 0  # it is there until the new one is complete
    assert (copied / ".venv").resolve() != before


@pytest.mark.parametrize("harm", [WITHOUT_INDEX, KILLED])
def test_first_setup_that_did_not_end_is_made_again(copied, setup, harm):
    assert setup(harm).returncode != 0
    assert not (copied / ".venv").exists()
    assert setup().returncode == 0
    assert (copied / ".venv" / "bin" / "python").exists()


def test_setup_touches_no_environment_that_it_did_not_build(copied, setup):
    (copied / "shared").mkdir()
    (copied / ".venv").symlink_to(copied / "shared")
    done = setup()
    assert done.returncode == 2
    assert done.stderr.startswith("error: .venv was not built by make: move it away")
    assert (copied / ".venv").resolve() == copied / "shared"
