"""Opening of the MLflow store, with settings of MLflow that must be made before its import."""

import glob
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

# A dead server is detected within seconds; a server that takes ten seconds per request still works.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
# No automatic retries: a request whose reply was lost may have succeeded. We query before sending it again.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow would print the server's address, with its password, after every run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import logging

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cskd.utils.cli import absolute
from cskd.utils.databases import SQLITE, is_server, schema_problem, server_lock, sqlite_path
from cskd.utils.errors import UserError, first_line, is_s3_error, without_password
from cskd.utils.files import exclusive

ARTIFACTS = "mlartifacts"  # the folder beside an SQLite database
ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"  # ``mlflow server`` reads it too

# MLflow logs "Creating initial tables" here. It also logs errors, but we raise and report those.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
# psycopg logs a failed statement here, such as the creation of an experiment that another launch has just created.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


def open_store(uri: str) -> MlflowClient:
    """Return a client of the store; the tables of a new database are created. Raises UserError if it cannot be used."""
    path = sqlite_path(uri)
    try:
        # Two processes that create the same database at once corrupt it.
        with exclusive(path.with_name(f"{path.name}.lock")) if path else server_lock(uri):
            if path is not None and not (path.is_file() and path.stat().st_size):
                _create_database(path)
            client = MlflowClient(uri)
            if not is_server(uri):
                client.search_experiments(max_results=1)
            if path is not None:
                with closing(sqlite3.connect(path)) as connection, connection:
                    # With a write-ahead log, readers such as the UI and writers do not block each other.
                    connection.execute("PRAGMA journal_mode=WAL")
                    _relocate_artifacts(connection, path.parent / ARTIFACTS)
    except Exception as error:
        # SQLAlchemy, SQLite, Alembic and MLflow raise exceptions of different types here.
        problem = schema_problem(uri, "mlflow") or f"cannot be used ({first_line(error)}): correct it"
        raise UserError(without_password(f"MLFLOW_TRACKING_URI={uri} {problem}")) from error
    return client


def artifact_location(uri: str, experiment: str) -> str | None:
    """Return the address of an experiment's artifacts. None: a server chooses.

    They lie beside an SQLite database, and below ARTIFACT_ROOT for other databases. MLflow's default would be the
    working directory. Raises UserError if ARTIFACT_ROOT is not set.
    """
    if is_server(uri):
        return None
    if (path := sqlite_path(uri)) is not None:
        return (path.parent / ARTIFACTS / experiment).as_uri()
    root = os.environ.get(ARTIFACT_ROOT)
    if not root:
        places = "a folder that all machines share, or s3://<bucket>/<path>"
        message = f"MLFLOW_TRACKING_URI={uri} has no place for artifacts: set {ARTIFACT_ROOT} to {places}"
        raise UserError(without_password(message))
    if "://" in root:
        return f"{root.rstrip('/')}/{experiment}"
    return (absolute(root, ARTIFACT_ROOT) / experiment).as_uri()


def _create_database(path: Path) -> None:
    """Create MLflow's tables under another name: a process that is killed meanwhile leaves no half-made database."""
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.new*"):
        leftover.unlink()
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    MlflowClient(f"{SQLITE}{new}").search_experiments(max_results=1)
    new.replace(path)


def _relocate_artifacts(connection: sqlite3.Connection, folder: Path) -> None:
    """Correct the artifact addresses, which MLflow stores as absolute, after the database was moved or copied.

    folder: of the artifacts, beside the database.
    """
    for number, old in connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
        before = Path(unquote(urlparse(old or "").path))
        after = folder / before.name
        if before.parent.name != ARTIFACTS or before == after or (before.exists() and not after.exists()):
            continue
        new = after.as_uri()
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, number))
        moved = "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE experiment_id = ?"
        connection.execute(f"{moved} AND substr(artifact_uri, 1, ?) = ?", (new, len(old) + 1, number, len(old), old))


@contextmanager
def store_errors(uri: str, action: str) -> Iterator[None]:
    """Turn an error of MLflow or S3 into a UserError that names the store and the action, such as "upload demo"."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, MlflowException) or is_s3_error(error)):
            raise
        message = f"{uri}: cannot {action} ({first_line(error)}): try again"
        raise UserError(without_password(message)) from error
