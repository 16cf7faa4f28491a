"""Launched grids: training, tracking, tables, and what a second launch does."""

import io
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from builders import Grid
from mlflow import MlflowClient
from place import command_of, epoch_options

from cskd.utils import cli
from experiments.commands import grid as grid_command
from experiments.launch.backends import BACKENDS, Exit
from experiments.launch.backends.base import EXIT_DONE
from experiments.runs.folder import DONE, RunFolder


def in_demo_grid(demo_grid, monkeypatch, **changes: str) -> None:
    """Set the environment of the trained grid for commands in this process."""
    for name, value in (demo_grid.environment | changes).items():
        monkeypatch.setenv(name, value)


def tracked_runs(uri: str, kind: str = "run") -> list:
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, filter_string=f"tags.kind = '{kind}'"))


def test_grid_is_trained_without_tracking_and_tuning_packages(demo_grid):
    output = (demo_grid.folder / demo_grid.printed).read_text()
    assert "2 of 2 runs are done." in output
    assert "not all is tracked in MLflow (mlflow is not installed)" in output


def test_tracking_has_every_metric_and_artifact_of_the_run_folders(demo_grid):
    client, runs = MlflowClient(demo_grid.uri), tracked_runs(demo_grid.uri)
    assert [run.data.tags["state"] for run in runs] == [DONE] * 2
    run = runs[0]
    folder = RunFolder(demo_grid.runs / run.data.tags["run_key"])
    for record in folder.epochs():
        for name, value in record["metrics"].items():
            history = client.get_metric_history(run.info.run_id, name)
            assert [point.value for point in history if point.step == record["epoch"]] == [pytest.approx(value)]
    with np.load(client.download_artifacts(run.info.run_id, "predictions.npz")) as arrays:
        assert np.array_equal(arrays["logits"], folder.load_predictions().logits)


def test_second_launch_trains_nothing(demo_grid, call, monkeypatch):
    in_demo_grid(demo_grid, monkeypatch)
    monkeypatch.setattr(grid_command, "_open_tracker", no_tracker)
    status, output, _ = call(*demo_grid.command)
    assert status == 0
    assert "0 of 2 runs to do" in output
    assert "2 of 2 runs are done." in output


def test_tables_are_of_the_own_experiment_whatever_was_launched_later(demo_grid, call, monkeypatch, tmp_path):
    uri = f"sqlite:///{shutil.copy(demo_grid.folder / 'mlflow.db', tmp_path)}"
    later = Grid("table3-mini", "mini")
    later.run(later.cell("cub200", "mixup"), 0, {"top1_error": 1.0})
    later.log(uri, tmp_path)
    results = tmp_path / "results"
    in_demo_grid(demo_grid, monkeypatch, MLFLOW_TRACKING_URI=uri, RESULTS_DIR=str(results))
    status, _, _ = call(*demo_grid.command, "--tables", "nll")
    assert status == 0
    [written] = results.iterdir()
    assert written.name.startswith("demo-custom-")
    assert (written / "nll.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "grid", "tables", "expected"),
    [
        (["--tables"], 0, 0, 0),
        (["--tables"], 0, 3, 3),
        (["--tables"], 1, 0, 1),
        (["--tables"], 1, 3, 1),
        (["--tables"], 130, None, 130),
        (["--tables", "--dry-run"], 0, None, 0),
        (["--tables", "--launcher", "print"], 0, None, 0),
        ([], 0, None, 0),
    ],
)
def test_exit_status_is_that_of_the_grid_or_else_of_the_tables(
    demo_grid, call, monkeypatch, arguments, grid, tables, expected
):
    made = []
    in_demo_grid(demo_grid, monkeypatch)
    monkeypatch.setattr(grid_command, "_open_tracker", no_tracker)
    monkeypatch.setattr(grid_command, "launch", lambda *_: grid != 130)
    monkeypatch.setattr(grid_command, "_print_summary", lambda *_: grid)
    monkeypatch.setattr(grid_command, "_make_tables", lambda *_: made.append(tables) or tables)
    assert call(*demo_grid.command, *arguments)[0] == expected
    assert made == ([] if tables is None else [tables])


def test_status_shows_the_errors(demo_grid, call, monkeypatch):
    in_demo_grid(demo_grid, monkeypatch)
    status, output, errors = call("experiments status", "demo")
    assert (status, errors) == (0, "")
    assert len(re.findall(r"done \d+\.\d\d %", output)) == 2


def test_tables_need_no_run_folders(demo_grid, call, monkeypatch, tmp_path):
    in_demo_grid(demo_grid, monkeypatch, RUNS_DIR=str(tmp_path / "none"), RESULTS_DIR=str(tmp_path / "results"))
    status, output, errors = call("analysis tables")
    assert (status, errors) == (0, "")
    assert "digits" in output
    assert list(tmp_path.glob("results/demo-custom-*/error.csv"))


@pytest.mark.parametrize("command", ["experiments status", "analysis tables"])
def test_characters_that_the_terminal_lacks_are_replaced(demo_grid, monkeypatch, command, tmp_path):
    in_demo_grid(demo_grid, monkeypatch, RESULTS_DIR=str(tmp_path / "results"))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", [command])
    with pytest.raises(SystemExit, match="0"):
        cli.run(command_of(command).main)
    assert b"digits" in terminal.buffer.getvalue()


def test_sync_rebuilds_the_tracking_from_the_run_folders(demo_grid, call, monkeypatch, tmp_path):
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    in_demo_grid(demo_grid, monkeypatch, MLFLOW_TRACKING_URI=other)
    status, output, _ = call("experiments sync")
    assert status == 0
    assert re.search("demo-custom-[0-9a-f]{6}: 2 runs are tracked in", output)
    rebuilt, original = (
        {run.info.run_name: run.data.metrics for kind in ("run", "cell") for run in tracked_runs(uri, kind)}
        for uri in (other, demo_grid.uri)
    )
    assert rebuilt == original


def no_tracker(plan):
    raise ModuleNotFoundError(name="mlflow")


class FakeBackend:
    """Ends every job at once: as done if its teacher is done and the method is not ``failing``."""

    detached = False
    failing = "none"

    def __init__(self, workers: int, *, started: list[str]):
        self.started = started

    def start(self, job, slot):
        folder = RunFolder(job.folder)
        spec = folder.spec()
        self.started.append(spec.name)
        if spec.method == self.failing:
            return Exit(1)
        folder.write_epochs([{"epoch": 0, "timestamp": 0.0, "metrics": {"test/top1_error": 1.0, "test/ece": 1.0}}])
        folder.write_state(DONE, reason="all 2 epochs", epoch=2, epochs=2)
        return Exit(0)

    def poll(self, handle):
        return handle

    def stop(self, handle, number):
        raise AssertionError("no job is stopped")


@pytest.fixture
def started(call, monkeypatch) -> list[str]:
    """Names of the runs that launches start, which are not trained."""
    assert call("experiments data", "digits")[0] == 0
    names: list[str] = []
    monkeypatch.setitem(BACKENDS, "local", partial(FakeBackend, started=names))
    monkeypatch.setattr(grid_command, "_open_tracker", no_tracker)
    monkeypatch.setattr(RunFolder, "damage", lambda folder: None)
    return names


KD = ("experiments grid", "table4", "--datasets", "digits", "--methods", "kd", "--seeds", "0", "1", *epoch_options(2))
TEACHER = "digits/densenet41/cs-kd/seed0"


def test_failed_run_stops_no_other_run_and_retry_starts_it_again(call, started, monkeypatch):
    monkeypatch.setattr(FakeBackend, "failing", "cs-kd")
    grid = ("experiments grid", "demo", "--seeds", "0", "1", *epoch_options(2))
    status, output, errors = call(*grid)
    assert (status, errors) == (1, "")
    assert "2 of 4 runs are done." in output
    assert "digits/resnet10/cs-kd/seed1: failed: the process ended with status 1" in output
    assert "RETRY=1" in output
    assert "not all is tracked in MLflow (mlflow is not installed)" in output
    status, output, _ = call("experiments status", "demo")
    assert output.count("done ") == output.count("/seed") == 2
    started.clear()
    assert "0 of 4 runs to do" in call(*grid)[1]
    assert not started
    monkeypatch.setattr(FakeBackend, "failing", "none")
    status, output, _ = call(*grid, "--retry")
    assert (status, started) == (0, ["digits/resnet10/cs-kd/seed0", "digits/resnet10/cs-kd/seed1"])
    assert "4 of 4 runs are done." in output


def test_teacher_is_trained_first_and_once(call, started):
    status, _, errors = call(*KD, "--workers", "2")
    assert (status, errors) == (0, "")
    assert started[0] == TEACHER
    assert sorted(started[1:]) == ["digits/resnet10/kd/seed0", "digits/resnet10/kd/seed1"]
    assert "0 of 3 runs to do" in call(*KD)[1]


def test_failed_teacher_is_named_for_its_students(call, started, monkeypatch):
    monkeypatch.setattr(FakeBackend, "failing", "cs-kd")
    status, output, _ = call(*KD)
    assert (status, started) == (1, [TEACHER])
    assert f"digits/resnet10/kd/seed0: not started: its teacher, {TEACHER}, is not trained" in output


def test_run_keys_depend_on_no_path_machine_or_launch_option(call, started, tmp_path, monkeypatch):
    def planned(*arguments: str) -> set[str]:
        status, output, errors = call("experiments grid", "demo", "--seeds", "0", *arguments, "--launcher", "print")
        assert (status, errors) == (0, "")
        return set(re.findall(r"-m experiments worker \S.*/([0-9a-f]{16})'?$", output, re.MULTILINE))

    keys = planned()
    assert len(keys) == 2
    (tmp_path / "data").rename(tmp_path / "other data")
    for name, value in {"DATA_DIR": "other data", "RUNS_DIR": "other runs"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.chdir(tmp_path)
    assert planned("--workers", "7", "--retry") == keys


def test_dry_run_without_data_plans_with_the_official_numbers_and_writes_nothing(call, tmp_path):
    arguments = ("table1", "--profile", "mini", "--methods", "cross-entropy", "cs-kd", "--datasets")
    status, output, errors = call("experiments grid", *arguments, "cifar100", "cub200", "dogs", "--dry-run")
    assert (status, errors) == (0, "")
    assert "18 of 18 runs to do, about " in output
    sizes = "about 2.11 GB to download and 21.66 GB of disk in "
    assert f"The launch first prepares cifar100, cub200, dogs: {sizes}" in output
    assert list(tmp_path.iterdir()) == []
    # an archive that is there is not downloaded
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    (tmp_path / "data" / "downloads" / "CUB_200_2011.tgz").touch()
    assert "about 0.17 GB to download" in call("experiments grid", *arguments, "cifar100", "cub200", "--dry-run")[1]


def test_dry_run_plans_a_merged_dataset_before_its_parts_are_prepared(call):
    output = call("experiments grid", "figure4", "--profile", "mini", "--methods", "cs-kd", "--dry-run")[1]
    assert "3 of 3 runs to do" in output
    assert "The launch first prepares cub200, dogs, mit67: about 4.54 GB to download" in output


def test_dry_run_of_prepared_data_says_nothing_about_data(call, tmp_path):
    assert call("experiments data", "digits")[0] == 0
    output = call("experiments grid", "demo", "--dry-run")[1]
    assert "10 of 10 runs to do" in output
    assert "prepares" not in output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "command", ["grid demo --methods", "train --dataset digits --method", "tune --dataset digits --method"]
)
def test_composite_has_one_name_in_any_order_of_its_parts(call, command):
    assert call("experiments data", "digits")[0] == 0
    name, *arguments = command.split()
    status, output, errors = call(f"experiments {name}", *arguments, "cs-kd+mixup", "--dry-run")
    assert (status, errors) == (0, "")
    assert "mixup+cs-kd" in output
    assert "cs-kd+mixup" not in output


def test_printed_command_trains_its_run_from_any_folder(call, tmp_path):
    assert call("experiments data", "digits")[0] == 0
    settings = ("--set", "schedule.epochs=1", "--set", "schedule.milestones=[]", "--launcher", "print")
    output = call("experiments train", "--dataset", "digits", "--method", "cs-kd", *settings)[1]
    (line,) = (line for line in output.splitlines() if line.startswith("env "))
    environment = {name: os.environ[name] for name in os.environ.keys() - {"DATA_DIR", "RUNS_DIR", "PYTHONPATH"}}
    (tmp_path / "elsewhere").mkdir()
    command = partial(subprocess.run, shell=True, cwd=tmp_path / "elsewhere", env=environment)
    done = command(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (EXIT_DONE, ""), done.stderr
    assert re.search(r"done \d+", call("experiments status", "train")[1])
