"""What a dry run of tuning tells, and that it leaves nothing behind."""

from pathlib import Path

import pytest
from rich.console import Console

from experiments.tuning.setup import LaunchOptions, resolve
from experiments.tuning.storage import storage_address
from experiments.tuning.study import Study


@pytest.mark.parametrize("storage", ["", "sqlite:///{}/studies.db"])
def test_a_dry_run_leaves_nothing_behind_and_counts_what_there_is(call, tmp_path, monkeypatch, storage):
    monkeypatch.setenv("OPTUNA_STORAGE", storage.format(tmp_path))
    monkeypatch.setenv("COLUMNS", "0")  # no reason to print nothing
    command = ("experiments tune", "--dataset", "digits", "--trials", "6")

    def files() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

    status, _, errors = call(*command, "--dry-run")
    assert (status, errors) == (2, "error: no data yet, and so no budget: make data DATASET=digits prepares it\n")
    assert not files()
    assert call("experiments data", "digits")[0] == 0
    before = files()
    status, output, errors = call(*command, "--dry-run")
    assert (status, errors) == (0, "")
    assert "6 of 6 trials to do" in output
    assert files() == before

    subject = resolve(LaunchOptions("digits", "cs-kd"), Console())
    with Study(storage_address(), subject.name, tmp_path / "runs" / "studies" / subject.name) as study:
        study.open(subject.identity(), subject.space, subject.objectives, "gp")
        study.fail(study.take(6).number, "out of memory")
        study.complete(study.take(6).number, {"nll": 1.0}, [9.0])
    before = files()
    assert "4 of 6 trials to do" in call(*command, "--dry-run")[1]
    assert "5 of 6 trials to do" in call(*command, "--dry-run", "--retry")[1]
    status, _, errors = call(*command, "--dry-run", "--set", "width=8")
    assert status == 2
    assert "was begun with another settings: give STUDY=<a new name>" in errors
    assert files() == before


def test_a_sum_has_one_name_in_whatever_order_its_parts_are_given(call):
    assert call("experiments data", "digits")[0] == 0
    for module, *arguments in (
        ("experiments train", "--dataset", "digits", "--method", "cs-kd+mixup", "--dry-run"),
        ("experiments grid", "demo", "--methods", "cross-entropy", "cs-kd+mixup", "--dry-run"),
        ("experiments tune", "--dataset", "digits", "--method", "cs-kd+mixup", "--dry-run"),
    ):
        status, output, errors = call(module, *arguments)
        assert (status, errors) == (0, "")
        assert "mixup+cs-kd" in output
        assert "cs-kd+mixup" not in output
    status, _, errors = call("experiments grid", "demo", "--methods", "cs-kd+mixup", "mixup+cs-kd", "--dry-run")
    assert (status, errors) == (2, "error: methods must be given, each once: mixup+cs-kd mixup+cs-kd\n")
    status, _, errors = call("experiments tuned", "--method", "cs-kd+mixup")
    assert status == 2
    assert errors.startswith("error: nothing has been tuned for mixup+cs-kd")


def test_a_plan_says_which_datasets_its_total_leaves_out(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, output, errors = call("experiments grid", "table1", "--datasets", "cub200", "dogs", "--dry-run")
    assert (status, errors) == (0, "")
    message = (f"{name} (no data here: make data DATASET={name})" for name in ("cub200", "dogs"))
    assert output.splitlines()[-1] == f"not counted: {', '.join(message)}"
    assert "0 of 0" not in output
    assert call("experiments data", "digits")[0] == 0
    output = call("experiments grid", "demo", "--dry-run")[1]
    assert "10 of 10 runs to do" in output
    assert "\nnot counted" not in output
