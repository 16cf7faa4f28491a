"""The table of one metric, and the sentences around it."""

from dataclasses import replace

import pandas as pd
import pytest
from builders import make_experiment

from analysis.tables.metrics import metric_table
from cskd.evaluate.metrics import TRACKED, all_metrics

ERROR = all_metrics()["top1_error"]


def test_only_comparable_cells_show_the_paper(store):
    [paper, mini] = store.load(["table1", "table1-mini"])
    table = metric_table(paper, ERROR)
    frame = table.frame.set_index(["architecture", "dataset", "method"])
    assert frame.paper_mean["resnet18", "cifar100", "cs-kd"] == 21.99
    assert frame.paper_mean[:, "mit67"].isna().all()
    assert "Not comparable with the paper: mit67 (the dataset is incomplete)." in table.notes
    for metric in TRACKED:
        table = metric_table(mini, metric)
        assert table.intro[0] == "Not comparable with the paper: profile mini."
        assert "20 classes x 100 training images, resnet10 of width 16" in table.intro[1]
        assert "paper" not in {column.header for column in table.columns}
        assert not any(column.startswith("paper_") for column in table.frame)


def test_one_incomparable_run_hides_the_paper_for_its_cell(store):
    [experiment] = store.load(["table1"])
    runs = experiment.runs
    runs.loc[runs.run == "cifar100/resnet18/cs-kd/seed1", ["comparable", "comparable_reason"]] = False, "small images"
    first, second = metric_table(experiment, ERROR).frame[:2].itertuples()
    assert (first.paper_mean, second.comparable_reason) == (24.71, "small images")
    assert pd.isna(second.paper_mean)


def test_foreign_methods_are_marked_and_other_numerics_versions_are_noted():
    experiment = make_experiment({f"cifar100/resnet18/{name}": {0: 20.0} for name in ("cross-entropy", "mine")}, "mini")
    experiment.cells["hyperparameter_source"] = ["", "ours"]
    table = metric_table(experiment, ERROR)
    assert [row[1] for row in table.blocks[0].groups[0]] == ["cross-entropy", "mine \N{DOUBLE DAGGER}"]
    assert "\N{DOUBLE DAGGER} not one of the paper's methods." in table.notes
    assert not any("numerics version" in note for note in table.notes)
    experiment = replace(experiment, runs=experiment.runs.assign(**{"params.numerics_version": "0"}))
    [note] = [note for note in metric_table(experiment, ERROR).notes if "numerics version" in note]
    assert note.startswith("Trained with numerics version 0,")
    assert "cross-entropy/seed0, cifar100/resnet18/mine/seed0" in note


@pytest.mark.parametrize(
    ("metric", "note"),
    [
        ("top1_error", "test/top1_error was never tracked in 1 run: left out of the mean."),
        ("ece", "cifar100/resnet10/cs-kd/seed0: test/ece is missing or NaN: left out of the mean."),
        ("nll", "cifar100/resnet10/cs-kd/seed2: test/nll is infinite: left out of the mean."),
        ("nll", "cifar100/resnet10/cs-kd/seed1: best/nll is missing or NaN: left out of the mean."),
    ],
)
def test_means_leave_out_missing_values_with_a_note(store, metric, note):
    [mini] = store.load(["table1-mini"])
    table = metric_table(mini, all_metrics()[metric])
    assert table.frame.set_index(["dataset", "method"]).n["cifar100", "cs-kd"] == 2
    assert note in table.notes
