"""The command sync: what somebody renamed, deleted, copied or moved since the last upload."""

import json
import shutil

import pytest
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


def test_deleted_cell_and_seed_are_restored_in_the_renamed_experiment(sync, uri):
    client = MlflowClient(uri)
    client.create_experiment("demo")  # this label belongs to another experiment
    sync(0, 1)
    deleted = [*tracked(uri, kind="cell"), *tracked(uri, seed="0")]
    for run in deleted:
        client.delete_run(run.info.run_id)
    number = deleted[0].info.experiment_id
    client.rename_experiment(number, "table1")
    sync()
    tags = client.get_experiment(number).tags
    assert (tags["experiment"], tags["grid"], json.loads(tags["overrides"])) == ("demo", "demo", [])
    (cell,), runs = tracked(uri, kind="cell"), tracked(uri, kind="run")
    assert sorted(run.data.tags["seed"] for run in runs) == ["0", "1"]
    assert {run.info.experiment_id for run in runs} == {number}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {cell.info.run_id}
    assert (cell.data.metrics["seeds"], cell.data.params["schedule.epochs"], cell.info.status) == (2, "3", "FINISHED")
    assert [file.path for file in client.list_artifacts(cell.info.run_id)] == ["curves.png"]


def test_damaged_run_does_not_stop_the_upload_of_later_experiments(call, uri, tmp_path):
    damaged, other = (plan_of(make_run(tmp_path / "runs", make_spec(seed))) for seed in (0, 1))
    damaged.save(tmp_path / "runs")
    other.model_copy(update={"experiment": "later"}).save(tmp_path / "runs")
    (tmp_path / "runs" / damaged.cells[0].runs[0] / "metrics.jsonl").write_text("{")
    status, output, errors = call("experiments sync")
    assert (status, errors.count("\n"), "metrics.jsonl is damaged" in errors) == (2, 1, True)
    assert output.startswith("later: 1 runs are tracked in")


def test_run_trained_on_a_machine_without_mlflow_is_imported_from_its_folder(sync, uri, tmp_path):
    """A worker writes the folder there; it comes back beside the plan."""
    plan_of(make_spec(0)).save(tmp_path / "runs")
    trained = make_run(tmp_path / "elsewhere", make_spec(0))
    sync()
    assert tracked(uri, kind="run") == []
    shutil.move(RunFolder.of(trained, tmp_path / "elsewhere").path, RunFolder.of(trained, tmp_path / "runs").path)
    sync()
    (run,) = tracked(uri, kind="run")
    assert run.info.status == "FINISHED"
    assert points(uri, run, "test/top1_error") == [(0, 50), (1, 20), (2, 30)]


def test_copied_folder_adds_only_its_own_trainings(sync, uri, tmp_path):
    sync(0, folder="A")
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    sync(folder="B")
    sync(1, folder="A", training="in A")
    sync(1, folder="B", training="in B", ece=11.0)
    before = [run.to_dictionary() for run in tracked(uri, kind="run")]
    sync(folder="A")
    assert [run.to_dictionary() for run in tracked(uri, kind="run")] == before
    runs = {run.data.tags["training_id"]: run for run in tracked(uri, kind="run")}
    assert len(before) == len(runs) == 3
    for training, ece in (("first-0", 10.0), ("in A-1", 10.0), ("in B-1", 11.0)):
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
    assert runs.keys() == {first, second}
    for training, ece in ((first, 10.0), (second, 11.0)):
        assert points(uri, runs[training], "test/ece") == [(0, ece), (1, ece), (2, ece)]


def test_moved_or_copied_project_has_its_artifacts_beside_the_database(sync, tmp_path):
    def artifacts(folder: str) -> dict[str, set[str]]:
        """Return the artifacts of each run and cell, as MLflow finds them."""
        uri = Place(tmp_path / folder).uri
        runs = tracked(uri)
        assert all((tmp_path / folder / ARTIFACTS).as_uri() in run.info.artifact_uri for run in runs)
        client = MlflowClient(uri)
        return {run.info.run_id: {file.path for file in client.list_artifacts(run.info.run_id)} for run in runs}

    (tmp_path / "base é").mkdir()
    (tmp_path / "mlflow.db").rename(tmp_path / "base é" / "mlflow.db")
    sync(0, folder="base é", uri=Place(tmp_path / "base é").uri)
    before = artifacts("base é")
    (tmp_path / "base é").rename(tmp_path / "moved")
    sync(1, folder="moved", uri=Place(tmp_path / "moved").uri)
    assert artifacts("moved").items() >= before.items()
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    shutil.rmtree(tmp_path / "moved")  # the copy needs nothing of it
    sync(2, folder="copy", uri=Place(tmp_path / "copy").uri)
    found = artifacts("copy")
    assert (len(found), all(found.values())) == (4, True)
    assert not (tmp_path / "moved").exists()
    assert not (tmp_path / "base é").exists()
