"""Studies as they are tracked, read back for the report."""

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from analysis.load.store import Store
from analysis.load.studies import load_studies


@pytest.fixture
def tracked(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("tuning", artifact_location=(tmp_path / "artifacts").as_uri())

    def study(name, **tags):
        run = client.create_run(experiment, run_name=name, tags={"kind": "study", "study": name} | tags)
        return run.info.run_id

    return client, study, f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_study_tells_what_was_chosen_from_what_with_its_picture(tracked):
    client, study, uri = tracked
    done = {
        "objective": "error",
        "trials.complete": "20",
        "trials.failed": "0",
        "best_parameters": '{"temperature": 6.0}',
    }
    run_id = study("cifar100-cs-kd", **done)
    client.log_param(run_id, "dataset", "cifar100")
    client.log_metric(run_id, "best/error", 43.75)
    for name in ("slices.png", "contour.png"):
        client.log_figure(run_id, Figure(), name)
    study("begun", objective="error ece")
    (begun, chosen), notes = load_studies(Store(uri))
    assert notes == []
    assert (chosen.name, chosen.dataset, chosen.trials) == ("cifar100-cs-kd", "cifar100", "20 complete")
    assert (chosen.best, chosen.value) == ({"temperature": 6.0}, 43.75)
    assert chosen.picture_name == "contour.png"
    assert chosen.picture.startswith(b"\x89PNG")
    assert (begun.best, begun.picture) == ({}, None)


def test_a_study_that_lacks_what_it_should_have_is_named(tracked):
    _, study, uri = tracked
    study("old")
    studies, [note] = load_studies(Store(uri))
    assert studies == []
    assert note.startswith("study old cannot be read (")


def test_a_store_without_studies_has_none(tracked):
    assert load_studies(Store(tracked[2])) == ([], [])
