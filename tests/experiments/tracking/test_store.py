"""Addresses that cannot be used. Simultaneous creation of a database is in ``tests/faults/test_twice.py``."""

import sqlite3
import sys
from contextlib import closing

import pytest

from cskd.utils.errors import UserError
from experiments.tracking.store import ARTIFACT_ROOT, artifact_location, open_store, store_errors


def test_unusable_address_is_one_line_without_password():
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI=") as caught:
        open_store("nonsense://me:secret@host/x")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_database_of_another_version_is_named(uri, tmp_path):
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    message = rf"^MLFLOW_TRACKING_URI={uri} was made by an older mlflow .*: copy it, then upgrade it to mlflow 3\.\S* w"
    with pytest.raises(UserError, match=message) as caught:
        open_store(uri)
    assert "\n" not in str(caught.value)


def test_artifacts_of_a_database_server_need_a_root(monkeypatch, tmp_path):
    uri = "postgresql+psycopg://me:secret@host/mlflow"
    monkeypatch.delenv(ARTIFACT_ROOT, raising=False)
    with pytest.raises(UserError, match=rf"no place for artifacts: set {ARTIFACT_ROOT} to a folder") as caught:
        artifact_location(uri, "demo")
    assert "secret" not in str(caught.value)
    for root, location in (("s3://b/p/", "s3://b/p/demo"), (str(tmp_path), (tmp_path / "demo").as_uri())):
        monkeypatch.setenv(ARTIFACT_ROOT, root)
        assert artifact_location(uri, "demo") == location
    assert artifact_location(f"sqlite:///{tmp_path}/x.db", "demo") == (tmp_path / "mlartifacts" / "demo").as_uri()
    assert artifact_location("http://host:5000", "demo") is None


def test_error_of_s3_is_one_line():
    no_credentials = type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})
    message = r"^postgresql://h: cannot upload demo \(Unable to locate"
    with pytest.raises(UserError, match=message), store_errors("postgresql://h", "upload demo"):
        raise no_credentials("Unable to locate credentials")


def test_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    message = r"needs a driver that is not installed \(.*psycopg.*\): make setup-clusters"
    with pytest.raises(UserError, match=message):
        open_store("postgresql+psycopg://me@host/mlflow")
