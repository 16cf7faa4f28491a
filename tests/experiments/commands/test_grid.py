"""Launched grids: training, tracking, tables, and what a second launch does."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from builders import Grid
from mlflow import MlflowClient
from place import epoch_options
from run_folders import tracked

from cskd.evaluate.predictions import load_predictions
from cskd.utils.errors import UserError
from experiments.commands import grid as grid_command
from experiments.launch.backends import Exit, local
from experiments.launch.backends.base import EXIT_DONE, EXIT_FAILED
from experiments.launch.options import GridOptions
from experiments.runs.folder import DONE, RunFolder


def in_demo_grid(demo_grid, monkeypatch, **changes: str) -> None:
    """Set the environment of the trained grid for commands in this process."""
    for name, value in (demo_grid.environment | changes).items():
        monkeypatch.setenv(name, value)


def test_grid_is_trained_without_tracking_and_tuning_packages(demo_grid):
    output = (demo_grid.folder / demo_grid.printed).read_text()
    assert "2 of 2 runs are done." in output
    assert "not all is tracked in MLflow (mlflow is not installed)" in output


def test_tracking_has_every_metric_and_artifact_of_the_run_folders(demo_grid):
    client, runs = MlflowClient(demo_grid.uri), tracked(demo_grid.uri, kind="run")
    assert [run.data.tags["state"] for run in runs] == [DONE] * 2
    run = runs[0]
    folder = RunFolder(demo_grid.runs / run.data.tags["run_key"])
    for record in folder.epochs():
        for name, value in record["metrics"].items():
            history = client.get_metric_history(run.info.run_id, name)
            assert [point.value for point in history if point.step == record["epoch"]] == [pytest.approx(value)]
    with np.load(client.download_artifacts(run.info.run_id, "predictions.npz")) as arrays:
        assert np.array_equal(arrays["logits"], load_predictions(folder.predictions).logits)


def test_second_launch_trains_nothing_and_makes_the_tables_of_its_own_experiment(
    demo_grid, call, monkeypatch, tmp_path
):
    uri = f"sqlite:///{shutil.copy(demo_grid.folder / 'mlflow.db', tmp_path)}"
    later = Grid("table3-mini", "mini")  # another experiment was launched later
    later.run(later.cell("cub200", "mixup"), 0, {"top1_error": 1.0})
    later.log(uri, tmp_path)
    results = tmp_path / "results"
    in_demo_grid(demo_grid, monkeypatch, MLFLOW_TRACKING_URI=uri, RESULTS_DIR=str(results))

    def run_here(command: list[str], check: bool) -> SimpleNamespace:
        assert command[:3] == [sys.executable, "-m", "analysis"]
        return SimpleNamespace(returncode=call(f"analysis {command[3]}", *command[4:])[0])

    monkeypatch.setattr(grid_command, "subprocess", SimpleNamespace(run=run_here))
    status, output, _ = call(*demo_grid.command, "--tables", "nll")
    assert (status, "0 of 2 runs to do" in output) == (0, True)
    [written] = (path for path in results.iterdir() if not path.name.startswith("."))  # the others are caches
    assert written.name.startswith("demo-custom-")
    assert (written / "nll.csv").is_file()


def test_sync_rebuilds_the_tracking_from_the_run_folders(demo_grid, call, monkeypatch, tmp_path):
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    in_demo_grid(demo_grid, monkeypatch, MLFLOW_TRACKING_URI=other)
    status, output, _ = call("experiments sync")
    assert status == 0
    assert re.search("demo-custom-[0-9a-f]{6}: 2 runs are tracked in", output)
    rebuilt, original = (
        {run.info.run_name: run.data.metrics for kind in ("run", "cell") for run in tracked(uri, kind=kind)}
        for uri in (other, demo_grid.uri)
    )
    assert rebuilt == original


class FakeBackend:
    """Ends every job at once: as done, unless its method is ``failing``."""

    detached = False
    capacity = 1
    failing = "none"
    started: ClassVar[list[str]]

    def __init__(self, workers: int):
        pass

    def start(self, job, slot):
        folder = RunFolder(job.folder)
        spec = folder.spec()
        self.started.append(spec.name)
        if spec.method == self.failing:
            return Exit(EXIT_FAILED)
        folder.write_epochs([{"epoch": 0, "timestamp": 0.0, "metrics": {"test/top1_error": 1.0, "test/ece": 1.0}}])
        folder.write_state(DONE, reason="all 2 epochs", epoch=2, epochs=2)
        return Exit(EXIT_DONE)

    def poll(self, handle):
        return handle


@pytest.fixture
def started(call, monkeypatch) -> list[str]:
    """Names of the runs that launches start, which are not trained."""

    def no_tracker(plan):
        raise ModuleNotFoundError(name="mlflow")

    assert call("experiments data", "digits")[0] == 0
    names: list[str] = []
    monkeypatch.setattr(FakeBackend, "started", names, raising=False)
    monkeypatch.setattr(local, "LocalBackend", FakeBackend)
    monkeypatch.setattr(grid_command, "_open_tracker", no_tracker)
    monkeypatch.setattr(RunFolder, "damage", lambda folder: None)
    return names


DEMO = ("experiments grid", "demo", "--seeds", "0", "1", *epoch_options(2))
KD = ("experiments grid", "table4", "--datasets", "digits", "--methods", "kd", "--seeds", "0", "1", *epoch_options(2))
TEACHER = "digits/densenet41/cs-kd/seed0"


def test_failed_run_stops_no_other_run_and_retry_starts_it_again(call, started, monkeypatch):
    """The exit status is that of the grid, or else that of the tables."""
    run = SimpleNamespace(run=lambda *arguments, **options: SimpleNamespace(returncode=3))  # makes the tables
    monkeypatch.setattr(grid_command, "subprocess", run)
    monkeypatch.setattr(FakeBackend, "failing", "cs-kd")
    status, output, errors = call(*DEMO, "--tables")
    assert (status, errors) == (1, "")
    assert "2 of 4 runs are done." in output
    assert "digits/resnet10/cs-kd/seed1: failed: the process ended with status 1" in output
    assert "RETRY=1" in output
    monkeypatch.setenv("COLUMNS", "80")
    output = call("experiments status", "demo")[1]
    assert output.count(" %") == output.count("/seed") == 2
    assert output.splitlines()[1].endswith("┓")  # the table is not cut off
    monkeypatch.setenv("COLUMNS", "200")
    started.clear()
    assert "0 of 4 runs to do" in call(*DEMO)[1]
    assert not started
    monkeypatch.setattr(FakeBackend, "failing", "none")
    status, output, _ = call(*DEMO, "--retry", "--tables")
    assert (status, started) == (3, ["digits/resnet10/cs-kd/seed0", "digits/resnet10/cs-kd/seed1"])
    assert "4 of 4 runs are done." in output


def test_teacher_is_trained_first_and_once_and_named_if_it_failed(call, started, monkeypatch):
    monkeypatch.setattr(FakeBackend, "failing", "cs-kd")
    status, output, _ = call(*KD)
    assert (status, started) == (1, [TEACHER])
    assert f"digits/resnet10/kd/seed0: not started: its teacher, {TEACHER}, is not trained" in output
    started.clear()
    monkeypatch.setattr(FakeBackend, "failing", "none")
    assert call(*KD, "--retry", "--workers", "2")[0] == 0
    assert started == [TEACHER, "digits/resnet10/kd/seed0", "digits/resnet10/kd/seed1"]
    assert "0 of 3 runs to do" in call(*KD)[1]


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
    def plan(grid: str, *arguments: str) -> str:
        arguments = ("--profile", "mini", "--methods", "cs-kd", *arguments)
        status, output, errors = call("experiments grid", grid, *arguments, "--dry-run")
        assert (status, errors) == (0, "")
        return output

    output = plan("figure4")  # a merged dataset
    assert "3 of 3 runs to do, about " in output
    assert "The launch first prepares cub200, dogs, mit67: about 4.54 GB to download and " in output
    assert list(tmp_path.iterdir()) == []
    # an archive that is there is not downloaded
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    (tmp_path / "data" / "downloads" / "CUB_200_2011.tgz").touch()
    output = plan("table1", "--datasets", "cifar100", "cub200", "--set", "schedule.epochs=40")
    assert "about 0.17 GB to download" in output
    assert "The learning rate does not drop after [45]: training ends at epoch 40." in output


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
    assert re.search(r" \d+\.\d\d % ", call("experiments status", "train")[1])


def test_datasets_that_cannot_be_had_are_named_at_once_and_can_be_left_out(monkeypatch, capsys):
    def prepare(name, *arguments):
        if name == "digits":
            return "prepared"
        raise UserError(f"{name}.tar cannot be downloaded: fetch it")

    monkeypatch.setattr(grid_command, "prepare_with_progress", prepare)
    monkeypatch.setattr(grid_command, "is_prepared", lambda *arguments: False)
    sections = dict.fromkeys(("cub200", "digits", "mit67"))
    with pytest.raises(UserError, match=r"^cub200, mit67: .* SKIP_MISSING=1, which runs digits$"):
        grid_command._open_datasets(sections, GridOptions(), None)
    errors = capsys.readouterr().err
    assert [line.partition(" ")[0] for line in errors.splitlines()] == ["cub200", "mit67"]
    assert grid_command._open_datasets(sections, GridOptions(skip_missing=True), None) == {"digits": "prepared"}
    with pytest.raises(UserError, match=r"^cub200\.tar cannot be downloaded: fetch it$"):
        grid_command._open_datasets({"cub200": None}, GridOptions(skip_missing=True), None)
