"""The tracking store: opened once, and what every experiment in it has in common."""

import os
import sqlite3
from contextlib import nullcontext
from pathlib import Path

# A server that is away or hangs must be noticed in seconds, not in MLflow's default minutes; one that takes ten
# seconds over each request still works. No request is repeated unseen: one whose answer was lost has perhaps been
# carried out, so whoever sent it looks at the store before it asks again.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
# No telemetry; and no line on the terminal for each finished run, with the server's address, password and all.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import logging

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from cskd.utils.errors import UserError, first_line, without_password
from cskd.utils.files import exclusive

# "Creating initial tables", and so on; and what goes wrong, which is raised as well, and told in one line then.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


MAKER = "tracked_by"  # the tag with the launch that made an MLflow run


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def open_store(uri: str) -> MlflowClient:
    """A client of the tracking store. A database is created or upgraded here, once, before others use it.

    Raises UserError for an address that cannot be one.
    """
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    try:
        # Two processes that make or upgrade the same database at once destroy it.
        with exclusive(path.with_name(f"{path.name}.lock")) if path else nullcontext():
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
        message = f"MLFLOW_TRACKING_URI={uri} cannot be used ({first_line(error)}): correct it"
        raise UserError(without_password(message)) from error
    return client


def ensure_experiment(client: MlflowClient, uri: str, name: str, note: str) -> str:
    """The id of the experiment, which is created with its note if it is not there."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        tags = {
            "mlflow.note.content": note,
            "mlflow.experimentKind": "custom_model_development",  # what the UI opens it as
        }
        try:
            return client.create_experiment(name, artifact_location=_artifacts(uri, name), tags=tags)
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:  # not by another launch meanwhile
                raise
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


def one_of(client: MlflowClient, runs: list[Run]) -> Run:
    """Of runs that stand for the same thing, the one to go on with.

    A creation whose answer was lost, and which was asked for again, may have made two: the one that nothing was written
    to is deleted. Several that something was written to come from several machines, and stay.
    """
    first, *others = sorted(runs, key=lambda run: (not run.data.params, run.info.run_id))
    maker = first.data.tags.get(MAKER)
    for run in others if maker and first.data.params else ():
        if not run.data.params and run.data.tags.get(MAKER) == maker:
            client.delete_run(run.info.run_id)
    return first


def refusal(uri: str, what: str, error: MlflowException) -> UserError:
    """What a user is told of a store that does not take what it is sent."""
    return UserError(without_password(f"{uri} does not take {what} ({first_line(error)}): try again"))
