"""Addresses that cannot be used. Simultaneous creation of a database is in ``tests/faults/test_sqlite.py``."""

import re
import sqlite3
from contextlib import closing

import pytest

from cskd.utils.errors import UserError
from experiments.tracking.store import open_store


@pytest.mark.parametrize("uri", ["nonsense://me:secret@host/x", "sqlite:////proc/no/mlflow.db"])
def test_unusable_address_is_one_line_without_password(uri):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI=") as caught:
        open_store(uri)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("0123456789ab", r"was made by a newer mlflow or another program \(schema 0123456789ab\)"),
        ("451aebb31d03", r"was made by an older mlflow .*: copy it, then upgrade it to mlflow 3\.\S* with"),
    ],
)
def test_database_of_another_version_is_named(call, uri, tmp_path, schema, message):
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (schema,))
    for command in ("experiments ui", "analysis tables"):
        status, output, errors = call(command)
        assert (status, output, errors.count("\n")) == (2, "", 1)
        assert re.search(rf"^error: MLFLOW_TRACKING_URI={uri} {message}", errors)
