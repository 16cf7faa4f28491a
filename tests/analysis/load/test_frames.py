"""Frames of cells and runs: what they contain, what is left out, and the notes about it."""

import math

import numpy as np
import pandas as pd
import pytest
from builders import START, Grid

from analysis.load.data_quality import data_quality_notes
from analysis.load.pools import pools
from analysis.tables.reliability import CellReliability
from cskd import NUMERICS_VERSION
from cskd.utils.errors import UserError

CS_KD = "cifar100/resnet18/cs-kd"


@pytest.fixture
def grid():
    """Two cells; CS-KD has seeds 0, 1 and 2."""
    grid = Grid("table1-mini", "mini", {"numerics_version": NUMERICS_VERSION})
    grid.cell("cifar100", "cross-entropy")
    cell = grid.cell("cifar100", "cs-kd")
    for seed in range(3):
        grid.trained(cell, seed, 20 + seed, 5)
    return grid


def test_store_frames_have_grid_order_values_and_settings(store):
    table1, mini, demo = store.load(["table1", "table1-mini", "demo"])
    cells, row = table1.cells, table1.runs.iloc[1]
    assert cells.dataset.unique().tolist() == ["cifar100", "cub200", "mit67", "dogs"]
    assert cells.seeds_planned[0] == [0, 1, 2]
    assert (row.run, row.seed, row.state) == ("cifar100/resnet18/cross-entropy/seed1", 1, "done")
    assert (row["test/top1_error"], row["best/top1_error"], row["best/epoch"]) == (24.75, 24.625, 1)
    assert (row["params.schedule.epochs"], row.device, row.threads, row.precision) == ("200", "cpu", "1", "fp32")
    assert f"{row.started:%Y-%m-%d %Z}" == "2026-09-21 UTC"
    assert set(zip(cells.dataset, cells.comparable, cells.comparable_reason, strict=True)) == {
        *(("cifar100", True, ""), ("cub200", True, ""), ("dogs", True, "")),
        ("mit67", False, "the dataset is incomplete"),
    }
    assert table1.notes == ("Left out: 1 cell with earlier settings (cifar100/resnet18/cs-kd), 1 run.",)
    assert 99 not in table1.runs["test/top1_error"].to_numpy()
    assert np.isposinf(mini.done["test/nll"]).sum() == 1  # the database has no infinity
    assert (len(demo.cells), len(demo.runs)) == (1, 0)
    assert isinstance(demo.runs.started.dtype, pd.DatetimeTZDtype)


def test_cells_and_runs_that_cannot_be_used_are_left_out_with_a_note(grid):
    del grid.runs[2].tags["run_key"]
    del grid.runs[1].tags["state"]
    grid.runs[0].name = "my best run"
    extra = grid.cell("dogs", "cs-kd")
    grid.trained(extra, 0, 30, 5)
    del extra.tags["grid_order"]
    grid.cells[0].tags["method"] = "../x"
    experiment = grid.experiment()
    assert experiment.notes == (
        "cifar100/resnet18/cross-entropy: its method cannot be used in a file name: left out.",
        "cifar100/resnet18/cs-kd/seed2: no tag run_key: left out.",
        "dogs/resnet18/cs-kd/seed0: its cell is not tracked: left out.",
        "dogs/resnet18/cs-kd: no tag grid_order: left out.",
    )
    assert experiment.cells.cell.tolist() == [CS_KD]
    assert experiment.runs.run.tolist() == [f"{CS_KD}/seed0", f"{CS_KD}/seed1"]
    assert experiment.runs.state.tolist() == ["done", "running"]
    for cell in grid.cells:
        cell.tags.pop("method")
    with pytest.raises(UserError, match=r"^table1-mini: no cell can be read \(.*no tag method.*\): launch"):
        grid.experiment()


@pytest.mark.parametrize("network", ["timm:vit_tiny_patch16_224.augreg_in21k", "torchvision:resnet50"])
def test_networks_of_other_libraries_are_read_and_get_file_names_without_colons(grid, network):
    cell = grid.cell("cub200", "cs-kd", architecture=network)
    grid.trained(cell, 0, 20, 5)
    experiment = grid.experiment()
    assert network in set(experiment.cells.architecture)
    assert not [note for note in experiment.notes if network in note]
    reliability = CellReliability("cub200", network, "cs-kd", (0,), None, 0.0)
    assert reliability.name == f"cub200-{network.replace(':', '-')}-cs-kd"


def test_of_several_trainings_of_a_seed_the_first_finished_one_counts(grid):
    cell = grid.cells[1]
    grid.run(cell, 0, state="failed").started = START - 2
    grid.trained(cell, 1, 99, 5).started += 1
    grid.cells.append(cell)
    experiment = grid.experiment()
    assert len(experiment.cells) == 2
    assert experiment.runs["test/top1_error"].tolist() == [20, 21, 22]
    trained = "trained more than once: the first finished training counts."
    assert experiment.notes == (
        *(f"{CS_KD}/seed{seed}: {trained}" for seed in (0, 1)),
        f"{CS_KD}: the cell is tracked twice: shown once, with the seeds of both.",
    )


def test_data_quality_notes_name_unfinished_and_suspect_runs(grid):
    def notes():
        return data_quality_notes(pools([grid.experiment()])[0])

    grid.run(grid.cells[0], 0, state="failed", reason="the loss is NaN")
    failed = "cifar100/resnet18/cross-entropy/seed0 is failed (the loss is NaN): not used."
    assert notes() == [failed]
    first, second, third, _ = grid.runs
    first.settings["numerics_version"] = "0"
    del third.settings["numerics_version"]
    first.tags |= {"git_commit": "unknown", "git_dirty": "unknown"}
    second.tags["git_dirty"], third.tags["git_dirty"] = "unknown", "true"
    second.metrics = [metric for metric in second.metrics if metric[0] != "test/nll"] + [("test/nll", math.nan, 1)]
    for run in (first, second):
        run.metrics = [metric for metric in run.metrics if metric[0] != "test/brier"]
    assert notes() == [
        f"{CS_KD}, seed 0: trained from an unknown commit; used.",
        f"{CS_KD}, seed 1: trained with unknown changes of its commit; used.",
        f"{CS_KD}, seed 2: trained with uncommitted changes; used.",
        failed,
        f"{CS_KD}/seed0 has numerics version 0, the current one is {NUMERICS_VERSION}: used.",
        f"{CS_KD}/seed1 has no finite test/nll: left out of their means.",
        f"{CS_KD}/seed2 has numerics version unknown, the current one is {NUMERICS_VERSION}: used.",
        "Never tracked: test/brier in 2 runs. The metric's mean leaves these runs out.",
    ]
