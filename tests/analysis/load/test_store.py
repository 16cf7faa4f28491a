"""Reading a tracking store: experiments, predictions, and one-line errors."""

import shutil

import numpy as np
import pytest
from builders import Grid, empty_store
from mlflow import MlflowClient
from run_folders import make_run, make_spec, tracked, upload

from analysis.load.store import Store, UnusableRun
from cskd.utils.errors import UserError


def test_experiments_are_found_by_tag_whatever_their_name(store):
    assert store.experiments() == ["demo", "table1", "table1-mini"]
    assert [experiment.name for experiment in store.load(["table1-mini", "demo"])] == ["table1-mini", "demo"]


def test_tuning_and_overrides_are_read_from_tags(tmp_path):
    uri = empty_store(tmp_path)
    grid = Grid("table1-mini-custom-1a2b3c", "mini", tuned=True, overrides=("width=8", "schedule.milestones=[1, 2]"))
    grid.run(grid.cell("cifar100", "cs-kd"), 0)
    number = grid.log(uri, tmp_path, label="any name", predictions=False)
    [experiment] = Store(uri).load()
    assert (experiment.profile, experiment.tuned) == ("mini", True)
    assert experiment.overrides == ("width=8", "schedule.milestones=[1, 2]")
    client = MlflowClient(uri)
    client.set_experiment_tag(number, "overrides", "width=8")
    with pytest.raises(UserError, match="its tag tuned or overrides is missing or invalid"):
        Store(uri).load()
    client.delete_experiment_tag(number, "overrides")
    with pytest.raises(UserError, match="its tag tuned or overrides is missing or invalid"):
        Store(uri).load()


def test_unknown_experiments_and_experiments_without_runs_are_errors(store):
    with pytest.raises(UserError, match=r"unknown experiment 'tabel1': did you mean table1"):
        store.load(["tabel1"])
    with pytest.raises(UserError, match="no run is tracked in demo: launch it, or"):
        store.load(["demo"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"nothing is tracked yet, .*mlflow.db does not exist: run 'make demo'"),
        ("this is no database, however long the text is", r"mlflow.db cannot be read \(.*\): correct it or start its"),
    ],
)
def test_missing_or_invalid_database_is_a_one_line_error(tmp_path, content, message):
    path = tmp_path / "mlflow.db"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        Store(f"sqlite:///{path}")
    assert "\n" not in str(caught.value)
    assert path.exists() == bool(content)


def test_store_without_a_grid_names_the_first_command(tmp_path):
    with pytest.raises(UserError, match="holds no grid: run 'make demo'"):
        Store(empty_store(tmp_path)).load()


def test_password_of_a_server_is_not_shown():
    with pytest.raises(UserError, match=r"=bogus://\*\*\*@somewhere cannot be read"):
        Store("bogus://me:secret@somewhere")


def test_remote_predictions_are_downloaded_once(store, store_uri, tmp_path, monkeypatch):
    run = store.load(["table1"])[0].done.iloc[0].copy()
    local = f"{run.artifact_uri.removeprefix('file://')}/predictions.npz"
    assert store.load_predictions(run, tmp_path / "cache").logits.shape == (200, 10)
    assert not (tmp_path / "cache").exists()  # read in place
    run.artifact_uri = "mlflow-artifacts:/1/2/artifacts"
    downloads = []

    def download(run_id, path, folder):
        downloads.append((run_id, path))
        return shutil.copy(local, folder)

    other = Store(store_uri)
    monkeypatch.setattr(other.client, "download_artifacts", download)
    for _ in range(2):
        assert other.load_predictions(run, tmp_path).labels.shape == (200,)
    assert downloads == [(run.run_id, "predictions.npz")]
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
def test_missing_or_damaged_predictions_name_the_run(store, tmp_path, content, message):
    run = store.load(["table1"])[0].done.iloc[0].copy()
    run.artifact_uri = tmp_path.as_uri()
    if isinstance(content, bytes):
        (tmp_path / "predictions.npz").write_bytes(content)
    elif content:
        np.savez(tmp_path / "predictions.npz", **content)
    with pytest.raises(UnusableRun, match=message):
        store.load_predictions(run, tmp_path)


def test_uploaded_run_is_read_and_made_up_runs_have_the_same_tags(tmp_path):
    uri = empty_store(tmp_path)
    upload(uri, tmp_path / "runs", make_run(tmp_path / "runs", make_spec(0)))
    [experiment] = Store(uri).load()
    [run] = experiment.done.to_dict("records")
    facts = ("run", "device", "threads", "precision", "compiled", "comparable", "comparable_reason", "best/epoch")
    values = ("digits/resnet10/cs-kd/seed0", "cpu", "2", "fp32", "false", False, "profile demo", 1)
    assert tuple(run[name] for name in facts) == values
    assert (experiment.profile, experiment.tuned, experiment.overrides, experiment.notes) == ("demo", False, (), ())
    grid = Grid()
    made = grid.trained(grid.cell("cifar100", "cs-kd"), 0, 20, 5)
    for tags, kind in ((made.tags, "run"), (grid.cells[0].tags, "cell")):
        assert set(tags) <= set(tracked(uri, kind=kind)[0].data.tags)


def predictions_of_moved(project, cache, runs="runs"):
    store = Store(f"sqlite:///{project / 'mlflow.db'}", project / runs)
    [experiment] = store.load()
    return experiment.done, [store.predictions_file(run, cache) for _, run in experiment.done.iterrows()]


def test_predictions_of_a_moved_project_are_read_from_its_run_folders(project, tmp_path):
    done, paths = predictions_of_moved(project, tmp_path)
    assert paths == [project / "runs" / key / "predictions.npz" for key in done.run_key]


def test_predictions_without_run_folders_are_read_beside_the_database(project, tmp_path):
    done, paths = predictions_of_moved(project, tmp_path, "none")
    expected = [f"{run_id}/artifacts/predictions.npz" for run_id in done.run_id]
    assert [str(path.relative_to(project / "mlartifacts" / "demo")) for path in paths] == expected


def test_artifacts_of_a_project_in_a_folder_called_mlartifacts_are_read_beside_the_database(project, tmp_path):
    store = Store(f"sqlite:///{project / 'mlflow.db'}")
    run = store.load()[0].done.iloc[0].copy()
    inside = f"mlartifacts/demo/{run.run_id}/artifacts"
    run["artifact_uri"] = f"/elsewhere/mlartifacts/project/{inside}"
    assert store.predictions_file(run, tmp_path) == project / inside / "predictions.npz"


def test_run_folder_with_another_training_is_not_read(project, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(project / "runs", runs)
    make_run(runs, make_spec(0), training="second")
    _, (first, second) = predictions_of_moved(project, tmp_path, runs)
    assert (first.is_relative_to(project / "mlartifacts"), second.is_relative_to(runs)) == (True, True)
