"""Addresses of databases and of MLflow's UI, a lock for the creation of a database, and the check of its schema."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path

from cskd.utils.errors import without_password

SQLITE = "sqlite:///"
UI_PORT = 5000  # of 'make ui'
LOCK_NUMBER = 7_283_064_515  # of the lock in a PostgreSQL database: any number, but always the same
MIGRATIONS = {"mlflow": "store/db_migrations", "optuna": "storages/_rdb/alembic"}  # in the library's package


def sqlite_path(address: str) -> Path | None:
    """Return the absolute path of an SQLite database, or None for an address of another kind."""
    return Path(address.removeprefix(SQLITE)).absolute() if address.startswith(SQLITE) else None


def absolute_address(address: str) -> str:
    """Return the address; that of an SQLite database gets an absolute path (``sqlite:///x.db`` is relative)."""
    path = sqlite_path(address)
    return address if path is None else f"{SQLITE}{path}"


def is_server(uri: str) -> bool:
    """Return True if the MLflow store is a server, which has its own UI."""
    return uri.startswith(("http://", "https://"))


def view_path(experiment_id: str, view: str) -> str:
    """Return the address of a view ("cells" or "seeds") of an MLflow experiment, relative to that of the UI."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={view}"


def view_link(uri: str, experiment_id: str, view: str) -> str:
    """Return the link to a view of an experiment: on the store's server, or where 'make ui' serves the store."""
    address = without_password(uri).rstrip("/") if is_server(uri) else f"http://127.0.0.1:{UI_PORT}"
    return f"{address}/{view_path(experiment_id, view)}"


def print_address(variable: str, address: str) -> None:
    """Print the address if the user has set this environment variable, so that a wrong relative path is noticed."""
    if os.environ.get(variable):
        print(f"{variable}: {without_password(address)}", flush=True)


@contextmanager
def server_lock(address: str) -> Iterator[None]:
    """Run the block in one process at a time, on all machines that use this PostgreSQL database.

    Of two processes that create tables at once, one would fail. Databases of other kinds are not locked.
    """
    if not address.startswith("postgresql"):
        yield
        return
    from sqlalchemy import create_engine, func, select  # noqa: PLC0415 - slow

    with create_engine(address).begin() as connection:  # the end of this transaction releases the lock
        connection.execute(select(func.pg_advisory_xact_lock(LOCK_NUMBER)))
        yield


def schema_problem(address: str, library: str) -> str | None:
    """Return what is wrong and what to do if another version of the library created the database, otherwise None."""
    # These slow imports are needed only for a database that cannot be opened.
    from alembic.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    try:
        with create_engine(address).connect() as connection:
            schema = MigrationContext.configure(connection).get_current_revision()
    except ImportError as error:
        remedy = "make setup-clusters installs that of PostgreSQL, whose addresses begin with postgresql+psycopg://"
        return f"needs a driver that is not installed ({error}): {remedy}"
    except SQLAlchemyError:
        return None
    package = Path(util.find_spec(library).origin).parent
    scripts = ScriptDirectory(str(package / MIGRATIONS[library]))
    if schema in (None, scripts.get_current_head()):
        return None
    known = {script.revision for script in scripts.walk_revisions()}
    installed = f"{library} {metadata.version(library)}"
    if schema not in known:
        creator = f"a newer {library} or another program (schema {schema})"
        return f"was made by {creator}, this is {installed}: use the newer version, or another store"
    creator = f"an older {library} (schema {schema})"
    upgrade = {"mlflow": "python -m mlflow db upgrade", "optuna": "optuna storage upgrade --storage"}[library]
    return f"was made by {creator}: copy it, then upgrade it to {installed} with {upgrade} <address>"
