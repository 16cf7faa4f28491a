"""Studies as the tuner tracks them, read for the report."""

from builders import empty_store
from matplotlib.figure import Figure
from mlflow import MlflowClient

from analysis.load.store import Store
from analysis.load.studies import load_studies


def test_study_has_outcome_trials_and_picture_and_one_without_an_objective_is_named(tmp_path):
    uri = empty_store(tmp_path)
    client = MlflowClient(uri)
    experiment = client.create_experiment("tuning", artifact_location=(tmp_path / "artifacts").as_uri())

    def study(name, **tags):
        return client.create_run(experiment, run_name=name, tags={"kind": "study", "study": name} | tags).info.run_id

    tags = {"trials.complete": "20", "trials.failed": "0", "best_parameters": '{"temperature": 6.0}'}
    tags["best_metrics"] = '{"error": 43.75}'
    run_id = study("cifar100-cs-kd", objective="error", **tags)
    client.log_param(run_id, "dataset", "cifar100")
    for name in ("slices.png", "contour.png"):
        client.log_figure(run_id, Figure(), name)
    study("begun", objective="error ece")
    study("old")
    (begun, finished), [note] = load_studies(Store(uri))
    assert note.startswith("study old cannot be read (")
    assert (finished.name, finished.dataset) == ("cifar100-cs-kd", "cifar100")
    assert finished.trials == {"complete": 20, "failed": 0}
    assert (finished.best, finished.value) == ({"temperature": 6.0}, 43.75)
    assert finished.picture_name == "contour.png"
    assert finished.picture.startswith(b"\x89PNG")
    assert (begun.best, begun.picture) == ({}, None)
