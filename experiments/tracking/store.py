"""The tracking store: opened once, and what every experiment in it has in common."""

import os
import sqlite3
from contextlib import nullcontext
from pathlib import Path

# A server that is away or hangs must be noticed in seconds, not in MLflow's default minutes; and no telemetry.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import logging

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from cskd.cli import without_password
from cskd.errors import UserError, first_line
from cskd.files import locked

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "Creating initial tables", and so on


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def open_store(uri: str) -> MlflowClient:
    """A client of the tracking store. A database is created or upgraded here, once, before others use it.

    Raises UserError for an address that cannot be one.
    """
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    try:
        # Two processes that make or upgrade the same database at once destroy it.
        with locked(path.with_name(f"{path.name}.lock")) if path else nullcontext():
            client = MlflowClient(uri)
            if not is_server(uri):
                client.search_experiments(max_results=1)
            if path is not None:
                # Readers (the UI) and the writer then do not wait for each other. SQLite remembers it.
                connection = sqlite3.connect(path)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.close()
    except Exception as error:
        # SQLAlchemy, SQLite, Alembic and MLflow each have their own; all mean that the store cannot be used
        told = f"MLFLOW_TRACKING_URI={uri} cannot be used ({first_line(error)}): correct it"
        raise UserError(without_password(told)) from error
    return client


def ensure_experiment(client: MlflowClient, uri: str, name: str, note: str) -> str:
    """The id of the experiment, which is created with its note if it is not there."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        tags = {
            "mlflow.note.content": note,
            "mlflow.experimentKind": "custom_model_development",  # what the UI opens it as
        }
        return client.create_experiment(name, artifact_location=_artifacts(uri, name), tags=tags)
    if experiment.lifecycle_stage != "active":
        raise UserError(f"the MLflow experiment {name!r} was deleted: restore it, or remove it with 'mlflow gc'")
    return experiment.experiment_id


def _artifacts(uri: str, experiment: str) -> str | None:
    """Beside the database; a server has its own place. MLflow's default is wherever one happens to stand."""
    if is_server(uri):
        return None
    database = uri.startswith("sqlite:///")
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent if database else Path.cwd()
    return (folder / "mlartifacts" / experiment).as_uri()


def find_runs(client: MlflowClient, experiment_id: str, query: str = "") -> list[Run]:
    """All runs of an experiment, or those that a filter lets through."""
    runs, token = [], None
    while True:
        page = client.search_runs([experiment_id], filter_string=query, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def refusal(uri: str, what: str, error: MlflowException) -> UserError:
    """What a user is told of a store that does not take what it is sent."""
    return UserError(without_password(f"{uri} does not take {what} ({first_line(error)}): try again"))
