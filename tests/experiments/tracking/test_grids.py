"""Uploaded grids: cells, seeds and their trainings, repeated uploads, and what somebody deleted."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from run_folders import make_run, make_spec, plan_of, points, tracked, upload

from cskd.utils.errors import UserError
from experiments.runs.folder import FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.tracking.experiment import TrackedExperiment
from experiments.tracking.grids import GridTracker
from experiments.tracking.uploader import Uploader

pytestmark = pytest.mark.usefixtures("small_figures")


def test_resumed_run_keeps_its_mlflow_run_with_every_epoch_once(uri, tmp_path):
    spec = make_run(tmp_path, make_spec(0), INTERRUPTED, 1)
    tracker = upload(uri, tmp_path, spec)
    ((cell,), (first,)) = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert (first.info.status, cell.info.status) == ("KILLED", "KILLED")
    make_run(tmp_path, spec, RUNNING, 2)
    tracker.watch(spec.run_key)
    tracker.update(everything=False)
    assert tracked(uri, kind="run")[0].info.status == "RUNNING"
    make_run(tmp_path, spec)
    for _ in range(3):  # repeated uploads change nothing
        upload(uri, tmp_path, spec)
    ((cell,), (run,)) = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert run.info.run_id == first.info.run_id
    assert (run.info.status, cell.info.status) == ("FINISHED", "FINISHED")
    assert points(uri, run, "train/loss") == [(0, 2.0), (1, 1.0), (2, pytest.approx(2 / 3))]
    for name in run.data.metrics:
        steps = [step for step, _ in points(uri, run, name)]
        assert len(steps) == len(set(steps)), name


def test_run_that_resumes_from_its_previous_checkpoint_has_every_epoch_once(uri, tmp_path):
    spec = make_run(tmp_path, make_spec(0), INTERRUPTED, 2)
    upload(uri, tmp_path, spec)
    tracker = upload(uri, tmp_path, make_run(tmp_path, spec, RUNNING, 1))
    tracker.watch(spec.run_key)
    make_run(tmp_path, spec, ece=11.0)
    tracker.update(everything=False)
    assert points(uri, tracked(uri, kind="run")[0], "test/ece") == [(0, 10.0), (1, 10.0), (2, 11.0)]


def test_epochs_of_an_uploaded_run_are_not_read_again(uri, tmp_path):
    tracker = upload(uri, tmp_path, make_run(tmp_path, make_spec(0)))
    (tmp_path / make_spec(0).run_key / "metrics.jsonl").write_text("{")
    tracker.update(everything=True)


def test_cell_that_was_extended_gets_its_mean_after_a_kill(uri, tmp_path, monkeypatch):
    specs = [make_run(tmp_path, make_spec(seed)) for seed in (0, 1)]
    upload(uri, tmp_path, specs[0])

    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(GridTracker, "_summarise", die)
        upload(uri, tmp_path, *specs)
    upload(uri, tmp_path, *specs)
    assert tracked(uri, kind="cell")[0].data.metrics["seeds"] == 2


def test_failed_run_has_its_reason_and_a_run_that_has_not_started_is_not_uploaded(uri, tmp_path):
    RunFolder.of(make_spec(2), tmp_path).create(make_spec(2))
    upload(uri, tmp_path, make_run(tmp_path, make_spec(0)), make_run(tmp_path, make_spec(1), FAILED, 1), make_spec(2))
    (cell,), runs = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert {run.data.tags["seed"]: (run.info.status, run.data.tags["reason"]) for run in runs} == {
        "0": ("FINISHED", "all 3 epochs"),
        "1": ("FAILED", "failed: a reason"),
    }
    assert (cell.info.status, cell.data.metrics["seeds"]) == ("FAILED", 1)
    assert "test/top1_error_std" not in cell.data.metrics  # of one seed


def test_cell_with_changed_settings_is_superseded(uri, tmp_path):
    spec = make_run(tmp_path, make_spec(0))
    upload(uri, tmp_path, spec)
    plan = plan_of(spec)
    plan.model_copy(update={"cells": [plan.cells[0].model_copy(update={"key": "another"})]}).save(tmp_path)
    GridTracker(uri, "demo", tmp_path).update(everything=True)
    superseded = {cell.data.tags["cell_key"]: cell.data.tags["superseded"] for cell in tracked(uri, kind="cell")}
    assert superseded == {spec.cell_key: "true", "another": "false"}


def test_unreadable_run_does_not_stop_the_other_runs(uri, tmp_path):
    specs = [make_run(tmp_path, make_spec(*cell)) for cell in ((0, "cs-kd"), (1, "cs-kd"), (0, "cross-entropy"))]
    cells = [plan_of(*specs[:2]).cells[0], plan_of(specs[2]).cells[0]]
    plan_of(specs[0]).model_copy(update={"cells": cells}).save(tmp_path)
    (tmp_path / specs[0].run_key / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        GridTracker(uri, "demo", tmp_path).update(everything=True)
    finished = {run.data.tags["run_key"] for run in tracked(uri, kind="run") if run.info.status == "FINISHED"}
    assert finished == {spec.run_key for spec in specs[1:]}


def test_update_after_a_failure_uploads_the_rest(uri, tmp_path, monkeypatch):
    spec = make_run(tmp_path, make_spec(0))
    plan_of(spec).save(tmp_path)
    tracker = GridTracker(uri, "demo", tmp_path)
    tracker.watch(spec.run_key)

    def fail(*arguments):
        raise MlflowException("gone")

    monkeypatch.setattr(TrackedExperiment, "log_settings", fail)
    with pytest.raises(MlflowException, match="gone"):
        tracker.update(everything=False)
    monkeypatch.undo()
    tracker.update(everything=False)
    ((cell,), (run,)) = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert cell.data.params["schedule.epochs"] == run.data.params["schedule.epochs"] == "3"
    assert run.info.status == "FINISHED"


def test_empty_copies_of_a_run_are_deleted(uri, tmp_path):
    """A server may create a run after the client's timeout, when the client has sent the request again."""
    tracker = upload(uri, tmp_path, make_run(tmp_path, make_spec(0)))
    (run,) = tracked(uri, kind="run")
    for training in ("first-0", "of another RUNS_DIR"):
        tags = run.data.tags | {"training_id": training, "mlflow.runName": "copy"}
        tracker.client.create_run(run.info.experiment_id, tags=tags)
    tracker.update(everything=True)
    names = {run.info.run_name: run.data.tags["training_id"] for run in tracked(uri, kind="run")}
    assert names == {run.info.run_name: "first-0", "copy": "of another RUNS_DIR"}


def test_dataset_that_another_process_creates_meanwhile_is_logged(uri, tmp_path, monkeypatch):
    log_inputs = MlflowClient.log_inputs
    failures = [MlflowException("UNIQUE constraint failed", error_code=BAD_REQUEST)]

    def log(*arguments):
        if failures:
            raise failures.pop()
        log_inputs(*arguments)

    monkeypatch.setattr(MlflowClient, "log_inputs", log)
    upload(uri, tmp_path, make_run(tmp_path, make_spec(0)))
    (run,) = tracked(uri, kind="run")
    assert (run.info.status, len(run.inputs.dataset_inputs)) == ("FINISHED", 1)


def test_cell_that_two_machines_created_at_once_becomes_one(uri, tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    tracker = upload(uri, tmp_path / "first", make_run(tmp_path / "first", make_spec(0)))
    ((cell,), (run,)) = tracked(uri, kind="cell"), tracked(uri, kind="run")
    copy = tracker.client.create_run(run.info.experiment_id, tags=cell.data.tags).info.run_id
    tracker.client.log_param(copy, "schedule.epochs", 3)
    tracker.client.set_tag(run.info.run_id, "mlflow.parentRunId", copy)
    upload(uri, tmp_path / "second", make_run(tmp_path / "second", make_spec(1)))
    ((cell,), runs) = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert [run.data.tags["mlflow.parentRunId"] for run in runs] == [cell.info.run_id] * 2


def test_two_launches_share_one_experiment(uri, tmp_path):
    plan_of(make_run(tmp_path, make_spec(0))).save(tmp_path)
    with Uploader(lambda: GridTracker(uri, "demo", tmp_path)) as uploader:
        plan_of(make_run(tmp_path, make_spec(1))).save(tmp_path)  # another launch starts meanwhile
    assert sorted(run.data.tags["seed"] for run in tracked(uri, kind="run")) == ["0", "1"]
    assert tracked(uri, kind="cell")[0].data.metrics["seeds"] == 2
    assert uploader.problem is None
