"""Reading the tracking: what is found, what is left out and named, and errors of one line."""

import shutil
import sqlite3

import numpy as np
import pandas as pd
import pytest

from analysis.load.store import Store, UnusableRun
from cskd.utils.errors import UserError


def experiment(store, name):
    [found] = store.load([name])
    return found


def test_experiments_are_those_with_cells(store):
    assert store.experiments() == ["demo", "table1", "table1-mini"]
    assert [each.name for each in store.load(["table1-mini", "demo"])] == ["table1-mini", "demo"]


def test_cells_come_in_the_order_of_the_grid(store):
    cells = experiment(store, "table1").cells
    assert cells.dataset.unique().tolist() == ["cifar100", "cub200", "mit67", "dogs"]
    assert cells.cell.tolist()[:2] == ["cifar100/resnet18/cross-entropy", "cifar100/resnet18/cs-kd"]
    assert cells.seeds_planned.tolist()[0] == [0, 1, 2]


def test_a_run_is_a_row_with_its_last_epoch_and_its_settings(store):
    row = experiment(store, "table1").runs.iloc[1]
    assert (row.run, row.seed, row.state) == ("cifar100/resnet18/cross-entropy/seed1", 1, "done")
    assert (row["test/top1_error"], row["best/top1_error"], row["best/epoch"]) == (24.75, 24.625, 1)
    assert row["params.schedule.epochs"] == "200"
    assert f"{row.started:%Y-%m-%d %Z}" == "2026-09-21 UTC"


def test_superseded_cells_are_left_out_with_their_runs_and_counted(store):
    found = experiment(store, "table1")
    assert found.notes == ("Left out: 1 cell with earlier settings (cifar100/resnet18/cs-kd), 1 run.",)
    assert 99 not in found.runs["test/top1_error"].to_numpy()
    assert found.cells.cell.is_unique or found.cells.cell_key.is_unique


def test_an_infinite_value_is_infinite_again(store):
    values = experiment(store, "table1-mini").done["test/nll"]
    assert np.isposinf(values.iloc[-1])


def test_a_launched_grid_without_runs_is_typed_like_any_other(store):
    found = store.load(["demo", "table1"])[0]
    assert (len(found.cells), len(found.runs)) == (1, 0)
    assert isinstance(found.runs.started.dtype, pd.DatetimeTZDtype)


def test_unknown_experiments_are_refused_with_the_known_ones(store):
    with pytest.raises(UserError, match=r"unknown experiment 'tabel1': choose from demo, table1, table1-mini"):
        store.load(["tabel1"])


def test_experiments_without_any_run_say_what_to_do(store):
    with pytest.raises(UserError, match="no run has been tracked in demo: 'make demo'"):
        store.load(["demo"])


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    path = tmp_path / "mlflow.db"
    with pytest.raises(UserError, match=r"nothing is tracked yet, .*mlflow.db does not exist: 'make demo'"):
        Store(f"sqlite:///{path}")
    assert not path.exists()


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("this is no database, however long one makes it")
    with pytest.raises(UserError, match=r"mlflow.db cannot be read \(.*\): correct it, or start its server") as error:
        Store(f"sqlite:///{path}")
    assert "\n" not in str(error.value)


def test_a_password_is_not_shown():
    with pytest.raises(UserError, match=r"=bogus://\*\*\*@somewhere cannot be read"):
        Store("bogus://me:secret@somewhere")


def test_a_store_without_a_grid_says_what_to_run(store_uri, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copy(store_uri.removeprefix("sqlite:///"), path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name != 'notes'")
    connection.close()
    with pytest.raises(UserError, match="holds no grid: 'make demo'"):
        Store(f"sqlite:///{path}").load()


@pytest.fixture
def changed(store_uri, tmp_path):
    """Run statements on a copy of the store: ``changed("UPDATE ...")`` gives its table1-mini."""

    def change(*statements):
        path = tmp_path / "mlflow.db"
        shutil.copy(store_uri.removeprefix("sqlite:///"), path)
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
        return experiment(Store(f"sqlite:///{path}"), "table1-mini")

    return change


def of_run(name):
    return f"run_uuid IN (SELECT run_uuid FROM runs WHERE name = '{name}')"


def test_runs_and_cells_that_lack_a_tag_are_named(changed):
    found = changed(
        f"DELETE FROM tags WHERE key = 'run_key' AND {of_run('cifar100/resnet10/cs-kd/seed2')}",
        f"DELETE FROM tags WHERE key = 'grid_order' AND {of_run('cifar100/resnet10/cross-entropy')}",
    )
    assert "cifar100/resnet10/cs-kd/seed2: tracked without run_key: left out." in found.notes
    assert "cifar100/resnet10/cross-entropy: tracked without grid_order: left out." in found.notes
    assert "cifar100/resnet10/cross-entropy/seed0: its cell is not tracked: left out." in found.notes
    assert found.runs.run.tolist() == ["cifar100/resnet10/cs-kd/seed0", "cifar100/resnet10/cs-kd/seed1"]


def test_a_cell_whose_name_cannot_be_a_file_is_left_out_and_named(changed):
    found = changed(f"UPDATE tags SET value = '../x' WHERE key = 'method' AND {of_run('cifar100/resnet10/cs-kd')}")
    assert "cifar100/resnet10/cs-kd: its method cannot be the name of a file: left out." in found.notes
    assert found.cells.method.tolist() == ["cross-entropy"]


def test_an_experiment_without_a_usable_cell_is_an_error_of_one_line(changed):
    with pytest.raises(UserError, match=r"no cell of table1-mini can be read .*tracked without method"):
        changed("DELETE FROM tags WHERE key = 'method'")


def test_a_seed_that_is_tracked_twice_counts_once(changed):
    found = changed(
        f"UPDATE tags SET value = '0' WHERE key = 'seed' AND {of_run('cifar100/resnet10/cs-kd/seed1')}",
        f"UPDATE tags SET value = 'failed' WHERE key = 'state' AND {of_run('cifar100/resnet10/cs-kd/seed0')}",
    )
    cs_kd = found.runs[found.runs.method == "cs-kd"]
    assert cs_kd.run.tolist() == ["cifar100/resnet10/cs-kd/seed1", "cifar100/resnet10/cs-kd/seed2"]
    assert "cifar100/resnet10/cs-kd/seed0: tracked more than once: the first finished one counts." in found.notes


def test_a_run_whose_state_is_not_told_yet_is_running(changed):
    found = changed(f"DELETE FROM tags WHERE key = 'state' AND {of_run('cifar100/resnet10/cs-kd/seed2')}")
    assert found.runs.state.tolist() == ["done"] * 5 + ["running"]


def test_local_predictions_are_read_where_they_are(store, tmp_path):
    run = experiment(store, "table1").done.iloc[0]
    predictions = store.load_predictions(run, tmp_path / "cache")
    assert predictions.logits.shape == (200, 10)
    assert predictions.features.shape == (200, 4)
    assert not (tmp_path / "cache").exists()


def test_remote_predictions_are_downloaded_once(store, store_uri, tmp_path, monkeypatch):
    run = experiment(store, "table1").done.iloc[0].copy()
    local = f"{run.artifact_uri.removeprefix('file://')}/predictions.npz"
    run.artifact_uri = "mlflow-artifacts:/1/2/artifacts"
    asked = []

    def download(run_id, path, folder):
        asked.append((run_id, path))
        return shutil.copy(local, folder)

    other = Store(store_uri)
    monkeypatch.setattr(other.client, "download_artifacts", download)
    for _ in range(2):
        assert other.load_predictions(run, tmp_path).labels.shape == (200,)
    assert asked == [(run.run_id, "predictions.npz")]
    assert [path.name for path in (tmp_path / run.run_id).iterdir()] == ["predictions.npz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "seed0 has no predictions.npz"),
        (b"PK but cut off", "seed0 has a predictions.npz that cannot be read"),
        ({"logits": np.zeros((2, 2))}, "seed0 has a predictions.npz that cannot be read"),
        (
            {"logits": np.full((2, 2), np.nan), "features": np.zeros((2, 1)), "labels": np.zeros(2, int)},
            "seed0 has predictions with NaN",
        ),
    ],
)
def test_predictions_that_are_missing_or_broken_are_named(store, tmp_path, content, message):
    run = experiment(store, "table1").done.iloc[0].copy()
    run.artifact_uri = tmp_path.as_uri()
    if isinstance(content, bytes):
        (tmp_path / "predictions.npz").write_bytes(content)
    elif content:
        np.savez(tmp_path / "predictions.npz", **content)
    with pytest.raises(UnusableRun, match=message):
        store.load_predictions(run, tmp_path)
