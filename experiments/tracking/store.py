"""Opening of the MLflow store, with settings of MLflow that must be made before its import."""

import os
import sqlite3
from contextlib import nullcontext
from pathlib import Path

# A dead server is detected within seconds; a server that takes ten seconds per request still works.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
# No automatic retries: a request whose reply was lost may have succeeded. We query before sending it again.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow would print the server's address, with its password, after every run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import logging

from mlflow import MlflowClient

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
