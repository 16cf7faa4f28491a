"""The MLflow store: how it is opened, and how its experiments and runs are found by their tags and created once."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

# A dead or hanging server must be noticed within seconds; one that takes ten seconds for each request still works.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
# No automatic retries: a request whose reply was lost may have succeeded. We query before sending it again.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow would print the server's address, with its password, after every run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import logging

from mlflow import MlflowClient
from mlflow.entities import Experiment, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from cskd.utils.errors import UserError, first_line, without_password
from cskd.utils.files import exclusive

# MLflow logs "Creating initial tables" here. It also logs errors, but we raise and report those.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def open_store(uri: str) -> MlflowClient:
    """Return a client of the store. A database is created or upgraded first.

    Raises UserError if the address cannot be used.
    """
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    try:
        # Two processes that create or upgrade the same database at once corrupt it.
        with exclusive(path.with_name(f"{path.name}.lock")) if path else nullcontext():
            client = MlflowClient(uri)
            if not is_server(uri):
                client.search_experiments(max_results=1)
            if path is not None:
                # With a write-ahead log, readers such as the UI and writers do not block each other.
                connection = sqlite3.connect(path)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.close()
    except Exception as error:
        # SQLAlchemy, SQLite, Alembic and MLflow raise exceptions of different types here.
        message = f"MLFLOW_TRACKING_URI={uri} cannot be used ({first_line(error)}): correct it"
        raise UserError(without_password(message)) from error
    return client


def upload_error(uri: str, name: str, error: Exception) -> UserError:
    """Return the error of a command whose upload failed."""
    return UserError(without_password(f"{uri}: cannot upload {name} ({first_line(error)}): try again"))


class TrackedExperiment:
    """One MLflow experiment. The tag ``experiment`` identifies it; its name is a label that a user may change."""

    def __init__(self, uri: str, key: str, lock: Path):
        """lock: the lock file that all launches with the same RUNS_DIR use when they create something."""
        self.uri, self.key, self.lock = uri, key, lock
        self.client = open_store(uri)
        self.id = ""

    def open(self, note: str, tags: dict[str, str]) -> None:
        """Find or create the experiment and set its tags. Raises UserError if it was deleted."""
        with exclusive(self.lock):
            experiment = self._find() or self._create(note)
        if experiment.lifecycle_stage != "active":
            message = f"the MLflow experiment {experiment.name!r} was deleted"
            raise UserError(f"{message}: restore it, or remove it with 'mlflow gc'")
        self.id = experiment.experiment_id
        for name, value in tags.items():
            if experiment.tags.get(name) != value:
                self.client.set_experiment_tag(self.id, name, value)

    def runs(self, **tags: str) -> list[Run]:
        """Return all active runs that have these tags."""
        query = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
        runs, token = [], None
        while True:
            page = self.client.search_runs([self.id], filter_string=query, max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def ensure_run(
        self,
        name: str,
        identity: dict[str, str],
        tags: dict[str, str],
        started: int | None = None,
        is_same: Callable[[Run], bool] = lambda run: True,
    ) -> Run:
        """Return the run whose tags contain ``identity`` and that ``is_same`` accepts. If there is none, create it.

        tags: of a new run, besides ``identity``. started: in milliseconds.
        """
        with exclusive(self.lock):
            if runs := [run for run in self.runs(**identity) if is_same(run)]:
                return self.merge_copies(runs)
            return self.client.create_run(self.id, started, identity | tags, name)

    def merge_copies(self, runs: list[Run]) -> Run:
        """Return one of several runs with the same identity. The empty copies are deleted if the other has content.

        Copies arise when the server creates a run after the client's timeout.
        """
        first, *copies = sorted(runs, key=lambda run: (not run.data.params, run.info.run_id))
        for run in copies if first.data.params else ():
            if not run.data.params:
                self.client.delete_run(run.info.run_id)
        return first

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])

    def log_settings(self, run_id: str, settings: dict[str, Any]) -> None:
        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in settings.items()])

    def _find(self) -> Experiment | None:
        experiments = self.client.search_experiments(view_type=ViewType.ALL)
        matching = [experiment for experiment in experiments if experiment.tags.get("experiment") == self.key]
        return min(matching, key=lambda experiment: experiment.lifecycle_stage != "active", default=None)

    def _create(self, note: str) -> Experiment:
        tags = {
            "experiment": self.key,
            "mlflow.note.content": note,
            "mlflow.experimentKind": "custom_model_development",  # selects the UI's view of training runs
        }
        for number in count(1):
            label = self.key if number == 1 else f"{self.key} ({number})"
            try:
                self.client.create_experiment(label, self._artifact_location(), tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # A launch on another machine may have created it, or the label belongs to another experiment.
            if experiment := self._find():
                return experiment

    def _artifact_location(self) -> str | None:
        """A folder beside the database. A server chooses its own; MLflow's default is the working directory."""
        if is_server(self.uri):
            return None
        database = self.uri.startswith("sqlite:///")
        folder = Path(self.uri.removeprefix("sqlite:///")).absolute().parent if database else Path.cwd()
        return (folder / "mlartifacts" / self.key).as_uri()
