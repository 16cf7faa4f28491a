"""Addresses that cannot be used. Simultaneous creation of a database is in ``tests/faults/test_twice.py``."""

import sqlite3
from contextlib import closing

import pytest

from cskd.utils.errors import UserError
from experiments.tracking.store import open_store


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
