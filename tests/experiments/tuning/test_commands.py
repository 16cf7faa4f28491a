"""The commands tune, tune-all, ablate, tuned and dashboard as a user runs them."""

import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from mlflow import MlflowClient
from place import Place
from studies import read_rows

from cskd.evaluate.predictions import load_predictions
from cskd.utils import cli
from experiments.launch.backends import BACKENDS, local
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RunFolder
from experiments.tuning.storage import load_study, open_storage, storage_address, study_names
from experiments.tuning.trial import Trial

NAME = "digits-cs-kd-demo"
TUNE = ("experiments tune", "--dataset", "digits")


def stored_trials(name: str = NAME, address: str = "") -> list[Trial]:
    return load_study(address or storage_address(), name)[1]


def tracked(kind: str):
    client = MlflowClient(cli.tracking_uri())
    experiment = client.get_experiment_by_name("tuning").experiment_id
    return client.search_runs([experiment], f"tags.kind = '{kind}'")


def specs_on_the_test_set() -> dict:
    """Return the specs of the runs on the test set by method."""
    specs = [RunFolder(path.parent).spec() for path in cli.runs_dir().glob("*/spec.json")]
    return {spec.method: spec for spec in specs if not spec.validation}


def lambda_error(run) -> float:
    return 10 * run.spec.parameters["lambda_cls"] + (run.spec.seed - 1000)


def test_tune_saves_and_tracks_the_best_trial_with_its_source(call, training, tmp_path):
    training.error, training.draws_figures, name = lambda_error, True, f"{NAME}-2-seeds"
    status, output, errors = call(*TUNE, "--trials", "4", "--seeds", "2")
    assert (status, errors) == (0, "")
    trials = stored_trials(name)
    assert [trial.parameters["lambda_cls"] for trial in trials[:2]] == [1.0, 3.0]  # the recipe's, then the start
    assert (trials[0].values, trials[0].parameters["temperature"]) == ((10.5,), 4.0)
    best = min(trials, key=lambda trial: trial.values)
    assert f"error {best.values[0]:.2f} % (trial {best.number})" in output

    entry = yaml.safe_load((tmp_path / "tuned" / "digits-cs-kd.yaml").read_text())["demo/resnet10"]
    spec = RunFolder(tmp_path / "runs" / trials[0].runs[1000]).spec()
    expected = {
        "dataset": "digits", "method": "cs-kd", "study": name, "seeds": [1000, 1001], "trial": best.number,
        "parameters": best.parameters, "value": best.values[0], "recipe_parameters": trials[0].parameters,
        "recipe_value": 10.5, "data_digest": spec.data_digest, "split_digest": spec.validation.indices_digest,
    }  # fmt: skip
    assert entry.items() >= expected.items()
    assert len(entry["git_commit"]) == 40
    output = call("experiments tuned", "--dataset", "digits")[1]
    assert f"trial {best.number}, the best of 4 complete trials of study {name}, seeds 1000 1001" in output

    folder = tmp_path / "results" / "studies" / name
    names = {"trials.csv", "history.png", "slices.png", "importance.png", "contour.png"}
    assert {path.name for path in folder.iterdir()} == names
    rows = read_rows(folder / "trials.csv")
    assert [(row["state"], float(row["top1_error"])) for row in rows] == [("complete", t.values[0]) for t in trials]
    (parent,), children = tracked("study"), tracked("trial")
    assert (parent.info.status, parent.data.tags["trials.complete"], len(children)) == ("FINISHED", "4", 4)
    artifacts = MlflowClient(cli.tracking_uri()).list_artifacts(parent.info.run_id)
    assert "contour.png" in {artifact.path for artifact in artifacts}


def test_repeated_tune_adds_trials_only_and_a_grid_uses_the_best_with_other_seeds(call, training):
    training.error, command = lambda_error, (*TUNE, "--seeds", "2", "--trials")
    assert call(*command, "2")[0] == 0
    assert "0 of 2 trials to do" in call(*command, "2")[1]
    assert "1 of 3 trials to do x 2 seeds" in call(*command, "3", "--dry-run")[1]
    assert len(training.runs) == 4
    assert call(*command, "3")[0] == 0
    assert len(training.runs) == 6

    grid = ("experiments grid", "demo", "--tuned", "--launcher", "print", "--seeds")
    status, _, errors = call(*grid, "0", "1000")
    assert (status, errors) == (2, "error: digits cs-kd was tuned on seed 1000: give other SEEDS\n")
    assert call(*grid, "0")[0] == 0
    best = min(stored_trials(f"{NAME}-2-seeds"), key=lambda trial: trial.values)
    assert specs_on_the_test_set()["cs-kd"].parameters == best.parameters


def test_tune_all_gives_equal_budgets_and_prints_the_command_that_trains_the_best(call, training):
    training.nll, methods = lambda run: run.spec.schedule.lr, ["cross-entropy", "adacos", "mixup+cs-kd"]
    command = ("experiments tune-all", "--dataset", "digits", "--methods", *methods[:2], "cs-kd+mixup", "--trials", "3")
    assert "make reproduce" not in call(*command, "--dry-run")[1]
    status, output, errors = call(*command)
    assert (status, errors, len(training.runs)) == (0, "", 9)
    assert output.endswith(
        f'make reproduce-table1 DATASETS=digits METHODS="{" ".join(methods)}" SEEDS="0 1 2 3 4" TUNED=1\n'
    )
    best = {}
    for method in methods:
        trials = stored_trials(f"digits-{method}-demo-equal-space-nll")
        assert trials[0].parameters["schedule.lr"] == 0.1  # the recipe's first
        assert [trial.values for trial in trials] == [(trial.parameters["schedule.lr"],) for trial in trials]
        best[method] = min(trials, key=lambda trial: trial.values).parameters
    assert "digits, mixup+cs-kd, demo/resnet10" in call("experiments tuned", "--method", "cs-kd+mixup")[1]

    grid = ("experiments grid", "table1", "--datasets", "digits", "--methods", *methods, "--seeds", "0", "--tuned")
    assert call(*grid, "--launcher", "print")[0] == 0
    for method, spec in specs_on_the_test_set().items():
        assert spec.parameters | spec.schedule.parameters() == best[method]
        assert spec.settings.schedule.lr == 0.1  # so that cells with tuned values are comparable


def test_validation_on_unused_images_is_another_study(call, training):
    command = (*TUNE, "--set", "subset={images_per_class: 8}", "--trials", "1", "--set")
    assert "on 120 unused training images" in call(*command, "validate_on=unused")[1]
    assert "on 40 of 80 training images" in call(*command, "validate_on=held-out")[1]
    unused, held_out = (stored_trials(name)[0].runs[1000] for name in (f"{NAME}-unused", NAME))
    assert unused != held_out


def test_ablation_measures_all_points_and_saves_no_tuned_values(call, training, tmp_path):
    def error(run) -> float:
        return lambda_error(run) + run.spec.parameters["temperature"]

    training.error, training.draws_figures, name = error, True, f"{NAME}-ablation-2-seeds"
    command, folder = ("experiments ablate", "--dataset", "digits", "--seeds", "2"), tmp_path / "results/studies" / name
    status, output, _ = call(*command, "--timeout", "0.0000001")
    assert (status, "the timeout is over: repeat the command to continue" in output) == (1, True)
    assert [row["state"] for row in read_rows(folder / "heatmap.csv")] == ["not run"] * 8
    status, output, errors = call(*command)
    assert (status, errors) == (0, "")
    assert "8 of 8 trials started: 8 complete." in output
    assert "best on the validation images: temperature 1, lambda_cls 1: error 11.50" in output
    assert not (tmp_path / "tuned").exists()
    names = {path.name for path in folder.iterdir()}
    assert ("heatmap.png" in names, "contour.png" in names) == (True, False)  # no values between the points
    for row in read_rows(folder / "heatmap.csv"):
        errors = [10 * float(row["lambda_cls"]) + float(row["temperature"]) + seed for seed in (0, 1)]
        assert float(row["error_mean"]) == pytest.approx(np.mean(errors))
        assert float(row["error_std"]) == pytest.approx(np.std(errors, ddof=1))
        assert (row["recipe"] == "True") == (row["temperature"] == "4.0" and row["lambda_cls"] == "1.0")

    # Tuning on the same points is another study, which trains nothing again and saves its best trial.
    trained, tune = len(training.runs), (*TUNE, "--space", "paper", "--seeds", "2")
    status, _, errors = call(*tune, "--study", name)
    assert (status, "has another purpose: give STUDY=<a new name>" in errors) == (2, True)
    assert call(*tune)[0] == 0
    assert len(training.runs) == trained
    assert study_names(storage_address()) == [name, f"{NAME}-paper-space-2-seeds"]
    assert (tmp_path / "tuned" / "digits-cs-kd.yaml").exists()


def test_stopped_study_exits_with_130_and_continues_on_another_backend(call, training, monkeypatch):
    class OtherBackend(local.LocalBackend):
        pass

    monkeypatch.setattr(local, "OtherBackend", OtherBackend, raising=False)
    monkeypatch.setitem(BACKENDS, "other", f"{local.__name__}:OtherBackend")
    training.stop_after, training.state = 1, lambda run: INTERRUPTED
    status, output, _ = call(*TUNE, "--trials", "2")
    assert status == 130
    assert "1 of 2 trials started: 0 complete, 1 running." in output
    assert output.endswith(f"{cli.STOPPED}\n")
    (stopped,) = stored_trials()
    training.stop_after, training.state = None, lambda run: DONE
    assert call(*TUNE, "--trials", "2", "--launcher", "other")[0] == 0
    assert type(training.backend) is OtherBackend
    trials = stored_trials()
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert (trials[0].parameters, trials[0].runs) == (stopped.parameters, stopped.runs)


@pytest.mark.parametrize("storage", ["", "sqlite:///{}/studies.db"])
def test_study_that_was_deleted_while_it_ran_is_started_again(call, training, tmp_path, monkeypatch, storage):
    monkeypatch.setenv("OPTUNA_STORAGE", storage.format(tmp_path))
    training.error = lambda run: optuna.delete_study(study_name=NAME, storage=open_storage(storage_address())) or 50.0
    status, _, errors = call(*TUNE, "--trials", "1")
    assert (status, errors.count("\n")) == (2, 1)
    assert "the study was deleted from OPTUNA_STORAGE=" in errors
    training.error = lambda run: 50.0
    assert call(*TUNE, "--trials", "1")[0] == 0
    assert [trial.state for trial in stored_trials()] == ["complete"]
    assert len(training.runs) == 1


def test_study_prints_addresses_that_are_not_the_defaults(call, training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")  # three slashes: relative
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///x.db")
    status, output, _ = call(*TUNE, "--trials", "1")
    assert status == 0
    addresses = f"MLFLOW_TRACKING_URI: sqlite:///{tmp_path}/mlflow.db\nOPTUNA_STORAGE: sqlite:///{tmp_path}/x.db\n"
    assert addresses in output


def test_two_objectives_have_a_pareto_front_and_no_tuned_values(call, training, tmp_path):
    training.error, training.draws_figures = lambda_error, True
    status, output, _ = call(*TUNE, "--trials", "3", "--objective", "error,ece")
    assert (status, "Pareto front of the two objectives:" in output) == (0, True)
    assert (tmp_path / "results" / "studies" / f"{NAME}-error-ece" / "pareto.png").exists()
    assert not (tmp_path / "tuned").exists()


def test_failing_trials_end_the_study_and_retry_repeats_them(call, training, tmp_path):
    training.state = lambda run: FAILED
    status, output, errors = call(*TUNE, "--trials", "5")
    assert (status, errors) == (1, "")
    assert "given up: the first 3 trials have failed" in output
    failed = stored_trials()
    assert [trial.state for trial in failed] == ["failed"] * 3
    assert all(trial.reason.endswith("failed: a reason") for trial in failed)
    assert {(run.info.status, run.data.tags["state"]) for run in tracked("trial")} == {("FAILED", "failed")}
    assert not (tmp_path / "tuned").exists()
    training.state = lambda run: DONE
    assert "5 of 5 trials to do" in call(*TUNE, "--trials", "5", "--retry", "--dry-run")[1]
    assert call(*TUNE, "--trials", "5", "--retry")[0] == 0
    trials = stored_trials()
    assert [trial.state for trial in trials] == ["failed"] * 3 + ["complete"] * 5
    first, again = ({trial.parameters["temperature"] for trial in part} for part in (failed, trials[3:6]))
    assert first == again


@pytest.mark.parametrize("storage", ["", "sqlite:///{}/studies.db"])
def test_dry_run_writes_nothing(call, training, tmp_path, monkeypatch, storage):
    monkeypatch.setenv("OPTUNA_STORAGE", storage.format(tmp_path))

    def files() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

    before = files()
    unprepared = call("experiments tune", "--dataset", "cifar100", "--profile", "mini", "--trials", "2", "--dry-run")[1]
    assert "on 8000 unused training images" in unprepared
    assert "The launch first prepares cifar100: about 0.17 GB to download" in unprepared
    assert "2 of 2 trials to do" in call(*TUNE, "--trials", "2", "--dry-run")[1]
    assert files() == before
    call(*TUNE, "--trials", "2")
    before = files()
    assert "1 of 3 trials to do" in call(*TUNE, "--trials", "3", "--dry-run")[1]
    status, _, errors = call(*TUNE, "--dry-run", "--set", "width=8")
    assert (status, "has another settings" in errors) == (2, True)
    assert files() == before


BAD_INPUT = [
    ("tune --method adacos", "method adacos has no search space: use SPACE=equal"),
    ("tune --space wide", "no search space 'wide': choose from default, paper, equal, or add"),
    ("tune --objective loss", "unknown objective 'loss': choose from brier, ece"),
    ("tune --objective ece,ece", "give one of"),
    ("tune --objective error,nll,ece", "or two of them"),
    ("tune --objective top5_error --set subset.classes=5 --set subset.images_per_class=9", "needs 6 classes"),
    ("tune --objective error,ece --prune", "PRUNE=1 needs a single objective"),
    ("tune --prune --set schedule.milestones=[]", "PRUNE=1 prunes after the first of"),
    ("tune --launcher print", "LAUNCHER=print: workers on several machines cannot share a journal file"),
    ("tune --sampler grid --trials 7", "TRIALS=7 is not a regular grid"),
    ("tune --trials 0", "TRIALS must be from 1 to 100000, not 0"),
    ("tune --study a/b", "STUDY=a/b: use letters"),
    ("tune --architecture resnet18", "profile demo trains resnet10"),
    ("tune --set validate_on=unused", "'validate_on': digits trains on all images of its classes"),
    ("tune --method kd --seeds 2 --set subset.images_per_class=9 --set subset.draw=seed", "needs a teacher for each"),
    ("tune-all --methods cs-kd pair-halves", "method pair-halves has no search space: write"),
    ("tune-all --objective error,ece", "two objectives choose no values: give one"),
    ("tune-all --set width=8", "SET: tuned values belong to the recipe's own settings"),
    ("tune-all --gpus 2", "GPUS: tuned values belong to the recipe's own settings"),
    ("ablate --method mixup", "method mixup has no search space 'paper': choose from default"),
    ("tuned --method cs-kd+mixup", "nothing is tuned for digits mixup+cs-kd"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT)
def test_bad_input_is_an_error_in_one_line(arguments, message, call, training):
    command, *options = arguments.split()
    status, _, errors = call(f"experiments {command}", "--dataset", "digits", *options)
    assert (status, errors.count("\n"), training.runs) == (2, 1, [])
    assert message in errors


def test_dashboard_without_a_study_is_an_error(call):
    status, _, errors = call("experiments dashboard")
    assert (status, "no study yet" in errors) == (2, True)


def test_study_trains_without_the_test_set(digits, tmp_path):
    place = Place(tmp_path)
    shutil.copytree(digits, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "prepared" / "digits" / "test")
    settings = ("width=4", "schedule.epochs=1", "schedule.milestones=[]")
    status, output, errors = place.call(*TUNE, "--trials", "1", *(f"--set={setting}" for setting in settings))
    assert (status, errors) == (0, "")
    assert "test set closed" in output
    (trial,) = stored_trials(address=str(place.runs / "studies" / "journal.log"))
    folder = RunFolder(place.runs / trial.runs[1000])
    metrics = folder.epochs()[-1]["metrics"]
    assert trial.values == (metrics["validation/top1_error"],)
    assert not any(name.startswith("test/") for name in metrics)
    assert len(load_predictions(folder.predictions).labels) == 100
