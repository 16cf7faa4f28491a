"""The uploader never blocks or stops the training, and reports its problems."""

import signal
import threading
import time

import pytest
from mlflow import MlflowClient
from run_folders import make_run, make_spec, plan_of, tracked

from experiments.runs.folder import RUNNING
from experiments.tracking import uploader as module
from experiments.tracking.grids import GridTracker
from experiments.tracking.uploader import Uploader


def test_dead_server_costs_no_time_and_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.05)
    spec = make_run(tmp_path, make_spec(0))
    plan_of(spec).save(tmp_path)
    lines = []
    with Uploader(lambda: GridTracker("http://127.0.0.1:9", "demo", tmp_path), lines.append) as uploader:
        started = time.monotonic()
        uploader.watch(spec.run_key)
        assert time.monotonic() - started < 1
        while not lines:
            time.sleep(0.05)
    assert lines[0].endswith("Training continues; MLflow is retried every 15 s.")
    assert "127.0.0.1" in uploader.problem
    assert uploader.cpu_seconds > 0


def test_running_launch_restores_a_deleted_cell_and_its_seeds(uri, tmp_path, monkeypatch, small_figures):
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    specs = [make_run(tmp_path, make_spec(0)), make_run(tmp_path, make_spec(1), RUNNING, 1)]
    plan_of(*specs).save(tmp_path)

    def wait_for_runs(*statuses: str) -> list:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            runs = tracked(uri, kind="run")
            if sorted(run.info.status for run in runs) == [*statuses]:
                return runs
            time.sleep(0.05)
        raise AssertionError("not uploaded")

    with Uploader(lambda: GridTracker(uri, "demo", tmp_path)) as uploader:
        for spec in specs:
            uploader.watch(spec.run_key)
        deleted = [*wait_for_runs("FINISHED", "RUNNING"), *tracked(uri, kind="cell")]
        for run in deleted:
            MlflowClient(uri).delete_run(run.info.run_id)
        make_run(tmp_path, specs[1])
        wait_for_runs("FINISHED", "FINISHED")  # before the end of the launch
    assert uploader.problem is None
    (cell,), runs = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {cell.info.run_id}
    assert (cell.data.metrics["seeds"], cell.data.params["schedule.epochs"]) == (2, "3")
    assert not {run.info.run_id for run in deleted} & {run.info.run_id for run in (cell, *runs)}


@pytest.mark.parametrize("stopped", [False, True])
def test_ctrl_c_ends_the_final_wait(stopped, monkeypatch):
    """At once if the launch was stopped before; otherwise a working server gets a moment to finish."""
    monkeypatch.setattr(module, "QUIET_SECONDS", 20.0)
    uploaded = threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Slow:
        def update(self, everything: bool) -> None:
            threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
            if not stopped:
                threading.Timer(0.5, uploaded.set).start()
            assert uploaded.wait(60)

    try:
        with Uploader(Slow) as uploader:
            if stopped:
                uploader.launch_stopped()
    finally:
        signal.signal(signal.SIGINT, before)
        uploaded.set()
    assert uploader.problem == ("the upload was skipped with Ctrl-C" if stopped else None)
