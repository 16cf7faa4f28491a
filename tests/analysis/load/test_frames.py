"""Frames of cells and runs: what they contain, what is left out, and the notes about it."""

import math

import numpy as np
import pandas as pd
import pytest
from builders import START, Grid

from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import pools
from cskd import NUMERICS_VERSION
from cskd.evaluate.metrics import TRACKED
from cskd.utils.errors import UserError

CS_KD = "cifar100/resnet18/cs-kd"


@pytest.fixture
def grid():
    """Two cells; CS-KD has seeds 0, 1 and 2."""
    grid = Grid("table1-mini", "mini")
    grid.cell("cifar100", "cross-entropy")
    cell = grid.cell("cifar100", "cs-kd")
    for seed in range(3):
        grid.trained(cell, seed, 20 + seed, 5)
    return grid


def test_store_frames_have_grid_order_values_and_settings(store):
    experiment = store.load(["table1"])[0]
    cells, row = experiment.cells, experiment.runs.iloc[1]
    assert cells.dataset.unique().tolist() == ["cifar100", "cub200", "mit67", "dogs"]
    assert cells.seeds_planned.tolist()[0] == [0, 1, 2]
    assert (row.run, row.seed, row.state) == ("cifar100/resnet18/cross-entropy/seed1", 1, "done")
    assert (row["test/top1_error"], row["best/top1_error"], row["best/epoch"]) == (24.75, 24.625, 1)
    assert (row["params.schedule.epochs"], row.device, row.threads, row.precision) == ("200", "cpu", "1", "fp32")
    assert f"{row.started:%Y-%m-%d %Z}" == "2026-09-21 UTC"
    small = cells[cells.dataset == "mit67"]
    assert not small.comparable.any()
    assert set(small.comparable_reason) == {"the dataset is incomplete"}
    assert experiment.runs[experiment.runs.dataset == "cifar100"].comparable.all()


def test_superseded_cells_are_left_out_with_their_runs(store):
    experiment = store.load(["table1"])[0]
    assert experiment.notes == ("Left out: 1 cell with earlier settings (cifar100/resnet18/cs-kd), 1 run.",)
    assert 99 not in experiment.runs["test/top1_error"].to_numpy()


def test_infinite_value_survives_the_database(store):
    assert np.isposinf(store.load(["table1-mini"])[0].done["test/nll"].iloc[-1])


def test_grid_without_runs_has_typed_columns(store):
    experiment = store.load(["demo", "table1"])[0]
    assert (len(experiment.cells), len(experiment.runs)) == (1, 0)
    assert isinstance(experiment.runs.started.dtype, pd.DatetimeTZDtype)


def test_cells_and_runs_without_a_tag_are_left_out_with_a_note(grid):
    del grid.runs[2].tags["run_key"]
    extra = grid.cell("dogs", "cs-kd")
    grid.trained(extra, 0, 30, 5)
    del extra.tags["grid_order"]
    experiment = grid.experiment()
    assert experiment.notes == (
        "cifar100/resnet18/cs-kd/seed2: no tag run_key: left out.",
        "dogs/resnet18/cs-kd/seed0: its cell is not tracked: left out.",
        "dogs/resnet18/cs-kd: no tag grid_order: left out.",
    )
    assert experiment.runs.seed.tolist() == [0, 1]


def test_cell_name_that_is_no_file_name_is_left_out(grid):
    grid.cells[0].tags["method"] = "../x"
    experiment = grid.experiment()
    assert experiment.notes == ("cifar100/resnet18/cross-entropy: its method cannot be used in a file name: left out.",)
    assert experiment.cells.method.tolist() == ["cs-kd"]


def test_experiment_without_a_usable_cell_is_an_error(grid):
    for cell in grid.cells:
        del cell.tags["method"]
    with pytest.raises(UserError, match=r"^table1-mini: no cell can be read \(.*no tag method.*\): launch"):
        grid.experiment()


def test_of_several_trainings_of_a_seed_the_first_finished_one_counts(grid):
    cell = grid.cells[1]
    grid.run(cell, 0, state="failed").started = START - 2
    grid.trained(cell, 1, 99, 5).started += 1
    experiment = grid.experiment()
    assert experiment.runs["test/top1_error"].tolist() == [20, 21, 22]
    assert experiment.notes == tuple(
        f"{CS_KD}/seed{seed}: trained more than once: the first finished training counts." for seed in (0, 1)
    )


def test_cell_that_was_tracked_twice_is_shown_once(grid):
    grid.cells.append(grid.cells[1])
    experiment = grid.experiment()
    assert len(experiment.cells) == 2
    assert experiment.notes == (f"{CS_KD}: the cell is tracked twice: shown once, with the seeds of both.",)


def test_run_that_was_renamed_keeps_its_name(grid):
    grid.runs[0].name = "my best run"
    assert grid.experiment().runs.run[0] == f"{CS_KD}/seed0"


def test_run_without_a_state_is_running(grid):
    del grid.runs[2].tags["state"]
    assert grid.experiment().runs.state.tolist() == ["done", "done", "running"]


def notes_of(grid):
    return data_quality_notes(pools([grid.experiment()])[0])


def test_data_quality_notes_name_unfinished_runs_only_if_all_else_is_well(grid):
    grid.run(grid.cells[0], 0, state="failed", reason="the loss is NaN")
    for run in grid.runs:
        run.settings["numerics_version"] = str(NUMERICS_VERSION)
    assert notes_of(grid) == ["cifar100/resnet18/cross-entropy/seed0 is failed (the loss is NaN): not used."]


def test_data_quality_notes_name_suspect_runs(grid):
    for run in grid.runs:
        run.settings["numerics_version"] = str(NUMERICS_VERSION)
    first, second, third = grid.runs
    first.settings["numerics_version"] = "0"
    first.tags |= {"git_commit": "unknown", "git_dirty": "unknown"}
    second.tags["git_dirty"] = "unknown"
    second.metrics = [metric for metric in second.metrics if metric[0] != "test/nll"] + [("test/nll", math.nan, 1)]
    third.tags["git_dirty"] = "true"
    assert notes_of(grid) == [
        f"{CS_KD}, seed 0: trained from an unknown commit; used.",
        f"{CS_KD}, seed 1: trained with unknown changes of its commit; used.",
        f"{CS_KD}, seed 2: trained with uncommitted changes; used.",
        f"{CS_KD}/seed0 has numerics version 0, the current one is {NUMERICS_VERSION}: used.",
        f"{CS_KD}/seed1 has no finite test/nll: left out of their means.",
    ]
    del third.settings["numerics_version"]
    assert f"{CS_KD}/seed2 has numerics version unknown, the current one is {NUMERICS_VERSION}: used." in notes_of(grid)
    assert {metric.last for metric in TRACKED} <= {name for name, _, _ in first.metrics}


def test_data_quality_notes_of_runs_that_are_older_than_a_metric_are_one(grid):
    for run in grid.runs:
        run.settings["numerics_version"] = str(NUMERICS_VERSION)
    for run in grid.runs[:2]:
        run.metrics = [metric for metric in run.metrics if metric[0] != "test/nll"]
    assert notes_of(grid) == ["Never tracked: test/nll of 2 runs; left out of their means."]
