"""The ablation as a user starts it, on run folders written by hand in the place of training."""

import csv
import io

import numpy as np
import pytest
from mlflow import MlflowClient
from rich.console import Console

from cskd.utils import cli
from experiments.runs.folder import DONE
from experiments.tuning.setup import LaunchOptions, resolve
from experiments.tuning.storage import load_trials, storage_address, study_names
from experiments.tuning.trial import COMPLETE

NAME = "digits-cs-kd-demo-ablation"


def error_of(point: dict[str, float], seed: int) -> float:
    return 10.0 * point["lambda_cls"] + point["temperature"] + (seed - 1000)


def train_by_hand(seeds: int) -> None:
    """The runs of all eight points, done."""
    wish = LaunchOptions("digits", "cs-kd", space="paper", seeds=seeds, ablation=True)
    subject = resolve(wish, Console(file=io.StringIO()))
    for point in subject.space.grid():
        for run in subject.runs(point):
            run.folder.create(run.spec)
            error = error_of(point, run.spec.seed)
            metrics = {"validation/top1_error": error, "validation/nll": 1.0, "validation/ece": 50 - error}
            run.folder.write_epochs([{"epoch": n, "timestamp": 1.7e9, "metrics": metrics} for n in range(40)])
            run.folder.write_state(DONE)


def test_all_eight_points_are_measured_drawn_and_tracked_and_none_becomes_the_tuned_values(call, tmp_path):
    train_by_hand(seeds=2)
    command = ("experiments ablate", "--dataset", "digits", "--seeds", "2")
    status, output, errors = call(*command, "--timeout", "0.0000001")
    assert (status, errors) == (1, "")
    assert "the time is over: the same command goes on" in output
    folder = tmp_path / "results" / "studies" / f"{NAME}-2-seeds"
    with (folder / "heatmap.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["not run"] * 8
    assert not (folder / "heatmap.png").exists()

    status, output, errors = call(*command)
    assert (status, errors) == (0, "")
    assert "8 trials begun of 8: 8 complete." in output
    assert "best on the validation split: temperature 1, lambda_cls 1: error 11.5" in output
    assert "an ablation measures; make tune DATASET=digits METHOD=cs-kd chooses" in output
    assert not (tmp_path / "tuned").exists()
    _, trials = load_trials(storage_address(), f"{NAME}-2-seeds")
    assert [trial.state for trial in trials] == [COMPLETE] * 8
    with (folder / "heatmap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        point = {name: float(row[name]) for name in ("temperature", "lambda_cls")}
        errors = [error_of(point, seed) for seed in (1000, 1001)]
        assert float(row["error_mean"]) == pytest.approx(np.mean(errors))
        assert float(row["error_std"]) == pytest.approx(np.std(errors, ddof=1))
        assert float(row["ece_mean"]) == pytest.approx(50 - np.mean(errors))
        assert (row["recipe"] == "True") == (point == {"temperature": 4.0, "lambda_cls": 1.0})
    assert not (folder / "contour.png").exists()  # which would draw what lies between the points of the grid
    client = MlflowClient(cli.tracking_uri())
    experiment = client.get_experiment_by_name("tuning").experiment_id
    (parent,) = client.search_runs([experiment], filter_string="tags.kind = 'study'")
    assert {"heatmap.png", "heatmap.csv"} <= {one.path for one in client.list_artifacts(parent.info.run_id)}

    # A study of tuning is another, even by the same name and with the same points.
    status, _, errors = call("experiments tune", "--dataset", "digits", "--space", "paper", "--seeds", "2",
                             "--study", f"{NAME}-2-seeds")  # fmt: skip
    assert status == 2
    assert "was begun with another purpose: give STUDY=<a new name>" in errors
    status, output, _ = call("experiments tune", "--dataset", "digits", "--space", "paper", "--seeds", "2")
    assert status == 0
    assert study_names(storage_address()) == [f"{NAME}-2-seeds", "digits-cs-kd-demo-paper-space-2-seeds"]
    assert (tmp_path / "tuned" / "digits-cs-kd.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "digit"], "unknown dataset 'digit': choose from cifar100, "),
        (["--dataset", "digits", "--method", "cskd"], "unknown method 'cskd'"),
        (
            ["--dataset", "digits", "--method", "mixup"],
            "method mixup has no space 'paper' of T and lambda_cls: choose from cs-kd, cs-kd-e, kd+cs-kd, mixup+cs-kd",
        ),
        (["--dataset", "digits", "--seeds", "0"], "TUNE_SEEDS must be from 1 to 1000, not 0"),
        (["--dataset", "digits", "--workers", "0"], "WORKERS must be from 1 to 1000, not 0"),
        (["--dataset", "digits", "--space", "default"], "unrecognized arguments: --space default: see"),
    ],
)
def test_bad_input_is_one_line(arguments, message, call):
    status, _, errors = call("experiments ablate", *arguments)
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("method", ["cs-kd-e", "mixup+cs-kd"])
def test_other_methods_with_a_class_wise_loss_are_ablated_over_the_same_eight_points(method, call):
    assert call("experiments data", "digits")[0] == 0
    status, output, errors = call("experiments ablate", "--dataset", "digits", "--method", method, "--dry-run")
    assert (status, errors) == (0, "")
    assert "temperature in {1, 4}" in output
    assert "lambda_cls in {1, 2, 3, 4}" in output
    assert "8 of 8 trials to do x 1 seed" in output
