"""The local backend and its fork server, with workers that wait for a lease, or fail at once."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.launch.backends import Exit, Job, local
from experiments.launch.backends.base import EXIT_FAILED
from experiments.launch.backends.local import Handle, LocalBackend
from experiments.launch.fork_server import fork_server
from experiments.runs.folder import FAILED, RunFolder


@pytest.fixture
def backend() -> LocalBackend:
    return LocalBackend(workers=2)


@pytest.fixture
def job(tmp_path) -> Job:
    """A job whose worker fails when it has the lease: its run has no spec."""
    folder = tmp_path / "run"
    folder.mkdir()
    return Job((), folder, folder / "log.txt", environment={"DATA_DIR": "data"})


def wait_for_end(backend: LocalBackend, handle: Handle) -> Exit:
    while (ended := backend.poll(handle)) is None:
        time.sleep(0.01)
    return ended


def wait_for_session(pid: int) -> None:
    while os.getsid(pid) != pid:
        time.sleep(0.01)


def test_worker_has_its_own_session_log_and_exit_status(backend, job):
    job.log.write_text("of an earlier start\n")
    with RunFolder(job.folder).leased():
        handle = backend.start(job, 0)
        wait_for_session(handle.pid)
        assert backend.poll(handle) is None
    assert wait_for_end(backend, handle) == Exit(EXIT_FAILED)
    assert RunFolder(job.folder).state()["state"] == FAILED
    first, *rest = job.log.read_text().splitlines()
    assert first == "of an earlier start"
    assert "spec.json is missing" in "\n".join(rest)


def test_stopped_worker_and_worker_whose_server_died_end(backend, job):
    with RunFolder(job.folder).leased():
        stopped, orphan = backend.start(job, 0), backend.start(job, 1)
        wait_for_session(stopped.pid)
        backend.stop(stopped, signal.SIGKILL)
        assert wait_for_end(backend, stopped) == Exit(-signal.SIGKILL)
        backend.stop(stopped, signal.SIGKILL)  # it has ended meanwhile
        os.kill(orphan.server.pid, signal.SIGKILL)
        backend.stop(orphan, signal.SIGKILL)
        assert wait_for_end(backend, orphan) == Exit(-signal.SIGKILL)
    assert wait_for_end(backend, backend.start(job, 0)) == Exit(EXIT_FAILED)  # by a new server


def test_server_has_one_thread_and_starts_no_worker_without_a_log(backend, job, tmp_path):
    with pytest.raises(FileNotFoundError):
        backend.start(Job((), tmp_path / "absent", tmp_path / "absent" / "log.txt"), 0)
    wait_for_end(backend, backend.start(job, 0))
    assert len(list(Path(f"/proc/{fork_server().pid}/task").iterdir())) == 1


def test_slots_share_the_visible_gpus(backend, job, monkeypatch):
    requests = []
    server = SimpleNamespace(fork=lambda request: requests.append(request) or 1)
    monkeypatch.setattr(local, "fork_server", lambda: server)
    backend.devices = ["3", "5"]
    for slot in range(3):
        backend.start(job, slot)
    assert [request.environment["CUDA_VISIBLE_DEVICES"] for request in requests] == ["3", "5", "3"]
    assert {request.environment["DATA_DIR"] for request in requests} == {"data"}
