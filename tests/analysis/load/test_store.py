"""Reading a tracking store: experiments, predictions, histories, and one-line errors."""

import shutil

import numpy as np
import pytest
from builders import Grid, empty_store
from mlflow import MlflowClient
from run_folders import make_run, make_spec, tracked, upload

from analysis.load.store import Store, UnusableRun
from cskd.utils.errors import UserError


@pytest.fixture
def runs(store):
    """The finished runs of table1-mini; CS-KD's third has an infinite NLL."""
    [experiment] = store.load(["table1-mini"])
    return experiment.done


def test_experiments_are_found_by_tag_whatever_their_name(store):
    assert store.experiments() == ["demo", "table1", "table1-mini"]
    assert [experiment.name for experiment in store.load(["table1-mini", "demo"])] == ["table1-mini", "demo"]
    with pytest.raises(UserError, match=r"unknown experiment 'tabel1': did you mean table1"):
        store.load(["tabel1"])
    with pytest.raises(UserError, match="no run is tracked in demo: launch it, or"):
        store.load(["demo"])


def test_tuning_and_overrides_are_read_from_tags(tmp_path):
    uri = empty_store(tmp_path)
    grid = Grid("table1-mini-custom-1a2b3c", "mini", tuned=True, overrides=("width=8", "schedule.milestones=[1, 2]"))
    grid.run(grid.cell("cifar100", "cs-kd"), 0)
    number = grid.log(uri, tmp_path, label="any name", predictions=False)
    [experiment] = Store(uri).load()
    assert (experiment.profile, experiment.tuned) == ("mini", True)
    assert experiment.overrides == ("width=8", "schedule.milestones=[1, 2]")
    MlflowClient(uri).set_experiment_tag(number, "overrides", "width=8")
    with pytest.raises(UserError, match="its tag tuned or overrides is missing or invalid"):
        Store(uri).load()


def test_missing_invalid_or_empty_store_is_a_one_line_error(tmp_path):
    (tmp_path / "text.db").write_text("this is no database, however long the text is")
    for uri, message in (
        (f"sqlite:///{tmp_path / 'none.db'}", r"nothing is tracked yet, .*none.db does not exist: run 'make demo'"),
        (f"sqlite:///{tmp_path / 'text.db'}", r"text.db cannot be read \(.*\): correct it or start its"),
        ("bogus://me:secret@somewhere", r"=bogus://\*\*\*@somewhere cannot be read"),
    ):
        with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
            Store(uri)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(UserError, match="holds no grid: run 'make demo'"):
        Store(empty_store(tmp_path)).load()


def test_remote_predictions_are_downloaded_once(runs, store, store_uri, tmp_path, monkeypatch):
    run = runs.iloc[0].copy()
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
        ({"logits": np.zeros((2, 2))}, "seed0 has a predictions.npz that cannot be read"),
        (
            {"logits": np.full((2, 2), np.nan), "features": np.zeros((2, 1)), "labels": np.zeros(2, int)},
            "seed0 has predictions with NaN",
        ),
    ],
)
def test_missing_or_damaged_predictions_name_the_run(runs, store, tmp_path, content, message):
    run = runs.iloc[0].copy()
    run.artifact_uri = tmp_path.as_uri()
    if content:
        np.savez(tmp_path / "predictions.npz", **content)
    with pytest.raises(UnusableRun, match=message):
        store.load_predictions(run, tmp_path)


def test_history_is_by_epoch_and_cached_once_the_run_is_finished(runs, store, tmp_path, monkeypatch):
    run, infinite = runs.iloc[1].copy(), runs[np.isposinf(runs["test/nll"])].iloc[0]
    run["state"] = "running"
    history = store.load_history(run, ["test/top1_error", "test/ece"], tmp_path)
    assert history.index.tolist() == [0, 1]
    assert history["test/top1_error"].tolist() == [102, 51] and history["test/ece"].tolist() == [36, 18]
    with pytest.raises(UnusableRun, match="seed1 has no history of train/none"):
        store.load_history(run, ["test/ece", "train/none"], tmp_path)
    assert not list(tmp_path.rglob("*.npz"))
    run["state"] = "done"
    for metric in ("test/ece", "test/top1_error"):
        store.load_history(run, [metric], tmp_path)
    assert store.load_history(infinite, ["test/nll"], tmp_path)["test/nll"].tolist() == [np.inf, np.inf]
    monkeypatch.setattr(store, "client", None)  # no request is needed
    assert store.load_history(run, ["test/top1_error", "test/ece"], tmp_path).equals(history)
    assert store.load_history(infinite, ["test/nll"], tmp_path)["test/nll"].tolist() == [np.inf, np.inf]


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


def predictions_of_moved(project, cache, runs):
    store = Store(f"sqlite:///{project / 'mlflow.db'}", runs)
    [experiment] = store.load()
    return experiment.done, [store.predictions_file(run, cache) for _, run in experiment.done.iterrows()]


def test_predictions_of_a_moved_project_are_in_its_run_folders_or_beside_the_database(project, tmp_path):
    done, paths = predictions_of_moved(project, tmp_path, project / "runs")
    assert paths == [project / "runs" / key / "predictions.npz" for key in done.run_key]
    _, paths = predictions_of_moved(project, tmp_path, None)
    assert paths == [project / f"mlartifacts/demo/{run}/artifacts/predictions.npz" for run in done.run_id]


def test_run_folder_with_another_training_is_not_read(project, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(project / "runs", runs)
    make_run(runs, make_spec(0), training="second")
    _, (first, second) = predictions_of_moved(project, tmp_path, runs)
    assert (first.is_relative_to(project / "mlartifacts"), second.is_relative_to(runs)) == (True, True)
