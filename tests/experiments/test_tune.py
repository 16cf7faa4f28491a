"""Tuning as a user does it, on the embedded digits: the test set closed, killed and continued, tracked, used."""

import csv
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from place import Place

from cskd.data.store import open_dataset
from experiments.config import recipe
from experiments.runs.folder import RunFolder
from experiments.tuning.storage import load_trials, study_names
from experiments.tuning.trial import COMPLETE, FAILED

SHORT = ("--set", "schedule.epochs=3", "--set", "schedule.milestones=[2]")
TUNE = ("experiments tune", "--dataset", "digits", *SHORT)
NAME = "digits-cs-kd-demo"


def journal(place: Place) -> str:
    return str(place.runs / "studies" / "journal.log")


def prepared(folder) -> Place:
    place = Place(folder)
    assert place.run("experiments data", "digits")[0] == 0
    return place


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A study of the digits' own recipe with the test set's files gone."""
    place = prepared(tmp_path_factory.mktemp("tuned"))
    test_set = place.folder / "data" / "prepared" / "digits" / "test"
    aside = shutil.move(test_set, place.folder / "test set")
    status, output, errors = place.run(
        "experiments tune", "--dataset", "digits", "--trials", "4", "--workers", "2", "--seeds", "2"
    )
    shutil.move(aside, test_set)
    return place, status, output, errors


def test_tuning_works_with_the_test_set_gone_and_so_never_opens_it(tuned):
    place, status, output, errors = tuned
    assert (status, errors) == (0, "")
    assert "test set closed" in output
    _, trials = load_trials(journal(place), f"{NAME}-2-seeds")
    assert [trial.state for trial in trials] == [COMPLETE] * 4
    for folder in place.folders():
        spec, last = folder.spec(), folder.epochs()[-1]["metrics"]
        assert spec.comparable_reason == "validation split"
        assert "validation/top1_error" in last
        assert not [name for name in last if name.startswith("test/")]
        assert len(folder.load_predictions().labels) == 100


def test_a_trial_is_the_mean_of_its_seeds_on_one_and_the_same_split(tuned):
    place, *_ = tuned
    _, trials = load_trials(journal(place), f"{NAME}-2-seeds")
    for trial in trials:
        assert set(trial.runs) == {1000, 1001}
        folders = [RunFolder(place.runs / key) for key in trial.runs.values()]
        errors = [folder.epochs()[-1]["metrics"]["validation/top1_error"] for folder in folders]
        assert trial.values == (pytest.approx(sum(errors) / 2),)
        assert len({folder.spec().validation.indices_digest for folder in folders}) == 1
        assert {key: folders[0].spec().parameters[key] for key in trial.parameters} == trial.parameters
    assert trials[0].parameters == {"temperature": 4.0, "lambda_cls": 1.0}  # the recipe's, first
    assert trials[1].parameters == {"temperature": 4.0, "lambda_cls": 3.0}


def test_the_best_is_written_with_where_it_comes_from_and_shown_beside_the_recipes(tuned):
    place, _, output, _ = tuned
    _, trials = load_trials(journal(place), f"{NAME}-2-seeds")
    content = yaml.safe_load((place.folder / "tuned" / "digits-cs-kd.yaml").read_text())["demo/resnet10"]
    best = min(trials, key=lambda trial: (trial.values[0], trial.metrics["nll"]))
    assert content["parameters"] == best.parameters
    assert (content["value"], content["trial"], content["trials"]) == (best.values[0], best.number, 4)
    assert (content["recipe_parameters"], content["recipe_value"]) == (trials[0].parameters, trials[0].values[0])
    assert content["study"] == f"{NAME}-2-seeds"
    assert content["seeds"] == [1000, 1001]
    dataset = open_dataset(place.folder / "data" / "prepared" / "digits", test=False)
    assert content["data_digest"] == dataset.digest
    assert content["split_digest"] == place.folders()[0].spec().validation.indices_digest
    assert len(content["git_commit"]) == 40 or content["git_commit"] == "unknown"
    assert f"error {best.values[0]:.4g} (trial {best.number})" in output
    status, output, _ = place.run("experiments tuned", "--dataset", "digits")
    assert status == 0
    assert re.search(rf"tuned +│ {best.parameters['temperature']:.4g} ", output)
    assert re.search(rf"recipe +│ 4 +│ 1 +│ {trials[0].values[0]:.4g} ", output)
    assert f"trial {best.number}, best of 4 complete ones in study {NAME}-2-seeds, seeds 1000 1001" in output


def test_results_hold_every_trial_and_every_run(tuned):
    place, *_ = tuned
    folder = place.folder / "results" / "studies" / f"{NAME}-2-seeds"
    names = {"trials.csv", "runs.csv", "history.png", "slices.png", "importance.png", "contour.png"}
    assert {path.name for path in folder.iterdir()} == names
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == [COMPLETE] * 4
    with (folder / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 8
    assert all(row["error"] == row["error_e40"] for row in runs)
    assert {row["milestone"] for row in runs} == {"20"}


def test_the_study_is_tracked_as_a_parent_with_its_trials_and_again_by_sync(tuned):
    place, *_ = tuned
    other = f"sqlite:///{place.folder / 'other' / 'mlflow.db'}"
    place.environment["MLFLOW_TRACKING_URI"] = other
    status, output, _ = place.run("experiments sync")
    place.environment["MLFLOW_TRACKING_URI"] = place.uri
    assert status == 0
    assert f"study {NAME}-2-seeds is tracked in" in output
    for uri in (place.uri, other):
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("tuning").experiment_id
        (parent,) = client.search_runs([experiment], filter_string="tags.kind = 'study'")
        trials = client.search_runs([experiment], filter_string="tags.kind = 'trial'", order_by=["tags.trial"])
        _, stored = load_trials(journal(place), f"{NAME}-2-seeds")
        assert parent.info.status == "FINISHED"
        assert parent.data.tags["trials.complete"] == "4"
        assert parent.data.metrics["best/error"] == min(trial.values[0] for trial in stored)
        assert "contour.png" in {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
        assert len(trials) == 4
        for run, trial in zip(trials, stored, strict=True):
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert (run.data.tags["state"], run.info.status) == (COMPLETE, "FINISHED")
            assert float(run.data.params["parameters.temperature"]) == trial.parameters["temperature"]
            assert run.data.metrics["objective/error"] == pytest.approx(trial.values[0])
            history = client.get_metric_history(run.info.run_id, "seed1000/validation/top1_error")
            assert sorted(point.step for point in history) == list(range(40))


def test_the_same_command_again_trains_nothing_and_a_larger_number_goes_on(tuned):
    place, *_ = tuned
    before = {folder.path: folder.weights.stat().st_mtime for folder in place.folders()}
    command = ("experiments tune", "--dataset", "digits", "--workers", "2", "--seeds", "2")
    status, output, _ = place.run(*command, "--trials", "4")
    assert status == 0
    assert "0 of 4 trials to do" in output
    assert {folder.path: folder.weights.stat().st_mtime for folder in place.folders()} == before
    status, output, _ = place.run(*command, "--trials", "5", "--dry-run")
    assert "1 of 5 trials to do x 2 seeds" in output
    assert len(load_trials(journal(place), f"{NAME}-2-seeds")[1]) == 4


def test_a_grid_uses_tuned_values_on_request_with_other_seeds_and_its_tables_say_so(tuned):
    place, *_ = tuned
    status, _, errors = place.run("experiments grid", "demo", "--tuned", "--seeds", "0", "1000", "--dry-run")
    assert (status, errors) == (2, "error: digits cs-kd was tuned on seed 1000: give other SEEDS\n")
    status, output, errors = place.run("experiments grid", "demo", "--tuned", "--seeds", "0", "--workers", "2")
    assert (status, errors) == (0, "")
    found = yaml.safe_load((place.folder / "tuned" / "digits-cs-kd.yaml").read_text())["demo/resnet10"]
    specs = {folder.spec().method: folder.spec() for folder in place.folders() if folder.spec().validation is None}
    assert specs["cs-kd"].parameters == found["parameters"]
    status, output, errors = place.run("analysis tables", "--experiment", "demo-tuned")
    assert (status, errors) == (0, "")
    assert "cs-kd (tuned)" in output
    assert "cross-entropy (tuned)" not in output
    assert f"{NAME}-2-seeds" in output


def test_killed_three_times_a_study_ends_with_every_trial_once(tmp_path):
    place = prepared(tmp_path)
    command = (*TUNE, "--trials", "6", "--workers", "2")
    for kill in range(3):
        process = place.start(*command)
        wait_for_trials(place, 2 * (kill + 1))
        process.kill()
        process.communicate()
    status, _, errors = place.run(*command)
    assert (status, errors) == (0, "")
    _, trials = load_trials(journal(place), NAME)
    assert [trial.state for trial in trials] == [COMPLETE] * 6
    assert [trial.number for trial in trials] == list(range(6))
    assert len({tuple(trial.parameters.values()) for trial in trials}) == 6
    for trial in trials:
        (key,) = trial.runs.values()
        epochs = RunFolder(place.runs / key).epochs()
        assert [record["epoch"] for record in epochs] == [0, 1, 2]
        assert trial.values == (epochs[-1]["metrics"]["validation/top1_error"],)
    client = MlflowClient(place.uri)
    experiment = client.get_experiment_by_name("tuning").experiment_id
    tracked = client.search_runs([experiment], filter_string="tags.kind = 'trial'")
    assert sorted(int(run.data.tags["trial"]) for run in tracked) == list(range(6))


def wait_for_trials(place: Place, count: int) -> None:
    """Until so many trials have begun; the moment within a trial is whatever it is."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        begun = Path(journal(place)).exists() and NAME in study_names(journal(place))
        if begun and len(load_trials(journal(place), NAME)[1]) >= count:
            return
        time.sleep(0.2)
    raise AssertionError(f"no {count} trials have begun")


def test_a_diverging_trial_is_failed_with_its_reason_and_the_study_goes_on(tmp_path):
    place = prepared(tmp_path)
    diverge = ("--set", "schedule.lr=1e30", "--set", "methods.cs-kd.lambda_cls=0")
    status, output, errors = place.run(*TUNE, "--trials", "5", "--study", "bad", *diverge)
    assert (status, errors) == (1, "")
    assert "given up: the first 3 trials have failed: it is not their parameters" in output
    _, trials = load_trials(journal(place), "bad")
    assert [trial.state for trial in trials] == [FAILED] * 3
    assert all("not finite" in trial.reason for trial in trials)
    client = MlflowClient(place.uri)
    experiment = client.get_experiment_by_name("tuning").experiment_id
    runs = client.search_runs([experiment], filter_string="tags.kind = 'trial'")
    assert {(run.info.status, run.data.tags["state"]) for run in runs} == {("FAILED", "failed")}
    assert not (place.folder / "tuned").exists()


def test_a_taught_sum_is_tuned_with_a_teacher_that_has_not_seen_the_validation_split(tmp_path):
    place = prepared(tmp_path)
    arguments = (*TUNE, "--method", "kd+cs-kd", "--trials", "2", "--workers", "2")
    status, output, errors = place.run(*arguments, "--dry-run")
    assert (status, errors) == (0, "")
    assert "its teacher, digits/densenet41/cs-kd/seed0, is trained first" in output
    assert not place.folders()
    status, output, errors = place.run(*arguments)
    assert (status, errors) == (0, "")
    (teacher,) = (folder for folder in place.folders() if folder.spec().method == "cs-kd")
    students = [folder for folder in place.folders() if folder.spec().method == "kd+cs-kd"]
    assert len(students) == 2
    for student in students:
        assert student.spec().teacher.run_key == teacher.path.name
        assert student.spec().validation == teacher.spec().validation
    _, trials = load_trials(journal(place), "digits-kd+cs-kd-demo")
    parameters = {"kd.temperature", "kd.lambda_kd", "cs-kd.temperature", "cs-kd.lambda_cls"}
    assert all(set(trial.parameters) == parameters for trial in trials)
    assert "is trained first" not in place.run(*arguments, "--dry-run")[1]
    shutil.rmtree(teacher.path)
    status, output, _ = place.run(*arguments)
    assert status == 0
    assert "0 of 2 trials to do" in output
    assert not teacher.path.exists()  # nothing is left that it could teach


def test_two_objectives_have_a_front_and_no_tuned_values(tmp_path):
    place = prepared(tmp_path)
    status, output, errors = place.run(*TUNE, "--trials", "3", "--objective", "error,ece", "--workers", "2")
    assert (status, errors) == (0, "")
    assert "no single best of two objectives" in output
    assert (place.folder / "results" / "studies" / f"{NAME}-error-ece" / "pareto.png").exists()
    assert not (place.folder / "tuned").exists()


def test_ctrl_c_stops_it_and_the_same_command_goes_on(tmp_path):
    place = prepared(tmp_path)
    process = place.start(*TUNE, "--trials", "2")
    wait_for_trials(place, 1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")
    assert "stopped: the same command continues where this one ended" in output
    status, output, _ = place.run(*TUNE, "--trials", "2", "--timeout", "0.0001")
    assert status == 0 or "the time is over" in output
    status, output, _ = place.run(*TUNE, "--trials", "2")
    assert status == 0
    assert [trial.state for trial in load_trials(journal(place), NAME)[1]] == [COMPLETE] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "digit"], "unknown dataset 'digit'"),
        (["--dataset", "digits", "--method", "cskd"], "unknown method 'cskd'"),
        (["--dataset", "digits", "--method", "cross-entropy"], "cross-entropy has no hyper-parameters"),
        (["--dataset", "digits", "--space", "wide"], "unknown search space 'wide'"),
        (["--dataset", "digits", "--objective", "loss"], "unknown objective 'loss'"),
        (["--dataset", "digits", "--objective", "error,ece", "--prune"], "PRUNE=1 needs a single objective"),
        (["--dataset", "digits", "--sampler", "grid", "--trials", "7"], "TRIALS=7 do not make a regular grid"),
        (["--dataset", "digits", "--sampler", "best"], "unknown sampler 'best'"),
        (["--dataset", "digits", "--trials", "0"], "TRIALS must be from 1 to 100000"),
        (["--dataset", "digits", "--seeds", "0"], "TUNE_SEEDS must be from 1 to 1000"),
        (["--dataset", "digits", "--timeout", "0"], "TIMEOUT must be positive"),
        (["--dataset", "digits", "--architecture", "resnet18"], "profile demo trains resnet10"),
        (["--dataset", "digits", "--profile", "paper"], "has no profile 'paper'"),
        (["--dataset", "digits", "--set", "validation_fraction=1.5"], "validation_fraction"),
    ],
)
def test_bad_input_is_one_line(arguments, message, call):
    assert call("experiments data", "digits")[0] == 0
    status, _, errors = call("experiments tune", *arguments)
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_nothing_tuned_is_said_with_the_command_that_tunes(call):
    for module, arguments in (("experiments tuned", ["--dataset", "mit67"]), ("experiments dashboard", [])):
        status, _, errors = call(module, *arguments)
        assert status == 2
        assert "make tune DATASET=" in errors
    status, _, errors = call("experiments grid", "demo", "--tuned", "--dry-run")
    assert status == 2
    assert "nothing tuned for digits, cs-kd, profile demo, resnet10: " in errors
    assert "make tune DATASET=digits METHOD=cs-kd PROFILE=demo ARCHITECTURE=resnet10" in errors


def test_the_tuned_values_of_a_sum_are_shown(call, tmp_path):
    entry = (recipe.RECIPES / "tuned" / "cifar100-cs-kd.yaml").read_text()
    entry = entry.replace("temperature:", "cs-kd.temperature:")
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "digits-mixup+cs-kd.yaml").write_text(entry.replace("lambda_cls:", "cs-kd.lambda_cls:"))
    for arguments in ([], ["--method", "mixup+cs-kd"]):
        status, output, errors = call("experiments tuned", *arguments)
        assert (status, errors) == (0, "")
        assert "digits, mixup+cs-kd, mini/resnet10" in output
