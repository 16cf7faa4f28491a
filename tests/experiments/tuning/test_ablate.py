"""The command ablate: every point of the paper's grid on the validation split, and no tuned values."""

import numpy as np
import pytest
from studies import read_rows

from experiments.tuning.storage import storage_address, study_names

NAME = "digits-cs-kd-demo-ablation-2-seeds"


def test_ablation_measures_all_points_and_saves_no_tuned_values(call, training, tmp_path):
    def error(run) -> float:
        return 10 * run.spec.parameters["lambda_cls"] + run.spec.parameters["temperature"] + (run.spec.seed - 1000)

    training.error, training.draws_figures = error, True
    command, folder = ("experiments ablate", "--dataset", "digits", "--seeds", "2"), tmp_path / "results/studies" / NAME
    status, output, _ = call(*command, "--timeout", "0.0000001")
    assert status == 1
    assert "the timeout is over: repeat the command to continue" in output
    assert [row["state"] for row in read_rows(folder / "heatmap.csv")] == ["not run"] * 8

    status, output, errors = call(*command)
    assert (status, errors) == (0, "")
    assert "8 of 8 trials started: 8 complete." in output
    assert "best on the validation split: temperature 1, lambda_cls 1: error 11.50" in output
    assert not (tmp_path / "tuned").exists()
    names = {path.name for path in folder.iterdir()}
    assert {"heatmap.png", "heatmap.csv"} <= names
    assert "contour.png" not in names  # a grid has no values between its points
    rows = read_rows(folder / "heatmap.csv")
    assert len(rows) == 8
    for row in rows:
        errors = [10 * float(row["lambda_cls"]) + float(row["temperature"]) + seed for seed in (0, 1)]
        assert float(row["error_mean"]) == pytest.approx(np.mean(errors))
        assert float(row["error_std"]) == pytest.approx(np.std(errors, ddof=1))
        assert float(row["ece_mean"]) == pytest.approx(50 - np.mean(errors) / 2)
        assert (row["recipe"] == "True") == (row["temperature"] == "4.0" and row["lambda_cls"] == "1.0")

    # Tuning on the same points is another study, which trains nothing again and saves its best trial.
    trained, tune = len(training.runs), ("experiments tune", "--dataset", "digits", "--space", "paper", "--seeds", "2")
    status, _, errors = call(*tune, "--study", NAME)
    assert status == 2
    assert "has another purpose: give STUDY=<a new name>" in errors
    assert call(*tune)[0] == 0
    assert (len(training.runs), study_names(storage_address())) == (
        trained,
        [NAME, "digits-cs-kd-demo-paper-space-2-seeds"],
    )
    assert (tmp_path / "tuned" / "digits-cs-kd.yaml").exists()
