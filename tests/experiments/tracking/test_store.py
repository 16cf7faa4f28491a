"""Addresses that cannot be used. Simultaneous creation of a database is in ``tests/faults/test_sqlite.py``."""

import pytest

from cskd.utils.errors import UserError
from experiments.tracking.store import open_store


@pytest.mark.parametrize("uri", ["nonsense://me:secret@host/x", "sqlite:////proc/no/mlflow.db"])
def test_unusable_address_is_one_line_without_password(uri):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI=") as caught:
        open_store(uri)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
