"""What MLflow is told, from run folders made by hand; and that telling it again changes nothing."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from plans import plan_of

from analysis.load.store import Store
from cskd.evaluate.predictions import Predictions, save_predictions
from cskd.utils.errors import UserError
from cskd.utils.integrity import write_archive
from experiments.config.recipe import load_settings
from experiments.config.spec import RunSpec
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.tracking import studies
from experiments.tracking import uploader as background
from experiments.tracking.grids import GridTracking, Tracker
from experiments.tracking.origin import ORIGIN
from experiments.tracking.records import minutes, start_tags
from experiments.tracking.store import open_store
from experiments.tracking.uploader import BackgroundTracking
from experiments.tuning.trial import COMPLETE, Trial
from experiments.tuning.trial import RUNNING as TRIAL_RUNNING

DAY = datetime(2026, 1, 1)
ROOT = Path(__file__).resolve().parents[2]
START = {
    "git_commit": "c" * 40, "git_dirty": False, "machine": "a machine", "device": "cpu", "precision": "fp32",
    "threads": 2, "python": "3.12.1", "packages": {"torch": "2.15.0"}, "started": 1_700_000_000.0,
}  # fmt: skip


def spec(seed: int, method: str = "cs-kd") -> RunSpec:
    profile, settings = load_settings("digits", None, ("schedule.epochs=3", "schedule.milestones=[2]"))
    return RunSpec(
        dataset="digits", profile=profile, architecture="resnet10", method=method, parameters={}, seed=seed,
        settings=settings, data_digest="d" * 64, data_complete=True, data_source="made up",
        numerics_version=1, comparable=False, comparable_reason="profile demo",
    )  # fmt: skip


def epoch_metrics(seed: int, epoch: int, last: bool) -> dict[str, float]:
    metrics = {
        "train/loss": 2.0 / (epoch + 1),
        "test/top1_error": [50.0, 20.0, 30.0][epoch] + seed,
        "test/top5_error": 5.0,
        "test/nll": 1.0,
        "test/brier": 0.5,
        "test/ece": 10.0 + seed,
        "test/domain_accuracy_dogs": 90.0 + epoch,  # of a dataset with domains
        "time/train_seconds": 40.0,
        "time/test_seconds": 20.0,
    }
    return metrics | ({"test/recall_at_1": 60.0} if last else {})


def make_run(runs_dir, seed, state=DONE, epochs=3, **details) -> RunSpec:
    one = spec(seed)
    folder = RunFolder.of(one, runs_dir)
    folder.create(one)
    folder.write_environment("t", [START])
    folder.write_epochs(
        [{"epoch": n, "timestamp": 1.7e9 + n, "metrics": epoch_metrics(seed, n, n == 2)} for n in range(epochs)]
    )
    if state == DONE:
        random = np.random.default_rng(seed)
        logits, features = random.normal(size=(30, 10)).astype("f4"), np.ones((30, 4), "f4")
        save_predictions(folder.predictions, Predictions(logits, features, np.arange(30) % 10))
        write_archive(folder.weights, lambda file: torch.save({}, file))
    folder.write_state(state, epoch=epochs, epochs=3, **details)
    return one


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables: they take seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def uri(tmp_path, empty_store):
    (tmp_path / "mlflow.db").write_bytes(empty_store)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def track(uri, plan, runs_dir) -> Tracker:
    tracker = Tracker(uri, plan, runs_dir)
    tracker.open()
    tracker.sync_all()
    return tracker


def tracked(uri):
    """(parents, children by seed) of the only experiment."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id])
    children = {run.data.tags["seed"]: run for run in runs if run.data.tags["kind"] == "run"}
    return [run for run in runs if run.data.tags["kind"] == "cell"], children


def test_what_a_launch_changes_of_the_recipe_is_told_with_its_experiment(uri, tmp_path):
    plan = plan_of(make_run(tmp_path, 0)).model_copy(update={"overrides": ("width=8", "schedule.milestones=[1, 2]")})
    track(uri, plan, tmp_path)
    [experiment] = Store(uri).load(["demo"])
    assert experiment.overrides == "width=8, schedule.milestones=[1, 2]"


def test_a_cell_is_a_parent_with_mean_std_and_n_and_its_seeds_are_children(uri, tmp_path):
    specs = [make_run(tmp_path, seed) for seed in (0, 1)]
    track(uri, plan_of(*specs), tmp_path)
    (parent,), children = tracked(uri)
    assert parent.info.run_name == "digits/resnet10/cs-kd"
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["seeds"] == 2
    assert parent.data.metrics["test/top1_error_mean"] == 30.5
    assert parent.data.metrics["test/top1_error_std"] == pytest.approx(np.std([30, 31], ddof=1))
    assert parent.data.metrics["test/recall_at_1_mean"] == 60
    assert parent.data.metrics["test/domain_accuracy_dogs_mean"] == 92
    assert children["1"].data.metrics["best/domain_accuracy_dogs"] == 91
    client = MlflowClient(uri)
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["curves.png"]
    child = children["1"]
    assert child.info.run_name == "digits/resnet10/cs-kd/seed1"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["run_key"] == specs[1].run_key
    assert child.data.tags["git_commit"] == "c" * 40
    assert child.data.tags["git_dirty"] == "false"
    assert child.data.tags["package.torch"] == "2.15.0"
    assert child.data.params["schedule.lr"] == "0.1"
    assert child.inputs.dataset_inputs[0].dataset.digest == "d" * 16
    artifacts = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert artifacts == {"predictions.npz", "weights.pt", "environment.json", "spec.json", "reliability.png"}


def test_the_best_test_epoch_stands_beside_the_last(uri, tmp_path):
    track(uri, plan_of(make_run(tmp_path, 0)), tmp_path)
    _, children = tracked(uri)
    metrics = children["0"].data.metrics
    assert (metrics["test/top1_error"], metrics["best/top1_error"], metrics["best/epoch"]) == (30.0, 20.0, 1)
    assert metrics["minutes"] == 3.0


def test_telling_it_again_from_anew_changes_nothing(uri, tmp_path):
    plan = plan_of(make_run(tmp_path, 0))
    for _ in range(3):
        track(uri, plan, tmp_path)
    parents, children = tracked(uri)
    assert (len(parents), len(children)) == (1, 1)
    history = MlflowClient(uri).get_metric_history(children["0"].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 2.0), (1, 1.0), (2, pytest.approx(2 / 3))]


def test_a_run_that_goes_on_keeps_its_mlflow_run_and_has_every_epoch_once(uri, tmp_path):
    one = make_run(tmp_path, 0, INTERRUPTED, epochs=1)
    plan = plan_of(one)
    track(uri, plan, tmp_path)
    parents, children = tracked(uri)
    assert (children["0"].info.status, parents[0].info.status) == ("KILLED", "KILLED")
    first = children["0"].info.run_id
    RunFolder.of(one, tmp_path).write_state(RUNNING, epoch=1, epochs=3)
    tracker = track(uri, plan, tmp_path)
    assert tracked(uri)[1]["0"].info.status == "RUNNING"
    make_run(tmp_path, 0)
    tracker.sync(plan.cells[0], one.run_key)
    parents, children = tracked(uri)
    assert children["0"].info.run_id == first
    assert (children["0"].info.status, parents[0].info.status) == ("FINISHED", "FINISHED")
    history = MlflowClient(uri).get_metric_history(first, "test/ece")
    assert [point.step for point in history] == [0, 1, 2]


def test_a_run_whose_state_was_damaged_is_told_no_second_time(uri, tmp_path):
    one = make_run(tmp_path, 0)
    plan = plan_of(one)
    folder = RunFolder.of(one, tmp_path)
    (before,) = track(uri, plan, tmp_path).children.values()
    folder.write_state(INTERRUPTED, reason="state.json is damaged", epoch=3, epochs=3)
    track(uri, plan, tmp_path)
    folder.write_state(DONE, epoch=3, epochs=3)
    tracker = track(uri, plan, tmp_path)
    (run_id,) = tracker.children.values()
    assert run_id == before
    run = tracker.client.get_run(run_id)
    assert (run.data.tags["state"], run.info.status) == (DONE, "FINISHED")
    for name in run.data.metrics:
        steps = [point.step for point in tracker.client.get_metric_history(run_id, name)]
        assert len(steps) == len(set(steps)), name


def train_again(folder: RunFolder, kept: int) -> None:
    """After the first ``kept`` epochs, with another clock and another ECE, as on another device."""
    records = folder.epochs()
    for record in records[kept:]:
        record["metrics"] |= {"time/train_seconds": 50.0, "test/ece": 11.0}
    folder.write_epochs(records)
    folder.write_state(DONE, epoch=3, epochs=3)


@pytest.mark.parametrize("message", [INTERRUPTED, DONE])
def test_a_run_that_was_trained_again_has_an_mlflow_run_of_that_training_alone(message, uri, tmp_path):
    """What was told of it before: that it is to be trained again; or, MLflow being away since, that it is done."""
    one = make_run(tmp_path, 0)
    plan = plan_of(one)
    folder = RunFolder.of(one, tmp_path)
    folder.write_state(message, epoch=3, epochs=3)
    tracker = track(uri, plan, tmp_path)
    (before,) = tracker.children.values()
    train_again(folder, kept=1)
    if message == INTERRUPTED:
        tracker.sync_all()
    else:
        track(uri, plan, tmp_path)
    tracker = track(uri, plan, tmp_path)  # nothing changes when it is told again
    (run_id,) = tracker.children.values()
    deleted = MlflowClient(uri).search_runs([tracker.experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert run_id != before
    assert [run.info.run_id for run in deleted] == [before]
    run = tracker.client.get_run(run_id)
    assert (run.data.tags["state"], run.info.status, run.data.params["seed"]) == (DONE, "FINISHED", "0")
    assert (run.data.metrics["best/ece"], run.data.metrics["minutes"]) == (11.0, (40 + 50 + 50 + 3 * 20) / 60)
    for name, values in (("time/train_seconds", [40.0, 50.0, 50.0]), ("test/ece", [10.0, 11.0, 11.0])):
        history = tracker.client.get_metric_history(run_id, name)
        assert [(point.step, point.value) for point in history] == list(enumerate(values))
    artifacts = {file.path for file in tracker.client.list_artifacts(run_id)}
    assert artifacts == {"predictions.npz", "weights.pt", "environment.json", "spec.json", "reliability.png"}


def test_a_run_that_was_begun_anew_is_told_anew(uri, tmp_path):
    """With MLflow away: what it was begun on the first time is no longer known."""
    one = make_run(tmp_path, 0)
    folder = RunFolder.of(one, tmp_path)
    (before,) = track(uri, plan_of(one), tmp_path).children.values()
    folder.write_environment("t", [START | {"started": 1_800_000_000.0, "device": "a GPU"}])
    train_again(folder, kept=0)
    (run_id,) = track(uri, plan_of(one), tmp_path).children.values()
    assert run_id != before
    assert tracked(uri)[1]["0"].data.tags["device"] == "a GPU"


def test_what_a_long_lived_tracker_missed_is_told_when_it_opens_again(uri, tmp_path):
    one = make_run(tmp_path, 0)
    tracker = track(uri, plan_of(one), tmp_path)
    (before,) = tracker.children.values()
    train_again(RunFolder.of(one, tmp_path), kept=0)
    tracker.open()
    tracker.sync_all()
    (run_id,) = tracker.children.values()
    assert run_id != before


def test_a_run_that_another_runs_dir_has_too_keeps_its_mlflow_run(uri, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
    one = make_run(there, 0)
    first = track(uri, plan_of(one), there)
    make_run(here, 0)
    RunFolder.of(one, here).write_environment("t", [START | {"started": 1_800_000_000.0}])
    train_again(RunFolder.of(one, here), kept=0)
    second = track(uri, plan_of(one), here)
    for _ in range(2):
        assert track(uri, plan_of(one), there).children == first.children
        assert track(uri, plan_of(one), here).children == second.children
    ((theirs,), (ours,)) = (tuple(tracker.children.values()) for tracker in (first, second))
    assert ours != theirs
    assert first.client.get_run(theirs).data.metrics["test/ece"] == 10.0
    assert first.client.get_run(ours).data.metrics["test/ece"] == 11.0
    [experiment] = Store(uri).load(["demo"])
    assert list(experiment.runs.run_id) == [theirs]
    assert experiment.notes == ("digits/resnet10/cs-kd/seed0: tracked more than once: the first finished one counts.",)


@pytest.mark.parametrize("is_here", [True, False])
def test_a_run_that_was_told_before_runs_dirs_had_names_is_known_by_its_start(is_here, uri, tmp_path):
    one = make_run(tmp_path, 0)
    tracker = track(uri, plan_of(one), tmp_path)
    (before,) = tracker.children.values()
    tracker.client.delete_tag(before, ORIGIN)
    if not is_here:
        RunFolder.of(one, tmp_path).write_environment("t", [START | {"started": 1_800_000_000.0}])
    (run_id,) = track(uri, plan_of(one), tmp_path).children.values()
    assert (run_id == before) == is_here


@pytest.mark.parametrize("seeds", [(1000,), (1000, 1001)])
def test_a_trial_whose_run_was_trained_again_is_told_anew(seeds, uri, tmp_path, monkeypatch):
    runs = {seed: make_run(tmp_path, seed - 1000, INTERRUPTED, epochs=2).run_key for seed in seeds}
    running = Trial(0, TRIAL_RUNNING, {}, None, {}, runs, "", DAY, None, {})

    def message(trial: Trial) -> list[Run]:
        monkeypatch.setattr(studies, "load_trials", lambda storage, name: (("top1_error",), [trial]))
        studies.StudyTracking(uri, "storage", "study", tmp_path, tmp_path / "results").update(whole=False)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("tuning")
        return client.search_runs([experiment.experiment_id], filter_string="tags.kind = 'trial'")

    (before,) = message(running)
    for seed in seeds:
        make_run(tmp_path, seed - 1000)
        train_again(RunFolder(tmp_path / runs[seed]), kept=1)
    metrics = {"top1_error": 20.0, "nll": 1.0, "ece": 11.0}
    ended = replace(running, state=COMPLETE, values=(20.0,), metrics=metrics, ended=DAY)
    (run,) = message(ended)
    assert run.info.run_id != before.info.run_id
    assert [one.info.run_id for one in message(ended)] == [run.info.run_id]
    assert run.info.status == "FINISHED"
    for seed in seeds:
        prefix = f"seed{seed}/" if len(seeds) > 1 else ""
        history = MlflowClient(uri).get_metric_history(run.info.run_id, f"{prefix}time/train_seconds")
        assert [(point.step, point.value) for point in history] == [(0, 40.0), (1, 50.0), (2, 50.0)]


def test_a_failed_run_is_failed_with_its_reason(uri, tmp_path):
    specs = [make_run(tmp_path, 0), make_run(tmp_path, 1, FAILED, epochs=1, reason="the loss is not finite")]
    track(uri, plan_of(*specs), tmp_path)
    (parent,), children = tracked(uri)
    assert children["1"].info.status == "FAILED"
    assert children["1"].data.tags["reason"] == "the loss is not finite"
    assert parent.info.status == "FAILED"
    assert parent.data.metrics["seeds"] == 1
    assert "test/top1_error_std" not in parent.data.metrics  # one seed has no std


def test_a_cell_of_the_same_name_with_other_settings_is_superseded(uri, tmp_path):
    plan = plan_of(make_run(tmp_path, 0))
    track(uri, plan, tmp_path)
    other = plan.cells[0].model_copy(update={"key": "another"})
    track(uri, plan.model_copy(update={"cells": [other]}), tmp_path)
    parents, _ = tracked(uri)
    assert {parent.data.tags["cell_key"]: parent.data.tags["superseded"] for parent in parents} == {
        plan.cells[0].key: "true",
        "another": "false",
    }


def test_a_run_that_has_not_begun_is_not_tracked(uri, tmp_path):
    one = spec(0)
    RunFolder.of(one, tmp_path).create(one)
    track(uri, plan_of(one), tmp_path)
    (parent,), children = tracked(uri)
    assert children == {}
    assert parent.info.status == "SCHEDULED"


@pytest.mark.parametrize(
    ("device", "threads", "message"),
    [("cpu", 1, "cpu, 1 thread"), ("cpu", 2, "cpu, 2 threads"), ("NVIDIA H200", 16, "NVIDIA H200")],
)
def test_the_threads_of_a_cpu_are_told_since_they_change_the_results(tmp_path, device, threads, message):
    folder = RunFolder.of(make_run(tmp_path, 0), tmp_path)
    folder.write_environment("t", [{**START, "device": device, "threads": threads}])
    assert start_tags(folder)["device"] == message


def test_minutes_are_those_of_training_and_testing():
    assert minutes([{"metrics": epoch_metrics(0, 0, False)}] * 2) == 2.0


def test_a_deleted_experiment_is_named(uri, tmp_path):
    plan = plan_of(make_run(tmp_path, 0))
    tracker = track(uri, plan, tmp_path)
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match="'demo' was deleted"):
        track(uri, plan, tmp_path)


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/no/mlflow.db"])
def test_a_store_that_cannot_be_used_is_named_in_one_line(uri):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI=") as caught:
        open_store(uri)
    assert "\n" not in str(caught.value)


def test_several_first_launches_at_once_make_one_sound_database(tmp_path):
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    code = f"from experiments.tracking.store import open_store; open_store({uri!r})"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, cwd=ROOT) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [b"", b"", b""]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert MlflowClient(uri).search_experiments()


def test_settings_that_did_not_arrive_are_sent_again(uri, tmp_path, monkeypatch):
    plan = plan_of(make_run(tmp_path, 0))
    monkeypatch.setattr(Tracker, "_describe", lambda *arguments: (_ for _ in ()).throw(MlflowException("gone")))
    with pytest.raises(MlflowException, match="gone"):
        track(uri, plan, tmp_path)
    monkeypatch.undo()
    track(uri, plan, tmp_path)
    (parent,), children = tracked(uri)
    assert len(children) == 1
    assert children["0"].data.params["schedule.epochs"] == "3"
    assert parent.data.params["schedule.epochs"] == "3"


def test_two_launches_into_one_experiment_are_tracked_together(uri, tmp_path):
    one, two = make_run(tmp_path, 0), make_run(tmp_path, 1)
    first = BackgroundTracking(lambda: GridTracking(uri, plan_of(one), tmp_path))
    plan_of(one).save(tmp_path)
    with first:
        plan_of(two).save(tmp_path)  # another launch, while the first goes on
    (parent,), children = tracked(uri)
    assert sorted(children) == ["0", "1"]
    assert parent.data.metrics["seeds"] == 2
    assert first.trouble is None


def test_a_password_is_not_shown():
    with pytest.raises(UserError) as caught:
        open_store("nonsense://me:secret@host/x")
    assert "//***@host" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_away_troubles_nothing_but_the_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "INTERVAL_SECONDS", 0.05)
    one = make_run(tmp_path, 0)
    plan_of(one).save(tmp_path)
    with BackgroundTracking(lambda: GridTracking("http://127.0.0.1:9", plan_of(one), tmp_path)) as tracking:
        started = time.monotonic()
        tracking.watch(one.run_key)
        assert time.monotonic() - started < 1
    assert "127.0.0.1" in tracking.trouble
    assert tracking.seconds > 0


@pytest.mark.parametrize(("stopped", "waited"), [(False, True), (True, False)])
def test_ctrl_c_ends_the_wait_for_a_store(stopped, waited, monkeypatch):
    """At once where the launch was stopped before; else the store has a moment to take the rest."""
    monkeypatch.setattr(background, "SILENT_SECONDS", 20.0)
    taken = threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Slow:
        def update(self, whole: bool) -> None:
            threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
            if waited:
                threading.Timer(0.5, taken.set).start()
            assert taken.wait(60)

    try:
        with BackgroundTracking(Slow) as tracking:
            if stopped:
                tracking.stopped()
    finally:
        signal.signal(signal.SIGINT, before)
        taken.set()
    assert tracking.trouble == (None if waited else "it was not waited for")
