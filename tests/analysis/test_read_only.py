"""Commands that only read work on read-only media, and after the project was moved."""

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def read_only(folder):
    """Make a folder read-only. Root may write whatever the modes are, and needs a mount."""
    mount = ["mount", "--bind", folder, folder]
    if os.geteuid():
        folder.chmod(0o555)
    elif subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system does not allow mounts")
    else:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder, folder], check=True)
    try:
        with pytest.raises(OSError):
            (folder / "file").touch()
        yield
    finally:
        if os.geteuid():
            folder.chmod(0o755)
        else:
            subprocess.run(["umount", "--lazy", folder], check=True)


def test_tables_of_a_moved_project_on_read_only_media(project, call, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    monkeypatch.setenv("RUNS_DIR", str(project / "runs"))
    with read_only(project):
        status, _, errors = call("analysis tables")
    assert (status, errors) == (0, "")
    assert "no predictions.npz" not in (tmp_path / "results" / "demo" / "reliability.md").read_text()
