"""A run that the tests of the trainer and of the worker share."""

import pytest
from noise_runs import make_run


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A run of CS-KD on digits."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return make_run("digits", None, "cs-kd", tmp_path)
