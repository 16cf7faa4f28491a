"""The command sync: what somebody renamed, deleted, copied or moved since the last upload."""

import json
import shutil

import pytest
from alembic.operations.base import AbstractOperations
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils
from place import Place
from run_folders import START, make_run, make_spec, plan_of, points, tracked

from experiments.launch.worker import Start
from experiments.runs.folder import INTERRUPTED, RunFolder
from experiments.tracking.store import ARTIFACTS

pytestmark = pytest.mark.usefixtures("small_figures", "uri")


@pytest.fixture
def sync(call, tmp_path, monkeypatch):
    """Writes a run's folder and uploads the plan below ``folder``; returns the output."""

    def sync(*seeds: int, folder: str = "", uri: str | None = None, **made) -> str:
        place = Place(tmp_path / folder)
        utils._artifact_repos_cache.clear()  # as in a new process
        monkeypatch.setenv("RUNS_DIR", str(place.runs))
        if uri is not None:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        if seeds:
            plan_of(*(make_run(place.runs, make_spec(seed), **made) for seed in seeds)).save(place.runs)
        status, output, errors = call("experiments sync")
        assert (status, errors) == (0, "")
        return output

    return sync


def test_renamed_experiment_is_found_by_its_tag(sync, uri):
    client = MlflowClient(uri)
    client.create_experiment("demo")  # this label belongs to another experiment
    sync(0)
    number = tracked(uri, kind="run")[0].info.experiment_id
    client.rename_experiment(number, "table1")
    sync(1)
    tags = client.get_experiment(number).tags
    assert (tags["experiment"], tags["grid"], json.loads(tags["overrides"])) == ("demo", "demo", [])
    assert {run.info.experiment_id for run in tracked(uri, kind="run")} == {number}
    assert len(tracked(uri, kind="run")) == 2
    assert len(client.search_experiments()) == 3  # with MLflow's own "Default"


@pytest.mark.parametrize("deleted", ["0", "none"])
def test_deleted_cell_and_seed_are_restored_with_settings_children_and_statistics(deleted, sync, uri):
    sync(0, 1)
    for run in [*tracked(uri, kind="cell"), *tracked(uri, seed=deleted)]:
        MlflowClient(uri).delete_run(run.info.run_id)
    sync()
    (cell,), runs = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert sorted(run.data.tags["seed"] for run in runs) == ["0", "1"]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {cell.info.run_id}
    assert (cell.data.metrics["seeds"], cell.data.params["schedule.epochs"], cell.info.status) == (2, "3", "FINISHED")
    assert [file.path for file in MlflowClient(uri).list_artifacts(cell.info.run_id)] == ["curves.png"]


def test_copied_folder_adds_only_its_own_trainings(sync, uri, tmp_path):
    sync(0, folder="A")
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    before = [run.to_dictionary() for run in tracked(uri, kind="run")]
    sync(folder="B")
    assert [run.to_dictionary() for run in tracked(uri, kind="run")] == before
    sync(1, folder="A", training="in A")
    sync(1, folder="B", training="in B", ece=11.0)
    before = [run.to_dictionary() for run in tracked(uri, kind="run")]
    sync(folder="A")
    assert [run.to_dictionary() for run in tracked(uri, kind="run")] == before
    runs = {run.data.tags["training_id"]: run for run in tracked(uri, kind="run")}
    assert set(runs) == {"first-0", "in A-1", "in B-1"}
    for training, ece in (("in A-1", 10.0), ("in B-1", 11.0)):
        assert points(uri, runs[training], "test/ece") == [(0, ece), (1, ece), (2, ece)]
    MlflowClient(uri).delete_run(tracked(uri, kind="cell")[0].info.run_id)
    sync(folder="A")  # gives the training of B its new parent too
    (cell,) = tracked(uri, kind="cell")
    assert [run.data.tags["mlflow.parentRunId"] for run in tracked(uri, kind="run")] == [cell.info.run_id] * 3


def test_copy_of_an_unfinished_run_that_is_resumed_is_another_training(sync, uri, tmp_path):
    original, copy, spec = tmp_path / "A", tmp_path / "B", make_spec(0)
    RunFolder.of(spec, original / "runs").create(spec)

    def resume(place, **made) -> str:
        folder = RunFolder.of(spec, place / "runs")
        Start(folder).write(START)
        make_run(place / "runs", spec, training=None, **made)
        plan_of(spec).save(place / "runs")
        sync(folder=place.name)
        return folder.training_id()

    first = resume(original, state=INTERRUPTED, trained=1)
    shutil.copytree(original, copy)
    original.rename(tmp_path / "moved")
    second = resume(copy, ece=11.0)
    assert resume(tmp_path / "moved") == first != second
    runs = {run.data.tags["training_id"]: run for run in tracked(uri, kind="run")}
    assert points(uri, runs.pop(first), "test/ece") == [(0, 10.0), (1, 10.0), (2, 10.0)]
    assert points(uri, runs.pop(second), "test/ece") == [(0, 11.0), (1, 11.0), (2, 11.0)]
    assert not runs


def test_moved_or_copied_project_has_its_artifacts_beside_the_database(sync, tmp_path):
    def files(folder: str) -> dict[str, set[str]]:
        """Return the artifacts of each run, as MLflow finds them."""
        uri = Place(tmp_path / folder).uri
        runs = tracked(uri)
        assert all((tmp_path / folder / ARTIFACTS).as_uri() in run.info.artifact_uri for run in runs)
        client = MlflowClient(uri)
        return {run.info.run_id: {file.path for file in client.list_artifacts(run.info.run_id)} for run in runs}

    (tmp_path / "base é").mkdir()
    (tmp_path / "mlflow.db").rename(tmp_path / "base é" / "mlflow.db")
    sync(0, folder="base é", uri=Place(tmp_path / "base é").uri)
    before = files("base é")
    (tmp_path / "base é").rename(tmp_path / "moved")
    sync(1, folder="moved", uri=Place(tmp_path / "moved").uri)
    assert files("moved").items() >= before.items()
    assert all(files("moved").values())
    assert not (tmp_path / "base é").exists()
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    shutil.rmtree(tmp_path / "moved" / ARTIFACTS)  # the copy needs nothing of it
    sync(2, folder="copy", uri=Place(tmp_path / "copy").uri)
    assert len(files("copy")) == 4
    assert all(files("copy").values())
    assert not (tmp_path / "moved" / ARTIFACTS).exists()


def test_database_copied_without_its_artifacts_still_finds_them(sync, uri, tmp_path):
    sync(0)
    (tmp_path / "elsewhere").mkdir()
    for file in tmp_path.glob("mlflow.db*"):
        shutil.copy(file, tmp_path / "elsewhere")
    sync(uri=Place(tmp_path / "elsewhere").uri)
    (run,) = tracked(Place(tmp_path / "elsewhere").uri, kind="run")
    assert str(tmp_path / ARTIFACTS) in run.info.artifact_uri


def test_interrupted_creation_leaves_no_half_made_database(call, tmp_path, monkeypatch):
    """Kills at random moments are in ``tests/faults/test_first_launch.py``."""
    (tmp_path / "mlflow.db").unlink()
    plan_of(make_run(tmp_path / "runs", make_spec(0))).save(tmp_path / "runs")
    invoke = AbstractOperations.invoke

    def die(self, operation):
        invoke(self, operation)
        raise KeyboardInterrupt  # leaves the files as SIGKILL does

    monkeypatch.setattr(AbstractOperations, "invoke", die)
    assert call("experiments sync")[0] == 130
    assert not (tmp_path / "mlflow.db").exists()
    assert list(tmp_path.glob("mlflow.db.*.new"))


def test_relative_address_is_shown_as_absolute(sync, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    (tmp_path / "mlflow.db").rename(tmp_path / "below" / "x.db")
    monkeypatch.chdir(tmp_path)
    assert f"tracked in sqlite:///{tmp_path}/below/x.db" in sync(0, uri="sqlite:///below/x.db")
