"""The commands tune, ablate, tuned and dashboard as a user runs them."""

import shutil
from pathlib import Path

import optuna
import pytest
import yaml
from faults.disturbed import Disturbed, strike
from mlflow import MlflowClient
from place import epoch_options
from studies import read_rows

from cskd.utils import cli
from experiments.config.recipe import RECIPES
from experiments.launch.backends import BACKENDS
from experiments.launch.backends.local import LocalBackend
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RunFolder
from experiments.tuning import trial as trials_module
from experiments.tuning.storage import load_study, open_storage, storage_address

NAME = "digits-cs-kd-demo"
TUNE = ("experiments tune", "--dataset", "digits")


def stored_trials(name: str = NAME, address: str = "") -> list[trials_module.Trial]:
    return load_study(address or storage_address(), name)[1]


def tracked(kind: str, uri: str = ""):
    client = MlflowClient(uri or cli.tracking_uri())
    experiment = client.get_experiment_by_name("tuning").experiment_id
    return client.search_runs([experiment], f"tags.kind = '{kind}'")


def all_runs() -> list[RunFolder]:
    return [RunFolder(path.parent) for path in cli.runs_dir().glob("*/spec.json")]


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
    assert f"error {best.values[0]:.2f} (trial {best.number})" in output

    entry = yaml.safe_load((tmp_path / "tuned" / "digits-cs-kd.yaml").read_text())["demo/resnet10"]
    assert (entry["dataset"], entry["method"], entry["study"], entry["seeds"]) == (
        "digits",
        "cs-kd",
        name,
        [1000, 1001],
    )
    assert (entry["parameters"], entry["value"], entry["trial"]) == (best.parameters, best.values[0], best.number)
    assert (entry["recipe_parameters"], entry["recipe_value"]) == (trials[0].parameters, 10.5)
    spec = RunFolder(tmp_path / "runs" / trials[0].runs[1000]).spec()
    assert (entry["data_digest"], entry["split_digest"]) == (spec.data_digest, spec.validation.indices_digest)
    assert len(entry["git_commit"]) == 40
    output = call("experiments tuned", "--dataset", "digits")[1]
    assert f"trial {best.number}, the best of 4 complete trials of study {name}, seeds 1000 1001" in output

    folder = tmp_path / "results" / "studies" / name
    names = {"trials.csv", "runs.csv", "history.png", "slices.png", "importance.png", "contour.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert [row["state"] for row in read_rows(folder / "trials.csv")] == ["complete"] * 4
    runs = read_rows(folder / "runs.csv")
    assert [run["seed"] for run in runs] == ["1000", "1001"] * 4
    assert all(run["error"] == run["error_e40"] and run["milestone"] == "20" for run in runs)

    (parent,), children = tracked("study"), tracked("trial")
    assert (parent.info.status, parent.data.tags["trials.complete"]) == ("FINISHED", "4")
    assert len(children) == 4
    artifacts = MlflowClient(cli.tracking_uri()).list_artifacts(parent.info.run_id)
    assert "contour.png" in {artifact.path for artifact in artifacts}


def test_repeated_tune_adds_trials_only_and_a_grid_uses_the_best_with_other_seeds(call, training, tmp_path):
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
    specs = list(map(RunFolder.spec, all_runs()))
    assert [s.parameters for s in specs if s.method == "cs-kd" and not s.validation] == [best.parameters]


def test_tune_all_gives_every_method_the_same_budget_and_prints_the_command_that_trains_the_best(call, training):
    def nll(run) -> float:
        return run.spec.schedule.lr  # lower is better

    training.nll, methods = nll, ["cross-entropy", "adacos", "mixup+cs-kd"]
    command = ("experiments tune-all", "--dataset", "digits", "--methods", "cross-entropy", "adacos", "cs-kd+mixup")
    assert "make reproduce" not in call(*command, "--trials", "3", "--dry-run")[1]
    status, output, errors = call(*command, "--trials", "3")
    assert (status, errors) == (0, "")
    best = {}
    for method in methods:
        trials = stored_trials(f"digits-{method}-demo-equal-space-nll")
        assert (len(trials), trials[0].parameters["schedule.lr"]) == (3, 0.1)  # the recipe's first
        assert all(trial.values == (trial.parameters["schedule.lr"],) for trial in trials)
        best[method] = min(trials, key=lambda trial: trial.values).parameters
    assert len(training.runs) == 9
    assert all({"schedule.lr", "schedule.weight_decay"} <= set(point) for point in best.values())
    expected = (
        'make reproduce-table1 DATASETS=digits METHODS="cross-entropy adacos mixup+cs-kd" SEEDS="0 1 2 3 4" TUNED=1'
    )
    assert output.endswith(f"{expected}\n")

    grid = ("experiments grid", "table1", "--datasets", "digits", "--methods", *methods, "--seeds", "0", "--tuned")
    assert call(*grid, "--launcher", "print")[0] == 0
    specs = {spec.method: spec for spec in map(RunFolder.spec, all_runs()) if not spec.validation}
    for method in methods:
        assert specs[method].parameters | specs[method].schedule.parameters() == best[method]
        assert specs[method].settings.schedule.lr == 0.1  # so that cells with tuned values are comparable


def test_validation_on_unused_images_is_another_study(call, training):
    settings = ("--set", "subset={images_per_class: 8}", "--trials", "1", "--set")
    assert "on 120 unused training images" in call(*TUNE, *settings, "validate_on=unused")[1]
    assert "on 40 of 80 training images" in call(*TUNE, *settings, "validate_on=held-out")[1]
    unused, held_out = (stored_trials(name)[0].runs[1000] for name in (f"{NAME}-unused", NAME))
    assert unused != held_out


def test_stopped_study_exits_with_130_and_continues(call, training):
    training.stop_after, training.state = 1, lambda run: INTERRUPTED
    status, output, _ = call(*TUNE, "--trials", "2")
    assert status == 130
    assert "1 of 2 trials started: 0 complete, 1 running." in output
    assert output.endswith(f"{cli.STOPPED}\n")
    (stopped,) = stored_trials()
    training.stop_after, training.state = None, lambda run: DONE
    assert call(*TUNE, "--trials", "2")[0] == 0
    trials = stored_trials()
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert (trials[0].parameters, trials[0].runs) == (stopped.parameters, stopped.runs)


def test_study_launches_on_the_chosen_backend(call, training, monkeypatch):
    class OtherBackend(LocalBackend):
        pass

    monkeypatch.setitem(BACKENDS, "other", OtherBackend)
    assert call(*TUNE, "--trials", "1", "--launcher", "other")[0] == 0
    assert type(training.backend) is OtherBackend


@pytest.mark.parametrize("storage", ["", "sqlite:///{}/studies.db"])
def test_study_that_was_deleted_while_it_ran_is_started_again(call, training, tmp_path, monkeypatch, storage):
    monkeypatch.setenv("OPTUNA_STORAGE", storage.format(tmp_path))

    def error(run) -> float:
        optuna.delete_study(study_name=NAME, storage=open_storage(storage_address()))
        return 50.0

    training.error = error
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
    assert status == 0
    assert "Pareto front of the two objectives:" in output
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
    assert sorted(t.parameters["temperature"] for t in failed) == sorted(
        t.parameters["temperature"] for t in trials[3:6]
    )


@pytest.mark.parametrize("storage", ["", "sqlite:///{}/studies.db"])
def test_dry_run_writes_nothing(call, training, tmp_path, monkeypatch, storage):
    monkeypatch.setenv("OPTUNA_STORAGE", storage.format(tmp_path))

    def files() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

    unprepared = call(*TUNE[:1], "--dataset", "cifar100", "--profile", "mini", "--trials", "2", "--dry-run")[1]
    assert "2 of 2 trials to do" in unprepared
    assert "The launch first prepares cifar100: about 0.17 GB to download" in unprepared
    before = files()
    assert "2 of 2 trials to do" in call(*TUNE, "--trials", "2", "--dry-run")[1]
    assert files() == before
    call(*TUNE, "--trials", "2")
    before = files()
    assert "1 of 3 trials to do" in call(*TUNE, "--trials", "3", "--dry-run")[1]
    status, _, errors = call(*TUNE, "--dry-run", "--set", "width=8")
    assert status == 2
    assert "has another settings" in errors
    assert files() == before


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("tune", "--dataset digit", "unknown dataset 'digit'"),
        ("tune", "--dataset digits --method cskd", "unknown method 'cskd'"),
        ("tune", "--dataset digits --method adacos", "method adacos has no search space: use SPACE=equal"),
        ("tune", "--dataset digits --space wide", "no search space 'wide': choose from default, paper, equal, or add"),
        ("tune", "--dataset digits --set validate_on=unused", "'validate_on': digits trains on all images of its"),
        ("tune-all", "--dataset digits --methods cs-kd pair-halves", "method pair-halves has no search space: write"),
        ("tune-all", "--dataset digits --objective error,ece", "two objectives choose no values: give one"),
        ("tune-all", "--dataset digits --set width=8", "SET: tuned values belong to the recipe's own settings"),
        (
            "tune",
            "--dataset digits --method kd --seeds 2 --set subset.images_per_class=9 --set subset.draw=seed",
            "TUNE_SEEDS=2: subset.draw=seed needs a teacher for each seed",
        ),
        ("tune", "--dataset digits --objective loss", "unknown objective 'loss'"),
        ("tune", "--dataset digits --objective error,ece --prune", "PRUNE=1 needs a single objective"),
        ("tune", "--dataset digits --prune --set schedule.milestones=[]", "PRUNE=1 prunes after the first of"),
        ("tune", "--dataset digits --launcher print", "LAUNCHER=print cannot run a study"),
        ("tune", "--dataset digits --launcher slurm", "unknown launcher 'slurm': choose from local, print"),
        ("tune", "--dataset digits --sampler grid --trials 7", "TRIALS=7 is not a regular grid"),
        (
            "tune",
            "--dataset digits --sampler best",
            "argument --sampler: invalid choice: 'best' (choose from 'gp', 'tpe', 'random', 'grid')",
        ),
        ("tune", "--dataset digits --trials 0", "TRIALS must be from 1 to 100000, not 0"),
        ("tune", "--dataset digits --seeds 0", "TUNE_SEEDS must be from 1 to 1000, not 0"),
        ("tune", "--dataset digits --workers 0", "WORKERS must be from 1 to 1000, not 0"),
        ("tune", "--dataset digits --timeout 0", "TIMEOUT must be positive"),
        ("tune", "--dataset digits --study a/b", "STUDY=a/b: use letters"),
        ("tune", "--dataset digits --architecture resnet18", "profile demo trains resnet10"),
        ("tune", "--dataset digits --profile paper", "has no profile 'paper'"),
        ("tune", "--dataset digits --set validation_fraction=1.5", "validation_fraction"),
        ("ablate", "--dataset digits --method mixup", "method mixup has no search space 'paper': choose from default"),
        ("ablate", "--dataset digits --space default", "unrecognized arguments: --space default: see"),
        ("tuned", "--dataset mit67", "nothing is tuned for mit67"),
        ("tuned", "--method cs-kd+mixup", "nothing is tuned for mixup+cs-kd"),
        ("dashboard", "", "no study yet"),
        ("grid", "demo --tuned --dry-run", "make tune DATASET=digits METHOD=cs-kd PROFILE=demo ARCHITECTURE=resnet10"),
    ],
)
def test_bad_input_is_an_error_in_one_line(command, arguments, message, call, training):
    status, _, errors = call(f"experiments {command}", *arguments.split())
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_tuned_values_of_a_combined_method_are_shown(call, tmp_path):
    entry = (RECIPES / "tuned" / "cifar100-cs-kd.yaml").read_text().replace("dataset: cifar100", "dataset: digits")
    for old, new in (("method: cs", "method: mixup+cs"), ("temperature:", "cs-kd.temperature:")):
        entry = entry.replace(old, new)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "digits-mixup+cs-kd.yaml").write_text(entry.replace("lambda_cls:", "cs-kd.lambda_cls:"))
    for arguments in ([], ["--method", "cs-kd+mixup"]):
        status, output, _ = call("experiments tuned", *arguments)
        assert status == 0
        assert "digits, mixup+cs-kd, mini/resnet10" in output


def test_killed_study_continues_without_the_test_set(digits, tmp_path):
    place = Disturbed(tmp_path, *TUNE, "--trials", "1", *epoch_options(2))
    shutil.copytree(digits, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "prepared" / "digits" / "test")
    place.strike(strike("cskd.train.trainer:Trainer.train_epoch", 2, "SIGKILL", "parent"))
    address = str(place.runs / "studies" / "journal.log")
    (killed,) = stored_trials(address=address)
    status, output, errors = place.call(*place.command)
    assert (status, errors) == (0, "")
    assert "test set closed" in output
    (trial,) = stored_trials(address=address)
    assert trial.state == "complete"
    assert (trial.parameters, trial.runs) == (killed.parameters, killed.runs)
    folder = RunFolder(place.runs / trial.runs[1000])
    records, spec = folder.epochs(), folder.spec()
    assert [record["epoch"] for record in records] == [0, 1]
    assert trial.values == (records[-1]["metrics"]["validation/top1_error"],)
    assert not any(name.startswith("test/") for name in records[-1]["metrics"])
    assert {name: spec.parameters[name] for name in trial.parameters} == trial.parameters
    assert len(folder.load_predictions().labels) == 100
    assert len(tracked("trial", place.uri)) == 1
